//! Caches with one image or two, and the judgement of what a disaster left of them.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, FileTimes};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use plyfold_core::digest::{self, Hasher};
use plyfold_core::{
    CacheProvider, CacheProviderExt as _, Completeness, Descriptor, ErrorKind, ImageSource as _, Ingest,
    NameChange, Verify, reference,
};
use tempfile::TempDir;

use super::fixture::{DurabilityFixture, Role};
use super::image::{NEW, OLD};
use super::{artifact, worker};
use crate::oracle::{Failure, Verdict};

/// What stays of a cache's directory, by its path there.
type Listing = BTreeSet<PathBuf>;

pub(super) struct Scene<'a> {
    pub(super) fixture: &'a dyn DurabilityFixture,
    folder: TempDir,
    /// The cache with both images.
    pub(super) full: PathBuf,
    full_listing: Listing,
    /// What is in it when the old one was evicted; `None` where nothing is.
    evicted: Option<Listing>,
}

/// What is in a cache before a worker comes to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    Nothing,
    Old,
    /// And an unfinished download.
    Both,
}

/// What must be there afterwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) kept: &'static [&'static str],
    pub(super) possible: &'static [&'static str],
}

impl Start {
    /// When a worker was cut off anywhere in its work.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Nothing => Outcome { kept: &[], possible: &[] },
            Self::Old => Outcome { kept: &[OLD], possible: &[NEW] },
            Self::Both => Outcome { kept: &[NEW], possible: &[OLD] },
        }
    }

    /// When it has reported a failure.
    pub(super) fn failed(self) -> Outcome {
        match self {
            // What was collected by then is gone.
            Self::Both => self.outcome(),
            Self::Nothing | Self::Old => Outcome { possible: &[], ..self.outcome() },
        }
    }

    /// When it has reported a success.
    pub(super) fn succeeded(self) -> Outcome {
        match self {
            Self::Nothing => self.outcome(),
            Self::Old => Outcome { kept: &[OLD, NEW], possible: &[] },
            Self::Both => Outcome { kept: &[NEW], possible: &[] },
        }
    }
}

impl<'a> Scene<'a> {
    pub(super) fn new(fixture: &'a dyn DurabilityFixture) -> Result<Self, Failure> {
        Self::on(fixture, &env::temp_dir())
    }

    /// A scene whose caches are on this disk.
    pub(super) fn on(fixture: &'a dyn DurabilityFixture, disk: &Path) -> Result<Self, Failure> {
        let folder = TempDir::new_in(disk)?;
        let (old, full, evicted) =
            (folder.path().join("old"), folder.path().join("full"), folder.path().join("evicted"));
        let evicts = block(async {
            let cache = fixture.open(&old).await?;
            worker::pull_image(OLD, &*cache, 1).await?;
            drop(cache);
            copy(&old, &full)?;
            let cache = fixture.open(&full).await?;
            worker::pull_image(NEW, &*cache, 1).await?;
            begin_a_download(&*cache).await?;
            drop(cache);
            copy(&full, &evicted)?;
            match worker::evict(OLD, &*fixture.open(&evicted).await?).await {
                Err(e) if *e.kind() == ErrorKind::Unsupported => Ok(false),
                outcome => Ok::<_, Failure>(outcome.map(|()| true)?),
            }
        })??;
        let (full_listing, listing) = (listing(fixture, &full)?, listing(fixture, &evicted)?);
        let evicted = evicts.then_some(listing);
        Ok(Self { fixture, folder, full, full_listing, evicted })
    }

    /// Whether the cache collects.
    pub(super) fn evicts(&self) -> bool {
        self.evicted.is_some()
    }

    /// A path for one more cache, and what is there.
    pub(super) fn store(&self, name: &str, start: Start) -> Result<PathBuf, Failure> {
        let path = self.folder.path().join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        match start {
            Start::Nothing => {}
            Start::Old => copy(&self.folder.path().join("old"), &path)?,
            Start::Both => copy(&self.full, &path)?,
        }
        Ok(path)
    }

    /// Whether nothing that can be seen is wrong, and there is what must be there.
    pub(super) fn survives(&self, path: &Path, outcome: Outcome) -> Verdict {
        sound(self.fixture, path)?;
        block(async {
            let cache = self.fixture.open(path).await?;
            let names: Vec<_> = cache.list().await?.into_iter().map(|(name, _)| name.whole()).collect();
            let Outcome { kept, possible } = outcome;
            if let Some(lost) = kept.iter().find(|name| !names.iter().any(|found| found == *name)) {
                return Err(Failure::new(format!("the name {lost} was lost")));
            }
            for name in names {
                if !kept.iter().chain(possible).any(|known| *known == name) {
                    return Err(Failure::new(format!("the name {name} is there")));
                }
                whole(&cache, &name).await?;
            }
            Ok(())
        })?
    }

    /// Whether what was cut off can be done again, and leaves what it does when nothing is in its way.
    pub(super) fn heals(&self, path: &Path, start: Start) -> Verdict {
        block(async {
            let cache = self.fixture.open(path).await?;
            if let (Start::Both, Some(evicted)) = (start, &self.evicted) {
                worker::evict(OLD, &*cache).await?;
                self.is_as(path, evicted)?;
            }
            for image in [OLD, NEW] {
                worker::pull_image(image, &*cache, 1).await?;
                cache.update(&[NameChange::Unpin(reference::parse(image)?)]).await?;
            }
            for image in [OLD, NEW] {
                whole(&cache, image).await?;
            }
            match cache.verify(&Verify::default()).await?.damage.first() {
                Some(damage) => Err(Failure::new(format!("{damage:?}"))),
                None => Ok(()),
            }
        })??;
        self.is_as(path, &self.full_listing)?;
        if self.evicts() {
            nothing_in_progress(self.fixture, path)
        } else {
            self.nothing_was_begun(path, start)
        }
    }

    /// Whether there are no more temporary files than at the start.
    pub(super) fn nothing_was_begun(&self, path: &Path, start: Start) -> Verdict {
        let begun = |path: &Path| Ok::<_, Failure>(in_progress(self.fixture, files(path)?));
        let before = if let Start::Both = start { begun(&self.full)? } else { Listing::new() };
        is_empty(begun(path)?.difference(&before))
    }

    fn is_as(&self, path: &Path, wanted: &Listing) -> Verdict {
        let found = listing(self.fixture, path)?;
        let (more, less) = (found.difference(wanted), wanted.difference(&found));
        let difference: Vec<_> = more
            .map(|path| format!("+{}", path.display()))
            .chain(less.map(|path| format!("-{}", path.display())))
            .collect();
        if difference.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("not as it should be: {}", difference.join(" "))))
    }
}

pub(super) fn block<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work))
}

/// Leaves half of a blob that no image needs.
async fn begin_a_download(cache: &dyn CacheProvider) -> Verdict {
    let bytes = Bytes::from_static(b"a download that is never finished");
    let media_type = "application/octet-stream".into();
    let blob = Descriptor::new(media_type, bytes.len() as u64, digest::sha256(&bytes));
    if let Ingest::Vacant(mut writer) = cache.ingest(&blob).await? {
        writer.write(bytes.slice(..10)).await?;
        writer.suspend().await?;
    }
    Ok(())
}

/// Whether an image is there for its platform, and every byte of it is right.
pub(super) async fn whole(cache: &(impl CacheProvider + Clone), image: &str) -> Verdict {
    let (name, platform) = (reference::parse(image)?, "linux/amd64".parse()?);
    let found = cache.completeness(&name, &platform).await?;
    if found != Completeness::Complete {
        return Err(Failure::new(format!("{image} was lost: {found:?}")));
    }
    let source = cache.new_source(&name, &platform).await?;
    for blob in source.raw().references() {
        cache.verify_blob(&blob).await?;
    }
    Ok(())
}

/// The blobs that do not hash to their names, and the artifacts that are taken for whole and are not: what is there
/// before the cache is opened again.
pub(super) fn unsound(fixture: &dyn DurabilityFixture, path: &Path) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for file in files(path)? {
        if file.starts_with("blobs") {
            let named = |part: Option<&OsStr>| part.and_then(OsStr::to_str).unwrap_or_default().to_owned();
            let algorithm = named(file.parent().and_then(Path::file_name));
            let wanted = digest::parse(&format!("{algorithm}:{}", named(file.file_name())))?;
            let mut hasher = Hasher::like(&wanted)?;
            hasher.update(&fs::read(path.join(&file))?);
            let content = hasher.finish();
            if content != wanted {
                found.push(format!("{} is visible and has the content {content}", file.display()));
            }
        }
        if let Role::Checksum(artifact) = role(fixture, &file)
            && !artifact::is_whole(&path.join(&artifact))?
        {
            found.push(format!("{} is taken for whole", artifact.display()));
        }
    }
    Ok(found)
}

fn sound(fixture: &dyn DurabilityFixture, path: &Path) -> Verdict {
    let unsound = unsound(fixture, path)?;
    if unsound.is_empty() { Ok(()) } else { Err(Failure::new(unsound.join("; "))) }
}

/// Whether there is no temporary file and no partial download.
pub(super) fn nothing_in_progress(fixture: &dyn DurabilityFixture, path: &Path) -> Verdict {
    is_empty(in_progress(fixture, files(path)?).iter())
}

fn in_progress(fixture: &dyn DurabilityFixture, mut files: Listing) -> Listing {
    files.retain(|file| role(fixture, file) == Role::Temporary);
    files
}

fn is_empty<'a>(mut left: impl Iterator<Item = &'a PathBuf>) -> Verdict {
    left.next().map_or(Ok(()), |left| Err(Failure::new(format!("{} is left", left.display()))))
}

/// The role of a file; that of a layout's own files is known.
pub(super) fn role(fixture: &dyn DurabilityFixture, path: &Path) -> Role {
    let layouts = ["blobs", "index.json", "oci-layout"];
    if layouts.iter().any(|own| path.starts_with(own)) { Role::Content } else { fixture.role(path) }
}

fn listing(fixture: &dyn DurabilityFixture, path: &Path) -> Result<Listing, Failure> {
    let mut files = files(path)?;
    files.retain(|file| matches!(role(fixture, file), Role::Content | Role::Checksum(_)));
    Ok(files)
}

/// The files below a folder, by their paths in it.
fn files(path: &Path) -> Result<Listing, Failure> {
    let mut files = Listing::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.insert(entry.path().strip_prefix(path)?.to_owned());
            }
        }
    }
    Ok(files)
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
            // A store may take another time of the last write for a change.
            let times = FileTimes::new().set_modified(fs::metadata(&path)?.modified()?);
            fs::File::options().read(true).open(&target)?.set_times(times)?;
        }
    }
    Ok(())
}
