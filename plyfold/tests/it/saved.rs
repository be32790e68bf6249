//! Archives that are written, and loaded again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use plyfold::atomic_file::FileOptions;
use plyfold::memory::MemoryRegistry;
use plyfold::save::{ArchiveForm, SaveOptions};
use plyfold::{
    Advice, CacheProviderExt as _, CopyOptions, ErrorKind, ImageRegistry as _, Images, LoadOptions,
    MediaType, Platforms, copy, digest, reference,
};
use plyfold_conformance::samples::{self, Sample};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::baseline;
use super::run::Place;

const NAME: &str = "registry.example/org/app:1.2";

#[test]
fn runs_are_as_they_were() {
    let place = Place::new();
    let text = [
        place.run("save localhost/sample:latest --out {}/none.tar -q"),
        place.run("load examples/sample -q --platform linux/amd64"),
        place.run("save localhost/sample:latest --out {}/sample.tar"),
        place.run("save localhost/sample:latest --out {}/same.tar -q --json"),
        place.run("save localhost/sample:latest --out {}/docker.tar --format docker --platform linux/amd64"),
        place.run("save localhost/sample:latest --out {}/delta.tar -q --since {}/sample.tar"),
        place.run("save oci:examples/sample:latest --out {}/no.tar -q --format docker"),
        place.run("save localhost/sample:latest --out - --json"),
        place.run("save localhost/sample:latest --out {}/no.tar --format docker --no-docker-list"),
        place.run("save localhost/sample:latest --out {}/no.tar -q --format docker --platform linux/amd64 --referrers"),
        place.run("save oci-archive:{}/sample.tar --out {}/sample.tar"),
        place.run("save localhost/sample:latest --out {}/no.tar.gz"),
        place.run("export localhost/sample:latest --out {}/no.tgz"),
        place.run("save oci-archive:{}/sample.tar --out {}/copied.tar -q --no-docker-list"),
        place.run("pull localhost/sample:latest --platform linux/amd64 --platform linux/arm64"),
        place.run("copy oci:examples/sample:latest oci-archive:{}/into.tar:1 -q"),
        place.run("copy oci:examples/sample:latest docker-archive:{}/into.tar:example.com/app:2 -q --platform linux/amd64"),
        place.run("push localhost/sample:latest oci-archive:{}/into.tar:3 -q --rewrite-index"),
        place.run("load {}/into.tar --list"),
        place.run("load {}/same.tar --store {}/other -q --platform linux/amd64"),
        place.run("load {}/delta.tar --store {}/third -q --platform linux/amd64"),
    ]
    .concat();
    baseline::check("plyfold/tests/it/runs/save.txt", text.as_bytes());
    let read = |name: &str| fs::read(place.path(name)).unwrap();
    assert!(read("sample.tar") == read("same.tar"));
    let stores = |name: &String| name.starts_with("other/") || name.starts_with("third/");
    let names: BTreeSet<_> = place.files().into_iter().filter(|name| !stores(name)).collect();
    let expected = ["copied.tar", "delta.tar", "docker.tar", "into.tar", "same.tar", "sample.tar"];
    assert_eq!(names, expected.iter().map(ToString::to_string).collect(), "and nothing temporary");
}

async fn open(folder: &Path) -> Images {
    Images::open(folder).await.unwrap()
}

/// A store with a sample under [`NAME`].
async fn stored(sample: &Sample) -> (TempDir, Images) {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    samples::write_layout(&layout, &[(NAME.to_owned(), sample)]).unwrap();
    let images = open(&folder.path().join("store")).await;
    images.load(&format!("oci:{}", layout.display()), LoadOptions::default()).await.unwrap();
    (folder, images)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_and_loaded_has_the_same_digests() {
    let saved = SaveOptions::default();
    for sample in samples::whole() {
        let (folder, images) = stored(&sample).await;
        let path = folder.path().join("saved.tar");
        images.save_to(&[NAME], &saved, &path, FileOptions::default()).await.unwrap();
        let mut stream = Vec::new();
        images.save(&[NAME], &saved).await.unwrap().read_to_end(&mut stream).await.unwrap();
        assert!(fs::read(&path).unwrap() == stream, "{}: the file is not the stream", sample.name);
        let other = open(&folder.path().join("other")).await;
        let loaded = other.load_from(&stream[..], LoadOptions::default()).await.unwrap();
        assert_eq!(loaded.len(), 1, "{}: {loaded:?}", sample.name);
        assert_eq!(loaded[0].reference.whole(), NAME, "{}", sample.name);
        assert_eq!(loaded[0].digest, *sample.top.digest(), "{}", sample.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_form_keeps_the_config() {
    let sample = samples::image();
    let (folder, images) = stored(&sample).await;
    let path = folder.path().join("saved.tar");
    let form = SaveOptions { form: ArchiveForm::Docker, ..SaveOptions::default() };
    images.save_to(&[NAME], &form, &path, FileOptions::default()).await.unwrap();
    let other = open(&folder.path().join("other")).await;
    let one = Platforms::One(sample.images[0].platform.parse().unwrap());
    let one = LoadOptions { platforms: one, ..LoadOptions::default() };
    let loaded = other.load(&format!("docker-archive:{}", path.display()), one).await.unwrap();
    let source = other.source(loaded[0].image.as_ref().unwrap());
    let config = plyfold::ImageSourceExt::config(&source).await.unwrap();
    assert_eq!(config.descriptor().digest(), sample.images[0].config.digest());
}

/// As cp and a shell do it: who may read an archive does not change by writing it again.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_keeps_its_mode() {
    let (folder, images) = stored(&samples::image()).await;
    let path = folder.path().join("saved.tar");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    let save = async |file| images.save_to(&[NAME], &SaveOptions::default(), &path, file).await.unwrap();
    save(FileOptions::default()).await;
    for kept in [0o600, 0o664] {
        fs::set_permissions(&path, fs::Permissions::from_mode(kept)).unwrap();
        save(FileOptions::default()).await;
        assert_eq!(mode(), kept);
        let image = images
            .pull(NAME, plyfold::PullOptions { policy: plyfold::PullPolicy::Never, ..Default::default() });
        images
            .export_to(&image.await.unwrap(), &plyfold::FlatOptions::default(), &path, FileOptions::default())
            .await
            .unwrap();
        assert_eq!(mode(), kept);
    }
    save(FileOptions { mode: Some(0o640), ..FileOptions::default() }).await;
    assert_eq!(mode(), 0o640);
}

/// A delta is loaded over what it leaves out, and by itself it lacks that.
#[tokio::test(flavor = "multi_thread")]
async fn a_delta_is_loaded_over_its_base() {
    let sample = samples::image();
    let (folder, images) = stored(&sample).await;
    let path = folder.path().join("delta.tar");
    let base = images.save_base(NAME).await.unwrap();
    let since = SaveOptions { since: vec![base], ..SaveOptions::default() };
    let saved = images.save_to(&[NAME], &since, &path, FileOptions::default()).await.unwrap();
    assert_eq!(saved.size, fs::metadata(&path).unwrap().len());
    let archive = format!("oci-archive:{}", path.display());
    let listed = images.list_images(&archive).await.unwrap().remove(0);
    assert!(saved.left_out > 0 && listed.missing == saved.left_out, "{saved:?} {listed:?}");
    let whole = folder.path().join("whole.tar");
    let saved =
        images.save_to(&[NAME], &SaveOptions::default(), &whole, FileOptions::default()).await.unwrap();
    assert_eq!(saved.left_out, 0);
    let whole = images.list_images(&format!("oci-archive:{}", whole.display())).await.unwrap().remove(0);
    assert_eq!((whole.missing, whole.size), (0, listed.size));
    let loaded = images.load(&archive, LoadOptions::default()).await.unwrap();
    assert_eq!(loaded[0].digest, *sample.top.digest());
    let other = open(&folder.path().join("other")).await;
    let error = other.load(&archive, LoadOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(other.list_cached().await.unwrap().is_empty());
    let (from, name) = (other.locate(&archive).await.unwrap().registry, reference::parse(NAME).unwrap());
    let memory = MemoryRegistry::new("copy of a delta");
    let error = copy(&*from, &name, &memory, &name, &CopyOptions::default()).await.unwrap_err();
    assert!(matches!(error.advice(), Some(Advice::LoadBase { .. })), "{error:?}");
    // The content of the whole layout directory is a base, too.
    let by_place =
        images.save_base(&format!("oci:{}", folder.path().join("layout").display())).await.unwrap();
    let since = SaveOptions { since: vec![by_place], ..SaveOptions::default() };
    let again = folder.path().join("again.tar");
    images.save_to(&[NAME], &since, &again, FileOptions::default()).await.unwrap();
    let sizes = [&path, &again].map(|path| fs::metadata(path).unwrap().len());
    assert_eq!(sizes[0], sizes[1], "both leave out the same layers");
}

/// What refers to an image comes with it, and is listed again where it is loaded.
#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_saved_and_loaded() {
    let sample = samples::image();
    let (folder, images) = stored(&sample).await;
    let name = reference::parse(NAME).unwrap();
    let kind = MediaType::Other("application/spdx+json".to_owned());
    let attached = images.cache().attach(&name, &sample.top, &kind, b"{\"spdxVersion\":1}").await.unwrap();
    let path = folder.path().join("saved.tar");
    for referrers in [false, true] {
        let options = SaveOptions { referrers, ..SaveOptions::default() };
        images.save_to(&[NAME], &options, &path, FileOptions::default()).await.unwrap();
        let other = open(&folder.path().join(format!("other-{referrers}"))).await;
        other.load(&format!("oci-archive:{}", path.display()), LoadOptions::default()).await.unwrap();
        let listed = other.cache().as_registry().referrers(&name, sample.top.digest(), None).await.unwrap();
        let listed: Vec<_> = listed.iter().map(|one| one.digest().clone()).collect();
        let expected: Vec<_> = referrers.then(|| attached.digest().clone()).into_iter().collect();
        assert_eq!(listed, expected);
    }
}

/// A blob of the store that is not what it should be, in one of two ways: nothing is there afterwards.
/// A signature says by its tag what it is, whatever its configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_signature_needs_no_config_of_an_image() {
    let (sample, folder) = (samples::image(), TempDir::new().unwrap());
    let layout = folder.path().join("layout");
    samples::write_layout(&layout, &[(NAME.to_owned(), &sample)]).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = digest::sha256(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.digest()), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let kind = MediaType::ImageManifest.to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind, "config": put(MediaType::ImageConfig.as_ref(), b"{}"),
        "layers": [put("application/vnd.dev.cosign.simplesigning.v1+json", b"signed")],
    });
    let mut entry = put(&kind, manifest.to_string().as_bytes());
    let tag = format!("{}.sig", sample.top.digest().to_string().replace(':', "-"));
    let name = format!("registry.example/org/app:{tag}");
    entry["annotations"] =
        json!({ "org.opencontainers.image.ref.name": tag, "io.containerd.image.name": name });
    let mut index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"].as_array_mut().unwrap().push(entry);
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let images = open(&folder.path().join("store")).await;
    let loaded = images.load(&format!("oci:{}", layout.display()), LoadOptions::default()).await.unwrap();
    let names: BTreeSet<_> = loaded.iter().map(|image| image.reference.whole()).collect();
    assert_eq!(names, BTreeSet::from([NAME.to_owned(), name]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_gives_no_archive() {
    for (cut, in_place) in [(false, false), (true, false), (false, true), (true, true)] {
        let sample = samples::image();
        let (folder, images) = stored(&sample).await;
        let digest = sample.images[0].layers[0].descriptor.digest();
        let blob = folder.path().join("store/blobs/sha256").join(digest.digest());
        let mut bytes = fs::read(&blob).unwrap();
        bytes[20] ^= 1;
        let length = if cut { bytes.len() - 1 } else { bytes.len() };
        if in_place {
            fs::set_permissions(&blob, fs::Permissions::from_mode(0o600)).unwrap();
        } else {
            fs::remove_file(&blob).unwrap();
        }
        fs::write(&blob, &bytes[..length]).unwrap();
        let path = folder.path().join("saved.tar");
        let saved = images.save_to(&[NAME], &SaveOptions::default(), &path, FileOptions::default()).await;
        let error = saved.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert_eq!(error.context("image"), Some(NAME));
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        let mut stream = Vec::new();
        let mut reader = images.save(&[NAME], &SaveOptions::default()).await.unwrap();
        let error = reader.read_to_end(&mut stream).await.unwrap_err();
        assert_eq!(*plyfold::Error::from(error).kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_in_the_store_is_not_pulled() {
    let folder = tempfile::tempdir().unwrap();
    let images = open(&folder.path().join("store")).await;
    let error = images.save(&[NAME], &SaveOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error:?}");
}

#[test]
fn a_reader_that_closes_the_pipe_ends_it() {
    let place = Place::new();
    place.run("load examples/sample -q --platform linux/amd64");
    let mut command = place.command(["save", "localhost/sample:latest", "--out", "-"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    assert!(start.starts_with(b"blobs/"));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_path_may_be_no_text() {
    let place = Place::new();
    place.run("load examples/sample -q --platform linux/amd64");
    let image = "localhost/sample:latest";
    for verb in [&["save", image, "--out"][..], &["export", image, "--platform", "linux/amd64", "--out"]] {
        for more in [&[][..], &["--json"]] {
            let out = place.dir.path().join(OsStr::from_bytes(b"\xff.tar"));
            let arguments = verb.iter().map(OsStr::new).chain([out.as_os_str()]);
            let ran = place.command(arguments.chain(more.iter().map(OsStr::new))).output().unwrap();
            assert!(ran.status.success(), "{verb:?} {ran:?}");
            fs::remove_file(out).unwrap();
        }
    }
}
