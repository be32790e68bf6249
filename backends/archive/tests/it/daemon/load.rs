//! What a daemon loads, and how that fails.

use plyfold_archive::DaemonFault;
use plyfold_conformance::samples::{self, Sample, SampleBlob};
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    CopyOptions, Descriptor, Error, ErrorKind, ImageRegistry, MediaType, RawManifest, Result, copy, reference,
};

use super::fake::{Answer, Fake};
use super::{Kept, keeping};

const NAME: &str = "docker.io/library/app:1.2";

async fn copied(sample: &Sample, to: &dyn ImageRegistry) -> Result<Descriptor> {
    let (memory, name) = (MemoryRegistry::new("origin"), reference::parse(NAME)?);
    for blob in &sample.blobs {
        let (digest, bytes) = (blob.descriptor.digest().clone(), blob.bytes.clone());
        if !blob.is_manifest() {
            memory.insert_blob(&name, digest, bytes);
        } else if digest == *sample.top.digest() {
            memory.insert_manifest(&name, blob.descriptor.media_type().clone(), &digest, bytes);
        } else {
            let by_digest = reference::by_digest(&name, &digest);
            memory.insert_manifest(&by_digest, blob.descriptor.media_type().clone(), &digest, bytes);
        }
    }
    copy(&memory, &name, to, &name, &CopyOptions::default()).await
}

/// A daemon that answers a load as told, and has an image of this ID then.
fn loading(answer: impl Fn() -> Answer + Send + Sync + 'static, id: Option<String>) -> Fake {
    Fake::start(move |request, _| match (request, &id) {
        ("GET /_ping", _) => Answer::Body(b"OK".to_vec()),
        ("POST /images/load?quiet=1", _) => answer(),
        (_, Some(id)) => Answer::Body(serde_json::json!({ "Id": id }).to_string().into_bytes()),
        _ => Answer::Error(404, "No such image"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_loaded_with_all_its_digests() {
    let fake = keeping(vec![Kept::of(NAME, &samples::uncompressed())]);
    let daemon = fake.daemon();
    for sample in [samples::image(), samples::index(), samples::docker_image()] {
        assert_eq!(copied(&sample, &daemon).await.unwrap().digest(), sample.top.digest(), "{}", sample.name);
        // What was saved before is another image.
        let name = reference::parse(NAME).unwrap();
        assert_eq!(daemon.manifest(&name).await.unwrap().digest(), sample.top.digest(), "{}", sample.name);
    }
    let loads = fake.requests().iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!(loads, 3);
}

/// A daemon without containerd's image store knows the configuration alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_an_image_is_that_of_its_configuration_or_its_own() {
    let (image, index) = (samples::image(), samples::index());
    let done = || Answer::Chunked(b"{\"stream\":\"Loaded image: app:1.2\\n\"}\n".to_vec());
    for (sample, id) in [
        (&image, image.images[0].config.digest()),
        (&image, image.top.digest()),
        (&index, index.images[1].config.digest()),
        (&index, index.images[0].manifest.digest()),
        (&index, index.top.digest()),
    ] {
        let fake = loading(done, Some(id.to_string()));
        copied(sample, &fake.daemon()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_does_not_load_is_an_error() {
    let image = samples::image();
    let id = Some(image.images[0].config.digest().to_string());
    let done = |text: &'static str| move || Answer::Chunked(text.as_bytes().to_vec());
    let kind_of = async |fake: Fake| {
        let error: Error = copied(&image, &fake.daemon()).await.unwrap_err();
        assert!(error.context("endpoint").is_some(), "{error:?}");
        error
    };
    let refused =
        "{\"stream\":\"x\"}\r\n{\"errorDetail\":{\"message\":\"no space\"},\"error\":\"no space\"}\r\n";
    let error = kind_of(loading(done(refused), id.clone())).await;
    assert!(matches!(error.detail(), Some(DaemonFault::Refused(why)) if why == "no space"), "{error}");
    // A daemon that knows no zstd speaks of a tar.
    let error =
        copied(&samples::zstandard(), &loading(done(refused), id.clone()).daemon()).await.unwrap_err();
    assert!(matches!(error.detail(), Some(DaemonFault::Zstd(why)) if why == "no space"), "{error}");
    let error = kind_of(loading(done("{}"), None)).await;
    assert!(matches!(error.detail(), Some(DaemonFault::Refused(_))), "{error}");
    let error = kind_of(loading(done("not JSON"), id.clone())).await;
    assert!(matches!(error.detail(), Some(DaemonFault::Garbled)), "{error}");
    let error = kind_of(loading(done("{}"), Some(samples::index().top.digest().to_string()))).await;
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    let error = kind_of(loading(|| Answer::Error(500, "no space left on device"), id.clone())).await;
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    let error = kind_of(loading(|| Answer::Cut(b"{\"stream\":".to_vec()), id.clone())).await;
    assert!(matches!(error.detail(), Some(DaemonFault::Closed)), "{error}");
    let error = kind_of(loading(|| Answer::Raw(Vec::new()), id.clone())).await;
    assert!(matches!(error.detail(), Some(DaemonFault::Closed)), "{error}");
    // A second attempt after an error finds what was pushed.
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let second = loading(
        move || match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Answer::Error(503, "busy"),
            _ => Answer::Chunked(b"{}".to_vec()),
        },
        id,
    );
    let daemon = second.daemon();
    copied(&image, &daemon).await.unwrap();
    let loads = second.requests().iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!(loads, 2);
}

/// Indexes that lead to the same images in a million ways.
#[tokio::test(flavor = "multi_thread")]
async fn what_indexes_list_many_times_is_looked_at_once() {
    let mut sample = samples::index();
    for _ in 0..3 {
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": vec![&sample.top; 100],
        });
        let raw = RawManifest::new(index.to_string(), None).unwrap();
        sample.top = raw.descriptor().clone();
        sample.blobs.push(SampleBlob { descriptor: sample.top.clone(), bytes: raw.bytes().clone() });
    }
    let fake = loading(|| Answer::Chunked(b"{}".to_vec()), Some(sample.top.digest().to_string()));
    let (daemon, seconds) = (fake.daemon(), std::time::Duration::from_secs(20));
    tokio::time::timeout(seconds, copied(&sample, &daemon)).await.unwrap().unwrap();
}
