//! Formats of whole images take content from the files of layers in the cache, where these are sound.

use std::fs;
use std::io::{Cursor, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use plyfold_core::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold_core::memory::MemoryCache;
use plyfold_core::tree::{
    FileData, Kind, LayerContent, LayerReader, LayerRun, LayerTree, LayerTreeBuilder, MergedTree,
};
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CachedNames, Collect, Collected, Descriptor,
    Digest, Format, FormatEntry, ImageSource as _, Ingest, Input, Lease, Made, Materializer, Materializers,
    NameChange, Page, Reference, Result, Role, Sink, Usage, Verified, Verify, materialize,
};

use crate::materialize::{Names, Work, text, two_layers};

/// The tar of a layer, as it is.
#[derive(Clone, Debug)]
struct Tars;

impl Materializer for Tars {
    fn format(&self) -> Format {
        Format { name: "kept-tars", version: 1, options: String::new(), extension: "tar" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        let mut copy = out.scratch()?;
        tar.copy_to(copy.try_clone()?)?;
        tar.finish()?;
        copy.rewind()?;
        std::io::copy(&mut copy, &mut out.output(Role::Image)?)?;
        Ok(Made::default())
    }
}

/// How often the file of a layer was read back.
static READ_BACK: AtomicUsize = AtomicUsize::new(0);

plyfold_core::register!(LayerReader { format: "kept-tars", package: "test", read: read_back });

fn read_back(layer: &mut LayerContent<'_, '_>, limits: TreeLimits) -> Result<LayerTree<FileData>> {
    READ_BACK.fetch_add(1, Ordering::SeqCst);
    let (mut file, mut tar) = (layer.file(), Vec::new());
    file.rewind().and_then(|()| file.read_to_end(&mut tar))?;
    let mut tar = LayerTar::new(Cursor::new(tar), LayerOptions::default())?;
    let mut builder = LayerTreeBuilder::within(limits);
    while let Some(entry) = tar.next_entry()? {
        builder.insert(entry, |size, _| {
            layer.lies_in(size, &[LayerRun { at: tar.position(), offset: 0, length: size }])
        })?;
    }
    tar.finish()?;
    builder.finish()
}

/// The content of all files, one after the other.
#[derive(Clone, Debug)]
struct Contents;

impl Materializer for Contents {
    fn format(&self) -> Format {
        Format { name: "contents", version: 1, options: String::new(), extension: "bin" }
    }

    fn input(&self) -> Input {
        Input::Image
    }

    fn image(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        for (_, id) in image.tree().walk() {
            if let Kind::File { size, .. } = image.tree().node(id).kind {
                image.copy_to(id, 0, size, out.output(Role::Image)?)?;
            }
        }
        Ok(Made::default())
    }
}

/// A cache that finds a file which goes before it is opened.
#[derive(Clone, Debug)]
struct Vanishing(MemoryCache);

plyfold_core::forward_cache! {
    Vanishing, |around| around.0;
    async stat(digest: &Digest) -> Result<Option<u64>>;
    async is_away(digest: &Digest) -> Result<bool>;
    async open(blob: &Descriptor, range: BlobRange) -> Result<Blob>;
    async ingest(blob: &Descriptor) -> Result<Ingest>;
    async partial(digest: &Digest) -> Result<u64>;
    async quarantine(digest: &Digest) -> Result<()>;
    async find_descriptor(reference: &Reference) -> Result<Option<Descriptor>>;
    async list() -> Result<Vec<(Reference, Descriptor)>>;
    async update(changes: &[NameChange]) -> Result<()>;
    async artifact(key: &ArtifactKey) -> Result<Artifact>;
    async lease(content: &[Digest]) -> Result<Lease>;
    async single_flight(work: &str) -> Result<Lease>;
    async free() -> Result<Option<u64>>;
    async pins() -> Result<Vec<Reference>>;
    async usage() -> Result<Usage>;
    async collect(policy: &Collect) -> Result<Collected>;
    async verify(what: &Verify) -> Result<Verified>;
    async list_page(page: &Page) -> Result<CachedNames>;
    async settle() -> ();
    sync layout() -> Option<&Path>;
    sync scratch() -> Option<PathBuf>;
    sync is_read_only() -> bool;
    {
        async fn find_artifact(&self, key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>> {
            let found = self.0.find_artifact(key).await?;
            if let Some(path) = found.as_ref().and_then(|found| found.path()) {
                fs::remove_file(path)?;
            }
            Ok(found)
        }
    }
}

impl std::fmt::Display for Vanishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The content of an image of two layers, made with the layers' files in the cache, after something was done to these.
async fn content_after(spoil: impl Fn(&Work, &[PathBuf])) -> Result<(usize, Vec<u8>)> {
    let work = two_layers().await;
    let formats = Materializers::none()
        .with(FormatEntry {
            name: "kept-tars",
            package: "test",
            summary: "",
            options: "",
            open: |_| Ok(Box::new(Tars)),
        })
        .unwrap();
    let layers = materialize(&work.source, &work.cache, &Tars, &formats, &work.options).await.unwrap();
    let paths: Vec<_> = layers.files.iter().map(|file| file.artifact.path().unwrap().to_owned()).collect();
    spoil(&work, &paths);
    let before = READ_BACK.load(Ordering::SeqCst);
    let made = materialize(&work.source, &work.cache, &Contents, &formats, &work.options).await?;
    assert_eq!(fs::read_dir(work.scratch.path()).unwrap().count(), 0);
    let bytes = fs::read(made.files[0].artifact.path().unwrap()).unwrap();
    Ok((READ_BACK.load(Ordering::SeqCst) - before, bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn content_comes_from_the_files_of_layers_where_these_are_sound() {
    let expected = {
        let work = two_layers().await;
        let made = work.make(&Contents).await.unwrap();
        fs::read(made.files[0].artifact.path().unwrap()).unwrap()
    };
    let (read, bytes) = content_after(|_, _| {}).await.unwrap();
    assert_eq!((read, bytes == expected), (2, true));
    // A file that was damaged and shows no write.
    let spoiled = |_: &Work, paths: &[PathBuf]| {
        let modified = fs::metadata(&paths[1]).unwrap().modified().unwrap();
        fs::set_permissions(&paths[1], std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let file = fs::File::options().write(true).open(&paths[1]).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 512], 0).unwrap();
        file.set_modified(modified).unwrap();
    };
    let (read, bytes) = content_after(spoiled).await.unwrap();
    assert_eq!((read, bytes == expected), (2, true), "the layers are read again");
    let (read, bytes) = content_after(|_, paths| fs::remove_file(&paths[0]).unwrap()).await.unwrap();
    assert_eq!((read, bytes == expected), (1, true), "one is read again");
    // The layers themselves are not needed then.
    let without = |work: &Work, _: &[PathBuf]| {
        for layer in work.source.raw().image().unwrap().layers() {
            work.cache.insert_blob(layer.digest().clone(), "damaged");
        }
    };
    let (read, bytes) = content_after(without).await.unwrap();
    assert_eq!((read, bytes == expected), (2, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_goes_before_it_is_opened_is_no_error() {
    let work = two_layers().await;
    let entry = FormatEntry {
        name: "kept-tars",
        package: "test",
        summary: "",
        options: "",
        open: |_| Ok(Box::new(Tars)),
    };
    let formats = Materializers::none().with(entry).unwrap();
    materialize(&work.source, &work.cache, &Tars, &formats, &work.options).await.unwrap();
    let expected = work.make(&Names::default()).await.unwrap();
    let names = Names::default();
    let other = two_layers().await;
    materialize(&other.source, &other.cache, &Tars, &formats, &other.options).await.unwrap();
    let cache = Vanishing(other.cache.clone());
    let made = materialize(&other.source, &cache, &names, &formats, &other.options).await.unwrap();
    assert_eq!(text(&*made.files[0].artifact), text(&*expected.files[0].artifact));
    assert_eq!(names.runs.load(Ordering::SeqCst), 1);
}
