//! Hash trees in files of their own, and of disks that are made of several files.

use std::fs;

use super::run::{Place, check};

const IMAGE: &str = "oci:examples/sample:latest --platform linux/amd64";

/// The artifact in the store is the one that has the tree behind its data, and the files are those of formats without trees.
#[test]
fn trees_of_layers_in_files_of_their_own() {
    let place = Place::new();
    let made = |format: &str, options: &str| format!("materialize {IMAGE} --as {format} {options}");
    let mut runs = vec![
        place.run(&made("erofs-layers", "-m verity=append --out {}/append -q")),
        place.run(&made("erofs-layers", "-m verity=beside --verity require --out {}/beside")),
        place.run(&made("erofs-tar", "-m verity=beside --out {}/tars --json")),
        place.run(&format!("verity {IMAGE} --as erofs-merged -m verity=beside")),
    ];
    let said = runs[1].clone();
    let lines = said.lines().filter_map(|line| line.strip_prefix("root hash  "));
    let roots: Vec<_> = lines.filter_map(|line| line.split_once("  ")).collect();
    assert_eq!(roots.iter().map(|(_, name)| *name).collect::<Vec<_>>(), ["layer-00", "layer-01", "merged"]);
    // The same bytes: the two parts of the file with the tree behind its data.
    for (_, name) in &roots {
        let read =
            |folder: &str, extension| fs::read(place.path(&format!("{folder}/{name}.{extension}"))).unwrap();
        let both = [read("beside", "erofs"), read("beside", "verity")].concat();
        assert!(both == read("append", "erofs"), "{name}");
    }
    // A tree that is another one, or that is not there.
    let good = fs::read(place.path("beside/layer-00.verity")).unwrap();
    let mut altered = good.clone();
    altered[4096] ^= 1;
    fs::write(place.path("altered.verity"), altered).unwrap();
    for tree in ["beside/layer-00", "altered", "beside/layer-01", "none"] {
        let root = roots[0].0;
        let line = format!("verity {{}}/beside/layer-00.erofs --hash-tree {{}}/{tree}.verity --check {root}");
        runs.push(place.run(&line));
    }
    fs::remove_file(place.path("beside/layer-01.verity")).unwrap();
    runs.push(place.run("snapshot save {}/beside state:1"));
    // The next set takes the trees of the one before with it.
    runs.push(place.run(&made("erofs-layers", "--out {}/beside -q")));
    check("hash_trees_of_layers", &runs);
    let left = place.files().into_iter().filter(|file| file.starts_with("beside/"));
    let files = ["beside/layer-00.erofs", "beside/layer-01.erofs", "beside/merged.erofs"];
    assert_eq!(left.collect::<Vec<_>>(), files);
}

#[test]
fn trees_of_joined_disks() {
    let place = Place::new();
    let lines = [
        format!("materialize {IMAGE} --as vmdk -m verity=append --verity require --out {{}}/vmdk"),
        "inspect {}/vmdk/rootfs.vmdk".to_owned(),
        "ls {}/vmdk/rootfs.vmdk /etc".to_owned(),
        format!("materialize {IMAGE} --as vmdk -m verity=beside --upper 64M --out {{}}/beside --json"),
        format!("verity {IMAGE} --as vmdk"),
        format!("materialize {IMAGE} --as ext4 -m verity=append --verity require --out {{}}/ext4"),
        format!("materialize {IMAGE} --as ext4 --size 96M -m verity=beside --out {{}}/sized --json"),
        format!("verity {IMAGE} --as ext4"),
        "resize {}/ext4/rootfs.ext4 96M".to_owned(),
        "resize {}/sized/rootfs.ext4 128M".to_owned(),
        // One that a guest writes to stays.
        format!("materialize {IMAGE} --as ext4 --out {{}}/used -q"),
        format!("materialize {IMAGE} --as ext4 -m verity=append --out {{}}/used"),
    ];
    check("hash_trees_of_disks", &lines.each_ref().map(|line| place.run(line)));
    let files = [
        "beside/.plyfold-set",
        "beside/layer-00.erofs",
        "beside/layer-01.erofs",
        "beside/merged.erofs",
        "beside/rootfs.verity",
        "beside/rootfs.vmdk",
        "beside/upper.ext4",
        "ext4/rootfs.ext4",
        "sized/.plyfold-set",
        "sized/rootfs.ext4",
        "sized/rootfs.verity",
        "used/rootfs.ext4",
        "vmdk/.plyfold-set",
        "vmdk/layer-00.erofs",
        "vmdk/layer-01.erofs",
        "vmdk/merged.erofs",
        "vmdk/rootfs.verity",
        "vmdk/rootfs.vmdk",
    ];
    assert_eq!(place.files(), files);
    let tree = |folder: &str| fs::read(place.path(&format!("{folder}/rootfs.verity"))).unwrap();
    assert!(tree("vmdk") == tree("beside"));
}
