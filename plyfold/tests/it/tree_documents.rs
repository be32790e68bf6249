//! What verbs say of a hash tree and of the files of a set, as JSON: the same fields and values in all of them.

use std::fs;

use serde_json::Value;

use super::run::Place;

const IMAGE: &str = "oci:examples/sample:latest --platform linux/amd64";
const TREE: [&str; 12] = [
    "algorithm",
    "data_block_size",
    "data_blocks",
    "data_size",
    "hash_block_size",
    "hash_offset",
    "open",
    "partition",
    "path",
    "root_hash",
    "salt",
    "uuid",
];
const FILE: [&str; 11] = [
    "checksum",
    "diff_id",
    "format",
    "hash_tree",
    "key",
    "partitions",
    "path",
    "role",
    "size",
    "state",
    "writable",
];

fn json(place: &Place, line: &str) -> Value {
    let line = format!("{line} --json").replace("{}", place.dir.path().to_str().unwrap());
    let output = place.command(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All trees in a document, in their order.
fn trees(document: &Value) -> Vec<&Value> {
    match document {
        Value::Array(all) => all.iter().flat_map(trees).collect(),
        Value::Object(all) => {
            let own = all.get("hash_tree").filter(|tree| !tree.is_null());
            own.into_iter().chain(all.values().flat_map(trees)).collect()
        }
        _ => Vec::new(),
    }
}

fn keys(of: &Value) -> Vec<&str> {
    of.as_object().map(|all| all.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[test]
fn a_hash_tree_has_the_same_fields_in_every_verb() {
    for (format, disk, tree) in [
        ("erofs -m verity=append", "rootfs.erofs", ""),
        ("raw -m verity=beside", "rootfs.raw", "--hash-tree {}/set/rootfs.verity"),
        ("vmdk -m verity=append", "rootfs.vmdk", ""),
        ("vmdk-stream -m verity=append", "rootfs.vmdk", ""),
        ("gpt -m verity=append", "rootfs.gpt", ""),
        ("gpt -m verity=partition", "rootfs.gpt", ""),
        ("vmdk-gpt -m verity=partition", "rootfs.vmdk", ""),
    ] {
        let place = Place::new();
        let made = json(&place, &format!("materialize {IMAGE} --as {format} --out {{}}/set -q"));
        json(&place, &format!("verity {IMAGE} --as {format} --out {{}}/roots.json"));
        let is_apart = !tree.is_empty();
        let mut documents = vec![
            json(&place, "inspect {}/set"),
            json(&place, &format!("verity {{}}/set/{disk} {tree} --roots {{}}/roots.json")),
        ];
        // Nothing says where a tree in a file of its own is.
        documents.extend((!is_apart).then(|| json(&place, &format!("inspect {{}}/set/{disk}"))));
        // Files of a VMDK have trees of their own, too.
        let is_in_partition = format.contains("gpt");
        let trees = |of| trees(of).into_iter().filter(|tree| tree["partition"].is_null() != is_in_partition);
        let made: Vec<_> = trees(&made).collect();
        assert_eq!(made.len(), if is_in_partition { 3 } else { 1 }, "{format}");
        for tree in &made {
            assert_eq!(keys(tree), TREE, "{format}");
            for known in TREE.iter().filter(|field| !["open", "partition"].contains(field)) {
                assert!(!tree[known].is_null(), "{format}: {known} of {tree}");
            }
        }
        for document in &documents {
            let others: Vec<_> = trees(document).collect();
            assert_eq!(others.len(), made.len(), "{format}: {document}");
            for (other, made) in others.iter().zip(&made) {
                assert_eq!(keys(other), TREE, "{format}");
                for field in TREE.iter().filter(|field| **field != "open") {
                    assert_eq!(other[field], made[field], "{format}: {field} of {document}");
                }
            }
        }
    }
}

#[test]
fn a_tree_that_is_made_of_a_file_is_shown_as_others_are() {
    let place = Place::new();
    fs::write(place.path("data"), vec![7; 10 << 12]).unwrap();
    let made = json(&place, "verity {}/data --hash-tree {}/tree");
    let tree = &made["hash_tree"];
    assert_eq!(keys(tree), TREE, "{made}");
    assert_eq!(tree["path"], place.path("tree"));
    assert!(tree["open"].as_str().unwrap().starts_with("veritysetup open "), "{made}");
    // Of a root hash alone no tree is kept.
    let root = &json(&place, "verity {}/data")["hash_tree"];
    assert_eq!(keys(root), TREE);
    for none in ["path", "hash_offset", "uuid", "open"] {
        assert!(root[none].is_null(), "{none}: {root}");
    }
    assert_eq!(root["root_hash"], tree["root_hash"]);
    let root = root["root_hash"].as_str().unwrap();
    let checked = json(&place, &format!("verity {{}}/data --hash-tree {{}}/tree --check {root}"));
    assert_eq!(checked["hash_tree"], *tree);
}

#[test]
fn a_file_of_a_set_has_the_same_fields_in_every_verb() {
    for format in ["erofs --upper 64M", "erofs-layers -m verity=append", "gpt -m verity=partition"] {
        let place = Place::new();
        let made = json(&place, &format!("materialize {IMAGE} --as {format} --out {{}}/set -q"));
        json(&place, "snapshot save {}/set --out {}/saved");
        let loaded = json(&place, "snapshot load {}/saved --out {}/loaded");
        let [here, there] = ["set", "loaded"].map(|set| json(&place, &format!("inspect {{}}/{set}")));
        assert_eq!(made["files"], here["files"], "{format}");
        assert_eq!(loaded["files"], there["files"], "{format}");
        let files = made["files"].as_array().unwrap();
        for (file, other) in files.iter().zip(loaded["files"].as_array().unwrap()) {
            assert_eq!((keys(file), keys(other)), (FILE.to_vec(), FILE.to_vec()), "{format}");
            for field in FILE.iter().filter(|field| !["path", "hash_tree", "partitions"].contains(field)) {
                assert_eq!(file[field], other[field], "{format}: {field}");
            }
        }
        let upper = files.iter().find(|file| file["writable"] == true);
        assert!(upper.is_none_or(|upper| upper["state"] == "clean"), "{format}: {upper:?}");
        assert_eq!(upper.is_some(), format.contains("--upper"), "{format}");
        // Which machine it is for is said alike, too.
        assert_eq!(made["image"]["process"], here["image"]["process"], "{format}");
        assert!(made["image"]["process"]["args"].is_array(), "{made}");
        assert_eq!(loaded["image"], there["image"], "{format}");
    }
}
