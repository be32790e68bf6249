//! Ranges, resumption and damage (hostile rows 5, 61 to 63, 67).

use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::server::{Fault, FaultServer, On, Options};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Blob, BlobRange, Descriptor, ErrorKind, ImageRegistry, Platform, PullOptions, pull, reference,
};

use crate::{assert_kind, open, serve};

fn layer(sample: &Sample) -> (Descriptor, Vec<u8>) {
    let descriptor = sample.images[0].layers[0].descriptor.clone();
    let content = sample.blob(descriptor.digest()).unwrap().to_vec();
    (descriptor, content)
}

async fn read(blob: plyfold_core::Result<Blob>) -> plyfold_core::Result<(u64, Vec<u8>)> {
    let blob = blob?;
    let offset = blob.offset();
    Ok((offset, blob.bytes(1 << 20).await?.to_vec()))
}

/// Rules R 17 `resume_sends_closed_range_at_exact_offset` and R 18 `resume_without_accept_ranges`.
#[tokio::test]
async fn ranges_are_closed_and_exact() {
    let sample = samples::uncompressed();
    let (layer, content) = layer(&sample);
    let (server, name) = serve(Options { accept_ranges: false, ..Options::default() }, &sample);
    let registry = open(server.host(), |_| ());
    let size = layer.size();
    for (range, start, end, sent) in [
        (BlobRange::FULL, 0, size, None),
        (BlobRange::from_start(100), 100, size, Some(format!("bytes=100-{}", size - 1))),
        (BlobRange::new(0, 10), 0, 10, Some("bytes=0-9".to_owned())),
        (BlobRange::new(7, 8), 7, 8, Some("bytes=7-7".to_owned())),
    ] {
        server.clear_requests();
        let (offset, bytes) = read(registry.blob(&name, &layer, range).await).await.unwrap();
        assert_eq!((offset, bytes), (start, content[start as usize..end as usize].to_vec()));
        let requests = server.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].header("range"), sent.as_deref());
        assert_eq!(requests[0].header("accept-encoding"), Some("identity"));
        assert_eq!(requests[0].header("accept"), Some("*/*"));
    }
    server.clear_requests();
    for empty in [BlobRange::new(5, 5), BlobRange::from_start(size)] {
        let (_, bytes) = read(registry.blob(&name, &layer, empty).await).await.unwrap();
        assert!(bytes.is_empty());
    }
    assert_kind(registry.blob(&name, &layer, BlobRange::new(0, size + 1)).await, &ErrorKind::Config);
    assert!(server.requests().is_empty());
}

/// Rules R 19 `200_to_range_restarts_from_zero` and R 21 `416_resets_partial`: the blob comes from its start.
#[tokio::test]
async fn what_is_not_a_range_starts_over() {
    let sample = samples::uncompressed();
    let (layer, content) = layer(&sample);
    for fault in [Fault::IgnoreRange, Fault::Status(416)] {
        let shown = format!("{fault:?}");
        let (server, name) = serve(Options::default(), &sample);
        server.script(On::blobs().ranged(true), [fault]);
        let registry = open(server.host(), |_| ());
        let (offset, bytes) =
            read(registry.blob(&name, &layer, BlobRange::from_start(100)).await).await.unwrap();
        assert_eq!((offset, bytes.as_slice()), (0, content.as_slice()), "{shown}");
        let (offset, bytes) =
            read(registry.blob(&name, &layer, BlobRange::new(100, 200)).await).await.unwrap();
        assert_eq!((offset, bytes.as_slice()), (0, &content[..200]), "{shown}");
    }
}

/// Rule R 20 `206_with_wrong_content_range_rejected`: none of it is read, and it may be asked for again.
#[tokio::test]
async fn another_range_than_the_one_asked_for_is_refused() {
    let sample = samples::uncompressed();
    let (layer, _) = layer(&sample);
    let without = Fault::Header("Content-Range", None);
    for fault in [Fault::WrongRange(1), Fault::WrongTotal(1 << 40), without] {
        let (server, name) = serve(Options::default(), &sample);
        server.script(On::blobs().ranged(true), [fault]);
        let registry = open(server.host(), |_| ());
        let refused = registry.blob(&name, &layer, BlobRange::from_start(100)).await;
        let error = assert_kind(refused, &ErrorKind::Unavailable);
        assert!(error.context("range").is_some(), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

/// docker-registry breaks the connection where 416 is due: then the blob is shorter than its descriptor says.
#[tokio::test]
async fn a_broken_connection_to_a_range_is_looked_into() {
    let sample = samples::uncompressed();
    let (layer, content) = layer(&sample);
    let (server, name) = serve(Options::default(), &sample);
    let registry = open(server.host(), |_| ());
    server.script(On::blobs().ranged(true), [Fault::Close]);
    let whole = registry.blob(&name, &layer, BlobRange::from_start(100)).await;
    assert_kind(whole, &ErrorKind::Unavailable);
    server.put_blob("library/app", layer.digest(), content[..50].to_vec().into());
    let error =
        assert_kind(registry.blob(&name, &layer, BlobRange::from_start(100)).await, &ErrorKind::Corrupt);
    assert_eq!(error.detail::<plyfold_core::Mismatch>().unwrap().actual_size, 50);
}

#[tokio::test]
async fn damage_never_ends_well() {
    let sample = samples::uncompressed();
    let header = |name, value: &str| Fault::Header(name, Some(value.to_owned()));
    let (layer, _) = layer(&sample);
    for (faults, kind) in [
        (vec![Fault::Flip(700)], ErrorKind::Corrupt),
        (vec![Fault::Surplus(10)], ErrorKind::Corrupt),
        (vec![Fault::Endless], ErrorKind::Corrupt),
        (vec![Fault::GzipEncoded], ErrorKind::Corrupt),
        (vec![Fault::Body("<html>log in</html>".into())], ErrorKind::Corrupt),
        (vec![Fault::TruncateAt(500)], ErrorKind::Unavailable),
        (vec![Fault::ResetAt(500)], ErrorKind::Unavailable),
        (vec![Fault::Chunked, Fault::TruncateAt(500)], ErrorKind::Unavailable),
        (vec![Fault::Http10, Fault::TruncateAt(500)], ErrorKind::Unavailable),
        (vec![header("Docker-Content-Digest", sample.top.digest().as_ref())], ErrorKind::Corrupt),
        (vec![Fault::Status(404)], ErrorKind::NotFound),
        (vec![Fault::Status(500)], ErrorKind::Unavailable),
    ] {
        let shown = format!("{faults:?}");
        let (server, name) = serve(Options::default(), &sample);
        server.script(On::blobs(), faults);
        let registry = open(server.host(), |_| ());
        let error = read(registry.blob(&name, &layer, BlobRange::FULL).await).await.unwrap_err();
        assert_eq!(*error.kind(), kind, "{shown}: {error}");
    }
    for faults in
        [vec![Fault::Http10], vec![Fault::Chunked], vec![Fault::Pace(1000, std::time::Duration::ZERO)]]
    {
        let (server, name) = serve(Options::default(), &sample);
        server.script(On::blobs(), faults);
        read(open(server.host(), |_| ()).blob(&name, &layer, BlobRange::FULL).await).await.unwrap();
    }
}

/// The pull engine over HTTP: interrupted again and again, it moves on from where it was.
#[tokio::test]
async fn a_pull_goes_on_where_it_broke_off() {
    let sample = samples::uncompressed();
    let (layer, content) = layer(&sample);
    let (server, name) = serve(Options::default(), &sample);
    server.script(On::blob(layer.digest()).times(1), [Fault::TruncateAt(1000)]);
    server.script(On::blob(layer.digest()).times(1), [Fault::ResetAt(500)]);
    let cache = MemoryCache::new().unwrap();
    let mut options =
        PullOptions { platform: Platform::new("linux", "amd64", None), ..PullOptions::default() };
    options.retry.base = std::time::Duration::from_millis(1);
    pull(&open(server.host(), |_| ()), &name, &cache, &options).await.unwrap();
    let sent = server.served(layer.digest());
    assert_eq!(sent.requests, 3);
    assert!(sent.bytes < content.len() as u64 + 4096, "{sent:?}");
    let ranges: Vec<_> =
        server.requests().iter().filter_map(|x| x.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges[0], format!("bytes=1000-{}", content.len() - 1));
}

/// Row 67: `urls` of a descriptor are never followed.
#[tokio::test]
async fn foreign_urls_are_ignored() {
    let sample = samples::uncompressed();
    let (mut layer, _) = layer(&sample);
    let (elsewhere, _) = serve(Options::default(), &sample);
    let (server, name) = serve(Options::default(), &sample);
    layer.set_urls(Some(vec![format!("{}/v2/library/app/blobs/{}", elsewhere.url(), layer.digest())]));
    server.remove("library/app", layer.digest());
    let registry = open(server.host(), |_| ());
    assert_kind(registry.blob(&name, &layer, BlobRange::FULL).await, &ErrorKind::NotFound);
    assert!(elsewhere.requests().is_empty());
}

/// Storages sign their URLs for GET alone, and refuse the HEAD that a registry redirects to them.
#[tokio::test]
async fn a_blob_behind_a_redirect_is_found_where_head_is_refused() {
    let sample = samples::image();
    let layer = &sample.images[0].layers[0].descriptor;
    let (storage, _) = serve(Options::default(), &sample);
    let (server, name) = serve(Options::default(), &sample);
    let to = format!("{}/v2/library/app/blobs/{}?sig=x", storage.url(), layer.digest());
    server.script(On::blob(layer.digest()), [Fault::Redirect(307, to)]);
    let registry = open(server.host(), |_| ());
    for status in [400, 401, 403, 405] {
        storage.clear_scripts();
        storage.clear_requests();
        storage.script(On::any().method("HEAD"), [Fault::Status(status)]);
        assert!(registry.has_blob(&name, layer).await.unwrap(), "{status}");
        let asked = storage.requests();
        assert_eq!(asked.last().unwrap().header("range"), Some("bytes=0-0"), "{status}");
    }
    storage.remove("library/app", layer.digest());
    assert!(!registry.has_blob(&name, layer).await.unwrap());
    // What the registry itself refuses, or a storage that is down, is no absence.
    storage.script(On::any(), [Fault::Status(503)]);
    assert_kind(registry.has_blob(&name, layer).await, &ErrorKind::Unavailable);
    server.clear_scripts();
    server.script(On::any(), [Fault::Status(403)]);
    assert_kind(registry.has_blob(&name, layer).await, &ErrorKind::Denied);
}

/// A mirror that does HEAD badly still says what a name stands for.
#[tokio::test]
async fn a_mirror_without_head_is_asked_by_get() {
    let sample = samples::image();
    let (mirror, name) = serve(Options { head: false, ..Options::default() }, &sample);
    let gone = FaultServer::start().unwrap().host().to_owned();
    let hosts = format!(r#"hosts={{"{gone}":{{"host":[{{"url":"{}"}}]}}}}"#, mirror.url());
    let config: plyfold_registry::Config =
        plyfold_core::Options::parse([hosts.as_str()]).unwrap().config().unwrap();
    let registry = open(&gone, |own| own.hosts = config.hosts);
    let name = reference::parse(&name.whole().replace(mirror.host(), &gone)).unwrap();
    assert_eq!(registry.resolve(&name).await.unwrap(), sample.top);
}
