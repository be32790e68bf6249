//! Every form as the newest erofs-utils see it: blocks below a page, extended attributes, and all algorithms, which older
//! versions do not know.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use plyfold_conformance::oracle::{Captured, Failure, Mount, Need, Run, Verdict};
use plyfold_conformance::samples::LayerBuilder;
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_erofs::Summary;
use tempfile::TempPath;

use crate::common::{
    compressed, compressed_layer, flat, image, merged, patch, rich_change, rich_layer, shared_attributes,
    varied_layer,
};
use crate::compressed::{algorithms, by};
use crate::tar_index::{behind_its_index, index_and_tar};
use crate::{base, block_sizes, change, flat_disk};

const DUMP: &str = "dump.erofs-forky";
const FSCK: &str = "fsck.erofs-forky";
pub(crate) const MKFS: &str = "mkfs.erofs-forky";

pub(crate) const NEWEST_DUMP: Need = Need::Peer(DUMP);
pub(crate) const NEWEST_FSCK: Need = Need::Peer(FSCK);
pub(crate) const NEWEST_MKFS: Need = Need::Peer(MKFS);

/// An image, and the files of its devices.
struct Form {
    what: String,
    image: TempPath,
    devices: Vec<PathBuf>,
    /// What the kernel shows.
    shown: Vec<TreeLine>,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = File::open(&self.image).map(Summary::read);
        let block_size = summary.ok().and_then(Result::ok).map_or(0, |summary| summary.block_size);
        write!(f, "{} with blocks of {block_size}", self.what)
    }
}

/// Checked and unpacked, it is what the kernel mounts.
pub(crate) fn the_newest_fsck_unpacks_what_the_kernel_shows() -> Verdict {
    forms(|form| {
        run(form, FSCK, &[])?;
        let unpacked = tempfile::tempdir()?;
        let extract = format!("--extract={}", unpacked.path().display());
        run(form, FSCK, &[&extract, "--overwrite", "--xattrs"])?;
        let unpacked = mounted(unpacked.path())?;
        for (unpacked, shown) in unpacked.iter().zip(&form.shown) {
            let (unpacked, shown) = (comparable(unpacked, shown), comparable(shown, shown));
            assert_eq!(unpacked.to_string(), shown.to_string(), "{form}");
        }
        assert_eq!(unpacked.len(), form.shown.len(), "{form}");
        Ok(())
    })
}

/// A line without what is not unpacked (version 1.9.4): capabilities, because the owner is set after them, and all
/// attributes of a file that has an empty one, where unpacking them ends.
fn comparable(line: &TreeLine, shown: &TreeLine) -> TreeLine {
    let has_empty = shown.xattrs.iter().any(|xattr| xattr.ends_with('='));
    let mut line = line.clone();
    line.xattrs.retain(|xattr| !has_empty && !xattr.starts_with("security.capability"));
    line
}

/// What the superblock says, and the names in the root.
pub(crate) fn the_newest_dump_reads_what_was_meant() -> Verdict {
    forms(|form| {
        let said = run(form, DUMP, &["-s"])?.stdout;
        let field = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|rest| rest.trim().to_owned())
        };
        let summary = Summary::read(File::open(&form.image)?)?;
        let devices: u64 = summary.devices.iter().map(|device| u64::from(device.blocks)).sum();
        for (name, ours) in [
            ("Filesystem blocksize", summary.block_size.to_string()),
            ("Filesystem blocks", (summary.blocks + devices).to_string()),
            ("Filesystem inode count", summary.inodes.to_string()),
        ] {
            assert_eq!(field(name), Some(ours), "{name} of {form}: {said}");
        }
        let said = run(form, DUMP, &["--ls", "--path=/"])?.stdout;
        let names = form.shown.iter().filter_map(|line| line.path.strip_prefix('/'));
        for name in names.filter(|name| !name.is_empty() && !name.contains(['/', '\\'])) {
            assert!(said.lines().any(|line| line.ends_with(&format!(" {name}"))), "{name} of {form}: {said}");
        }
        Ok(())
    })
}

/// Runs a judge on each form that is written, in each block size that it can have.
fn forms(mut judge: impl FnMut(&Form) -> Verdict) -> Verdict {
    let mut single = |what: String, image: TempPath| -> Verdict {
        let shown = mounted(Mount::new("erofs", &image, "loop,ro")?.path())?;
        judge(&Form { what, image, devices: Vec::new(), shown })
    };
    let whole = [rich_layer(), base(), change()];
    for options in block_sizes() {
        for layer in &whole {
            single("layer".to_owned(), image(layer.clone(), options.clone())?)?;
        }
        single("flat".to_owned(), flat(&whole, options.clone())?)?;
        let patched = flat(&whole[..1], options.clone())?;
        patch(&patched, &[base(), rich_change()])?;
        single("patched".to_owned(), patched)?;
    }
    for algorithm in algorithms() {
        for cluster in [4 << 10, 64 << 10, 1 << 20] {
            let image = compressed(&[rich_layer(), varied_layer()], by(algorithm, cluster))?;
            single(format!("{algorithm} in {cluster}"), image)?;
            let (layer, change) = shared_attributes();
            let patched = compressed(&[layer], by(algorithm, cluster))?;
            patch(&patched, &[change, LayerBuilder::new().whiteout("inline-3").finish(), rich_layer()])?;
            single(format!("patched {algorithm} in {cluster}"), patched)?;
        }
        let image = compressed(&[rich_layer(), varied_layer()], by(algorithm, 64 << 10).with_fragments())?;
        single(format!("{algorithm} with fragments"), image)?;
        let patched = compressed(&[rich_layer(), varied_layer()], by(algorithm, 4096).with_fragments())?;
        patch(&patched, &[rich_change()])?;
        single(format!("patched {algorithm} with fragments"), patched)?;
        single(format!("a layer in {algorithm}"), compressed_layer(&varied_layer(), by(algorithm, 4096))?)?;
    }
    for options in block_sizes() {
        let layers: Vec<_> =
            whole.iter().map(|layer| image(layer.clone(), options.clone())).collect::<Result<_, _>>()?;
        let image = merged(&layers, options.clone())?;
        let disk = flat_disk(&layers, options.clone())?;
        let shown = mounted(Mount::new("erofs", &disk, "loop,ro")?.path())?;
        let devices = layers.iter().map(|layer| layer.to_path_buf()).collect();
        judge(&Form { what: "merged".to_owned(), image, devices, shown })?;
    }
    // Unpacking does not find the device of an image in the same file (version 1.9.4).
    let image = behind_its_index(&rich_layer())?;
    let shown = mounted(Mount::new("erofs", &image, "loop,ro")?.path())?;
    let (index, tar) = index_and_tar(&image)?;
    let devices = vec![tar.to_path_buf()];
    judge(&Form { what: "index of a tar".to_owned(), image: index, devices, shown })
}

fn run(form: &Form, program: &str, arguments: &[&str]) -> Result<Captured, Failure> {
    let devices = form.devices.iter().map(|device| format!("--device={}", device.display()));
    let run = Run::new(program).args(arguments).args(devices).arg(&*form.image).success();
    run.map_err(|failure| Failure::new(format!("{form}: {failure:?}")))
}
