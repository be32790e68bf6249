//! Formats of whole images: what is in the cache is not made again, and nothing half made is seen.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plyfold_core::digest::{chain_id, sha256};
use plyfold_core::layer::LayerTar;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::tree::MergedTree;
use plyfold_core::{
    Artifact, ArtifactHandle, ArtifactKey, CacheProvider, CacheProviderExt as _, Collect, ErrorKind, Format,
    FormatEntry, ImageSource as _, Input, InputArtifact, Made, MadeImage, Materializer, Materializers,
    Options, OutputSpec, PullOptions, PullPolicy, RegistrySource, Result, Role, Sink, materialize, pull,
};

use crate::fixture::{AMD64, Drain, Scripted, layer, name, options, put_compressed, put_image};

/// The names of an image's files, and how many there are, in a file of their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) runs: Arc<AtomicUsize>,
    /// How long it takes before it writes.
    pause: Duration,
    /// How long it takes after all is written.
    rest: Duration,
}

impl Materializer for Names {
    fn format(&self) -> Format {
        Format { name: "names", version: 1, options: String::new(), extension: "names" }
    }

    fn input(&self) -> Input {
        Input::Image
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        vec![
            OutputSpec::new(Role::Image, "names"),
            OutputSpec::new(Role::Sidecar, "count").with_stem("number"),
        ]
    }

    fn image(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.pause);
        let names: Vec<String> = image.tree().walk().map(|(path, _)| path.to_string()).collect();
        write!(out.scratch()?, "spooled")?;
        write!(out.output(Role::Sidecar)?, "{}", names.len())?;
        write!(out.output(Role::Image)?, "{}", names.join(" "))?;
        assert_eq!(*out.output(Role::HashTree).err().unwrap().kind(), ErrorKind::Unsupported);
        std::thread::sleep(self.rest);
        Ok(Made::default().with_kernel(5, 4).with_note("names only"))
    }
}

/// Names and sizes of the files of another format.
#[derive(Clone, Debug, Default)]
struct Sizes(Arc<AtomicUsize>);

impl Materializer for Sizes {
    fn format(&self) -> Format {
        Format { name: "sizes", version: 1, options: String::new(), extension: "sizes" }
    }

    fn input(&self) -> Input {
        Input::Artifacts { format: "names", options: Options::default() }
    }

    fn join(&self, artifacts: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        self.0.fetch_add(1, Ordering::SeqCst);
        for file in artifacts {
            writeln!(out.output(Role::Image)?, "{} {}", file.name, file.artifact.size())?;
        }
        Ok(Made::default().with_kernel(5, 10))
    }
}

fn formats() -> Materializers {
    let entry = FormatEntry {
        name: "names",
        package: "test",
        summary: "",
        options: "",
        open: |_| Ok(Box::new(Names::default())),
    };
    Materializers::none().with(entry).unwrap()
}

/// An image in a cache, and a folder for temporary files.
pub(crate) struct Work {
    pub(crate) cache: MemoryCache,
    pub(crate) source: RegistrySource,
    pub(crate) options: PullOptions,
    pub(crate) scratch: tempfile::TempDir,
    layers: Vec<Vec<u8>>,
}

impl Work {
    async fn new(layers: Vec<Vec<u8>>) -> Self {
        let (registry, cache, image) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap(), name("app:1"));
        put_image(&registry, &image, ("linux", "amd64"), &layers);
        pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
        let source = cache.new_source(&image, &AMD64.parse().unwrap()).await.unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let options = PullOptions { scratch: Some(scratch.path().to_owned()), ..PullOptions::default() };
        Self { cache, source, options, scratch, layers }
    }

    pub(crate) async fn make(&self, format: &dyn Materializer) -> Result<MadeImage> {
        materialize(&self.source, &self.cache, format, &formats(), &self.options).await
    }

    /// Whether a file of a format is in the cache.
    async fn has(&self, format: Format) -> bool {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| sha256(layer)).collect();
        let key = ArtifactKey { format, content: chain_id(&diff_ids).unwrap() };
        matches!(self.cache.artifact(&key).await.unwrap(), Artifact::Present(_))
    }
}

/// An image alone says which content a blob has: the files of another image's blob are used when that was found to be true,
/// and never for another content.
#[tokio::test]
async fn files_of_another_blob_are_used_only_for_the_same_content() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let (tar, other) = (layer("theirs", 10), layer("own", 10));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    put_image(&registry, &name("theirs:1"), ("linux", "amd64"), std::slice::from_ref(&tar));
    put_compressed(&registry, &name("same:1"), &tar, &gzip.finish().unwrap());
    put_compressed(&registry, &name("wrong:1"), &tar, &other);
    let scratch = tempfile::tempdir().unwrap();
    let names = Names::default();
    let make = async |image: &str| {
        let image = name(image);
        pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await?;
        let source = cache.new_source(&image, &AMD64.parse().unwrap()).await?;
        let options = PullOptions { scratch: Some(scratch.path().to_owned()), ..PullOptions::default() };
        materialize(&source, &cache, &names, &formats(), &options).await
    };
    let first = make("theirs:1").await.unwrap();
    let same = make("same:1").await.unwrap();
    assert_eq!(text(&*same.files[0].artifact), text(&*first.files[0].artifact));
    let error = make("wrong:1").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(names.runs.load(Ordering::SeqCst), 1);
    // The files of layers, too.
    let drain = |image: &str| {
        let materializer: Option<Box<dyn Materializer>> = Some(Box::new(Drain));
        let (registry, cache, image) = (registry.clone(), cache.clone(), name(image));
        async move {
            let options = PullOptions { materializer, ..options(PullPolicy::IfMissing) };
            pull(&registry, &image, &cache, &options).await.map(|pulled| pulled.layers[0].converted)
        }
    };
    assert!(drain("theirs:1").await.unwrap());
    assert!(!drain("same:1").await.unwrap());
    let error = drain("wrong:1").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
}

pub(crate) fn text(artifact: &dyn ArtifactHandle) -> String {
    fs::read_to_string(artifact.path().unwrap()).unwrap()
}

pub(crate) async fn two_layers() -> Work {
    Work::new(vec![layer("a", 300), layer("b", 5000)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_not_made_again() {
    let work = two_layers().await;
    let (names, sizes) = (Names::default(), Sizes::default());
    for cached in [false, true, true] {
        let made = work.make(&names).await.unwrap();
        let files: Vec<(&str, Role, bool, String)> = made
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.role, file.cached, text(&*file.artifact)))
            .collect();
        assert_eq!(files.len(), 2);
        assert_eq!((files[0].0, files[0].1, files[0].2), ("rootfs.names", Role::Image, cached));
        assert_eq!((files[1].0, files[1].1, files[1].2), ("number.count", Role::Sidecar, cached));
        assert!(files[0].3.contains('a') && files[0].3.contains('b'), "{files:?}");
        // Notes are kept with the file.
        assert_eq!(
            (made.made.notes.as_slice(), made.made.kernel.unwrap().to_string().as_str()),
            (&["names only".to_owned()][..], "5.4")
        );
    }
    assert_eq!(names.runs.load(Ordering::SeqCst), 1);
    for cached in [false, true] {
        let made = work.make(&sizes).await.unwrap();
        let of: Vec<(&str, bool)> = made.files.iter().map(|file| (file.format.name, file.cached)).collect();
        assert_eq!(of, [("sizes", cached), ("names", true), ("names", true)]);
        let lines = text(&*made.files[0].artifact);
        assert!(lines.starts_with("rootfs.names ") && lines.contains("\nnumber.count 1"), "{lines}");
        assert_eq!(made.made.kernel.unwrap().to_string(), "5.10");
    }
    assert_eq!((names.runs.load(Ordering::SeqCst), sizes.0.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(fs::read_dir(work.scratch.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_is_made_again_and_the_other_stays() {
    let work = two_layers().await;
    let names = Names::default();
    for missing in [1, 0] {
        let before = work.make(&names).await.unwrap();
        let path =
            |made: &MadeImage, at: usize| -> PathBuf { made.files[at].artifact.path().unwrap().to_owned() };
        let kept = path(&before, 1 - missing);
        let content = text(&*before.files[missing].artifact);
        fs::remove_file(path(&before, missing)).unwrap();
        let after = work.make(&names).await.unwrap();
        assert_eq!(text(&*after.files[missing].artifact), content);
        assert_eq!(path(&after, 1 - missing), kept);
        assert_eq!((after.files[missing].cached, after.files[1 - missing].cached), (false, true));
    }
    assert_eq!(names.runs.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_layer_is_an_error_and_no_file() {
    let work = Work::new(vec![layer("a", 300), vec![0xff; 2048]]).await;
    let names = Names::default();
    let error = work.make(&names).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert_eq!(error.context("image"), Some("docker.io/library/app:1"));
    assert_eq!(names.runs.load(Ordering::SeqCst), 0, "it was given a part of the image");
    assert!(!work.has(names.format()).await);
}

/// Damaged in the cache, cut short by who made the image, and larger than the limits: each as the second layer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_layer_leaves_no_file_and_no_temporary_one() {
    let whole = layer("b", 70_000);
    for fault in ["cut", "damaged", "hostile"] {
        let second = if fault == "cut" { whole[..40_000].to_vec() } else { whole.clone() };
        let mut work = Work::new(vec![layer("a", 300), second]).await;
        let expected = if fault == "hostile" { ErrorKind::Limit } else { ErrorKind::Corrupt };
        match fault {
            "damaged" => {
                let blob = work.source.raw().image().unwrap().layers()[1].clone();
                let content = vec![7; usize::try_from(blob.size()).unwrap()];
                work.cache.insert_blob(blob.digest().clone(), content);
            }
            "hostile" => work.options.limits.tree.names = 1,
            _ => {}
        }
        let names = Names::default();
        let error = work.make(&names).await.unwrap_err();
        assert_eq!(*error.kind(), expected, "{fault}: {error:?}");
        assert_eq!(names.runs.load(Ordering::SeqCst), 0, "{fault}: it was given a part of the image");
        assert!(!work.has(names.format()).await, "{fault}");
        assert_eq!(fs::read_dir(work.scratch.path()).unwrap().count(), 0, "{fault}");
        assert_eq!(fs::read_dir(work.cache.scratch().unwrap()).unwrap().count(), 0, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_dropped_after_any_poll_leaves_nothing_or_all() {
    for polls in 1.. {
        let (work, names) = (two_layers().await, Names::default());
        let ended = {
            let (mut making, mut polls) = (Box::pin(work.make(&names)), polls);
            std::future::poll_fn(|context| {
                if polls == 0 {
                    return std::task::Poll::Ready(None);
                }
                polls -= 1;
                match making.as_mut().poll(context) {
                    // At once, and not when there is more to do: the thread is at work then.
                    std::task::Poll::Pending if polls == 0 => std::task::Poll::Ready(None),
                    polled => polled.map(Some),
                }
            })
            .await
        };
        // Waits for the thread, which holds the right to make them.
        let (image, count) = (names.format(), Format { extension: "count", ..names.format() });
        let (has_image, has_count) = (work.has(image).await, work.has(count).await);
        assert!(has_count || !has_image, "{polls}: a file that refers to one that is not there");
        assert_eq!(fs::read_dir(work.scratch.path()).unwrap().count(), 0, "{polls}");
        let kept = usize::from(has_image) + usize::from(has_count);
        assert_eq!(fs::read_dir(work.cache.scratch().unwrap()).unwrap().count(), kept, "{polls}");
        if let Some(made) = ended {
            assert_eq!((made.unwrap().files.len(), kept), (2, 2));
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_makes_it() {
    let work = two_layers().await;
    let names = Names { pause: Duration::from_millis(50), ..Names::default() };
    let (one, other) = tokio::join!(work.make(&names), work.make(&names));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(names.runs.load(Ordering::SeqCst), 1);
    assert_ne!(one.files[0].cached, other.files[0].cached);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_dropped_makes_nothing() {
    let long = Duration::from_millis(500);
    // What has written all and has not ended makes nothing either.
    for (pause, rest) in [(long, Duration::ZERO), (Duration::ZERO, long)] {
        let work = two_layers().await;
        let names = Names { pause, rest, ..Names::default() };
        let patience = Duration::from_millis(50);
        assert!(tokio::time::timeout(patience, work.make(&names)).await.is_err());
        // Waits for the thread, which holds the right to make it.
        assert!(!work.has(names.format()).await, "{pause:?} {rest:?}");
    }
}

#[tokio::test]
async fn what_is_no_image_of_layers_is_refused() {
    let work = Work::new(Vec::new()).await;
    let error = work.make(&Names::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("the image has no layers"), "{error}");
    // A pull converts layers alone.
    let (registry, image) = (MemoryRegistry::new("a"), name("app:1"));
    put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 3)]);
    let asked =
        PullOptions { materializer: Some(Box::new(Names::default())), ..options(PullPolicy::IfMissing) };
    let error = pull(&registry, &image, &work.cache, &asked).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
}

/// The registry of the image may be far away: what is made comes out of the cache.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched() {
    let (registry, image) = (MemoryRegistry::new("a"), name("app:1"));
    put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 300), layer("b", 10)]);
    let (scripted, cache) = (Scripted::new(&registry, &[]), MemoryCache::new().unwrap());
    let pulled = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let asked = scripted.requests();
    let source = RegistrySource::in_hand(Box::new(scripted.clone()), image, pulled.manifest, pulled.config);
    let make = || async {
        materialize(&source, &cache, &Names::default(), &formats(), &PullOptions::default()).await
    };
    make().await.unwrap();
    assert_eq!(scripted.requests(), asked);
    let gone = pulled.layers[1].descriptor.digest();
    cache.quarantine(gone).await.unwrap();
    assert!(make().await.unwrap().files.iter().all(|file| file.cached), "no layer is read for a hit");
    cache.remove(&name("app:1")).await.unwrap();
    drop(pulled.lease);
    cache.collect(&Collect::default()).await.unwrap();
    let error = make().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(scripted.requests(), asked);
}

/// A format that says something wrong of its files, or does not make one of them.
#[derive(Clone, Debug)]
struct Careless(Vec<OutputSpec>);

impl Materializer for Careless {
    fn format(&self) -> Format {
        Format { name: "careless", version: 1, options: String::new(), extension: "img" }
    }

    fn input(&self) -> Input {
        Input::Image
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        self.0.clone()
    }

    fn image(&self, _: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        write!(out.output(Role::Image)?, "an image")?;
        Ok(Made::default())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_contradicts_itself_is_refused_and_leaves_nothing() {
    let work = two_layers().await;
    let image = || OutputSpec::new(Role::Image, "img");
    let careless = [
        vec![],
        vec![OutputSpec::new(Role::Image, "other")],
        vec![image(), OutputSpec::new(Role::Image, "more")],
        vec![image(), OutputSpec::new(Role::Sidecar, "img").with_stem("more")],
        vec![image(), OutputSpec::new(Role::Sidecar, "tar.gz")],
        vec![image().with_stem("../outside")],
        // Listed, and not made.
        vec![image(), OutputSpec::new(Role::Sidecar, "forgotten")],
    ];
    for outputs in careless {
        let format = Careless(outputs);
        let error = work.make(&format).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Internal, "{:?}: {error}", format.0);
        assert!(error.message().contains("the format careless"), "{error}");
        assert!(!work.has(format.format()).await);
    }
    assert_eq!(work.make(&Careless(vec![image()])).await.unwrap().files.len(), 1);
}

/// Needs a temporary file for a layer. There are two such formats.
#[derive(Clone, Debug)]
struct Spooled(bool);

impl Materializer for Spooled {
    fn format(&self) -> Format {
        Format { name: "spooled", version: self.0.into(), options: String::new(), extension: "img" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        let file = out.scratch()?;
        let link = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)))?;
        write!(out.output(Role::Image)?, "{}", link.display())?;
        tar.finish()?;
        Ok(Made::default())
    }
}

/// Where there is little memory, a file in `/tmp` is in memory.
#[tokio::test(flavor = "multi_thread")]
async fn temporary_files_of_layers_are_in_the_folder_of_the_caller_or_else_of_the_cache() {
    let mut work = two_layers().await;
    let (given, of_cache) = (work.options.scratch.clone(), work.cache.scratch());
    for folder in [given, None] {
        work.options.scratch.clone_from(&folder);
        let made = work.make(&Spooled(folder.is_none())).await.unwrap();
        let folder = folder.or(of_cache.clone()).unwrap();
        for file in &made.files {
            let path = text(&*file.artifact);
            assert!(path.starts_with(folder.to_str().unwrap()), "{path} is not in {}", folder.display());
        }
    }
}
