//! The golden tree of the sample root file system is what other unpackers make of it.

use std::fs::File;
use std::path::Path;

use plyfold_conformance::oracle::{Mount, Run, Verdict};
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_core::flatten;
use plyfold_core::layer::{LayerOptions, LayerTar};

/// umoci reads the layout and unpacks it.
pub(crate) fn umoci_unpacks_the_golden_tree() -> Verdict {
    let folder = tempfile::tempdir()?;
    let (layout, bundle) = (folder.path().join("layout"), folder.path().join("bundle"));
    let images: &[(String, &Sample)] = &[("latest".to_owned(), &samples::rootfs())];
    samples::write_layout(&layout, images)?;
    let image = format!("{}:latest", layout.display());
    Run::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).success()?;
    is_golden(&bundle.join("rootfs"))
}

/// Rule S 81: GNU tar unpacks the image's layers, flattened into one tar.
pub(crate) fn gnu_tar_unpacks_the_flattened_golden_tree() -> Verdict {
    let folder = tempfile::tempdir()?;
    let tar = folder.path().join("rootfs.tar");
    let layers = samples::rootfs().images[0].layers.clone();
    let open = |at: usize| {
        let layer = std::io::Cursor::new(layers[at].tar.clone());
        LayerTar::new(layer, LayerOptions::default())
    };
    flatten(layers.len(), open, File::create(&tar)?)?;
    let root = Mount::new("tmpfs", "none", "mode=755")?;
    // Directories come before all files, so their times must wait until the end.
    let options = [
        "--delay-directory-restore",
        "--numeric-owner",
        "--same-permissions",
        "--xattrs",
        "--xattrs-include=*",
        "-x",
        "-f",
    ];
    Run::new("tar").args(options).arg(&tar).arg("-C").arg(root.path()).success()?;
    is_golden(root.path())
}

fn is_golden(root: &Path) -> Verdict {
    let actual = mounted(root)?;
    let expected: Vec<_> = samples::ROOTFS_TREE.lines().collect();
    for (line, expected) in actual.iter().zip(&expected) {
        // What no entry made has the time of the unpacking, and the file system below counts a directory's links.
        let implied = expected.contains(" 0.000000000 ");
        let mtime = if implied { (0, 0) } else { line.mtime };
        let subdirectories = actual.iter().filter(|other| is_directory_in(other, line)).count();
        let links = if line.what == "dir" { 2 + subdirectories as u32 } else { line.links };
        assert_eq!(TreeLine { mtime, links, ..line.clone() }.to_string(), *expected);
    }
    assert_eq!(actual.len(), expected.len());
    Ok(())
}

fn is_directory_in(line: &TreeLine, parent: &TreeLine) -> bool {
    let name =
        line.path.strip_prefix(parent.path.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
    line.what == "dir" && name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}
