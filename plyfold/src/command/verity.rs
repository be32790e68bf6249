//! `verity`: dm-verity hash trees of files.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use crate::atomic_file::{AtomicFile, FileOptions, Owner};
use crate::blocking::{Stop, blocking};
use crate::disk_file::DiskBytes;
use crate::materializers::verity::{RootHash, TreeLayout, Uuid, Work};
use crate::{Error, LocalArtifact, Made, Progress, ReadAt as _, Result, TreePlace};

use super::disk_args::Verity;
use super::progress::{Doing, Reporter};
use super::terminal::Terminal;
use super::verity_check::{Checked, check};
use super::verity_done::Done;
use super::verity_options::{open, parameters};
use super::verity_place::check_append;

/// Makes a tree, or verifies a file.
pub(crate) async fn run(options: Verity, terminal: Terminal) -> Result<()> {
    let path = options.file.clone();
    let is_check = options.roots.is_some() || !options.check.is_empty();
    let hash = |progress: Progress| {
        blocking(move |stop| {
            let work = Work::new(stop).progress(progress);
            if is_check { check(&options, &work) } else { make(&options, stop, &work).map(Checked::whole) }
        })
    };
    let outcome = Reporter::new(terminal, Doing::Hash, Arc::default()).telling(hash).await;
    let has_path = |e: &Error| e.contexts().any(|(key, _)| key == "path");
    let at = |e: Error| {
        let e = if has_path(&e) { e } else { e.with_context("path", path.display()) };
        if path.exists() {
            return e;
        }
        e.with_hint("for an image give a format, too: `plyfold verity IMAGE --as erofs`")
    };
    match outcome.map_err(at)? {
        Checked::Whole(done) => terminal.show(&done.document(), || done.text()),
        Checked::Partitions(report) => {
            terminal.show(&report.document(), || report.text())?;
            report.outcome()
        }
    }
}

fn make(options: &Verity, stop: &Stop, work: &Work) -> Result<Done> {
    let file = &options.file;
    open(file)?;
    let data = DiskBytes::open(file)?;
    let size = data.size().map_err(|e| Error::io("looking at the file", e))?;
    if options.append {
        check_append(file)?;
    }
    if let Some((found, _)) = TreeLayout::find(&data)? {
        let error = Error::config("the file ends with a hash tree already");
        let hint = format!(
            "`plyfold verity FILE --check ROOT` verifies it; `truncate -s {} FILE` removes it",
            found.data_size()
        );
        return Err(error.with_hint(hint));
    }
    let layout = match parameters(options)? {
        parameters if options.append => TreeLayout::appended(parameters, size)?,
        parameters => TreeLayout::beside(parameters, size)?,
    };
    let layout = if options.no_superblock { layout.without_superblock()? } else { layout };
    let (root, tree, sidecar) = if options.append {
        let (root, size, sidecar) = append(options, &layout, stop, work)?;
        (root, Some((file.clone(), size)), sidecar)
    } else if let Some(tree) = &options.hash_tree {
        let mut out = AtomicFile::create_new(tree, options.durably.options(), stop)?;
        let root = layout.write(&data, &mut out, options.uuid, work)?;
        (root, Some((tree.clone(), out.publish()?)), None)
    } else {
        (layout.root_hash(&data, work)?, None, None)
    };
    let uuid = tree.is_some() && layout.has_superblock();
    let uuid = uuid.then(|| options.uuid.unwrap_or_else(|| Uuid::derived(&root)));
    let is_of_vmdk = data.is_of_vmdk();
    Ok(Done { file: file.clone(), layout, root, uuid, tree, sidecar, is_of_vmdk, is_verified: false })
}

/// Replaces the file by one with a tree behind the same data: at any moment, it is the one or the other.
///
/// The file may be a link to an artifact of a store, so that nothing is written to it.
fn append(
    options: &Verity,
    layout: &TreeLayout,
    stop: &Stop,
    work: &Work,
) -> Result<(RootHash, u64, Option<PathBuf>)> {
    let file = &options.file;
    let metadata = file.symlink_metadata().map_err(|e| Error::io("looking at the file", e))?;
    let beside = options.sidecar.then(|| {
        let mut name = file.clone().into_os_string();
        name.push(".dmverity");
        let name = PathBuf::from(name);
        let created = AtomicFile::create_new(&name, options.durably.options(), stop);
        created.map(|created| (created, name))
    });
    let beside = beside.transpose()?;
    let like = FileOptions {
        copy: true,
        mode: Some(metadata.permissions().mode() & 0o777),
        owner: Some(Owner { user: Some(metadata.uid()), group: Some(metadata.gid()) }),
        ..options.durably.options()
    };
    let mut out = AtomicFile::create(file, like, stop)?;
    out.fill_from(&LocalArtifact::new(file.clone(), layout.data_size(), Made::default()))?;
    // What is hashed is what gets the name.
    layout.check_covers(out.size()?)?;
    let data = DiskBytes::of_file(out.file())?;
    let root = layout.write(&data, &mut out, options.uuid, work)?;
    let size = out.publish()?;
    // A sidecar says that there is a tree, so it comes last.
    let sidecar = beside.map(|(mut beside, name)| {
        beside.write_all(layout.hash_tree(&root, TreePlace::Append)?.sidecar().as_bytes())?;
        beside.publish().map(|_| name)
    });
    Ok((root, size, sidecar.transpose()?))
}
