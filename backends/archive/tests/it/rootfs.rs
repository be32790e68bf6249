//! The tar of a root file system as an image.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use plyfold_archive::{Config, TarImage};
use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_core::edit::{ConfigChange, EditFault};
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Backends, BlobRange, CopyOptions, Descriptor, Error, ErrorKind, FlatOptions, ImageRegistry as _,
    ImageRegistryExt as _, ImageSourceExt as _, ImageSourceTars as _, OptionFault, Options, Platform,
    RawManifest, Result, copy, digest, reference,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use crate::build::Tar;

fn tar() -> Vec<u8> {
    LayerBuilder::new()
        .dir("etc", 0o755)
        .file("etc/os-release", 0o644, b"ID=test\n")
        .symlink("bin", "usr/bin")
        .finish()
}

fn linux() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn image(path: &Path) -> TarImage {
    TarImage::new(path, &linux(), ConfigChange::default()).unwrap()
}

async fn top(path: &Path) -> Result<RawManifest> {
    let image = image(path);
    image.manifest(image.name()).await
}

async fn config_of(image: &TarImage) -> Value {
    let source = image.image(image.name(), &linux()).await.unwrap();
    serde_json::from_slice(source.config().await.unwrap().bytes()).unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The pattern of a file, with the type of its layer and whether that is the file as it is.
fn packed() -> [(&'static str, Vec<u8>, &'static str, bool); 5] {
    let tar = tar();
    [
        ("plain", tar.clone(), "application/vnd.oci.image.layer.v1.tar", true),
        (
            "gzip",
            samples::gzip(&[&tar[..700], &tar[700..]]),
            "application/vnd.oci.image.layer.v1.tar+gzip",
            true,
        ),
        ("zstd", samples::zstd(&[&tar]), "application/vnd.oci.image.layer.v1.tar+zstd", true),
        ("xz", xz(&tar), "application/vnd.oci.image.layer.v1.tar", false),
        ("bzip2", bzip2(&tar), "application/vnd.oci.image.layer.v1.tar", false),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_is_one_layer_however_it_is_packed_and_comes() {
    let folder = TempDir::new().unwrap();
    let diff_id = digest::sha256(&tar());
    let plain = folder.path().join("plain");
    for (how, bytes, media_type, is_kept) in packed() {
        let path = folder.path().join(how);
        fs::write(&path, &bytes).unwrap();
        let found = image(&path);
        let raw = found.manifest(found.name()).await.unwrap();
        let [layer] = raw.image().unwrap().layers().as_slice() else { panic!("{how}: {raw:?}") };
        assert_eq!(layer.media_type().as_ref(), media_type, "{how}");
        let content =
            found.blob(found.name(), layer, BlobRange::FULL).await.unwrap().bytes(1 << 20).await.unwrap();
        assert!(content == if is_kept { bytes.clone() } else { tar() }, "{how}");
        if !is_kept {
            assert_eq!(raw.digest(), top(&plain).await.unwrap().digest(), "{how}");
        }
        let document = config_of(&found).await;
        assert_eq!(document["rootfs"]["diff_ids"], json!([diff_id]), "{how}");
        assert!(document.get("created").is_none() && document["config"].is_null(), "{how}: {document}");
        // Under another name, and through a pipe.
        let other = folder.path().join("other.tar");
        fs::write(&other, &bytes).unwrap();
        assert_eq!(top(&other).await.unwrap().digest(), raw.digest(), "{how}");
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let (to, content) = (pipe.clone(), bytes);
        let writer = std::thread::spawn(move || fs::write(to, content));
        let options = Options::parse(["platform=linux/amd64"]).unwrap();
        let uri = format!("tar:{}", pipe.display());
        let opened = Backends::linked().unwrap().open(&uri, &options).await.unwrap();
        writer.join().unwrap().unwrap();
        fs::remove_file(&pipe).unwrap();
        let name = opened.reference().await.unwrap();
        let memory = MemoryRegistry::new("out");
        let copied = copy(&*opened.registry, &name, &memory, &name, &CopyOptions::default()).await.unwrap();
        assert_eq!(copied.digest(), raw.digest(), "{how} through a pipe");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_files_are_those_of_the_tar() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rootfs.tar.gz");
    fs::write(&path, samples::gzip(&[&tar()])).unwrap();
    let found = image(&path);
    let source = found.image(found.name(), &linux()).await.unwrap();
    let mut flat = Vec::new();
    source.tar_reader(&FlatOptions::default()).await.unwrap().read_to_end(&mut flat).await.unwrap();
    let mut names: Vec<String> = Vec::new();
    for entry in tar::Archive::new(&flat[..]).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    names.retain(|name| name != "./" && !name.is_empty());
    assert_eq!(
        names.iter().map(|name| name.trim_end_matches('/')).collect::<Vec<_>>(),
        ["bin", "etc", "etc/os-release"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_its_configuration() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("My Root.tar.xz");
    fs::write(&path, xz(&tar())).unwrap();
    let open = async |uri: &str, options: &[&str]| {
        let options = Options::parse(options.iter().copied()).unwrap();
        Backends::linked().unwrap().open(uri, &options).await
    };
    let uri = format!("tar:{}", path.display());
    let options = [
        "platform=linux/arm64/v8",
        r#"entrypoint=["/init", "--a b"]"#,
        "cmd=one",
        "cmd=2",
        "env=PATH=/bin",
        "env=EMPTY=",
        "label=a=b=c",
        "user=1000",
        "workdir=/srv",
        "expose=80",
        "expose=53/udp",
        "volume=/data",
        "stop-signal=SIGINT",
    ];
    let opened = open(&uri, &options).await.unwrap();
    let name = opened.reference().await.unwrap();
    assert_eq!(name.whole(), "localhost/my-root:latest");
    let source = opened.registry.image(&name, &"linux/arm64".parse().unwrap()).await.unwrap();
    let config: Value = serde_json::from_slice(source.config().await.unwrap().bytes()).unwrap();
    assert_eq!(
        config["config"],
        json!({
            "Cmd": ["one", "2"], "Entrypoint": ["/init", "--a b"], "Env": ["PATH=/bin", "EMPTY="],
            "ExposedPorts": { "53/udp": {}, "80/tcp": {} }, "Labels": { "a": "b=c" }, "StopSignal": "SIGINT",
            "User": "1000", "Volumes": { "/data": {} }, "WorkingDir": "/srv",
        })
    );
    assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!("arm64")));
    for (place, whole) in [("3.20", "localhost/my-root:3.20"), ("org.example/app:1", "org.example/app:1")] {
        let opened = open(&format!("{uri}:{place}"), &[]).await.unwrap();
        assert_eq!(opened.reference().await.unwrap().whole(), whole);
        let listed = opened.references().await.unwrap();
        assert_eq!(listed.iter().map(reference::Reference::whole).collect::<Vec<_>>(), [whole]);
    }
    // Its platform is not that of one processor alone.
    let opened = open(&uri, &[]).await.unwrap();
    let source = opened.registry.image(&opened.reference().await.unwrap(), &Platform::host()).await.unwrap();
    let config: Value = serde_json::from_slice(source.config().await.unwrap().bytes()).unwrap();
    assert_eq!((config["os"].as_str(), config.get("variant")), (Some(Platform::host().os()), None));
    // At once, before the file is looked at.
    for (option, is_of_edit) in [
        ("env=A", false),
        ("label=x", false),
        ("platform=", false),
        ("colour=red", false),
        ("env==x", true),
        ("expose=web", true),
        ("workdir=srv", true),
        ("volume=data", true),
    ] {
        let error = open("tar:/nowhere/x.tar", &[option]).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config, "{option}: {error}");
        assert_eq!(error.context("option"), option.split_once('=').map(|(key, _)| key), "{error:?}");
        assert_eq!(error.detail::<EditFault>().is_some(), is_of_edit, "{option}: {error:?}");
        assert_eq!(error.detail::<OptionFault>().is_some(), !is_of_edit, "{option}: {error:?}");
    }
    let hex = "0".repeat(64);
    for uri in ["tar:".to_owned(), format!("tar:x.tar@sha256:{hex}"), format!("tar:x.tar:v1@sha256:{hex}")] {
        assert_eq!(*open(&uri, &[]).await.unwrap_err().kind(), ErrorKind::Config, "{uri}");
    }
}

/// The error that each file gives, before any of its content is an image.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_root_file_system_is_refused() {
    let folder = TempDir::new().unwrap();
    let (tar, gzip) = (tar(), samples::gzip(&[&tar()]));
    let flipped = |at: usize| {
        let mut bytes = gzip.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    let cases: [(&str, Vec<u8>); 9] = [
        ("text", b"no tar at all, but a text".to_vec()),
        ("cut off in a file", tar[..1028].to_vec()),
        ("cut off in a header", tar[..100].to_vec()),
        ("compressed, cut off", gzip[..gzip.len() - 9].to_vec()),
        ("compressed, damaged", flipped(gzip.len() / 2)),
        ("compressed, a wrong checksum", flipped(gzip.len() - 7)),
        ("xz, cut off", xz(&tar)[..40].to_vec()),
        ("a path that leads out", Tar::new().file("../../etc/passwd", "root").bytes()),
        ("a hard link that leads out", Tar::new().hard_link("x", "../../etc/passwd").bytes()),
    ];
    for (what, bytes) in cases {
        let path = folder.path().join("root.tar");
        fs::write(&path, bytes).unwrap();
        let error = top(&path).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.context("endpoint").is_some(), "{what}: {error:?}");
    }
    let absent = top(&folder.path().join("absent")).await.unwrap_err();
    assert_eq!(*absent.kind(), ErrorKind::NotFound, "{absent}");
    let directory = top(folder.path()).await.unwrap_err();
    assert_eq!(*directory.kind(), ErrorKind::Corrupt);
    assert!(directory.hint().is_some_and(|hint| hint.contains("`tar -C")), "{directory:?}");
    // What expands without an end is bounded, and never in memory.
    let path = folder.path().join("bomb.tar.xz");
    fs::write(&path, xz(&vec![0; 8 << 20])).unwrap();
    let bounded = image(&path).with_config(Config { spool_limit: 1 << 20, ..Config::default() });
    assert_eq!(*bounded.manifest(bounded.name()).await.unwrap_err().kind(), ErrorKind::Limit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_that_changes_is_an_error_and_no_other_image() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("root.tar");
    fs::write(&path, tar()).unwrap();
    let found = image(&path);
    let raw = found.manifest(found.name()).await.unwrap();
    let layer: Descriptor = raw.image().unwrap().layers()[0].clone();
    let mut other = tar();
    other[600] ^= 1;
    fs::write(&path, &other).unwrap();
    let read: Result<_, Error> =
        async { found.blob(found.name(), &layer, BlobRange::FULL).await?.bytes(1 << 20).await }.await;
    assert_eq!(*read.unwrap_err().kind(), ErrorKind::Corrupt);
    let unknown = Descriptor::new("application/octet-stream".into(), 1, digest::sha256(b"x"));
    let missing = found.blob(found.name(), &unknown, BlobRange::FULL).await.unwrap_err();
    assert_eq!(*missing.kind(), ErrorKind::NotFound);
    let other = found.manifest(&reference::parse("localhost/other:latest").unwrap()).await.unwrap_err();
    assert_eq!(*other.kind(), ErrorKind::NotFound);
}
