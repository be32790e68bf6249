//! A reader of layouts that knows the specification (OCI image spec 1.1, `image-layout.md`, `image-index.md`,
//! `manifest.md`, `descriptor.md`) and what tools ask beyond it, and nothing of the code that is judged.

use std::fs;
use std::path::{Path, PathBuf};

use plyfold_core::digest::{self, Hasher};
use serde_json::{Map, Value};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const FULL_NAME: &str = "io.containerd.image.name";
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// A layout in which everything was as it must be.
pub(super) struct StrictLayout {
    entries: Vec<Value>,
}

impl StrictLayout {
    /// Reads all of a layout without concurrent writers.
    #[track_caller]
    pub(super) fn read(path: &Path) -> Self {
        let marker = object(&path.join("oci-layout"));
        // regctl, oras and umoci compare the whole version.
        assert_eq!(marker.get("imageLayoutVersion"), Some(&Value::from("1.0.0")), "oci-layout");
        stored(&path.join("blobs"));
        let index = object(&path.join("index.json"));
        let media_type = index.get("mediaType").and_then(Value::as_str);
        assert!(media_type.is_none_or(|media_type| media_type == INDEXES[0]), "index.json is {media_type:?}");
        let entries = children(&index, "manifests", "index.json");
        for entry in &entries {
            let media_type = text(entry, "mediaType");
            assert!([MANIFESTS, INDEXES].concat().contains(&media_type), "an entry is {media_type}");
            for key in [REF_NAME, FULL_NAME] {
                let name = annotation(entry, key);
                assert!(name.is_none_or(is_ref), "{name:?} is outside the grammar of ref.name");
            }
            whole(path, entry, 4);
        }
        Self { entries }
    }

    /// The digest that tools find under a full name.
    #[track_caller]
    pub(super) fn find(&self, name: &str) -> &str {
        // skopeo, podman, umoci, oras and go-containerregistry compare the whole of ref.name, and want one entry.
        let found: Vec<_> =
            self.entries.iter().filter(|entry| annotation(entry, REF_NAME) == Some(name)).collect();
        let [entry] = found.as_slice() else { panic!("{} entries have the name {name}", found.len()) };
        // containerd looks at its own annotation first.
        let full = annotation(entry, FULL_NAME);
        assert!(full.is_none_or(|full| full == name), "{FULL_NAME} of {name} is {full:?}");
        text(entry, "digest")
    }

    /// The digest that regctl finds under a tag: `ref.name` is the tag, or ends with it.
    #[track_caller]
    pub(super) fn find_tag(&self, tag: &str) -> &str {
        let names =
            |entry: &&Value, end: &str| annotation(entry, REF_NAME).is_some_and(|name| name.ends_with(end));
        let exact = self.entries.iter().find(|entry| annotation(entry, REF_NAME) == Some(tag));
        let ending = || self.entries.iter().find(|entry| names(entry, &format!(":{tag}")));
        let found = exact.or_else(ending).unwrap_or_else(|| panic!("no entry has the tag {tag}"));
        text(found, "digest")
    }

    /// How many entries there are: crane takes a directory for one image only if it has one.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Under `blobs/`: a folder for each algorithm, and in it regular files whose names are digests of what they hold.
#[track_caller]
fn stored(blobs: &Path) {
    for folder in listed(blobs) {
        let algorithm = name_of(&folder);
        assert!(is_plain(&folder, true), "{} is no folder", folder.display());
        for file in listed(&folder) {
            let hex = name_of(&file);
            assert!(is_plain(&file, false), "{} is no regular file", file.display());
            hashes_to(&file, &format!("{algorithm}:{hex}"));
        }
    }
}

/// What a descriptor leads to, all of which is here.
#[track_caller]
fn whole(path: &Path, descriptor: &Value, depth: usize) {
    assert!(depth > 0, "indexes are nested too deep");
    let digest = text(descriptor, "digest");
    let (algorithm, hex) = digest.split_once(':').expect("a digest has an algorithm");
    let file = path.join("blobs").join(algorithm).join(hex);
    let metadata = fs::symlink_metadata(&file).unwrap_or_else(|e| panic!("{digest} is not here: {e}"));
    let size = descriptor.get("size").and_then(Value::as_u64);
    assert_eq!(size, Some(metadata.len()), "the size of {digest}");
    let media_type = text(descriptor, "mediaType");
    if INDEXES.contains(&media_type) {
        for child in children(&object(&file), "manifests", digest) {
            whole(path, &child, depth - 1);
        }
    } else if MANIFESTS.contains(&media_type) {
        let manifest = object(&file);
        let config = manifest.get("config").unwrap_or_else(|| panic!("{digest} has no config"));
        for part in children(&manifest, "layers", digest).iter().chain([config]) {
            whole(path, part, depth - 1);
        }
    }
}

/// A JSON object in a regular file.
#[track_caller]
fn object(file: &Path) -> Map<String, Value> {
    assert!(is_plain(file, false), "{} is no regular file", file.display());
    let bytes = fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let document: Value =
        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{} is no JSON: {e}", file.display()));
    let Value::Object(document) = document else { panic!("{} is no object", file.display()) };
    document
}

#[track_caller]
fn children(document: &Map<String, Value>, list: &str, of: &str) -> Vec<Value> {
    assert_eq!(document.get("schemaVersion"), Some(&Value::from(2)), "schemaVersion of {of}");
    let children = document.get(list).and_then(Value::as_array);
    children.unwrap_or_else(|| panic!("{of} has no list {list}")).clone()
}

#[track_caller]
fn text<'a>(descriptor: &'a Value, key: &str) -> &'a str {
    let value = descriptor.get(key).and_then(Value::as_str);
    value.unwrap_or_else(|| panic!("a descriptor has no {key}: {descriptor}"))
}

fn annotation<'a>(descriptor: &'a Value, key: &str) -> Option<&'a str> {
    descriptor.get("annotations")?.get(key)?.as_str()
}

/// `annotations.md`: components of letters and digits, joined by separators.
fn is_ref(name: &str) -> bool {
    name.split('/').all(|component| {
        let component = component.replace("--", "-");
        let parts = component.split(['-', '.', '_', ':', '@', '+']);
        parts.into_iter().all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric()))
    })
}

#[track_caller]
fn hashes_to(file: &Path, name: &str) {
    let expected =
        digest::parse(name).unwrap_or_else(|e| panic!("{} is named after no digest: {e}", file.display()));
    let mut hasher = Hasher::like(&expected).expect("an algorithm of the specification");
    hasher.update(&fs::read(file).expect("blobs can be read"));
    assert_eq!(hasher.finish(), expected, "{}", file.display());
}

fn is_plain(path: &Path, folder: bool) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| if folder { found.is_dir() } else { found.is_file() })
}

#[track_caller]
fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.expect("folders can be read").path()).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
