//! Documents: what is read is what was written, and nothing else.

use serde_json::{Value, json};

use super::*;
use crate::layer::{Metadata, Timestamp};
use crate::manifest::{Document, RawManifest};
use crate::{
    Descriptor, Digest, ErrorKind, Format, HashTree, HashedPartition, MediaType, PartitionRange, Role, digest,
};

fn sha(text: &str) -> Digest {
    digest::sha256(text.as_bytes())
}

fn snapshot() -> Snapshot {
    let manifest = Descriptor::new(MediaType::ImageManifest, 7, sha("manifest"));
    let image = SnapshotImage::new("docker.io/library/app:1", &manifest, &"linux/amd64".parse().unwrap());
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let (args, env) = (words(&["/bin/app", "-x"]), words(&["A=b c"]));
    let image = image.with_process(Some(Process { args, env, cwd: "/".to_owned(), user: String::new() }));
    let layer = SetFile {
        digest: Some(sha("erofs")),
        size: Some(4096),
        diff_id: Some(sha("layer")),
        hash_tree: Some(HashTree::new(sha("root"), 1)),
        ..SetFile::new("layer-00.erofs", Role::Image, "erofs-layers", "erofs-layers-v3")
    };
    let xattrs = vec![(b"user.a".to_vec(), b"\xff\0".to_vec())];
    let root = Metadata { mode: 0o1755, uid: 7, gid: 8, mtime: Timestamp { seconds: -1, nanos: 5 }, xattrs };
    let format = Format { name: "ext4-upper", version: 1, options: String::new(), extension: "ext4" };
    let empty = EmptyDisk::new(&format, 64 << 20, root);
    let upper = SetFile {
        writable: true,
        empty: Some(empty.clone()),
        ..SetFile::new("upper.ext4", Role::Image, "ext4-upper", "ext4-upper-v1-67108864")
    };
    let delta = Delta::new(sha("delta"), 40, sha("disk"), Some(Base::new(empty, sha("base"))));
    let kernel = Some("5.4".to_owned().try_into().unwrap());
    let files = vec![
        SnapshotFile::new(layer, 4096, Content::Whole(sha("erofs"))),
        SnapshotFile::new(upper, 64 << 20, Content::Delta(delta)),
    ];
    Snapshot::new(image, kernel, files).unwrap()
}

fn value() -> Value {
    serde_json::from_slice(&snapshot().to_json()).unwrap()
}

fn refused(value: &Value) -> (ErrorKind, String) {
    let error = Snapshot::parse(value.to_string().as_bytes()).unwrap_err();
    (error.kind().clone(), error.message().to_owned())
}

#[test]
fn a_snapshot_is_what_was_written() {
    let snapshot = snapshot();
    assert_eq!(Snapshot::parse(&snapshot.to_json()).unwrap(), snapshot);
    let record = snapshot.record();
    assert_eq!(SetRecord::parse(&record.to_json()).unwrap(), record);
    assert_eq!(snapshot.stored_size(), 4136);
    let format = Format { name: "ext4-upper", version: 2, options: String::new(), extension: "ext4" };
    let empty = record.files[1].empty.as_ref().unwrap();
    assert!(empty.is_of(&Format { version: 1, ..format.clone() }) && !empty.is_of(&format));
    let names: Vec<String> = snapshot.files.iter().map(|file| file.file.stored_name()).collect();
    assert_eq!(names, ["layer-00.erofs", "upper.delta"]);
}

/// One case for the names of all fields, and a hash tree as the document of root hashes says it.
#[test]
fn fields_are_named_alike() {
    fn check(value: &Value) {
        match value {
            Value::Array(all) => all.iter().for_each(check),
            Value::Object(all) => all.iter().for_each(|(name, value)| {
                let is_camel = name.starts_with(|c: char| c.is_ascii_lowercase())
                    && name.chars().all(|c| c.is_ascii_alphanumeric());
                assert!(is_camel, "{name}");
                check(value);
            }),
            _ => {}
        }
    }
    let mut snapshot = snapshot();
    let tree = HashTree::new(sha("root"), 1);
    let range = PartitionRange::new(1, 1 << 20, 8192);
    let partition = HashedPartition::new("layer-00", range, range, tree).of_layer(Some(sha("layer")));
    snapshot.files[0].file.partitions = vec![partition];
    for document in [snapshot.to_json(), snapshot.record().to_json()] {
        let value: Value = serde_json::from_slice(&document).unwrap();
        check(&value);
        let tree = json!({
            "rootHash": sha("root").digest(),
            "hashAlgorithm": "sha256",
            "salt": "00".repeat(32),
            "place": "append",
            "dataBlocks": 1,
            "dataBlockSize": 4096,
            "hashBlockSize": 4096,
            "hashOffset": 4096,
        });
        let range = json!({ "number": 1, "start": 1 << 20, "size": 8192 });
        let partition = json!({
            "name": "layer-00", "diffId": sha("layer"), "image": range, "holder": range, "hashTree": tree,
        });
        assert_eq!(value["files"][0]["hashTree"], tree);
        assert_eq!(value["files"][0]["partitions"], json!([partition]));
    }
    assert_eq!(Snapshot::parse(&snapshot.to_json()).unwrap(), snapshot);
    let record = snapshot.record();
    assert_eq!(SetRecord::parse(&record.to_json()).unwrap(), record);
}

#[test]
fn an_artifact_says_what_its_document_says() {
    let snapshot = snapshot();
    let document = snapshot.to_json();
    for attached in [false, true] {
        let raw = snapshot.manifest(attached).unwrap();
        assert_eq!(Snapshot::of_manifest(&raw, &document).unwrap(), snapshot);
        assert!(is_snapshot(raw.image().unwrap()));
        let subject = raw.subject().map(|subject| (subject.digest().clone(), subject.size()));
        assert_eq!(subject, attached.then(|| (sha("manifest"), 7)));
    }
    let raw = snapshot.manifest(false).unwrap();
    // By any algorithm that can be verified.
    let mut by_sha512: Value = serde_json::from_slice(raw.bytes()).unwrap();
    let mut hasher = digest::Hasher::like(&format!("sha512:{}", "0".repeat(128)).parse().unwrap()).unwrap();
    hasher.update(&document);
    by_sha512["config"]["digest"] = json!(hasher.finish());
    let by_sha512 = RawManifest::new(by_sha512.to_string().into_bytes(), None).unwrap();
    assert_eq!(Snapshot::of_manifest(&by_sha512, &document).unwrap(), snapshot);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(raw.bytes()).unwrap();
        change(&mut value);
        let raw = RawManifest::new(value.to_string().into_bytes(), None).unwrap();
        assert!(matches!(raw.document(), Document::Manifest(_)));
        Snapshot::of_manifest(&raw, &document).unwrap_err().kind().clone()
    };
    assert_eq!(with(&|value| value["layers"][0]["size"] = json!(1)), ErrorKind::Corrupt);
    assert_eq!(with(&|value| value["layers"] = json!([value["layers"][1]])), ErrorKind::Corrupt);
    assert_eq!(with(&|value| value["config"]["digest"] = json!(sha("other"))), ErrorKind::Corrupt);
    assert_eq!(with(&|value| value["config"]["size"] = json!(5 << 20)), ErrorKind::Limit);
    assert_eq!(with(&|value| value["artifactType"] = json!("application/other")), ErrorKind::Unsupported);
    let config = json!("application/vnd.oci.image.config.v1+json");
    assert_eq!(with(&|value| value["config"]["mediaType"] = config.clone()), ErrorKind::Unsupported);
}

#[test]
fn names_that_are_paths_or_twice_are_refused() {
    let names = [
        "",
        ".",
        "..",
        "a",
        "../a.b",
        "a/b.c",
        "/a.b",
        ".a",
        "a.",
        "-a.b",
        "a..b",
        "A.b",
        "a b.c",
        "a\n.b",
        "é.b",
        "snapshot.json",
        "a.b.c",
        "b.dmverity",
        ".plyfold-image",
        &"a.".repeat(60),
    ];
    for name in names {
        let mut value = value();
        value["files"][0]["name"] = json!(name);
        let (kind, message) = refused(&value);
        assert_eq!(kind, ErrorKind::Corrupt, "{name:?}: {message}");
        let mut record: Value = serde_json::from_slice(&snapshot().record().to_json()).unwrap();
        record["files"][1]["name"] = json!(name);
        let error = SetRecord::parse(record.to_string().as_bytes()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{name:?}: {error}");
    }
    // The same name, and the name of a stored delta.
    for name in ["upper.ext4", "upper.delta"] {
        let mut value = value();
        value["files"][0]["name"] = json!(name);
        assert!(refused(&value).1.contains("two files are called"), "{name}");
    }
    let mut value = value();
    value["files"][0]["name"] = json!("layer-00.erofs.dmverity");
    assert!(Snapshot::parse(value.to_string().as_bytes()).is_ok());
}

type Change<'a> = &'a dyn Fn(&mut Value);

#[test]
fn a_hash_tree_of_another_form_is_refused() {
    let cases: &[(&str, Change<'_>, ErrorKind)] = &[
        (
            "a salt that is a command",
            &|v| v["files"][0]["hashTree"]["salt"] = json!("00 $(id)"),
            ErrorKind::Corrupt,
        ),
        (
            "a block of no size",
            &|v| v["files"][0]["hashTree"]["dataBlockSize"] = json!(0),
            ErrorKind::Corrupt,
        ),
        (
            "a root hash of no sha256",
            &|v| v["files"][0]["hashTree"]["rootHash"] = json!("0".repeat(63)),
            ErrorKind::Corrupt,
        ),
        (
            "a root hash that is a digest",
            &|v| v["files"][0]["hashTree"]["rootHash"] = json!(sha("root")),
            ErrorKind::Corrupt,
        ),
        (
            "a hash tree of another algorithm",
            &|v| v["files"][0]["hashTree"]["hashAlgorithm"] = json!("sha512"),
            ErrorKind::Corrupt,
        ),
        (
            "less of a hash tree",
            &|v| drop(v["files"][0]["hashTree"].as_object_mut().unwrap().remove("salt")),
            ErrorKind::Corrupt,
        ),
        (
            "a hash tree that is not there",
            &|v| v["files"][0]["partitions"] = json!([{ "name": "a", "hashTree": null }]),
            ErrorKind::Corrupt,
        ),
        ("more of a hash tree", &|v| v["files"][0]["hashTree"]["more"] = json!(0), ErrorKind::Corrupt),
    ];
    for (what, change, kind) in cases {
        let mut value = value();
        change(&mut value);
        assert_eq!(refused(&value).0, *kind, "{what}");
    }
}

#[test]
fn what_no_snapshot_says_is_refused() {
    let cases: &[(&str, Change<'_>, ErrorKind)] = &[
        ("another version", &|v| v["schemaVersion"] = json!(2), ErrorKind::Unsupported),
        ("no version", &|v| v["schemaVersion"] = json!(null), ErrorKind::Corrupt),
        ("an unknown field", &|v| v["more"] = json!(1), ErrorKind::Corrupt),
        ("an unknown field of a file", &|v| v["files"][0]["more"] = json!(1), ErrorKind::Corrupt),
        ("an unknown field of a delta", &|v| v["files"][1]["delta"]["more"] = json!(1), ErrorKind::Corrupt),
        ("no files", &|v| v["files"] = json!([]), ErrorKind::Corrupt),
        ("a negative size", &|v| v["files"][0]["size"] = json!(-1), ErrorKind::Corrupt),
        ("a size of no file", &|v| v["files"][0]["size"] = json!(1_u64 << 63), ErrorKind::Corrupt),
        ("a delta of no size", &|v| v["files"][1]["delta"]["size"] = json!(u64::MAX), ErrorKind::Corrupt),
        (
            "a base of no size",
            &|v| v["files"][1]["delta"]["base"]["empty"]["size"] = json!(u64::MAX),
            ErrorKind::Corrupt,
        ),
        (
            "a root of no mode",
            &|v| v["files"][1]["delta"]["base"]["empty"]["mode"] = json!(0o10000),
            ErrorKind::Corrupt,
        ),
        (
            "attributes in no hex",
            &|v| v["files"][1]["delta"]["base"]["empty"]["xattrs"][0][0] = json!("0"),
            ErrorKind::Corrupt,
        ),
        (
            "attributes that are too long",
            &|v| v["files"][1]["delta"]["base"]["empty"]["xattrs"][0][1] = json!("00".repeat(65 << 10)),
            ErrorKind::Corrupt,
        ),
        ("no content", &|v| v["files"][0]["digest"] = json!(null), ErrorKind::Corrupt),
        ("content twice", &|v| v["files"][1]["digest"] = json!(sha("x")), ErrorKind::Corrupt),
        ("no digest", &|v| v["files"][0]["digest"] = json!("sha256:../../etc"), ErrorKind::Corrupt),
        (
            "a weak digest",
            &|v| v["files"][0]["digest"] = json!(format!("md5:{}", "0".repeat(32))),
            ErrorKind::Unsupported,
        ),
        ("another role", &|v| v["files"][0]["role"] = json!("other"), ErrorKind::Corrupt),
        ("a format that is a path", &|v| v["files"][0]["format"] = json!("../x"), ErrorKind::Corrupt),
        ("another key", &|v| v["files"][0]["key"] = json!("other-v1"), ErrorKind::Corrupt),
        ("no image", &|v| v["image"]["reference"] = json!("a b"), ErrorKind::Corrupt),
        (
            "a name that controls terminals",
            &|v| v["image"]["platform"] = json!("linux/\u{1b}[31m"),
            ErrorKind::Corrupt,
        ),
        ("no kernel", &|v| v["kernel"] = json!("new"), ErrorKind::Corrupt),
        (
            "too many files",
            &|v| v["files"] = vec![v["files"][0].clone(); MAX_FILES + 1].into(),
            ErrorKind::Limit,
        ),
    ];
    for (what, change, kind) in cases {
        let mut value = value();
        change(&mut value);
        let (found, message) = refused(&value);
        assert_eq!(found, *kind, "{what}: {message}");
        assert!(message.matches("invalid snapshot").count() < 2, "{what}: {message}");
    }
    let twice =
        String::from_utf8(snapshot().to_json()).unwrap().replacen("\"files\":", "\"files\":[],\"files\":", 1);
    assert_eq!(*Snapshot::parse(twice.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt);
    for text in ["", "[]", "{}", "null", "{\"schemaVersion\":1}"] {
        assert_eq!(*Snapshot::parse(text.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
    }
    let mut record: Value = serde_json::from_slice(&snapshot().record().to_json()).unwrap();
    record["files"][0]["diffId"] = json!(format!("md5:{}", "0".repeat(32)));
    let weak = SetRecord::parse(record.to_string().as_bytes()).unwrap_err();
    assert_eq!(*weak.kind(), ErrorKind::Unsupported, "{weak}");
    // What a guest writes to has no digest that it keeps, and nothing else is without one.
    let mut record: Value = serde_json::from_slice(&snapshot().record().to_json()).unwrap();
    record["files"][1]["digest"] = record["files"][0]["digest"].take();
    for file in [0, 1] {
        let mut record = record.clone();
        record["files"][file]["digest"] = json!(file.eq(&0).then(|| sha("erofs")));
        let error = SetRecord::parse(record.to_string().as_bytes()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{file}: {error}");
    }
    let long = [&snapshot().to_json()[..], &vec![b' '; 4 << 20]].concat();
    assert_eq!(*Snapshot::parse(&long).unwrap_err().kind(), ErrorKind::Limit);
}
