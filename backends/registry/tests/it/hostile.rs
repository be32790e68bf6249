//! Answers that are wrong, too long, too late, or lead astray (hostile rows 59, 65, 66, and the statuses).

use std::time::{Duration, Instant};

use bytes::Bytes;
use plyfold_conformance::samples;
use plyfold_conformance::server::{Fault, On, Options};
use plyfold_core::{BlobRange, ErrorKind, ImageRegistry, ImageRegistryExt, digest, reference};

use crate::{assert_kind, open, serve};

#[tokio::test]
async fn redirects_are_refused_or_bounded() {
    let sample = samples::image();
    let layer = &sample.images[0].layers[0].descriptor;
    for (to, kind) in [
        ("http://evil.example/x", ErrorKind::Unsupported),
        ("http://169.254.169.254/x", ErrorKind::Unsupported),
        ("https://169.254.169.254/x", ErrorKind::Unsupported),
        ("file:///etc/passwd", ErrorKind::Unsupported),
        ("https://user:pw@evil.example/", ErrorKind::Unsupported),
        ("/loop", ErrorKind::Limit),
    ] {
        let (server, name) = serve(Options::default(), &sample);
        server.script(On::any(), [Fault::Redirect(302, to.to_owned())]);
        let registry = open(server.host(), |_| ());
        assert_kind(registry.blob(&name, layer, BlobRange::FULL).await, &kind);
        assert_kind(registry.manifest(&name).await, &kind);
        let per_call = if kind == ErrorKind::Limit { 11 } else { 1 };
        assert_eq!(server.requests().len(), 2 * per_call, "{to}");
    }
    let (server, name) = serve(Options::default(), &sample);
    server.script(On::any(), [Fault::Redirect(302, String::new()), Fault::Header("Location", None)]);
    assert_kind(open(server.host(), |_| ()).manifest(&name).await, &ErrorKind::Unsupported);
}

#[tokio::test]
async fn manifests_that_are_none() {
    let sample = samples::image();
    let other = Some(digest::sha256(b"other").to_string());
    let html = Bytes::from_static(b"<html><title>Welcome to our Wi-Fi</title></html>");
    let content_type = |text: &str| Fault::Header("Content-Type", Some(text.to_owned()));
    let cases = [
        (vec![Fault::Body(html), content_type("text/html")], ErrorKind::Corrupt),
        (vec![Fault::Body(Bytes::new())], ErrorKind::Corrupt),
        (vec![Fault::Body(vec![b' '; (4 << 20) + 1].into())], ErrorKind::Limit),
        (vec![Fault::Endless], ErrorKind::Limit),
        (vec![Fault::Flip(20)], ErrorKind::Corrupt),
        (vec![Fault::Header("Docker-Content-Digest", other)], ErrorKind::Corrupt),
        (vec![Fault::TruncateAt(50)], ErrorKind::Unavailable),
        (vec![Fault::Close], ErrorKind::Unavailable),
        (vec![content_type("application/vnd.oci.image.index.v1+json")], ErrorKind::Corrupt),
    ];
    for (faults, kind) in cases {
        let shown = format!("{faults:.200?}");
        let (server, name) = serve(Options::default(), &sample);
        server.script(On::manifests(), faults);
        let registry = open(server.host(), |_| ());
        let error = assert_kind(registry.manifest(&name).await, &kind);
        assert_eq!(error.context("image"), Some(name.whole().as_str()), "{shown}");
        assert!(error.context("endpoint").is_some(), "{shown}");
    }
    // By digest the bytes are right, and still the registry contradicts itself.
    let (server, name) = serve(Options::default(), &sample);
    let other = Some(digest::sha256(b"other").to_string());
    server.script(On::manifests(), [Fault::Header("Docker-Content-Digest", other)]);
    let registry = open(server.host(), |_| ());
    let pinned = reference::by_digest(&name, sample.top.digest());
    assert_kind(registry.manifest(&pinned).await, &ErrorKind::Corrupt);
    assert_kind(registry.resolve(&pinned).await, &ErrorKind::Corrupt);
}

/// A digest header of another algorithm, or one that is no digest, decides nothing.
#[tokio::test]
async fn digest_headers_that_do_not_apply_are_passed_over() {
    let sample = samples::image();
    let by_digest =
        |host: &str| reference::parse(&format!("{host}/library/app@{}", sample.top.digest())).unwrap();
    for text in ["sha256:junk".to_owned(), "blake3:00".to_owned(), format!("sha512:{}", "0".repeat(128))] {
        let (server, name) = serve(Options::default(), &sample);
        let is_digest = text.starts_with("sha512");
        server.script(On::any(), [Fault::Header("Docker-Content-Digest", Some(text))]);
        let registry = open(server.host(), |_| ());
        let pinned = by_digest(server.host());
        assert_eq!(registry.manifest(&pinned).await.unwrap().digest(), sample.top.digest());
        assert_eq!(registry.resolve(&pinned).await.unwrap(), sample.top);
        if !is_digest {
            assert_eq!(registry.resolve(&name).await.unwrap(), sample.top);
        }
    }
}

/// Rule R 38 `head_without_body_support_falls_back_to_get`.
#[tokio::test]
async fn resolve_is_one_head_where_that_is_enough() {
    let sample = samples::image();
    let (server, name) = serve(Options::default(), &sample);
    let registry = open(server.host(), |_| ());
    assert_eq!(registry.resolve(&name).await.unwrap(), sample.top);
    let requests = server.requests();
    assert_eq!((requests.len(), requests[0].method.as_str()), (1, "HEAD"));
    let accept = requests[0].header("accept").unwrap();
    assert!(accept.contains("oci.image.manifest") && accept.contains("docker.distribution.manifest.list"));
    for without in [
        Options { head: false, ..Options::default() },
        Options { digest_header: false, ..Options::default() },
    ] {
        let (server, name) = serve(without, &sample);
        assert_eq!(open(server.host(), |_| ()).resolve(&name).await.unwrap(), sample.top);
    }
    // What HEAD cannot find GET may; what neither finds is not there, and GET says so in words.
    let (server, name) = serve(Options::default(), &sample);
    server.script(On::any().method("HEAD"), [Fault::Status(404)]);
    let registry = open(server.host(), |_| ());
    assert_eq!(registry.resolve(&name).await.unwrap(), sample.top);
    server.script(On::any(), [Fault::Status(404)]);
    let error = assert_kind(registry.resolve(&name).await, &ErrorKind::NotFound);
    assert!(error.to_string().contains("SCRIPTED"), "{error}");
}

/// A tag that moves between two requests: each answer is complete, and by digest it is the one that was asked for.
#[tokio::test]
async fn a_moving_tag_is_one_image_or_the_other() {
    let (first, second) = (samples::image(), samples::zstandard());
    let (server, name) = serve(Options::default(), &first);
    let registry = open(server.host(), |_| ());
    let resolved = registry.resolve(&name).await.unwrap();
    server.put("library/app", "1.2", &second);
    assert_eq!(registry.manifest(&name).await.unwrap().descriptor(), &second.top);
    let pinned = reference::by_digest(&name, resolved.digest());
    assert_eq!(registry.fetch_raw(&pinned).await.unwrap().descriptor(), &first.top);
}

#[tokio::test]
async fn silence_and_trickles_end() {
    let (server, name) = serve(Options::default(), &samples::image());
    let registry = open(server.host(), |config| config.read_timeout = Duration::from_millis(200));
    let started = Instant::now();
    for fault in [Fault::StallAt(0), Fault::StallAt(10), Fault::Pace(1, Duration::from_millis(50))] {
        server.clear_scripts();
        server.script(On::manifests(), [fault]);
        assert_kind(registry.manifest(&name).await, &ErrorKind::Timeout);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_is_replaced() {
    let (server, name) = serve(Options::default(), &samples::image());
    let registry = open(server.host(), |_| ());
    for _ in 0..3 {
        registry.manifest(&name).await.unwrap();
    }
    drop(server);
    assert_kind(registry.manifest(&name).await, &ErrorKind::Unavailable);
}

#[tokio::test]
async fn words_of_the_registry_are_bounded_and_escaped() {
    let (server, name) = serve(Options::default(), &samples::image());
    let message = format!("no\\u001b[31m{}", "x".repeat(100_000));
    let body =
        format!(r#"{{"errors":[{{"code":"DENIED","message":"{}","detail":[1]}}]}}"#, &message[..50_000]);
    server.script(On::any(), [Fault::Status(403), Fault::Body(body.into())]);
    let error = assert_kind(open(server.host(), |_| ()).manifest(&name).await, &ErrorKind::Denied);
    let shown = error.to_string();
    assert!(shown.contains("DENIED") && shown.len() < 2000 && !shown.contains('\u{1b}'), "{shown}");
    server.clear_scripts();
    server.script(On::any(), [Fault::Status(500), Fault::Endless]);
    assert_kind(open(server.host(), |_| ()).manifest(&name).await, &ErrorKind::Unavailable);
}

#[tokio::test]
async fn hosts_that_are_not_there() {
    let registry = open("127.0.0.1:1", |_| ());
    let name = reference::parse("127.0.0.1:1/a:1").unwrap();
    let error = assert_kind(registry.manifest(&name).await, &ErrorKind::Unavailable);
    assert!(error.hint().is_some());
    let name = reference::parse("no-such-host.invalid/a:1").unwrap();
    let error =
        assert_kind(open("no-such-host.invalid", |_| ()).manifest(&name).await, &ErrorKind::Unavailable);
    assert!(error.hint().is_some());
}

/// Hostile row 70: what does not speak TLS is not asked in the clear instead.
#[tokio::test]
async fn a_tls_failure_is_final() {
    let (server, name) = serve(Options::default(), &samples::image());
    let port = server.host().rsplit(':').next().unwrap().to_owned();
    let secure = open(server.host(), |config| {
        config.https = vec![format!("127.0.0.1:{port}")];
        config.read_timeout = Duration::from_secs(1);
        config.connect_timeout = Duration::from_secs(1);
    });
    let error = secure.manifest(&name).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Tls | ErrorKind::Timeout | ErrorKind::Unavailable), "{error}");
    assert!(server.requests().is_empty());
}
