//! Hash trees of what `materialize` makes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use plyfold::Rootfs;
use plyfold_conformance::oracle::{Failure, Mount, Run, Verdict};

use super::Work;

/// The file in the store that a layer is a link to stays as it is, and the layer can be mounted with a tree behind it.
pub(crate) fn layers_have_the_trees_of_veritysetup() -> Verdict {
    let work = Work::new();
    let disks = work.disks_at(&Rootfs::erofs_layers(), &work.dir.path().join("set"));
    let layer = disks.layers.first().ok_or_else(|| Failure::new("no layer"))?;
    let (before, inode) = (fs::read(layer)?, fs::metadata(layer)?.ino());
    let stored = work.dir.path().join("stored");
    fs::hard_link(layer, &stored)?;
    let tree = work.dir.path().join("tree");
    let program = env!("CARGO_BIN_EXE_plyfold");
    let verity = |more: &[&str]| Run::new(program).arg("verity").arg(layer).args(["--json"]).args(more);
    let value = |said: &str, key: &str| {
        let document: serde_json::Value = serde_json::from_str(said)?;
        Ok::<_, Failure>(document[key].to_string().trim_matches('"').to_owned())
    };
    let beside = verity(&["--hash-tree"]).arg(&tree).success()?;
    let root = value(&beside.stdout, "root_hash")?;
    Run::new("veritysetup").arg("verify").args([layer, &tree]).arg(&root).success()?;

    let appended = verity(&["--append", "--sidecar"]).success()?;
    assert_eq!(value(&appended.stdout, "root_hash")?, root);
    let offset = value(&appended.stdout, "hash_offset")?;
    let judge = Run::new("veritysetup").arg("verify").args([layer, layer]).arg(&root);
    judge.arg(format!("--hash-offset={offset}")).success()?;
    let sidecar = fs::read_to_string(format!("{}.dmverity", layer.display()))?;
    assert_eq!((value(&sidecar, "roothash")?, value(&sidecar, "hashoffset")?), (root.clone(), offset));
    verity(&["--check", &root]).success()?;
    assert!(fs::read(&stored)? == before && fs::metadata(layer)?.ino() != inode);
    Mount::new("erofs", layer, "ro,loop")?.unmount()?;
    Ok(())
}
