//! Layers that are no tars.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};

use plyfold_core::digest::sha256;
use plyfold_core::layer::{
    DataExtent, Entry, EntryKind, FileKind, Hashing, ImagePath, LayerEntries, LayerFault, LayerForm,
    LayerLimits, LayerOptions, LayerTar, Metadata,
};
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{
    Descriptor, ErrorKind, Format, ImageRegistryExt as _, ImageSourceExt as _, Input, Made, Materializer,
    MediaType, PullPolicy, Reference, Result, Role, Sink, pull,
};
use serde_json::json;

use crate::fixture::{AMD64, Scripted, descriptor, layer, name, options, put_document};

const TYPE: &str = "application/vnd.test.whole";

plyfold_core::register!(LayerForm {
    name: "whole",
    media_types: &[TYPE],
    package: env!("CARGO_PKG_NAME"),
    check: |_| Ok(()),
    open: |file, _| Ok(Box::new(Whole { file, read: false })),
});

/// A form that any bytes have: one file `whole` with all of them.
struct Whole {
    file: File,
    read: bool,
}

impl LayerEntries for Whole {
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        if std::mem::replace(&mut self.read, true) {
            return Ok(None);
        }
        let size = self.file.metadata().unwrap().len();
        self.file.rewind().unwrap();
        let kind = EntryKind::Node(FileKind::File { size, content: None });
        let path = ImagePath::parse(b"whole")?;
        Ok(Some(Entry { path, kind, metadata: Metadata { mode: 0o644, ..Metadata::default() } }))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        Ok(self.file.read(buffer).unwrap())
    }
}

fn of(media_type: &str) -> Result<Option<&'static LayerForm>> {
    LayerForm::of(&Descriptor::new(MediaType::from(media_type), 0_u64, sha256(b"")))
}

/// An image of one layer, stored as it is under a type, whose bytes have this digest when uncompressed.
fn put(registry: &MemoryRegistry, image: &Reference, media_type: &str, blob: &[u8], diff_id: &[u8]) {
    put_all(registry, image, &[(media_type, blob, diff_id)]);
}

/// The same of several layers.
fn put_all(registry: &MemoryRegistry, image: &Reference, layers: &[(&str, &[u8], &[u8])]) {
    let diff_ids: Vec<_> = layers.iter().map(|(.., tar)| sha256(tar).to_string()).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs }).to_string().into_bytes();
    let described: Vec<_> = layers.iter().map(|(media_type, blob, _)| descriptor(media_type, blob)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.as_ref(),
        "config": descriptor(MediaType::ImageConfig.as_ref(), &config),
        "layers": described,
    });
    registry.insert_blob(image, sha256(&config), config);
    for (_, blob, _) in layers {
        registry.insert_blob(image, sha256(blob), blob.to_vec());
    }
    put_document(registry, image, MediaType::ImageManifest, &manifest);
}

/// The paths of a layer's entries.
#[derive(Clone, Copy, Debug)]
struct Paths;

impl Materializer for Paths {
    fn format(&self) -> Format {
        Format { name: "paths", version: 1, options: String::new(), extension: "paths" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        let out = out.output(Role::Image)?;
        while let Some(entry) = tar.next_entry()? {
            let mut size = 0;
            loop {
                let count = tar.data()?.len();
                if count == 0 {
                    break;
                }
                tar.consume(count);
                size += count;
            }
            writeln!(out, "{} {size}", entry.path).unwrap();
        }
        Ok(Made::default())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_what_its_type_says_and_artifacts_of_both_are_apart() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let tar = layer("a", 1000);
    let zstd = zstd::encode_all(&*tar, 1).unwrap();
    let whole = format!("/whole {}\n", tar.len());
    let mut options = options(PullPolicy::Always);
    options.materializer = Some(Box::new(Paths));
    for (tag, media_type, blob, expected) in [
        ("tar", "application/vnd.oci.image.layer.v1.tar", &tar, "/a 1000\n"),
        ("whole", TYPE, &tar, &*whole),
        ("again", "application/vnd.oci.image.layer.v1.tar+zstd", &zstd, "/a 1000\n"),
        ("zstd", &format!("{TYPE}+zstd"), &zstd, &*whole),
    ] {
        let image = name(&format!("example.com/app:{tag}"));
        put(&registry, &image, media_type, blob, &tar);
        let pulled = pull(&registry, &image, &cache, &options).await.unwrap();
        let artifact = pulled.layers[0].artifact.as_ref().unwrap();
        let mut made = vec![0; usize::try_from(artifact.size()).unwrap()];
        assert_eq!(artifact.read_at(0, &mut made).unwrap(), made.len());
        assert_eq!(String::from_utf8(made).unwrap(), expected, "{tag}");
        let is_new = ["tar", "whole"].contains(&tag);
        assert_eq!(pulled.layers[0].converted, is_new, "{tag}: one artifact of one form");
    }
    // The bytes are not what the image says.
    let image = name("example.com/app:wrong");
    put(&registry, &image, TYPE, b"other bytes", &tar);
    let error = pull(&registry, &image, &MemoryCache::new().unwrap(), &options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
}

/// Keeps the tars of layers.
#[derive(Clone, Copy, Debug)]
struct Tars;

impl Materializer for Tars {
    fn format(&self) -> Format {
        Format { name: "tars", version: 1, options: String::new(), extension: "tar" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn takes_only_tars(&self) -> bool {
        true
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        tar.copy_to(out.scratch()?)?;
        out.output(Role::Image)?;
        tar.finish().map(|_| Made::default())
    }
}

/// The first one is named, and nothing is fetched, also when other layers are refused for another reason.
#[tokio::test]
async fn layers_that_a_format_cannot_take_are_refused_before_any_is_fetched() {
    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    let (tar, first, second) = (layer("a", 1000), vec![1; 3_000_000], vec![2; 1000]);
    let unknown = "application/vnd.erofs.layer.v1";
    let registry = MemoryRegistry::new("a");
    for (types, keeps_tars, reason) in [
        ([TAR, TYPE, TYPE], true, Some(LayerFault::NoTar("whole"))),
        ([TAR, TYPE, unknown], true, Some(LayerFault::NoTar("whole"))),
        ([TAR, unknown, TYPE], true, Some(LayerFault::Form(unknown.to_owned()))),
        ([TAR, unknown, unknown], false, Some(LayerFault::Form(unknown.to_owned()))),
        ([TAR, TYPE, TYPE], false, None),
    ] {
        let image = name("example.com/app:1");
        let blobs = [&tar, &first, &second];
        let layers: Vec<_> =
            types.iter().zip(blobs).map(|(of, blob)| (*of, blob.as_slice(), blob.as_slice())).collect();
        put_all(&registry, &image, &layers);
        let (scripted, cache) = (Scripted::new(&registry, &[]), MemoryCache::new().unwrap());
        let scratch = tempfile::tempdir().unwrap();
        let mut options = options(PullPolicy::Always);
        options.scratch = Some(scratch.path().to_owned());
        options.materializer = Some(if keeps_tars { Box::new(Tars) } else { Box::new(Paths) });
        let pulled = pull(&scripted, &image, &cache, &options).await;
        let Some(reason) = reason else {
            assert_eq!(pulled.unwrap().layers.len(), 3);
            continue;
        };
        let error = pulled.unwrap_err();
        assert_eq!(error.detail(), Some(&reason), "{types:?}: {error}");
        assert_eq!(error.context("layer"), Some(sha256(&first).as_ref()));
        let is_formats = matches!(reason, LayerFault::NoTar(_));
        assert_eq!(error.context("format"), is_formats.then_some("tars"));
        assert_eq!(scripted.layer_reads(), 0, "{types:?}");
        // Without a format, layers are what they are.
        options.materializer = None;
        pull(&scripted, &image, &cache, &options).await.unwrap();
    }
}

/// What is stored under the digest of a layer's uncompressed bytes may be another blob than the one that is read, and
/// damaged: the layer is what was verified.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_layer_is_used_as_far_as_it_is_the_one_that_is_read() {
    let registry = MemoryRegistry::new("a");
    let content = layer("a", 700_000);
    let zstd = zstd::encode_all(&*content, 1).unwrap();
    let layout = tempfile::tempdir().unwrap();
    let blob = layout.path().join("blobs/sha256").join(sha256(&content).digest());
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    let mut flipped = content.clone();
    flipped[600_000] ^= 1;
    let longer = [&*content, b"x"].concat();
    for (media_type, bytes) in [(TYPE.to_owned(), &content), (format!("{TYPE}+zstd"), &zstd)] {
        let image = name("example.com/app:1");
        put(&registry, &image, &media_type, bytes, &content);
        let source = registry.image(&image, &AMD64.parse().unwrap()).await.unwrap();
        for stored in
            [None, Some(&content[..]), Some(&content[1..]), Some(&flipped), Some(&longer), Some(b"")]
        {
            let _ = fs::remove_file(&blob);
            if let Some(stored) = stored {
                fs::write(&blob, stored).unwrap();
            }
            let options =
                || LayerOptions { layout: Some(layout.path().to_owned()), ..LayerOptions::default() };
            let mut copied = source.layer_tar_with(0, options()).await.unwrap();
            let mut read = source.layer_tar_with(0, options()).await.unwrap();
            let work = move || {
                let mut out = tempfile::tempfile().unwrap();
                copied.write_to(&mut out).unwrap();
                let mut whole = Vec::new();
                out.rewind().unwrap();
                out.read_to_end(&mut whole).unwrap();
                assert!(copied.next_entry().unwrap().is_none(), "the bytes are read");
                let mut file = Vec::new();
                let entry = read.next_entry().unwrap().unwrap();
                let EntryKind::Node(FileKind::File { size, .. }) = entry.kind else { panic!("{entry:?}") };
                let keep = |bytes: &[u8]| {
                    file.extend_from_slice(bytes);
                    Ok(())
                };
                read.copy_data(size, keep).unwrap();
                let summaries = [copied, read].map(|mut tar| tar.finish().unwrap());
                (whole, file, summaries)
            };
            let (whole, file, summaries) = tokio::task::spawn_blocking(work).await.unwrap();
            assert!(whole == content && file == content);
            assert!(summaries.into_iter().all(|summary| summary.diff_id == Some(sha256(&content))));
        }
    }
}

/// Runs of data that a reader of layers would take for others.
#[test]
fn the_runs_of_a_form_are_in_order_and_within_their_file() {
    static RUNS: LayerForm = LayerForm {
        name: "runs",
        media_types: &[],
        package: env!("CARGO_PKG_NAME"),
        check: |_| Ok(()),
        open: |mut file, _| {
            file.rewind().unwrap();
            let mut numbers = Vec::new();
            file.read_to_end(&mut numbers).unwrap();
            Ok(Box::new(Runs(Some(numbers))))
        },
    };
    /// A file of 100 bytes, with these runs: offset and length.
    struct Runs(Option<Vec<u8>>);
    impl LayerEntries for Runs {
        fn next_entry(&mut self) -> Result<Option<Entry>> {
            let Some(numbers) = self.0.take() else { return Ok(None) };
            let number = |byte: u8| if byte == 255 { u64::MAX } else { byte.into() };
            let runs = numbers
                .chunks(2)
                .map(|run| DataExtent { offset: number(run[0]), length: number(run[1]) })
                .collect();
            let kind = EntryKind::Node(FileKind::File { size: 100, content: Some(runs) });
            Ok(Some(Entry { path: ImagePath::parse(b"f")?, kind, metadata: Metadata::default() }))
        }

        fn read(&mut self, _: &mut [u8]) -> Result<usize> {
            Ok(0)
        }
    }
    let first = |runs: &[u8]| {
        let options = LayerOptions { form: Some(&RUNS), ..LayerOptions::default() };
        let mut tar = LayerTar::new(std::io::Cursor::new(runs.to_vec()), options).unwrap();
        tar.next_entry()
    };
    for sound in [&[][..], &[0, 100], &[10, 10, 20, 5, 90, 10]] {
        assert!(first(sound).unwrap().is_some(), "{sound:?}");
    }
    for bad in [&[50, 10, 40, 5][..], &[0, 10, 9, 5], &[0, 101], &[101, 0], &[5, 255], &[255, 255]] {
        let error = first(bad).unwrap_err();
        assert_eq!((error.kind(), error.context("path")), (&ErrorKind::Corrupt, Some("/f")), "{bad:?}");
    }
}

#[test]
fn what_belongs_to_tars_is_refused() {
    let content = layer("a", 10);
    let open = |form| {
        let options = LayerOptions { form, hashing: Hashing::Nothing, ..LayerOptions::default() };
        LayerTar::new(std::io::Cursor::new(content.clone()), options).unwrap()
    };
    let mut whole = open(of(TYPE).unwrap());
    assert_eq!(whole.form().map(|form| form.name), Some("whole"));
    let error = whole.copy_to(std::io::sink()).unwrap_err();
    assert_eq!(error.detail(), Some(&LayerFault::NoTar("whole")));
    assert!(whole.next_entry().unwrap().is_some());
    let error = whole.write_to(&mut tempfile::tempfile().unwrap()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Internal, "after an entry");
    let error = open(None).write_to(&mut tempfile::tempfile().unwrap()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Internal, "a tar");
    let limits = LayerLimits { file: 100, ..LayerLimits::default() };
    let options = LayerOptions { form: of(TYPE).unwrap(), limits, ..LayerOptions::default() };
    let mut tar = LayerTar::new(std::io::Cursor::new(content.clone()), options).unwrap();
    assert_eq!(*tar.next_entry().unwrap_err().kind(), ErrorKind::Limit);
    // No crate that reads EROFS images is linked here.
    for media_type in ["application/vnd.erofs.layer.v1", "application/vnd.erofs+zstd"] {
        let error = of(media_type).unwrap_err();
        assert_eq!((error.kind(), error.hint().is_some()), (&ErrorKind::Unsupported, true));
    }
    assert_eq!(*of(&format!("{TYPE}+xz")).unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(of("application/vnd.other").unwrap().is_none());
}

#[test]
fn an_erofs_image_is_no_empty_tar() {
    let mut image = vec![0; 4096];
    let open = |bytes: &[u8]| {
        let mut tar = LayerTar::new(std::io::Cursor::new(bytes.to_vec()), LayerOptions::default())?;
        assert!(tar.next_entry()?.is_none());
        tar.finish()
    };
    open(&image).unwrap();
    image[1024..1028].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
    assert_eq!(open(&image).unwrap_err().detail(), Some(&LayerFault::Erofs));
    // Behind an entry it is data that belongs to none.
    open_after_an_entry(&image);
}

fn open_after_an_entry(image: &[u8]) {
    let bytes = [&layer("a", 10)[..1024], image].concat();
    let mut tar = LayerTar::new(std::io::Cursor::new(bytes), LayerOptions::default()).unwrap();
    assert!(tar.next_entry().unwrap().is_some() && tar.next_entry().unwrap().is_none());
    assert_eq!(tar.finish().unwrap().warnings.len(), 1);
}

#[test]
fn formats_of_forms_are_apart_and_short_enough() {
    let format = |options: &str| Format { options: options.to_owned(), ..Paths.format() };
    let form = of(TYPE).unwrap();
    let mut seen = Vec::new();
    for forms in
        [vec![None; 3], vec![form; 3], vec![form, None, form], vec![None, form, form], vec![None, None, form]]
    {
        for options in ["", "b512", &"x".repeat(Format::OPTIONS_BYTES)] {
            let made = format(options).of_forms(&forms);
            assert!(made.options.len() <= Format::OPTIONS_BYTES && !seen.contains(&made.options), "{made}");
            let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(made.options.bytes().all(valid), "{made}");
            seen.push(made.options);
        }
    }
    assert_eq!(format("").of_forms(&[None, None]), format(""));
    assert_eq!(format("").of_form(form), format("").of_forms(&[form, form]));
}
