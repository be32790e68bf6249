//! What is said of a cache that does something wrong, and that its own errors are passed on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use plyfold::layer::LayerTar;
use plyfold::tree::MergedTree;
use plyfold::{
    Artifact, ArtifactHandle, ArtifactKey, ArtifactWriter, Blob, BlobRange, CacheProvider, Descriptor,
    Digest, Error, ErrorKind, Format, Images, Ingest, Input, LocalArtifact, Made, Materializer, NameChange,
    Output, PullOptions, Reference, Result, Role, Rootfs, Sink, Verified, Verify,
};

use super::baseline;

/// What is wrong with the files of the cache, which have no path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// The second half cannot be read.
    Breaks,
    /// The second half is missing.
    Ends,
    /// A finished file is not there.
    Gone,
    /// Every other read is interrupted by a signal.
    Interrupted,
    /// More bytes are reported than were asked for.
    More,
    /// Nothing; there is no folder for temporary files.
    NoScratch,
    /// Nothing, and they have paths; nothing can be stored, nor is there a folder for temporary files.
    ReadOnly,
}

#[derive(Clone, Debug)]
pub(crate) struct Faulty(pub(crate) Box<dyn CacheProvider>, pub(crate) Fault);

#[async_trait]
impl CacheProvider for Faulty {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.0.stat(digest).await
    }

    async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        self.0.open(blob, range).await
    }

    async fn ingest(&self, blob: &Descriptor) -> Result<Ingest> {
        self.0.ingest(blob).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<()> {
        self.0.quarantine(digest).await
    }

    async fn find_descriptor(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        self.0.find_descriptor(reference).await
    }

    async fn list(&self) -> Result<Vec<(Reference, Descriptor)>> {
        self.0.list().await
    }

    async fn update(&self, changes: &[NameChange]) -> Result<()> {
        self.0.update(changes).await
    }

    async fn artifact(&self, key: &ArtifactKey) -> Result<Artifact> {
        if self.1 == Fault::Gone {
            let gone = LocalArtifact::new("/nonexistent/artifact".into(), 4096, Made::default());
            return Ok(Artifact::Present(Box::new(gone)));
        }
        Ok(match self.0.artifact(key).await? {
            Artifact::Vacant(_) if self.1 == Fault::ReadOnly => {
                return Err(Error::io("making a file", io::ErrorKind::ReadOnlyFilesystem.into()));
            }
            present @ Artifact::Present(_) if self.1 == Fault::ReadOnly => present,
            Artifact::Present(inner) => Artifact::Present(Box::new(Handle(inner, self.1))),
            Artifact::Vacant(inner) => Artifact::Vacant(Box::new(Writer(inner, self.1))),
        })
    }

    async fn verify(&self, what: &Verify) -> Result<Verified> {
        self.0.verify(what).await
    }

    fn layout(&self) -> Option<&Path> {
        self.0.layout()
    }

    fn scratch(&self) -> Option<PathBuf> {
        self.0.scratch().filter(|_| !matches!(self.1, Fault::NoScratch | Fault::ReadOnly))
    }

    fn is_read_only(&self) -> bool {
        self.1 == Fault::ReadOnly
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug)]
struct Writer(Box<dyn ArtifactWriter>, Fault);

impl ArtifactWriter for Writer {
    fn output(&mut self) -> &mut dyn Output {
        self.0.output()
    }

    fn commit(self: Box<Self>, made: &Made) -> Result<Box<dyn ArtifactHandle>> {
        Ok(Box::new(Handle(self.0.commit(made)?, self.1)))
    }
}

#[derive(Clone, Debug)]
struct Handle(Box<dyn ArtifactHandle>, Fault);

impl ArtifactHandle for Handle {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn made(&self) -> &Made {
        self.0.made()
    }

    fn path(&self) -> Option<&Path> {
        None
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static READS: AtomicU64 = AtomicU64::new(0);

        let half = self.0.size() / 2;
        match self.1 {
            Fault::Breaks if offset >= half => return Err(io::Error::other("the bucket is closed")),
            Fault::Ends if offset >= half => return Ok(0),
            Fault::Breaks | Fault::Ends => {
                let wanted = buffer.len().min((half - offset) as usize);
                return self.0.read_at(offset, &mut buffer[..wanted]);
            }
            Fault::Interrupted if READS.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            _ => {}
        }
        let count = self.0.read_at(offset, buffer)?;
        Ok(if self.1 == Fault::More { buffer.len() + 10 } else { count })
    }
}

/// One byte of scratch.
#[derive(Clone, Debug)]
struct Spooling(Input);

impl Spooling {
    fn spool(out: &mut dyn Sink) -> Result<Made> {
        io::Write::write_all(&mut out.scratch()?, b"x")?;
        out.output(Role::Image)?.write_all(&[7; 5000])?;
        Ok(Made::default())
    }
}

impl Materializer for Spooling {
    fn format(&self) -> Format {
        Format { name: "spooling", version: 1, options: String::new(), extension: "spooled" }
    }

    fn input(&self) -> Input {
        self.0.clone()
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        while tar.next_entry()?.is_some() {}
        Self::spool(out)
    }

    fn image(&self, _: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        Self::spool(out)
    }
}

fn options() -> PullOptions {
    PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() }
}

fn sample() -> String {
    format!("oci:{}:latest", baseline::root().join("examples/sample").display())
}

async fn faulty(dir: &Path, fault: Fault) -> Images {
    let images = Images::open(dir.join(format!("store-{fault:?}"))).await.unwrap();
    Images::with_cache(Faulty(images.cache(), fault)).unwrap()
}

/// The files that are made over such a cache, by their content; twice, because the second time they are there.
async fn made(fault: Fault, rootfs: &Rootfs) -> Result<Vec<Vec<u8>>> {
    let dir = tempfile::tempdir().unwrap();
    let images = faulty(dir.path(), fault).await;
    let image = images.pull(&sample(), options()).await.unwrap();
    let mut outcomes = Vec::new();
    for out in ["first", "second"] {
        let out = dir.path().join(out);
        let disks = images.materialize(&image, rootfs, &out).await;
        assert_eq!(out.exists(), disks.is_ok());
        outcomes.push(disks.map(|disks| disks.paths().map(|file| std::fs::read(file).unwrap()).collect()));
    }
    let kinds = outcomes.iter().map(|outcome| outcome.as_ref().map_err(|e| e.kind().clone()));
    let [first, second] = kinds.collect::<Vec<_>>().try_into().unwrap();
    assert!(first == second, "{outcomes:?}");
    outcomes.remove(0)
}

fn rootfs() -> [Rootfs; 5] {
    let spooling = |input| Rootfs::of(Box::new(Spooling(input)));
    [
        Rootfs::erofs_layers(),
        Rootfs::erofs_merged(),
        Rootfs::vmdk(),
        spooling(Input::Image),
        spooling(Input::Layer),
    ]
}

#[tokio::test]
async fn an_error_of_a_read_is_passed_on_and_no_damage() {
    for rootfs in rootfs() {
        let error = made(Fault::Breaks, &rootfs).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Io, "{rootfs:?}: {error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "the bucket is closed", "{rootfs:?}: {error}");
        let error = made(Fault::Ends, &rootfs).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{rootfs:?}: {error}");
        assert!(error.message().contains(" ends after "), "{rootfs:?}: {error}");
    }
}

#[tokio::test]
async fn more_bytes_than_were_asked_for_are_no_content() {
    for rootfs in rootfs() {
        let error = made(Fault::More, &rootfs).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Internal, "{rootfs:?}: {error}");
        assert!(error.message().contains("says that it has read"), "{rootfs:?}: {error}");
    }
}

#[tokio::test]
async fn an_interrupted_read_is_repeated() {
    for rootfs in rootfs() {
        let files = made(Fault::Interrupted, &rootfs).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path().join("store")).await.unwrap();
        let image = images.pull(&sample(), options()).await.unwrap();
        let disks = images.materialize(&image, &rootfs, &dir.path().join("out")).await.unwrap();
        let expected: Vec<_> = disks.paths().map(|file| std::fs::read(file).unwrap()).collect();
        assert!(files == expected, "{rootfs:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_gone_is_named() {
    for rootfs in rootfs() {
        let error = made(Fault::Gone, &rootfs).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Io, "{rootfs:?}: {error}");
        assert!(error.message().contains("/nonexistent/artifact"), "{rootfs:?}: {error}");
    }
}

#[tokio::test]
async fn the_scratch_folder_of_a_program_is_made_when_a_format_needs_it() {
    for fault in [Fault::NoScratch, Fault::Interrupted] {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("new/scratch");
        let images = faulty(dir.path(), fault).await.with_scratch(&scratch);
        for input in [Input::Image, Input::Layer] {
            let format: Box<dyn Materializer> = Box::new(Spooling(input.clone()));
            // What is made while the layers come, too.
            let materializer = Some(format.clone()).filter(|_| input == Input::Layer);
            let image = images.pull(&sample(), PullOptions { materializer, ..options() }).await.unwrap();
            let out = dir.path().join(format!("{input:?}"));
            images.materialize(&image, &Rootfs::of(format), &out).await.unwrap();
            assert!(std::fs::read_dir(&scratch).unwrap().next().is_none(), "something is left there");
            std::fs::remove_dir(&scratch).unwrap();
        }
    }
}

#[tokio::test]
async fn without_a_scratch_folder_the_hint_says_what_gives_one() {
    let dir = tempfile::tempdir().unwrap();
    let images = faulty(dir.path(), Fault::NoScratch).await;
    let image = images.pull(&sample(), options()).await.unwrap();
    let rootfs = Rootfs::of(Box::new(Spooling(Input::Image)));
    let error = images.materialize(&image, &rootfs, &dir.path().join("out")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
    assert!(error.hint().unwrap().contains("Images::with_scratch"), "{error:?}");
}
