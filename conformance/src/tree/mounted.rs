//! A directory tree of this machine as text.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use plyfold_core::layer::ImagePath;
use plyfold_core::{Error, Result, printable};
use rustix::fs::{SeekFrom, seek};

use super::line::{ContentText, TreeLine, escaped};
use crate::oracle::tree;

/// The tree below `root`, such as a mount, in the order and the form of [`lines`](super::lines). Holes are not read.
///
/// # Errors
/// [`Io`](plyfold_core::ErrorKind::Io).
pub fn mounted(root: &Path) -> Result<Vec<TreeLine>> {
    let mut nodes: Vec<_> = tree::read(root)?.into_iter().collect();
    // A directory's content follows it at once, siblings in the order of their bytes.
    nodes.sort_by(|(a, _), (b, _)| a.split(|c| *c == b'/').cmp(b.split(|c| *c == b'/')));
    let mut lines = Vec::new();
    for (name, node) in nodes {
        let device = || node.device.map_or(String::new(), |(major, minor)| format!("{major}:{minor}"));
        let what = match node.mode & 0o170_000 {
            _ if node.first_name != name => format!("= {}", shown(&node.first_name)),
            0o010_000 => "fifo".to_owned(),
            0o020_000 => format!("char {}", device()),
            0o040_000 => "dir".to_owned(),
            0o060_000 => format!("block {}", device()),
            0o100_000 => format!("file {}", content(root, &name)?),
            0o120_000 => {
                format!("-> {}", printable(&String::from_utf8_lossy(&node.target.unwrap_or_default())))
            }
            _ => "socket".to_owned(),
        };
        let xattrs = node.xattrs.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
        lines.push(TreeLine {
            path: shown(&name),
            what,
            mode: (node.mode & 0o7777) as u16,
            owner: node.owner,
            mtime: (node.mtime.0, u32::try_from(node.mtime.1).unwrap_or_default()),
            links: node.links as u32,
            xattrs: xattrs.collect(),
        });
    }
    Ok(lines)
}

fn shown(name: &[u8]) -> String {
    let components = name.split(|byte| *byte == b'/').filter(|component| !component.is_empty());
    components.fold(ImagePath::ROOT, |path, component| path.join(component)).to_string()
}

fn content(root: &Path, name: &[u8]) -> Result<String> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = root.join(std::ffi::OsStr::from_bytes(name));
    let read = || -> std::io::Result<String> {
        let file = File::open(&path)?;
        let size = file.metadata()?.len();
        let mut content = ContentText::new(size);
        let mut buffer = vec![0; 1 << 20];
        let mut offset = 0;
        // ENXIO: no data after the offset.
        while let Ok(start) = seek(&file, SeekFrom::Data(offset)) {
            let end = seek(&file, SeekFrom::Hole(start))?;
            offset = start;
            while offset < end {
                let want = buffer.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
                let count = file.read_at(&mut buffer[..want], offset)?;
                if count == 0 {
                    break;
                }
                content.data(offset, &buffer[..count]);
                offset += count as u64;
            }
        }
        Ok(content.finish())
    };
    read().map_err(|e| Error::io("reading a file of a tree", e).with_context("path", path.display()))
}
