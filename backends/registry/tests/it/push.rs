//! What we send to a registry.

use std::time::Duration;

use futures_util::stream;
use plyfold_conformance::samples;
use plyfold_conformance::server::{Auth, Fault, FaultServer, Login, On, Options};
use plyfold_core::{
    Blob, BlobRange, CopyOptions, Error, ErrorKind, ImageRegistry, ImageRegistryExt, copy, reference,
};

use crate::{assert_kind, open, serve, with_login};

fn protected() -> FaultServer {
    let login = Some(Login::new("user", "s3cret-word"));
    let auth = Auth::Bearer { login, ttl: Duration::from_secs(300), realm: None };
    FaultServer::with(Options { auth, ..Options::default() }).unwrap()
}

/// Rules X 99 and X 100: what is copied from one registry to another is the same, byte for byte.
#[tokio::test]
async fn copies_keep_every_byte() {
    for sample in
        [samples::image(), samples::index(), samples::empty_blob(), samples::sha512(), samples::artifact()]
    {
        let (from, name) = serve(Options::default(), &sample);
        let to = protected();
        let target =
            reference::parse(&format!("{}/copies/{}:1", to.host(), sample.name.replace('_', "-"))).unwrap();
        let (source, registry) = (open(from.host(), |_| ()), open(to.host(), with_login));
        for _ in 0..2 {
            copy(&source, &name, &registry, &target, &CopyOptions::default()).await.unwrap();
        }
        for blob in &sample.blobs {
            let stored = to.content(target.repository(), blob.descriptor.digest());
            let own = stored
                .or_else(|| to.content(target.repository(), &plyfold_core::digest::sha256(&blob.bytes)));
            assert_eq!(own.as_ref(), Some(&blob.bytes), "{}", sample.name);
        }
        let raw = registry.fetch_raw(&target).await.unwrap();
        assert_eq!(raw.bytes(), sample.top_bytes(), "{}", sample.name);
        // Each blob went out once: the second copy found it.
        let puts =
            to.requests().iter().filter(|x| x.method == "PUT" && x.target.contains("/uploads/")).count();
        let blobs = sample.blobs.iter().filter(|blob| !blob.is_manifest()).count();
        assert!(puts <= blobs, "{}: {puts} uploads of {blobs} blobs", sample.name);
    }
}

#[tokio::test]
async fn a_source_that_breaks_stores_nothing_and_says_why() {
    let sample = samples::uncompressed();
    let layer = sample.images[0].layers[0].descriptor.clone();
    let mut content = sample.blob(layer.digest()).unwrap().to_vec();
    content[700] ^= 1;
    let server = FaultServer::start().unwrap();
    let registry = open(server.host(), |_| ());
    let name = reference::parse(&format!("{}/a:1", server.host())).unwrap();
    let flipped = Blob::from_bytes(&layer, BlobRange::FULL, &content.into()).unwrap();
    let error = assert_kind(registry.push_blob(&name, flipped).await, &ErrorKind::Corrupt);
    assert!(error.as_mismatch().is_some());
    let broken = stream::iter([
        Ok("begin".into()),
        Err(Error::new(ErrorKind::RateLimited { retry_after: None }, "slow")),
    ]);
    let broken = Blob::new(&layer, broken).unwrap();
    assert_kind(registry.push_blob(&name, broken).await, &ErrorKind::RateLimited { retry_after: None });
    assert_eq!(server.content("a", layer.digest()), None);
}

#[tokio::test]
async fn mounts_move_no_bytes() {
    let sample = samples::image();
    let (server, name) = serve(Options::default(), &sample);
    let (other, _) = serve(Options::default(), &sample);
    let registry = open(server.host(), |_| ());
    let layer = &sample.images[0].layers[0].descriptor;
    let target = reference::parse(&format!("{}/mounted:1", server.host())).unwrap();
    assert!(registry.mount_blob(&target, layer, &name).await.unwrap());
    assert!(server.content("mounted", layer.digest()).is_some());
    let absent = reference::parse(&format!("{}/absent:1", server.host())).unwrap();
    let target = reference::parse(&format!("{}/second:1", server.host())).unwrap();
    assert!(!registry.mount_blob(&target, layer, &absent).await.unwrap());
    let elsewhere = reference::parse(&format!("{}/library/app:1.2", other.host())).unwrap();
    assert!(!registry.mount_blob(&target, layer, &elsewhere).await.unwrap());
}

/// An upload may be sent elsewhere, but neither in the clear nor with our token.
#[tokio::test]
async fn upload_locations_pass_the_policy() {
    let sample = samples::image();
    let layer = &sample.images[0].layers[0].descriptor;
    let content = sample.blob(layer.digest()).unwrap();
    let blob = || Blob::from_bytes(layer, BlobRange::FULL, content).unwrap();
    let storage = FaultServer::start().unwrap();
    for (location, kind) in [
        (format!("{}/v2/a/blobs/uploads/x", storage.url()), ErrorKind::NotFound),
        ("http://evil.example/upload".to_owned(), ErrorKind::Unsupported),
        ("file:///etc/passwd".to_owned(), ErrorKind::Unsupported),
    ] {
        let server = protected();
        server.script(
            On::target("/uploads/").method("POST").skip(0),
            [Fault::Header("Location", Some(location))],
        );
        let name = reference::parse(&format!("{}/a:1", server.host())).unwrap();
        assert_kind(open(server.host(), with_login).push_blob(&name, blob()).await, &kind);
    }
    assert_eq!(storage.requests().len(), 1);
    assert!(storage.requests()[0].header("authorization").is_none());
}

#[tokio::test]
async fn refusals_have_their_kinds() {
    let sample = samples::image();
    let layer = &sample.images[0].layers[0].descriptor;
    let content = sample.blob(layer.digest()).unwrap();
    for (fault, kind) in [
        (Fault::Status(403), ErrorKind::Denied),
        (Fault::Status(405), ErrorKind::Unsupported),
        (Fault::Status(413), ErrorKind::Limit),
        (Fault::Status(429), ErrorKind::RateLimited { retry_after: None }),
        (Fault::Status(500), ErrorKind::Unavailable),
    ] {
        for method in ["POST", "PUT"] {
            let server = FaultServer::start().unwrap();
            server.script(On::any().method(method), [fault.clone()]);
            let registry = open(server.host(), |_| ());
            let name = reference::parse(&format!("{}/a:1", server.host())).unwrap();
            let blob = Blob::from_bytes(layer, BlobRange::FULL, content).unwrap();
            assert_kind(registry.push_blob(&name, blob).await, &kind);
        }
    }
    let (server, name) = serve(Options::default(), &sample);
    let registry = open(server.host(), |_| ());
    let raw = registry.manifest(&name).await.unwrap();
    let pinned = reference::by_digest(&name, layer.digest());
    assert_kind(registry.push_manifest(&pinned, &raw).await, &ErrorKind::Corrupt);
    let other = Some(layer.digest().to_string());
    server.script(On::any().method("PUT"), [Fault::Header("Docker-Content-Digest", other)]);
    assert_kind(registry.push_manifest(&name, &raw).await, &ErrorKind::Corrupt);
}

/// Uploads take as long as they move, and no longer.
#[tokio::test]
async fn slow_uploads_pass_and_dead_ones_end() {
    let sample = samples::uncompressed();
    let layer = sample.images[0].layers[0].descriptor.clone();
    let content = sample.blob(layer.digest()).unwrap().clone();
    let server = FaultServer::start().unwrap();
    let registry = open(server.host(), |config| config.read_timeout = Duration::from_millis(100));
    let name = reference::parse(&format!("{}/a:1", server.host())).unwrap();
    let chunks: Vec<_> = content.chunks(content.len() / 8).map(bytes::Bytes::copy_from_slice).collect();
    let slow = stream::unfold(chunks.into_iter(), |mut chunks| async {
        tokio::time::sleep(Duration::from_millis(80)).await;
        Some((Ok(chunks.next()?), chunks))
    });
    registry.push_blob(&name, Blob::new(&layer, slow).unwrap()).await.unwrap();
    assert_eq!(server.content("a", layer.digest()), Some(content.clone()));

    let other = reference::parse(&format!("{}/b:1", server.host())).unwrap();
    server.script(On::any().method("PUT"), [Fault::Delay(Duration::from_secs(3))]);
    let blob = Blob::from_bytes(&layer, BlobRange::FULL, &content).unwrap();
    assert_kind(registry.push_blob(&other, blob).await, &ErrorKind::Timeout);
}
