//! What strangers say that disks are: no virtual machine gets a file that its set does not have, and none to write to that
//! is not for that.

use std::fs;
use std::path::Path;

use plyfold::block_sums::BlockSums;
use plyfold::materializers::vmdk::VmdkStream;
use plyfold::{DiskSet, ErrorKind, Rootfs, digest};
use serde_json::{Value, json};

use super::snapshots::Scene;

/// What is written in place of `rootfs.vmdk`.
type Change = fn(&[u8]) -> Vec<u8>;

/// The text with more in front of its remark on the extents.
fn more(text: &[u8], lines: &str) -> Vec<u8> {
    replaced(text, "\n# Extent", &format!("\n{lines}\n# Extent"))
}

fn replaced(bytes: &[u8], of: &str, by: &str) -> Vec<u8> {
    let at = bytes.windows(of.len()).position(|found| found == of.as_bytes()).unwrap();
    [&bytes[..at], by.as_bytes(), &bytes[at + of.len()..]].concat()
}

/// The same number of bytes in place of others, each time.
fn patched(bytes: &[u8], at: usize, by: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + by.len()].copy_from_slice(by);
    bytes
}

const DESCRIPTORS: [(&str, Change); 12] = [
    ("an extent after vertical tabs", |text| more(text, "RW\u{b}8\u{b}FLAT\u{b}\"/etc/passwd\" 0 x=1")),
    ("the name of a parent", |text| more(text, "parentFileNameHint=\"/etc/passwd\"")),
    ("the name of a parent in a remark", |text| more(text, "# parentFileNameHint=\"/etc/passwd\"")),
    ("a parent", |text| replaced(text, "parentCID=ffffffff", "parentCID=00000001")),
    ("an extent elsewhere", |text| replaced(text, "layer-00.erofs", "/etc/passwd")),
    ("an extent above", |text| replaced(text, "layer-00.erofs", "../layer-00.erofs")),
    ("an extent below", |text| replaced(text, "layer-00.erofs", "a/layer-00.erofs")),
    ("itself as an extent", |text| replaced(text, "layer-00.erofs", "rootfs.vmdk")),
    ("what guests write to as an extent", |text| replaced(text, "layer-00.erofs", "upper.ext4")),
    ("a zero byte", |text| more(text, "#\0")),
    ("another key", |text| more(text, "a=b")),
    ("another kind of line end", |text| replaced(text, "version=1\n", "version=1\r\n")),
];

const STREAMS: [(&str, Change); 8] = [
    ("a text", |_| {
        let text = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n\nRW 8 FLAT \"/etc/passwd\" 0\n";
        text.into()
    }),
    ("the name of a parent", |file| patched(file, 4096, b"parentFileNameHint=\"/etc/passwd\"\n")),
    ("an extent in the descriptor", |file| patched(file, 4096, b"\nRW 8 FLAT \"/etc/passwd\" 0\n")),
    ("no capacity", |file| patched(file, 12, &[0; 8])),
    ("no capacity in the end", |file| patched(file, file.len() - 1024 + 12, &[0; 8])),
    ("another version in the end", |file| patched(file, file.len() - 1024 + 4, &[1])),
    ("a parent", |file| replaced(file, "parentCID=ffffffff", "parentCID=00000001")),
    ("no end", |file| file[..8000].to_vec()),
];

/// Says that a file is of another format.
fn as_format(document: &mut Value, name: &str, format: &str) {
    let of = file(document, name);
    (of["format"], of["key"]) = (json!(format), json!(format!("{format}-v1")));
}

/// The file in a document with this name.
fn file<'a>(document: &'a mut Value, name: &str) -> &'a mut Value {
    let files = document["files"].as_array_mut().unwrap();
    files.iter_mut().find(|file| file["name"] == name).unwrap()
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    put(path, value.to_string().as_bytes());
}

/// Writes a file of its own: what is there may be linked to the store.
fn put(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Refused where it is in a directory of disks, and where it is in a snapshot, although all digests are right.
async fn each_is_refused(rootfs: Rootfs, cases: &[(&str, Change)]) {
    let scene = Scene::new().await;
    scene.saved(&rootfs).await;
    let good = fs::read(scene.path("vm/rootfs.vmdk")).unwrap();
    DiskSet::open(&scene.path("vm")).unwrap();
    for (what, change) in cases {
        let bad = change(&good);
        for (place, document) in [("vm", ".plyfold-image"), ("saved", "snapshot.json")] {
            put(&scene.path(place).join("rootfs.vmdk"), &bad);
            edit(&scene.path(place).join(document), |document| {
                let of = file(document, "rootfs.vmdk");
                if place == "saved" {
                    of["digest"] = json!(digest::sha256(&bad));
                    of["size"] = json!(bad.len());
                } else {
                    of["checksum"] = json!(BlockSums::read_all(&*bad).unwrap().checksum());
                }
            });
        }
        let error = DiskSet::open(&scene.path("vm")).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.message().contains("not a VMDK as plyfold writes it"), "{what}: {error}");
        let error = scene.refused().await;
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.message().contains("not a VMDK as plyfold writes it"), "{what}: {error}");
        let again = plyfold::snapshot::save(&scene.path("vm"), &scene.path("again"), <_>::default()).await;
        assert_eq!(*again.unwrap_err().kind(), ErrorKind::Corrupt, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_is_what_is_written_here_or_refused() {
    each_is_refused(Rootfs::vmdk().upper(64 << 20), &DESCRIPTORS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmdk_in_one_file_is_what_is_written_here_or_refused() {
    each_is_refused(Rootfs::vmdk_stream(VmdkStream::new()), &STREAMS).await;
}

/// A record decides which file a machine gets as what, and which it writes to.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_contradicts_itself_is_refused() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 9] = [
        ("a descriptor as an image", |v| file(v, "rootfs.vmdk")["role"] = json!("image")),
        ("a text as a VMDK in one file", |v| {
            as_format(v, "rootfs.vmdk", "vmdk-stream");
            file(v, "rootfs.vmdk")["role"] = json!("descriptor");
        }),
        ("two disks that are whole", |v| as_format(v, "layer-00.erofs", "raw")),
        ("a root that guests write to beside a VMDK", |v| as_format(v, "layer-00.erofs", "ext4")),
        ("two descriptors", |v| {
            as_format(v, "layer-00.erofs", "vmdk");
            file(v, "layer-00.erofs")["role"] = json!("descriptor");
        }),
        ("two merged images", |v| as_format(v, "layer-00.erofs", "erofs-merged")),
        ("an upper that guests do not write to", |v| as_format(v, "layer-00.erofs", "ext4-upper")),
        ("an upper of another format", |v| as_format(v, "upper.ext4", "vmdk")),
        ("an upper as a descriptor", |v| file(v, "upper.ext4")["role"] = json!("descriptor")),
    ];
    let scene = Scene::new().await;
    scene.saved(&Rootfs::vmdk().upper(64 << 20)).await;
    let documents = [scene.path("vm/.plyfold-image"), scene.path("saved/snapshot.json")];
    let good = documents.clone().map(|path| fs::read(path).unwrap());
    for (what, change) in cases {
        for path in &documents {
            edit(path, change);
        }
        let error = DiskSet::open(&scene.path("vm")).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        let error = scene.refused().await;
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.message().starts_with("invalid snapshot: "), "{what}: {error}");
        documents.iter().zip(&good).for_each(|(path, bytes)| put(path, bytes));
    }
    DiskSet::open(&scene.path("vm")).unwrap();
}
