//! Mutants of what is made from layers.

use std::fs::File;
use std::io::{self, Seek as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plyfold_core::block_sums::Checksum;
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, ArtifactWriter, CacheProvider as _, Format, Made, Output, Result,
    digest,
};

use super::{BrokenCache, CacheFault, Shared};

impl BrokenCache {
    pub(super) async fn broken_artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        let of = |format| ArtifactKey { format, ..key.clone() };
        let wrong = match self.fault {
            // As one that knows layers alone.
            CacheFault::ArtifactsForgotten => {
                ArtifactKey { content: digest::sha256(key.content.as_ref().as_bytes()), ..key.clone() }
            }
            CacheFault::KeyedByText => {
                let format = Format { name: "", version: 0, options: key.format.to_string(), ..key.format };
                ArtifactKey { format, ..key.clone() }
            }
            CacheFault::OutputsMixed => key.with_extension("one"),
            CacheFault::ContentsMixed => ArtifactKey { content: digest::sha256(b"one"), ..key.clone() },
            CacheFault::FormatsMixed => of(Format { name: "one", ..key.format.clone() }),
            CacheFault::OptionsMixed => of(Format { options: String::new(), ..key.format.clone() }),
            CacheFault::VersionsMixed => of(Format { version: 1, ..key.format.clone() }),
            _ => key.clone(),
        };
        let key = &wrong;
        let everything = match self.fault {
            CacheFault::OneMakerForAFormat => Some(self.shared.everything.clone().lock_owned().await),
            _ => None,
        };
        let made = self.shared.made.lock().unwrap().get(key).cloned();
        match (self.fault, made) {
            (CacheFault::ChangedArtifactsTrusted | CacheFault::DroppedArtifactsPublished, Some(made)) => {
                return Ok(Artifact::Present(made));
            }
            (CacheFault::TwoMakers, None) => return MemoryCache::new()?.artifact(key).await,
            _ => {}
        }
        let found = match (self.fault, self.inner.artifact(key).await?) {
            // Who has waited is not told that it is there by now.
            (CacheFault::MadeByEach, Artifact::Present(_)) => MemoryCache::new()?.artifact(key).await?,
            (CacheFault::ArtifactsReadFromTheStart, Artifact::Present(artifact)) => {
                Artifact::Present(Box::new(FromTheStart(artifact, Arc::default())))
            }
            (CacheFault::RangesFromTheStart, Artifact::Present(artifact)) => {
                Artifact::Present(Box::new(RangesFromTheStart(artifact)))
            }
            (CacheFault::ArtifactsMisnamed, Artifact::Present(artifact)) => {
                Artifact::Present(Box::new(Misnamed(artifact, Checksum::of(0, &[]))))
            }
            (_, found) => found,
        };
        Ok(match found {
            Artifact::Vacant(inner) => Artifact::Vacant(Box::new(BrokenArtifact {
                _everything: everything,
                appended: (self.fault == CacheFault::ArtifactsAppended).then(appending),
                loses_notes: self.fault == CacheFault::NotesLost,
                inner: Some(inner),
                key: key.clone(),
                shared: self.shared.clone(),
                publishes: self.fault == CacheFault::DroppedArtifactsPublished,
            })),
            present @ Artifact::Present(..) => present,
        })
    }
}

impl BrokenCache {
    pub(super) async fn broken_look(&self, key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>> {
        match self.fault {
            CacheFault::LooksWait => Ok(match self.inner.artifact(key).await? {
                Artifact::Present(artifact) => Some(artifact),
                Artifact::Vacant(_) => None,
            }),
            CacheFault::ChangedArtifactsTrusted => Ok(self.shared.made.lock().unwrap().get(key).cloned()),
            // A collection that knows the `diff_id`s of an image alone.
            CacheFault::IndexesCollected
                if key.format.name == "gzip-index" && self.shared.collections.load(Ordering::SeqCst) > 0 =>
            {
                Ok(None)
            }
            _ => self.inner.find_artifact(key).await,
        }
    }
}

/// As a stream that clones share: whatever the offset, the next bytes come.
#[derive(Clone, Debug)]
struct FromTheStart(Box<dyn ArtifactHandle>, Arc<AtomicU64>);

impl ArtifactHandle for FromTheStart {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn made(&self) -> &Made {
        self.0.made()
    }

    fn path(&self) -> Option<&Path> {
        None
    }

    fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read_at(self.1.load(Ordering::SeqCst), buffer)?;
        self.1.fetch_add(count as u64, Ordering::SeqCst);
        Ok(count)
    }
}

/// As one request whose range is lost.
#[derive(Clone, Debug)]
struct RangesFromTheStart(Box<dyn ArtifactHandle>);

impl ArtifactHandle for RangesFromTheStart {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn made(&self) -> &Made {
        self.0.made()
    }

    fn path(&self) -> Option<&Path> {
        self.0.path()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn read_range(&self, range: Range<u64>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.0.read_range(0..range.end - range.start, each)
    }
}

/// It tells the checksum of something else.
#[derive(Clone, Debug)]
struct Misnamed(Box<dyn ArtifactHandle>, Checksum);

impl ArtifactHandle for Misnamed {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn made(&self) -> &Made {
        self.0.made()
    }

    fn checksum(&self) -> Option<Checksum> {
        Some(self.1)
    }

    fn path(&self) -> Option<&Path> {
        self.0.path()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }
}

/// A file that takes writes at its end alone.
fn appending() -> File {
    let file = tempfile::NamedTempFile::new().unwrap();
    File::options().read(true).append(true).open(file.path()).unwrap()
}

#[derive(Debug)]
struct BrokenArtifact {
    /// `None` once it has ended.
    inner: Option<Box<dyn ArtifactWriter>>,
    key: ArtifactKey,
    shared: Arc<Shared>,
    /// What was written, each piece behind the one before, wherever it belongs.
    appended: Option<File>,
    /// Whether it is published when it is dropped.
    publishes: bool,
    loses_notes: bool,
    _everything: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl BrokenArtifact {
    fn finish(&mut self, made: &Made) -> Result<Box<dyn ArtifactHandle>> {
        let none = Made::default();
        let told = if self.loses_notes { &none } else { made };
        let mut inner = self.inner.take().expect("it has not ended");
        if let Some(mut appended) = self.appended.take() {
            appended.rewind().and_then(|()| io::copy(&mut appended, &mut inner.output())).unwrap();
        }
        let made = inner.commit(told)?;
        self.shared.made.lock().unwrap().insert(self.key.clone(), made.clone());
        Ok(made)
    }
}

impl ArtifactWriter for BrokenArtifact {
    fn output(&mut self) -> &mut dyn Output {
        if let Some(appended) = &mut self.appended {
            return appended;
        }
        self.inner.as_mut().expect("it has not ended").output()
    }

    fn commit(mut self: Box<Self>, made: &Made) -> Result<Box<dyn ArtifactHandle>> {
        self.finish(made)
    }
}

impl Drop for BrokenArtifact {
    fn drop(&mut self) {
        if self.publishes && self.inner.is_some() {
            self.finish(&Made::default()).unwrap();
        }
    }
}
