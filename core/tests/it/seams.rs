//! Formats of other crates: what they do wrong is refused, named and kept within bounds, whatever they are made from.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::LazyLock;

use plyfold_core::layer::LayerTar;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::tree::MergedTree;
use plyfold_core::{
    Advice, ArtifactHandle, ArtifactReader, CacheProviderExt as _, Error, ErrorKind, Format, FormatEntry,
    ImageSource as _, Input, InputArtifact, Made, MadeImage, Materializer, Materializers, Options,
    OutputSpec, PullOptions, PullPolicy, RegistrySource, Result, Role, Sink, materialize, pull,
};

use crate::fixture::{AMD64, Scripted, layer, name, options, put_image, verifying};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Fails,
    Nothing,
    Panics,
    Tells,
    Writes,
}

/// A format that does what a test says.
#[derive(Clone, Debug)]
struct Odd {
    format: Format,
    input: Input,
    outputs: Vec<OutputSpec>,
    does: Does,
}

impl Odd {
    fn new(input: Input, does: Does) -> Self {
        let format = Format { name: "odd", version: 1, options: String::new(), extension: "img" };
        Self { format, input, outputs: vec![OutputSpec::new(Role::Image, "img")], does }
    }

    fn act(&self, out: &mut dyn Sink) -> Result<Made> {
        let mut made = Made::default();
        match self.does {
            Does::Nothing => return Ok(made),
            Does::Fails => return Err(Error::limit("too odd")),
            Does::Panics => panic!("a format of a test panics"),
            Does::Tells => made.notes = (0..99).map(|at| format!("{at}").repeat(1 << 19)).collect(),
            Does::Writes => {}
        }
        write!(out.output(Role::Image)?, "odd")?;
        Ok(made)
    }
}

impl Materializer for Odd {
    fn format(&self) -> Format {
        self.format.clone()
    }

    fn input(&self) -> Input {
        self.input.clone()
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        self.outputs.clone()
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        while tar.next_entry()?.is_some() {}
        self.act(out)
    }

    fn image(&self, _: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        self.act(out)
    }

    fn join(&self, _: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        self.act(out)
    }
}

/// One is made from single layers, one from the whole image.
fn formats() -> Materializers {
    let entry = FormatEntry {
        name: "layers",
        package: "test",
        summary: "",
        options: "",
        open: |_| Ok(below(Input::Layer)),
    };
    let whole = FormatEntry { name: "whole", open: |_| Ok(below(Input::Image)), ..entry };
    Materializers::none().with(entry).unwrap().with(whole).unwrap()
}

fn below(input: Input) -> Box<dyn Materializer> {
    let mut odd = Odd::new(input, Does::Writes);
    odd.format.name = if odd.input == Input::Layer { "layers" } else { "whole" };
    odd.outputs[0] = odd.outputs[0].clone().with_stem("below");
    Box::new(odd)
}

fn of(format: &'static str) -> Input {
    Input::Artifacts { format, options: Options::default() }
}

/// An image in a cache.
struct Work {
    registry: MemoryRegistry,
    cache: MemoryCache,
    source: RegistrySource,
}

impl Work {
    async fn new(layers: &[Vec<u8>]) -> Self {
        let (registry, cache, image) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap(), name("app:1"));
        put_image(&registry, &image, ("linux", "amd64"), layers);
        pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
        let source = cache.new_source(&image, &AMD64.parse().unwrap()).await.unwrap();
        Self { registry, cache, source }
    }

    async fn make(&self, format: &Odd) -> Result<MadeImage> {
        materialize(&self.source, &self.cache, format, &formats(), &PullOptions::default()).await
    }

    fn layer(&self, index: usize) -> plyfold_core::Descriptor {
        self.source.raw().image().unwrap().layers()[index].clone()
    }
}

async fn two_layers() -> Work {
    Work::new(&[layer("a", 300), layer("b", 5000)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_taken_ambiguous_or_too_long_are_refused_before_any_work() {
    let work = two_layers().await;
    let image = |extension| OutputSpec::new(Role::Image, extension);
    let text = |bytes: usize| -> &'static str { "x".repeat(bytes).leak() };
    let base = || Odd::new(Input::Image, Does::Panics);
    let named = |name| Odd { format: Format { name, ..base().format }, ..base() };
    let of_options =
        |options: &str| Odd { format: Format { options: options.to_owned(), ..base().format }, ..base() };
    let of_outputs = |outputs: Vec<OutputSpec>| {
        let extension = outputs[0].extension;
        Odd { format: Format { extension, ..base().format }, outputs, ..base() }
    };
    let stem = |stem| of_outputs(vec![image("img").with_stem(stem)]);
    let sidecar = |stem, extension| {
        of_outputs(vec![image("img"), OutputSpec::new(Role::Sidecar, extension).with_stem(stem)])
    };
    let refused = [
        of_outputs(vec![image("ext4").with_stem("upper")]),
        sidecar("upper", "ext4"),
        stem("layer-00"),
        stem("layer-7"),
        sidecar("layer-123", "erofs"),
        stem("root_fs"),
        of_outputs(vec![image("a_b")]),
        stem(""),
        stem(text(OutputSpec::STEM_BYTES + 1)),
        of_outputs(vec![image(text(Format::EXTENSION_BYTES + 1))]),
        named(text(Format::NAME_BYTES + 1)),
        named("x-v1"),
        named("x-v12-y"),
        named("X"),
        of_options(text(Format::OPTIONS_BYTES + 1)),
        of_options("a_b"),
        Odd { input: Input::Layer, ..sidecar("more", "more") },
    ];
    for odd in refused {
        let error = work.make(&odd).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Internal, "{odd:?}: {error}");
        assert!(error.message().contains(odd.format.name), "{error}");
        if odd.input != Input::Layer {
            continue;
        }
        let (scripted, cache) = (Scripted::new(&work.registry, &[]), MemoryCache::new().unwrap());
        let asked = PullOptions { materializer: Some(Box::new(odd)), ..options(PullPolicy::IfMissing) };
        let error = pull(&scripted, &name("app:1"), &cache, &asked).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Internal, "{error}");
        assert_eq!(scripted.requests(), 0, "something was fetched");
    }
    let held = [
        stem("upper"),
        stem("layer"),
        stem("layer-x"),
        stem(text(OutputSpec::STEM_BYTES)),
        named("x-v"),
        named("v1"),
        named(text(Format::NAME_BYTES)),
        of_options(text(Format::OPTIONS_BYTES)),
    ];
    for odd in held {
        let odd = Odd { does: Does::Writes, ..odd };
        assert_eq!(work.make(&odd).await.unwrap().files.len(), 1, "{odd:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_does_not_make_its_file_is_refused_whatever_it_is_made_from() {
    for input in [Input::Layer, Input::Image, Input::Nothing, of("layers")] {
        let work = two_layers().await;
        let odd = Odd::new(input, Does::Nothing);
        let error = work.make(&odd).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Internal, "{error}");
        assert!(error.message().contains("has not made it"), "{error}");
        assert_eq!(error.context("format"), Some("odd"), "{error}");
        // Nothing of it is in the cache: it would be taken for a file that was made.
        assert!(!work.make(&Odd { does: Does::Writes, ..odd }).await.unwrap().files[0].cached);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_panics_name_the_format_and_the_layer() {
    for does in [Does::Fails, Does::Panics] {
        for input in [Input::Layer, Input::Image, Input::Nothing, of("layers")] {
            let (work, odd) = (Work::new(&[layer("a", 300)]).await, Odd::new(input, does));
            let error = work.make(&odd).await.unwrap_err();
            assert_eq!(error.context("format"), Some("odd"), "{odd:?}: {error}");
            let layer = work.layer(0).digest().to_string();
            let named = (odd.input == Input::Layer).then_some(layer.as_str());
            assert_eq!(error.context("layer"), named, "{odd:?}: {error}");
        }
    }
}

/// A materializer fills a public field; a cache keeps what it tells.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_format_tells_is_cut_before_it_is_kept() {
    for input in [Input::Layer, Input::Image] {
        let work = two_layers().await;
        let odd = Odd::new(input, Does::Tells);
        for cached in [false, true] {
            let made = work.make(&odd).await.unwrap();
            assert_eq!(made.files[0].cached, cached);
            let notes = &made.files[0].artifact.made().notes;
            assert_eq!(notes.len(), Made::NOTES);
            assert!(notes.iter().all(|note| note.len() == Made::NOTE_BYTES));
        }
    }
}

/// Nothing may be fetched then: the error says which blob it is, and a pull that verifies mends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_named_and_mended_by_a_pull_whatever_is_made() {
    for input in [Input::Layer, Input::Image, of("layers"), of("whole")] {
        let work = Work::new(&[layer("a", 300), layer("b", 5000), layer("c", 40)]).await;
        let blob = work.layer(1);
        work.cache.insert_blob(blob.digest().clone(), vec![7; usize::try_from(blob.size()).unwrap()]);
        let odd = Odd::new(input, Does::Writes);
        let error = work.make(&odd).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(error.context("layer"), Some(blob.digest().as_ref()), "{error}");
        assert_eq!(error.advice(), Some(&Advice::RepairContent), "{error}");
        let mending = verifying(PullPolicy::IfMissing);
        pull(&work.registry, &name("app:1"), &work.cache, &mending).await.unwrap();
        work.make(&odd).await.unwrap();
    }
}

/// Of many layers, a user has to know which one is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_layer_is_named_whatever_is_made() {
    for fault in ["cut", "no tar"] {
        for input in [Input::Layer, Input::Image, of("layers"), of("whole")] {
            let bad = if fault == "cut" { layer("bad", 70_000)[..40_000].to_vec() } else { vec![0xff; 2048] };
            let work = Work::new(&[layer("a", 300), bad, layer("c", 40)]).await;
            let error = work.make(&Odd::new(input.clone(), Does::Writes)).await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{fault} {input:?}: {error}");
            assert_eq!(
                error.context("layer"),
                Some(work.layer(1).digest().as_ref()),
                "{fault} {input:?}: {error}"
            );
            assert!(error.context("format").is_some(), "{fault} {input:?}: {error}");
        }
    }
}

/// A caller names a folder, which need not be there yet.
#[tokio::test(flavor = "multi_thread")]
async fn the_folder_for_temporary_files_is_made() {
    let (work, folder) = (two_layers().await, tempfile::tempdir().unwrap());
    let scratch = folder.path().join("new/scratch");
    let options = PullOptions { scratch: Some(scratch), ..PullOptions::default() };
    let odd = Odd::new(Input::Image, Does::Writes);
    materialize(&work.source, &work.cache, &odd, &formats(), &options).await.unwrap();
}

/// A handle of a cache that says it has given more than it was asked for.
#[derive(Clone, Debug)]
struct Over;

impl ArtifactHandle for Over {
    fn size(&self) -> u64 {
        8
    }

    fn made(&self) -> &Made {
        static MADE: LazyLock<Made> = LazyLock::new(Made::default);
        &MADE
    }

    fn path(&self) -> Option<&Path> {
        None
    }

    fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(buffer.len() + 10)
    }
}

#[test]
fn a_handle_that_gives_more_than_it_was_asked_for_is_an_error() {
    let mut reader = ArtifactReader::open(&Over).unwrap();
    reader.read(&mut [0; 4]).unwrap_err();
}
