//! `disk`: one empty upper.

use crate::atomic_file::AtomicFile;
use crate::blocking::blocking;
use crate::materializers::ext4::Ext4Upper;
use crate::{Materializer as _, Result};
use serde_json::json;

use super::args::Disk;
use super::size::Size;
use super::terminal::Terminal;

/// Makes an empty ext4 disk.
pub(crate) async fn make(options: Disk, terminal: Terminal) -> Result<()> {
    let Disk { size, out, durably } = options;
    let target = out.clone();
    blocking(move |stop| {
        let disk = Ext4Upper::new(size)?;
        let mut file = AtomicFile::create(&target, durably.options(), stop)?;
        disk.join(&[], &mut file)?;
        file.replaces_no_used_disk()?;
        file.publish()
    })
    .await
    .map_err(|e| e.with_context("path", out.display()))?;
    terminal.show(&json!({ "path": out, "size": size }), || {
        format!("{}  {} ext4, empty\n", out.display(), Size(size))
    })
}
