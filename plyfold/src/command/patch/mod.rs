//! `patch`: files added to a finished EROFS image, replaced in it, and removed from it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::blocking::blocking;
use crate::disk_file::open_error;
use crate::durable::parent;
use crate::layer::{ImagePath, LayerLimits, LayerOptions, LayerTar};
use crate::materializers::erofs::{ErofsFault, ErofsPatch, Patched, Reader};
use crate::shell::quoted;
use crate::tree::Tree;
use crate::{Error, Result};
use serde_json::json;
use uuid::Uuid;

use super::disk_args::{Added, Patch};
use super::layer::{Input, refuse_terminal};
use super::size::Size;
use super::terminal::Terminal;
use changes::Changes;

mod changes;

/// Patches the image in a file, in its place.
pub(crate) async fn apply(options: Patch, terminal: Terminal) -> Result<()> {
    let path = options.file.clone();
    for tar in &options.tar {
        refuse_terminal(tar)?;
        if tar.is_dir() {
            return Err(changes::directory(tar).with_context("path", tar.display()));
        }
    }
    if options.tar.iter().filter(|tar| **tar == Path::new("-")).count() > 1 {
        return Err(Error::config("standard input is given twice, and can be read once"));
    }
    let patched = blocking(move |stop| {
        let Patch { file, tar, remove, add, uuid, no_sync, bounds } = options;
        let image = open(&file)?;
        let limits = bounds.layer();
        let changes = Changes::new(remove, add, stop);
        check(&image, &changes, &limits)?;
        let mut by = ErofsPatch::default().with_limits(limits.tree.clone()).with_stop(stop);
        if let Some(uuid) = uuid {
            by = by.with_uuid(*uuid.as_bytes());
        }
        if no_sync {
            by = by.without_sync();
        }
        let layer = |source: Box<dyn io::Read + Send>| {
            LayerTar::new(source, LayerOptions { limits: limits.clone(), ..LayerOptions::default() })
        };
        let tars = tar.iter().map(|tar| {
            let source = Input::open(tar, stop)?;
            layer(Box::new(source)).map_err(|e| e.with_context("tar", tar.display()))
        });
        let single = (!changes.is_empty()).then(|| layer(Box::new(changes)));
        by.apply(&image, tars.chain(single), parent(&file))
    });
    let patched = patched.await.map_err(|e| e.with_context("path", path.display()))?;
    let Patched { old_size, size, data, metadata, inodes, uuid, diff_ids, .. } = patched;
    let uuid = Uuid::from_bytes(uuid).to_string();
    let text = || format!("{}  {} EROFS, was {}\nuuid  {uuid}\n", path.display(), Size(size), Size(old_size));
    let document = json!({
        "path": path.display().to_string(),
        "size": size,
        "old_size": old_size,
        "data_size": data,
        "metadata_size": metadata,
        "inodes": inodes,
        "uuid": uuid,
        "diff_ids": diff_ids,
    });
    terminal.show(&document, text)
}

fn open(path: &Path) -> Result<File> {
    let opened = File::options().read(true).write(true).open(path);
    opened.map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied if is_read_only(path) => ErofsFault::PatchReadOnly.into(),
        io::ErrorKind::IsADirectory => ErofsFault::PatchKind.into(),
        _ => open_error("opening the image", e),
    })
}

fn is_read_only(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.permissions().mode() & 0o222 == 0)
}

/// Refuses to remove what is not there, and to put a file in the place of a directory that is not to be removed.
fn check(image: &File, changes: &Changes, limits: &LayerLimits) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let copy = image.try_clone().map_err(|e| Error::io("reading the image", e))?;
    let tree = Reader::new(copy)?.with_limits(limits.tree.clone()).tree()?;
    let at = |path: &ImagePath| tree.look_up(path.as_bytes(), false);
    for path in changes.removed() {
        if at(path)?.is_none() {
            return Err(Error::not_found("the image has no such file").with_context("file", path));
        }
    }
    for Added { path, .. } in changes.added() {
        check_above(&tree, path, changes)?;
        let is_directory = at(path)?.is_some_and(|id| tree.node(id).directory().is_some());
        if is_directory && !changes.removed().contains(path) {
            let error = Error::config("there is a directory of that name in the image");
            let hint = "write the file's name behind it, or remove the directory by --remove as well";
            return Err(error.with_context("file", path).with_hint(hint));
        }
    }
    Ok(())
}

/// Refuses a file below what is no directory, and not removed.
fn check_above<C>(tree: &Tree<C>, path: &ImagePath, changes: &Changes) -> Result<()> {
    let mut above = ImagePath::ROOT;
    let mut names = path.components().peekable();
    while let Some(name) = names.next().filter(|_| names.peek().is_some()) {
        above = above.join(name);
        if changes.removed().contains(&above) {
            return Ok(());
        }
        let is_added = changes.added().iter().any(|added| added.path == above);
        let found = tree.look_up(above.as_bytes(), true)?;
        if is_added || found.is_some_and(|id| tree.node(id).directory().is_none()) {
            let what = if is_added { "is added as a file" } else { "is no directory" };
            let error = Error::config(format!("{above} {what}: no file can be below it"));
            let hint = format!(
                "remove it as well: --remove {}",
                quoted(Path::new(OsStr::from_bytes(above.as_bytes())))
            );
            let error = error.with_context("file", path);
            return Err(if is_added { error } else { error.with_hint(hint) });
        }
    }
    Ok(())
}
