//! A store with one image, another image that is to be pulled into it, and the judgement of what a disaster left.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_core::{
    CacheProvider as _, CacheProviderExt as _, Completeness, ImageSource as _, NameChange, digest, reference,
};
use plyfold_layout::{Config, Layout, Store};
use tempfile::TempDir;

use crate::{block, worker};

/// The image that is in the store from the start.
pub(crate) const OLD: &str = "registry.example/library/old:1";
/// The image that is pulled: it shares a layer with the old one, and has one that takes several writes.
pub(crate) const NEW: &str = "registry.example/library/new:1";

/// The files below a folder, by their path in it, with the digests of their content.
pub(crate) type Files = BTreeMap<PathBuf, String>;

pub(crate) struct Scene {
    folder: TempDir,
    origin: PathBuf,
    /// The store with the old image.
    before: PathBuf,
    /// The store with both images.
    pub(crate) after: PathBuf,
    /// What is in it.
    files_before: Files,
    /// What is in it with both images.
    files_after: Files,
}

/// What is in a store before a worker comes to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    Nothing,
    Old,
    Both,
}

impl Scene {
    pub(crate) fn new() -> Result<Self, Failure> {
        Self::on(&env::temp_dir())
    }

    /// A scene whose stores are on this disk.
    pub(crate) fn on(disk: &Path) -> Result<Self, Failure> {
        let folder = TempDir::new_in(disk)?;
        let (origin, before) = (folder.path().join("origin"), folder.path().join("before"));
        let (old, new) = (image("old", &[200, 3]), image("new", &[200, 600_000, 5]));
        samples::write_layout(&origin, &[(OLD.to_owned(), &old), (NEW.to_owned(), &new)])?;
        let after = folder.path().join("after");
        for (path, images) in [(&before, &[OLD][..]), (&after, &[OLD, NEW])] {
            let store = Store::open(path)?;
            for image in images {
                block(worker::pull_from(&origin, image, &store, 1))??;
            }
        }
        let (files_before, files_after) = (files(&before)?, files(&after)?);
        Ok(Self { folder, origin, before, after, files_before, files_after })
    }

    /// A path for one more store, and what is there.
    pub(crate) fn store(&self, name: &str, start: Start) -> Result<PathBuf, Failure> {
        let path = self.folder.path().join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        match start {
            Start::Nothing => {}
            Start::Old => copy(&self.before, &path)?,
            Start::Both => copy(&self.after, &path)?,
        }
        Ok(path)
    }

    /// Where images come from.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(&self.origin, Config::default())
    }

    /// Tells a command that is a worker what to do.
    pub(crate) fn directed(&self, run: Run, store: &Path, orders: &str) -> Run {
        run.env(worker::STORE, store).env(worker::ORIGIN, &self.origin).env(worker::ORDERS, orders)
    }

    /// Whether the store has both images after one more pull, and nothing that is not needed.
    pub(crate) fn heals(&self, path: &Path) -> Verdict {
        let store = Store::open(path)?;
        for image in [OLD, NEW] {
            block(worker::pull_from(&self.origin, image, &store, 1))??;
            block(store.update(&[NameChange::Unpin(reference::parse(image)?)]))??;
        }
        let files = files(path)?;
        if files != self.files_after {
            return Err(Failure::new(format!(
                "not as it should be: {}",
                difference(&files, &self.files_after)
            )));
        }
        Ok(())
    }

    /// Whether nothing that can be seen is wrong, and the old image is there. When the pull of the new one was
    /// reported as a failure, its name is not.
    pub(crate) fn survives(&self, path: &Path, failed: bool) -> Verdict {
        let index = files(path)?.remove(Path::new("index.json")).unwrap_or_default();
        let [old, new] = [&self.files_before, &self.files_after].map(|files| &files[Path::new("index.json")]);
        if index != *old && (failed || index != *new) {
            return Err(Failure::new("the names are not what they were before, nor after"));
        }
        sound(path)?;
        let store = Store::open(path)?;
        whole(&store, OLD)?;
        if index == *new { whole(&store, NEW) } else { Ok(()) }
    }
}

/// An image with layers of one file of so many bytes.
pub(crate) fn image(name: &str, sizes: &[usize]) -> Sample {
    let layers: Vec<_> = sizes.iter().enumerate().map(|(index, size)| layer(name, index, *size)).collect();
    samples::of_layers("crash", &layers)
}

/// The bottom layers of one size are the same.
fn layer(name: &str, index: usize, size: usize) -> Vec<u8> {
    let seed = if index == 0 { "base".to_owned() } else { format!("{name} {index}") };
    let content: Vec<u8> = (0..size.div_ceil(32) as u64)
        .flat_map(|block| {
            digest::sha256(format!("{seed} {block}").as_bytes()).digest().as_bytes()[..32].to_vec()
        })
        .take(size)
        .collect();
    LayerBuilder::new().dir("etc", 0o755).file(format!("etc/{index}"), 0o644, &content).finish()
}

/// Whether an image is there for its platform, and every byte of it is right.
pub(crate) fn whole(store: &Store, image: &str) -> Verdict {
    let (name, platform) = (reference::parse(image)?, "linux/amd64".parse()?);
    let found = block(store.completeness(&name, &platform))??;
    if found != Completeness::Complete {
        return Err(Failure::new(format!("{image} was lost: {found:?}")));
    }
    let source = block(store.new_source(&name, &platform))??;
    for blob in source.raw().references() {
        block(store.verify_blob(&blob))??;
    }
    Ok(())
}

/// The blobs that do not hash to their names, and the sealed artifacts that are not as their seals say.
pub(crate) fn unsound(path: &Path) -> Result<Vec<String>, Failure> {
    let files = files(path)?;
    let mut found = Vec::new();
    for (file, digest) in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if file.starts_with("blobs") && digest.split_once(':').is_none_or(|(_, hex)| hex != name) {
            found.push(format!("{} is visible and has the content {digest}", file.display()));
        }
        let sealed = file.to_string_lossy().strip_suffix(".seal").map(PathBuf::from);
        let Some(sealed) = sealed.filter(|_| file.starts_with("artifacts")) else { continue };
        let seal = fs::read_to_string(path.join(file))?;
        let artifact = files.get(&sealed).map_or("nothing", String::as_str);
        if !seal.contains(artifact) {
            found.push(format!("{} is sealed by {seal} and is {artifact}", sealed.display()));
        }
    }
    Ok(found)
}

pub(crate) fn sound(path: &Path) -> Verdict {
    let unsound = unsound(path)?;
    if unsound.is_empty() { Ok(()) } else { Err(Failure::new(unsound.join("; "))) }
}

/// Whether there is no temporary file and no partial download.
pub(crate) fn nothing_in_progress(path: &Path) -> Verdict {
    match files(path)?.keys().find(|file| file.starts_with("ingest")) {
        Some(left) => Err(Failure::new(format!("{} is left", left.display()))),
        None => Ok(()),
    }
}

/// What is in a store, the locks excepted: they stay, and have no content.
pub(crate) fn files(path: &Path) -> Result<Files, Failure> {
    let mut files = Files::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let found = entry?.path();
            let inner = found.strip_prefix(path)?;
            if inner.starts_with("locks") {
            } else if found.is_dir() {
                folders.push(found);
            } else {
                files.insert(inner.to_owned(), digest::sha256(&fs::read(&found)?).to_string());
            }
        }
    }
    Ok(files)
}

/// What one of two listings has and the other has not.
fn difference(left: &Files, right: &Files) -> String {
    let only = |one: &Files, other: &Files, sign: char| {
        let missing = one.iter().filter(|(path, digest)| other.get(*path) != Some(digest));
        missing.map(|(path, _)| format!("{sign}{}", path.display())).collect::<Vec<_>>()
    };
    [only(left, right, '+'), only(right, left, '-')].concat().join(" ")
}

fn copy(from: &Path, to: &Path) -> Verdict {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
