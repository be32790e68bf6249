//! Directories under a rule: what is in them, and what other programs put there.

use std::fs;
use std::path::{Path, PathBuf};

use plyfold_core::{Digest, digest};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory for one cache.
pub(super) struct Place {
    pub(super) path: PathBuf,
    _folder: TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary directory can be made");
        Self { path: folder.path().join("layout"), _folder: folder }
    }

    /// What a process that is killed now leaves: its files, without its locks.
    pub(super) fn copy_of(path: &Path) -> Self {
        let copy = Self::new();
        for file in files_in(path) {
            let inside = file.strip_prefix(path).expect("a file of the directory");
            let target = copy.path.join(inside);
            fs::create_dir_all(target.parent().expect("it has a folder")).expect("folders can be made");
            fs::copy(&file, &target).expect("files can be copied");
        }
        copy
    }

    /// The files that contain these bytes.
    pub(super) fn files_with(&self, part: &[u8]) -> Vec<PathBuf> {
        let contains = |file: &PathBuf| {
            let content = fs::read(file).expect("files can be read");
            content.windows(part.len()).any(|window| window == part)
        };
        files_in(&self.path).into_iter().filter(contains).collect()
    }
}

/// What other programs keep in the same directory.
pub(super) struct Theirs {
    pub(super) blob: Digest,
    entry: Value,
    files: Vec<(&'static str, &'static str)>,
}

impl Theirs {
    pub(super) fn add_to(path: &Path) -> Self {
        let files = vec![
            ("NOTES", "keep me"),
            ("blobs/README", "keep me too"),
            ("org.example.tool/state.json", "{}"),
        ];
        for (file, content) in &files {
            let file = path.join(file);
            fs::create_dir_all(file.parent().expect("it has a folder")).expect("folders can be made");
            fs::write(file, content).expect("files can be written");
        }
        let content = br#"{ "schemaVersion":2, "mediaType":"application/vnd.oci.image.index.v1+json", "manifests":[] }"#;
        let blob = digest::sha256(content);
        let folder = path.join("blobs/sha256");
        fs::create_dir_all(&folder).expect("folders can be made");
        fs::write(folder.join(blob.digest()), content).expect("files can be written");
        let entry = json!({
            "mediaType": "application/vnd.oci.image.index.v1+json", "size": content.len(), "digest": blob,
            "annotations": {
                "org.opencontainers.image.ref.name": "registry.example/theirs:1", "org.example.note": "kept"
            },
            "org.example.unknown": { "b": [1, 2.5], "a": null },
        });
        edit_index(path, |index| {
            index["org.example.future"] = json!({ "kept": [true] });
            index["annotations"] = json!({ "org.example.owner": "someone" });
            index["manifests"].as_array_mut().expect("a list").push(entry.clone());
        });
        Self { blob, entry, files }
    }

    #[track_caller]
    pub(super) fn assert_kept(&self, path: &Path, after: &str) {
        for (file, content) in &self.files {
            let found = fs::read_to_string(path.join(file)).unwrap_or_default();
            assert_eq!(found, *content, "{file} after {after}");
        }
        let index = index_of(path);
        assert_eq!(index["org.example.future"], json!({ "kept": [true] }), "after {after}");
        assert_eq!(index["annotations"]["org.example.owner"], "someone", "after {after}");
        let entries = index["manifests"].as_array().expect("a list");
        assert!(entries.contains(&self.entry), "{index} has their entry no more after {after}");
        assert!(path.join("blobs/sha256").join(self.blob.digest()).exists(), "their blob after {after}");
    }
}

pub(super) fn index_of(path: &Path) -> Value {
    let bytes = fs::read(path.join("index.json")).expect("a layout has the file index.json");
    serde_json::from_slice(&bytes).expect("index.json is JSON")
}

fn edit_index(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut index = index_of(path);
    edit(&mut index);
    replace(&path.join("index.json"), index.to_string().as_bytes());
}

/// As another tool would write it, whatever the modes of what was there.
pub(super) fn replace(file: &Path, content: &[u8]) {
    let beside = file.with_extension("by-hand");
    fs::write(&beside, content).and_then(|()| fs::rename(&beside, file)).expect("files can be written");
}

/// The documents at the top, with their content.
pub(super) fn documents(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let top = ["index.json", "oci-layout"].map(|file| path.join(file));
    top.into_iter().map(|file| (file.clone(), fs::read(&file).expect("files can be read"))).collect()
}

/// Every regular file below a folder, sorted.
pub(super) fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).expect("folders can be read");
    for path in entries.map(|entry| entry.expect("folders can be read").path()) {
        if path.is_dir() {
            files.extend(files_in(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}
