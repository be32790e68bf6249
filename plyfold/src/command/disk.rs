//! `disk`: one empty upper.

use crate::materializers::ext4::Ext4Upper;
use crate::whole::{WholeFile, blocking};
use crate::{Materializer as _, Result};
use serde_json::json;

use super::args::Disk;
use super::screen::Screen;
use super::size::Size;

/// Makes an empty ext4 disk.
pub(crate) async fn make(options: Disk, screen: Screen) -> Result<()> {
    let Disk { size, out, durably } = options;
    let target = out.clone();
    blocking(move |stop| {
        let disk = Ext4Upper::new(size)?;
        let mut file = WholeFile::create(&target, durably.options(), stop)?;
        disk.join(&[], &mut file)?;
        file.replaces_no_used_disk()?;
        file.publish()
    })
    .await
    .map_err(|e| e.with_context("path", out.display()))?;
    screen.show(&json!({ "path": out, "size": size }), || {
        format!("{}  {} ext4, empty\n", out.display(), Size(size))
    })
}
