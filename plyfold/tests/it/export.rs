//! Root file systems as tars: what they are read from, and that it makes no difference.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use plyfold::atomic_file::FileOptions;
use plyfold::backends::layout::Store;
use plyfold::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, CachedNames, Collect, Collected,
    Descriptor, Digest, FlatOptions, Images, Ingest, Lease, NameChange, Page, PullOptions, PulledImage,
    Reference, Result, Rootfs, Usage, Verified, Verify,
};
use plyfold_conformance::samples::{self, LayerBuilder};
use tokio::io::AsyncReadExt as _;

/// A cache that notes which blobs are opened.
#[derive(Clone, Debug)]
struct Counted(Box<dyn CacheProvider>, Arc<Mutex<Vec<Digest>>>);

plyfold::forward_cache! {
    Counted, |around| around.0;
    async stat(digest: &Digest) -> Result<Option<u64>>;
    async is_away(digest: &Digest) -> Result<bool>;
    async ingest(blob: &Descriptor) -> Result<Ingest>;
    async partial(digest: &Digest) -> Result<u64>;
    async quarantine(digest: &Digest) -> Result<()>;
    async find_descriptor(reference: &Reference) -> Result<Option<Descriptor>>;
    async list() -> Result<Vec<(Reference, Descriptor)>>;
    async update(changes: &[NameChange]) -> Result<()>;
    async artifact(key: &ArtifactKey) -> Result<Artifact>;
    async find_artifact(key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>>;
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
        async fn open(&self, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
            self.1.lock().unwrap().push(blob.digest().clone());
            self.0.open(blob, range).await
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

struct Site {
    dir: tempfile::TempDir,
    images: Images,
    opened: Arc<Mutex<Vec<Digest>>>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let opened = Arc::default();
        let images = Images::with_cache(Counted(Box::new(store), Arc::clone(&opened))).unwrap();
        Self { dir, images, opened }
    }

    async fn pull(&self, sample: &samples::Sample, options: PullOptions) -> PulledImage {
        let archive = self.dir.path().join("image.tar");
        fs::write(&archive, samples::docker_archive(&[("a.example/app:1".to_owned(), sample)])).unwrap();
        let options = PullOptions { platform: "linux/amd64".parse().unwrap(), ..options };
        self.images.pull(&format!("docker-archive:{}", archive.display()), options).await.unwrap()
    }

    /// The image as a tar, and how often each of its layers was opened for it.
    async fn export(&self, image: &PulledImage) -> (Vec<u8>, Vec<usize>) {
        self.opened.lock().unwrap().clear();
        let (options, mut tar) = (FlatOptions::default(), Vec::new());
        self.images.export(image, &options).await.unwrap().read_to_end(&mut tar).await.unwrap();
        let times = {
            let opened = self.opened.lock().unwrap();
            let times = |layer: &Descriptor| opened.iter().filter(|one| *one == layer.digest()).count();
            image.layers.iter().map(|layer| times(&layer.descriptor)).collect()
        };
        let path = self.dir.path().join("rootfs.tar");
        let size = self.images.export_to(image, &options, &path, FileOptions::default()).await.unwrap();
        let file = fs::read(&path).unwrap();
        assert!((file.len() as u64, &file) == (size, &tar), "in a file it is another tar");
        (tar, times)
    }

    async fn with_files(&self, sample: &samples::Sample) -> PulledImage {
        let materializer = self.images.layer_materializer(&Rootfs::erofs_layers()).unwrap();
        self.pull(sample, PullOptions { materializer, ..PullOptions::default() }).await
    }
}

fn layers() -> [LayerBuilder; 2] {
    let zeros = [&[b'x'; 5000][..], &vec![0; 2 << 20], &vec![b'y'; 100_000], &vec![0; 300_000]].concat();
    let lower = LayerBuilder::new()
        .dir("d", 0o750)
        .xattr("user.note", "1")
        .file("d/file", 0o644, &vec![b'f'; 200_000])
        .file("d/gone", 0o644, b"gone")
        .file("zeros", 0o600, &zeros)
        .sparse_file("sparse", 0o600, 5 << 20, &[(100, b"head"), (3 << 20, b"middle")])
        .mtime("1234567890.123456789")
        .symlink("link", "d/file");
    let upper = LayerBuilder::new().whiteout("d/gone").hard_link("another", "d/file").file("e", 0o644, b"e");
    [lower, upper]
}

/// Rule X 101, with files of layers in the cache and without.
#[tokio::test]
async fn an_export_is_made_of_the_files_of_layers_or_reads_each_blob_once() {
    let site = Site::new();
    let sample = samples::of_layers("export", &layers().map(LayerBuilder::finish));
    let image = site.pull(&sample, PullOptions::default()).await;
    let (tar, times) = site.export(&image).await;
    assert_eq!(times, [1, 1]);
    let image = site.with_files(&sample).await;
    let (again, times) = site.export(&image).await;
    assert_eq!(times, [0, 0]);
    assert!(tar == again, "the tar depends on what it is made of");
    assert!(tar.len() < 1 << 20, "{} bytes: the holes are written", tar.len());
}

/// A file that lacks an attribute of its layer is not what the layer is.
#[tokio::test]
async fn an_export_keeps_what_the_files_of_layers_lack() {
    let site = Site::new();
    let [lower, upper] = layers();
    let upper = upper.xattr("vendor.note", "kept").file("odd", 0o644, b"odd");
    let sample = samples::of_layers("export", &[lower.finish(), upper.finish()]);
    let image = site.pull(&sample, PullOptions::default()).await;
    let (tar, _) = site.export(&image).await;
    assert!(tar.windows(11).any(|part| part == b"vendor.note"));
    let image = site.with_files(&sample).await;
    let (again, times) = site.export(&image).await;
    assert_eq!(times, [0, 1]);
    assert!(tar == again, "the tar depends on what it is made of");
}

/// The blob is read where the file of its layer is damaged; where both are, the error is the stream's last item.
#[tokio::test]
async fn an_export_of_damaged_content_is_right_or_an_error() {
    let site = Site::new();
    let sample = samples::of_layers("export", &layers().map(LayerBuilder::finish));
    let image = site.with_files(&sample).await;
    let (tar, _) = site.export(&image).await;
    let files = site.dir.path().join("store/artifacts");
    let mut folders = vec![files];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "erofs") {
                fs::write(&path, vec![0xff; usize::try_from(path.metadata().unwrap().len()).unwrap()])
                    .unwrap();
            }
        }
    }
    let (again, _) = site.export(&image).await;
    assert!(tar == again, "the tar of damaged files");
    let digest = image.layers[1].descriptor.digest();
    let blob = site.dir.path().join("store/blobs/sha256").join(digest.digest());
    let mut damaged = fs::read(&blob).unwrap();
    damaged[20] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, damaged).unwrap();
    let mut stream = site.images.export(&image, &FlatOptions::default()).await.unwrap();
    let mut bytes = Vec::new();
    let error = plyfold::Error::from(stream.read_to_end(&mut bytes).await.unwrap_err());
    assert_eq!(*error.kind(), plyfold::ErrorKind::Corrupt, "{error}");
    assert!(bytes.is_empty(), "every layer is read to its verified end first");
    let path = site.dir.path().join("damaged.tar");
    let written = site.images.export_to(&image, &FlatOptions::default(), &path, FileOptions::default()).await;
    assert_eq!(*written.unwrap_err().kind(), plyfold::ErrorKind::Corrupt);
    assert!(!path.exists());
}
