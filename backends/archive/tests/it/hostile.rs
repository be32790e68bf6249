//! Bad and odd archives (rows 51 to 57 of the catalogue of bad inputs, and their kin).

use std::io::Write as _;

use plyfold_archive::{Archive, Config};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Backends, BlobRange, CacheProviderExt, Descriptor, ErrorKind, ImageRegistry, ImageRegistryExt,
    ImageSource, ImageSourceExt, MediaType, Opened, Options, Platform, PullOptions, RawManifest, Reference,
    Result, digest, pull, reference,
};

use crate::build::{OnDisk, Tar, config, config_name, layer, manifest};

fn name(text: &str) -> Reference {
    reference::parse(text).unwrap()
}

fn linux() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// Pulls `example.com/app:1` out of an archive; the bytes of its only layer.
async fn pulled(archive: &Archive) -> Result<usize> {
    let cache = MemoryCache::new()?;
    let image = name("example.com/app:1");
    let options = PullOptions { platform: linux(), ..PullOptions::default() };
    let result = pull(archive, &image, &cache, &options).await;
    if result.is_err() {
        assert!(!cache.image_in_cache(&image, &linux()).await?, "a failed pull left a name");
    }
    let layer = result?.layers.remove(0).descriptor;
    Ok(cache.content(&layer, 1 << 20).await?.len())
}

async fn verdict(tar: Tar) -> Option<ErrorKind> {
    pulled(&OnDisk::new(&tar.bytes()).archive()).await.err().map(|e| e.kind().clone())
}

fn sound(layer_name: &str) -> Tar {
    Tar::new()
        .file("manifest.json", manifest(&["example.com/app:1"], layer_name))
        .file(&config_name(), config())
}

#[tokio::test]
async fn names_never_lead_out_of_the_archive() {
    let disk = OnDisk::new(&[]);
    let outside = disk.folder.path().join("outside.tar");
    std::fs::write(&outside, layer()).unwrap();
    for target in ["../outside.tar", "../../outside.tar", outside.to_str().unwrap()] {
        assert_eq!(verdict(sound(target).file("a", "")).await, Some(ErrorKind::NotFound), "{target}");
        let linked = sound("x/layer.tar").link("x/layer.tar", &format!("../{target}"));
        assert_eq!(verdict(linked).await, Some(ErrorKind::NotFound), "link to {target}");
    }
    // A member that is named by a path out of the archive is no member at all.
    assert_eq!(
        verdict(sound("../outside.tar").file("../outside.tar", layer())).await,
        Some(ErrorKind::NotFound)
    );
}

/// A download that was cut between two members: what follows might have been another list or the next image.
#[tokio::test]
async fn an_archive_without_its_end_is_refused() {
    let tar = sound("x/layer.tar").file("x/layer.tar", layer()).bytes();
    assert!(tar.ends_with(&[0; 1024]));
    let disk = OnDisk::new(&tar[..tar.len() - 1024]);
    let error = pulled(&disk.archive()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("truncated"), "{error}");
    // Some writers end by one block, and others fill a record of 10,240 bytes.
    for zeros in [512, 1024, 9 * 512, 10_240] {
        let mut ended = tar[..tar.len() - 1024].to_vec();
        ended.resize(ended.len() + zeros, 0);
        assert!(pulled(&OnDisk::new(&ended).archive()).await.is_ok(), "{zeros}");
    }
}

#[tokio::test]
async fn links_inside_the_archive_are_followed_and_circles_end() {
    let inside = sound("x/layer.tar").link("x/layer.tar", "../y/layer.tar").file("y/layer.tar", layer());
    assert_eq!(verdict(inside).await, None);
    let circle =
        sound("x/layer.tar").link("x/layer.tar", "../y/layer.tar").link("y/layer.tar", "../x/layer.tar");
    assert_eq!(verdict(circle).await, Some(ErrorKind::Corrupt));
}

#[tokio::test]
async fn two_documents_of_one_name_are_ambiguous_in_either_order() {
    let evil = manifest(&["example.com/app:1"], "evil.tar");
    assert_eq!(
        verdict(sound("a").file("a", layer()).file("manifest.json", &evil)).await,
        Some(ErrorKind::Ambiguous)
    );
    let cased = manifest(&["example.com/app:1"], "a").replace("Layers", "layers");
    let tar = Tar::new().file("manifest.json", cased).file(&config_name(), config()).file("a", layer());
    assert_eq!(verdict(tar).await, Some(ErrorKind::Ambiguous));
}

#[tokio::test]
async fn a_config_is_named_by_what_it_hashes_to() {
    let text = manifest(&["example.com/app:1"], "a").replace(&config_name(), "config.json");
    let tar = Tar::new().file("manifest.json", text).file("config.json", config()).file("a", layer());
    let disk = OnDisk::new(&tar.bytes());
    let source = disk.archive().image(&name("example.com/app:1"), &linux()).await.unwrap();
    let id = digest::sha256(&config());
    assert_eq!(*source.manifest().unwrap().config().digest(), id);
    assert_eq!(source.config().await.unwrap().bytes(), &config());
}

#[tokio::test]
async fn names_that_are_none_are_left_out_and_the_others_stay() {
    let text = manifest(&["../../evil:x y", "example.com/app:1"], "a");
    let tar = Tar::new().file("manifest.json", text).file(&config_name(), config()).file("a", layer());
    let disk = OnDisk::new(&tar.bytes());
    assert!(pulled(&disk.archive()).await.is_ok());
    let opened = Opened { registry: Box::new(disk.archive()), reference: None };
    assert_eq!(opened.references().await.unwrap(), [name("example.com/app:1")]);
    assert_eq!(*reference::parse("../../evil:x y").unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn several_images_and_none_chosen_is_ambiguous_with_the_list() {
    let both = serde_json::json!([
        { "Config": config_name(), "RepoTags": ["example.com/app:1"], "Layers": ["a"] },
        { "Config": "other.json", "RepoTags": ["example.com/app:2"], "Layers": ["a"] },
    ]);
    let other = [&config()[..], b"\n"].concat();
    let tar =
        Tar::new().file("manifest.json", both.to_string()).file(&config_name(), config()).file("a", layer());
    let tar = tar.file("other.json", other);
    let disk = OnDisk::new(&tar.bytes());
    let uri = format!("docker-archive:{}", disk.path.display());
    let backends = Backends::linked().unwrap();
    let error = backends.open(&uri, &Options::default()).await.unwrap().reference().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Ambiguous);
    assert!(error.message().contains("example.com/app:1, example.com/app:2"), "{error}");
    let chosen = backends.open(&format!("{uri}:example.com/app:2"), &Options::default()).await.unwrap();
    assert_eq!(chosen.reference().await.unwrap(), name("example.com/app:2"));
    assert!(backends.open(&format!("{uri}:UPPER/x y"), &Options::default()).await.is_err());
}

#[tokio::test]
async fn one_broken_image_leaves_the_others_readable() {
    let both = serde_json::json!([
        { "Config": config_name(), "RepoTags": ["example.com/broken:1"], "Layers": ["missing"] },
        { "Config": config_name(), "RepoTags": ["example.com/app:1"], "Layers": ["a"] },
    ]);
    let tar =
        Tar::new().file("manifest.json", both.to_string()).file(&config_name(), config()).file("a", layer());
    let archive = OnDisk::new(&tar.bytes());
    assert!(pulled(&archive.archive()).await.is_ok());
    let broken = archive.archive().manifest(&name("example.com/broken:1")).await.unwrap_err();
    assert_eq!(*broken.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn headers_are_bounded_before_they_are_held() {
    let long = vec![b'a'; 2 << 20];
    for kind in [b'L', b'K', b'x'] {
        let tar = Tar::new().raw("extension", kind, &long).file("a", layer());
        assert_eq!(verdict(tar).await, Some(ErrorKind::Limit), "{}", char::from(kind));
    }
}

/// The layer is a hole of 64 GiB: reading it would take minutes.
#[tokio::test]
async fn opening_an_archive_reads_no_layer() {
    const HOLE: u64 = 64 << 30;
    let disk = OnDisk::new(&sound("a").bytes()[..]);
    let mut file = std::fs::File::options().write(true).open(&disk.path).unwrap();
    let end = file.metadata().unwrap().len() - 1024;
    let mut header = tar::Header::new_gnu();
    header.set_path("a").unwrap();
    header.set_size(HOLE);
    header.set_cksum();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(end)).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(end + 512 + HOLE + 1024).unwrap();
    let source = disk.archive().image(&name("example.com/app:1"), &linux()).await.unwrap();
    assert_eq!(source.layers().unwrap()[0].size(), HOLE);
}

#[tokio::test]
async fn what_is_no_archive_is_refused_by_kind() {
    let blanks = Tar::new().file("manifest.json", vec![b' '; 64 << 20]);
    assert_eq!(verdict(blanks).await, Some(ErrorKind::Limit));
    assert_eq!(verdict(Tar::new().file("etc/passwd", "root")).await, Some(ErrorKind::Corrupt));
    assert_eq!(verdict(Tar::new().file("manifest.json", "[]")).await, Some(ErrorKind::Corrupt));
    assert_eq!(verdict(sound("missing.tar")).await, Some(ErrorKind::NotFound));
    assert_eq!(verdict(sound("a").file("a", "not the layer")).await, Some(ErrorKind::Corrupt));
    for content in [Vec::new(), vec![0; 1024], b"#!/bin/sh\n".repeat(100)] {
        let error = pulled(&OnDisk::new(&content).archive()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    }
    let whole = sound("a").file("a", layer()).bytes();
    let cut = OnDisk::new(&whole[..whole.len() - 1024 - 600]);
    assert_eq!(*pulled(&cut.archive()).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let folder = tempfile::TempDir::new().unwrap();
    let missing = Archive::new(folder.path().join("nothing.tar"), Config::default());
    assert_eq!(*pulled(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
    let directory = Archive::new(folder.path(), Config::default());
    assert_eq!(*pulled(&directory).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let device = pulled(&Archive::new("/dev/null", Config::default())).await.unwrap_err();
    assert_eq!(*device.kind(), ErrorKind::Config, "{device}");
    assert!(device.hint().is_some_and(|hint| !hint.contains("oci:")), "{device:?}");
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let pipe = Archive::new(pipe, Config::default());
    assert_eq!(*pulled(&pipe).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn an_archive_may_be_compressed_as_a_whole_up_to_a_bound() {
    let plain = sound("a").file("a", layer()).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for whole in [gzip.finish().unwrap(), zstd, xz(&plain, 1 << 20), bzip2(&plain)] {
        let disk = OnDisk::new(&whole);
        assert_eq!(pulled(&disk.archive()).await.unwrap(), layer().len());
        let tight =
            Archive::new(&disk.path, Config { spool_limit: plain.len() as u64 - 1, ..Config::default() });
        assert_eq!(*pulled(&tight).await.unwrap_err().kind(), ErrorKind::Limit);
        let cut = OnDisk::new(&whole[..whole.len() / 2]);
        assert_eq!(*pulled(&cut.archive()).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn compressed_layers_are_described_as_they_are() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer()).unwrap();
    let compressed = gzip.finish().unwrap();
    let disk = OnDisk::new(&sound("a").file("a", &compressed).bytes());
    let archive = disk.archive();
    let source = archive.image(&name("example.com/app:1"), &linux()).await.unwrap();
    let layer = &source.layers().unwrap()[0];
    assert!(layer.media_type().to_string().ends_with("+gzip"));
    let read = source.blob(layer, BlobRange::FULL).await.unwrap().bytes(1 << 20).await.unwrap();
    assert_eq!(read, compressed);
    let part = source.blob(layer, BlobRange::new(2, 10)).await.unwrap().bytes(1 << 20).await.unwrap();
    assert_eq!(part, compressed[2..10]);
}

fn bzip2(plain: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn xz(plain: &[u8], window: u32) -> Vec<u8> {
    use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
    let mut options = LzmaOptions::new_preset(0).unwrap();
    options.dict_size(window);
    let stream = Stream::new_stream_encoder(Filters::new().lzma2(&options), Check::Crc64).unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_decoder_has_bounded_memory() {
    let plain = sound("a").file("a", layer()).bytes();
    assert!(pulled(&OnDisk::new(&xz(&plain, 64 << 20)).archive()).await.is_ok(), "xz -9");
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    zstd.long_distance_matching(true).unwrap();
    zstd.window_log(28).unwrap();
    zstd.write_all(&plain).unwrap();
    for (what, greedy) in [("xz", xz(&plain, 1 << 30)), ("zstd", zstd.finish().unwrap())] {
        let error = pulled(&OnDisk::new(&greedy).archive()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Limit, "{what}: {error:?}");
    }
}

/// What an archive is compressed by, and whether it comes through a pipe, makes no difference.
#[tokio::test(flavor = "multi_thread")]
async fn archives_come_through_pipes_in_every_form() {
    let plain = sound("a").file("a", layer()).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let forms = [
        plain.clone(),
        gzip.finish().unwrap(),
        zstd::encode_all(plain.as_slice(), 1).unwrap(),
        xz(&plain, 1 << 20),
        bzip2(&plain),
    ];
    let folder = tempfile::TempDir::new().unwrap();
    for (place, form) in forms.into_iter().enumerate() {
        // As a shell substitutes a process.
        let (reader, mut writer) = std::io::pipe().unwrap();
        let bytes = form.clone();
        let writing = std::thread::spawn(move || {
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            writer.write_all(first).unwrap();
            // Its first bytes are no promise of the others.
            std::thread::sleep(std::time::Duration::from_millis(300));
            writer.write_all(rest).unwrap();
        });
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&reader);
        for (scheme, image) in [("docker-archive", ":example.com/app:1")] {
            let uri = format!("{scheme}:/proc/self/fd/{descriptor}{image}");
            let opened = Backends::linked().unwrap().open(&uri, &Options::default()).await.unwrap();
            let image = opened.reference().await.unwrap();
            assert!(opened.registry.image(&image, &linux()).await.is_ok(), "form {place}");
        }
        writing.join().unwrap();
        drop(reader);
        // A pipe with a name, whose writer comes later.
        let pipe = folder.path().join(format!("pipe{place}"));
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
        let path = pipe.clone();
        let writing = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            std::fs::write(path, form).unwrap();
        });
        assert_eq!(pulled(&Archive::new(&pipe, Config::default())).await.unwrap(), layer().len());
        writing.join().unwrap();
        assert!(std::fs::symlink_metadata(&pipe).is_ok());
    }
    let tight = Config { spool_limit: plain.len() as u64 - 1, ..Config::default() };
    let (reader, mut writer) = std::io::pipe().unwrap();
    let writing = std::thread::spawn(move || drop(writer.write_all(&plain)));
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    assert_eq!(*pulled(&Archive::new(path, tight)).await.unwrap_err().kind(), ErrorKind::Limit);
    drop(reader);
    writing.join().unwrap();
}

/// A pipe may stay silent: a caller that gives up leaves no thread behind, which the end of the runtime would wait for.
#[test]
fn a_silent_pipe_is_waited_for_no_longer_than_its_caller_does() {
    let (reader, writer) = std::io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    let archive = Archive::new(path, Config::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let image = name("example.com/app:1");
    // Longer than a pipe without a writer is waited for.
    let patience = std::time::Duration::from_secs(4);
    let waited = runtime.block_on(async { tokio::time::timeout(patience, archive.manifest(&image)).await });
    assert!(waited.is_err(), "a pipe with a writer is waited for");
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        done.send(()).unwrap();
    });
    ended.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    drop((reader, writer));
}

/// Compared with each other the names would take hours.
#[tokio::test]
async fn thousands_of_names_of_one_image_in_both_lists_are_read() {
    let start = std::time::Instant::now();
    let config = config();
    let blob_of =
        |kind: MediaType, bytes: &[u8]| Descriptor::new(kind, bytes.len() as u64, digest::sha256(bytes));
    let document = serde_json::json!({
        "schemaVersion": 2, "config": blob_of(MediaType::ImageConfig, &config),
        "layers": [blob_of(MediaType::ImageLayer, &layer())],
    });
    let image = RawManifest::new(document.to_string(), Some(&MediaType::ImageManifest)).unwrap();
    let blob = |digest: &str| format!("blobs/sha256/{digest}");
    let entries: Vec<_> = (0..3000)
        .map(|at| {
            let mut entry = serde_json::to_value(image.descriptor()).unwrap();
            entry["annotations"] = serde_json::json!({
                "io.containerd.image.name": format!("a.lan/a:{at}"), "org.opencontainers.image.ref.name": at.to_string(),
            });
            entry
        })
        .collect();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
    let config_name = blob(digest::sha256(&config).digest());
    let items: Vec<_> = (0..3000)
        .map(|at| serde_json::json!({ "Config": config_name, "RepoTags": [format!("b.lan/b:{at}")], "Layers": ["l"] }))
        .collect();
    let tar = Tar::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.to_string())
        .file("manifest.json", serde_json::Value::from(items).to_string())
        .file(&blob(image.digest().digest()), image.bytes())
        .file(&config_name, config)
        .file("l", layer());
    let disk = OnDisk::new(&tar.bytes());
    let opened = Opened { registry: Box::new(disk.archive()), reference: None };
    assert_eq!(opened.references().await.unwrap().len(), 6000);
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}
