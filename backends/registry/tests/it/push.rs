//! What we send to a registry.

use std::time::Duration;

use futures_util::stream;
use plyfold_conformance::samples;
use plyfold_conformance::server::{Auth, Fault, FaultServer, Login, On, Options};
use plyfold_core::{
    Blob, BlobRange, CopyOptions, Descriptor, Digest, Error, ErrorKind, ImageRegistry, ImageRegistryExt,
    MediaType, RawManifest, Result, copy, digest, reference,
};
use plyfold_registry::Registry;

use crate::transfers::{noise, quick};
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
            let own = stored.or_else(|| to.content(target.repository(), &digest::sha256(&blob.bytes)));
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
    assert!(error.detail::<plyfold_core::Mismatch>().is_some());
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
        // It knows of no such upload.
        (format!("{}/v2/a/blobs/uploads/x", storage.url()), ErrorKind::Unavailable),
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

/// A blob of five MiB and a bit, and how to push it.
fn large() -> (Descriptor, bytes::Bytes) {
    let content = noise(3, (5 << 20) + 123);
    let kind = MediaType::from("application/octet-stream");
    (Descriptor::new(kind, content.len() as u64, digest::sha256(&content)), content)
}

async fn send(registry: &Registry, host: &str) -> (Descriptor, bytes::Bytes, Result<()>) {
    let (blob, content) = large();
    let name = reference::parse(&format!("{host}/a:1")).unwrap();
    let sent = registry.push_blob(&name, Blob::from_bytes(&blob, BlobRange::FULL, &content).unwrap()).await;
    (blob, content, sent)
}

/// The bytes of each request that carried some of an upload.
fn uploaded(server: &FaultServer, method: &str) -> Vec<Option<String>> {
    let requests = server.requests();
    let carried = requests.iter().filter(|x| x.method == method && x.target.contains("/uploads/"));
    carried.map(|x| x.header("content-range").map(str::to_owned)).collect()
}

#[tokio::test]
async fn chunks_are_as_large_as_wanted_or_as_the_registry_demands() {
    let range = |from: usize, to: usize| Some(format!("{from}-{to}"));
    let mib = 1 << 20;
    for (wanted, least, ranges) in [
        (2, None, vec![range(0, 2 * mib - 1), range(2 * mib, 4 * mib - 1), range(4 * mib, 5 * mib + 122)]),
        (2, Some(3 * mib), vec![range(0, 3 * mib - 1), range(3 * mib, 5 * mib + 122)]),
        (6, None, vec![]),
        (0, Some(mib), vec![]),
        (2, Some(100 * mib), vec![]),
    ] {
        let server = protected();
        let least = Fault::Header("OCI-Chunk-Min-Length", least.map(|least| least.to_string()));
        server.script(On::target("/uploads/").method("POST"), [least]);
        let registry = open(server.host(), |config| {
            with_login(config);
            config.upload_chunk = wanted;
        });
        let (blob, content, sent) = send(&registry, server.host()).await;
        sent.unwrap();
        assert!(server.content("a", blob.digest()) == Some(content));
        assert_eq!(uploaded(&server, "PATCH"), ranges, "{wanted} MiB");
        assert_eq!(uploaded(&server, "PUT"), [None]);
    }
}

/// What arrived of a chunk is not sent again, whether the registry said so or not.
#[tokio::test]
async fn an_upload_goes_on_where_it_broke_off() {
    let mib = 1 << 20;
    for (faults, resumed) in [
        (vec![Fault::Received(70_000), Fault::Close], Some(2 * mib + 70_000)),
        (vec![Fault::Received(0), Fault::Status(503)], Some(2 * mib)),
        (vec![Fault::Close], Some(4 * mib)),
        // It says itself that it has not got all.
        (vec![Fault::Received(70_000)], Some(2 * mib + 70_000)),
        // It believes to be elsewhere, and is not.
        (vec![Fault::Received(0), Fault::Status(416)], Some(2 * mib)),
    ] {
        let shown = format!("{faults:?}");
        let server = FaultServer::start().unwrap();
        server.script(On::any().method("PATCH").skip(1).times(1), faults);
        let registry = open(server.host(), |config| config.upload_chunk = 2);
        let (blob, content, sent) = send(&registry, server.host()).await;
        sent.unwrap();
        assert!(server.content("a", blob.digest()) == Some(content), "{shown}");
        let ranges = uploaded(&server, "PATCH");
        let starts: Vec<_> = ranges.iter().flatten().map(|range| range.split('-').next().unwrap()).collect();
        assert_eq!(starts[2].parse().ok(), resumed, "{shown}");
    }
    // A registry that has forgotten the upload, and one that never moves on.
    for (on, faults, kind) in [
        (On::target("/uploads/upload").method("GET"), vec![Fault::Status(404)], ErrorKind::Unavailable),
        (On::target("/uploads/upload").method("PATCH"), vec![Fault::Received(0)], ErrorKind::Unavailable),
    ] {
        let server = FaultServer::start().unwrap();
        server.script(On::any().method("PATCH").skip(1).times(1), [Fault::Received(0), Fault::Close]);
        server.script(on, faults);
        let registry = open(server.host(), |config| config.upload_chunk = 2);
        let (blob, _, sent) = send(&registry, server.host()).await;
        assert_kind(sent, &kind);
        assert_eq!(server.content("a", blob.digest()), None);
    }
}

/// A token that runs out between two chunks, or before the last request, costs nothing but a new token.
#[tokio::test]
async fn an_upload_outlives_its_token() {
    for on in [On::any().method("PATCH").skip(1).times(1), On::any().method("PUT").times(1)] {
        let server = protected();
        server.script(on.clone(), [Fault::TokenExpiry]);
        let registry = open(server.host(), |config| {
            with_login(config);
            config.upload_chunk = 2;
        });
        let (blob, content, sent) = send(&registry, server.host()).await;
        sent.unwrap();
        assert!(server.content("a", blob.digest()) == Some(content), "{on:?}");
    }
}

/// An upload that the registry has forgotten starts again (distribution specification, "Pushing blobs").
#[tokio::test]
async fn a_forgotten_upload_starts_again() {
    let sample = samples::uncompressed();
    let (from, name) = serve(Options::default(), &sample);
    let to = FaultServer::start().unwrap();
    to.script(On::target("/uploads/upload").times(1), [Fault::Received(0), Fault::Status(404)]);
    let target = reference::parse(&format!("{}/a:1", to.host())).unwrap();
    let options = CopyOptions { retry: quick().retry, ..CopyOptions::default() };
    copy(&open(from.host(), |_| ()), &name, &open(to.host(), |_| ()), &target, &options).await.unwrap();
    assert_eq!(to.tagged("a", "1"), Some(sample.top.digest().to_string()));
}

#[tokio::test]
async fn a_registry_without_chunks_gets_the_blob_in_one_go() {
    for status in [400, 404, 405, 501] {
        let server = FaultServer::start().unwrap();
        server.script(On::any().method("PATCH"), [Fault::Received(0), Fault::Status(status)]);
        let registry = open(server.host(), |config| config.upload_chunk = 2);
        let (blob, content, sent) = send(&registry, server.host()).await;
        sent.unwrap();
        assert!(server.content("a", blob.digest()) == Some(content), "{status}");
        assert_eq!(uploaded(&server, "PATCH").len(), 1);
    }
}

/// A chunk may be sent elsewhere, but not in the clear and not with our token; a source that breaks stores nothing.
#[tokio::test]
async fn chunks_pass_the_same_policy() {
    let server = protected();
    let storage = FaultServer::start().unwrap();
    let to = |url: String| Fault::Header("Location", Some(url));
    server
        .script(On::any().method("PATCH").times(1), [to(format!("{}/v2/a/blobs/uploads/x", storage.url()))]);
    server.script(On::any().method("PATCH").skip(1), [to("http://evil.example/x".to_owned())]);
    let chunked = |config: &mut plyfold_registry::Config| {
        with_login(config);
        config.upload_chunk = 2;
    };
    let registry = open(server.host(), chunked);
    assert_kind(send(&registry, server.host()).await.2, &ErrorKind::Unavailable);
    assert!(storage.requests().iter().all(|x| x.header("authorization").is_none()));
    assert!(!storage.requests().is_empty());
    assert_kind(send(&registry, server.host()).await.2, &ErrorKind::Unsupported);

    let server = FaultServer::start().unwrap();
    let (blob, content) = large();
    let mut wrong = content.to_vec();
    wrong[4 << 20] ^= 1;
    let registry = open(server.host(), |config| config.upload_chunk = 2);
    let name = reference::parse(&format!("{}/a:1", server.host())).unwrap();
    let broken = Blob::from_bytes(&blob, BlobRange::FULL, &wrong.into()).unwrap();
    assert_kind(registry.push_blob(&name, broken).await, &ErrorKind::Corrupt);
    assert!(uploaded(&server, "PUT").is_empty());
}

/// Registries that do not do HEAD say so in several ways: what they may have is pushed again.
#[tokio::test]
async fn a_registry_without_head_gets_the_blob() {
    for status in [400, 404, 405, 501] {
        let server = FaultServer::start().unwrap();
        server.script(On::any().method("HEAD"), [Fault::Status(status)]);
        let (blob, content, sent) = send(&open(server.host(), |_| ()), server.host()).await;
        sent.unwrap();
        assert!(server.content("a", blob.digest()) == Some(content), "{status}");
    }
}

/// Where there is no API for referrers, the list under the fallback tag is kept; others' entries stay.
#[tokio::test]
async fn subjects_are_listed_with_and_without_the_api() {
    let sample = samples::subject();
    let subject = sample.subject.as_ref().unwrap().manifest.digest().clone();
    let tag = subject.as_ref().replace(':', "-");
    for referrers in [true, false] {
        let (from, name) = serve(Options::default(), &sample);
        let to = FaultServer::with(Options { referrers, ..Options::default() }).unwrap();
        let target = reference::parse(&format!("{}/copied:1", to.host())).unwrap();
        let (source, registry) = (open(from.host(), |_| ()), open(to.host(), |_| ()));
        copy(&source, &name, &registry, &target, &CopyOptions::default()).await.unwrap();
        assert_eq!(to.tagged("copied", &tag).is_some(), !referrers);
        let listed = registry.referrers(&target, &subject, None).await.unwrap();
        assert_eq!(listed, source.referrers(&name, &subject, None).await.unwrap(), "{referrers}");

        // A concurrent write of another client: both entries are kept.
        let (first, second) = (signature(&subject, "first"), signature(&subject, "second"));
        let by_digest = |raw: &RawManifest| reference::by_digest(&target, raw.digest());
        let (one, two) = (by_digest(&first), by_digest(&second));
        let pushed =
            tokio::join!(registry.push_manifest(&one, &first), registry.push_manifest(&two, &second));
        pushed.0.unwrap();
        pushed.1.unwrap();
        registry.push_manifest(&one, &first).await.unwrap();
        let listed = registry.referrers(&target, &subject, None).await.unwrap();
        assert_eq!(listed.len(), 3, "{referrers}: {listed:?}");
        registry.delete(&one).await.unwrap();
        let listed = registry.referrers(&target, &subject, None).await.unwrap();
        assert_eq!(listed.len(), 2, "{referrers}");
        assert!(listed.iter().any(|other| other.digest() == second.digest()));
    }
}

/// Two processes that read a list at the same time and write it one after the other: no entry is lost.
#[tokio::test]
async fn lists_of_referrers_are_written_as_they_were_read() {
    let sample = samples::image();
    let subject = sample.top.digest();
    let (server, name) = serve(Options { referrers: false, ..Options::default() }, &sample);
    let list = On::manifest(subject.as_ref().replace(':', "-"));
    let reads =
        || server.requests().iter().filter(|x| x.method == "GET" && x.target.contains("/sha256-")).count();
    // The list is made by the first pair, and changed by the second.
    for round in 1..3 {
        server.clear_requests();
        server.script(list.clone().method("GET").times(1), [Fault::Delay(Duration::from_millis(300))]);
        let push = async |who: &str| {
            let raw = signature(subject, &format!("{who}-{round}"));
            let name = reference::by_digest(&name, raw.digest());
            open(server.host(), |_| ()).push_manifest(&name, &raw).await.unwrap();
        };
        let late = async {
            while reads() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            push("fast").await;
        };
        tokio::join!(push("slow"), late);
        let listed = open(server.host(), |_| ()).referrers(&name, subject, None).await.unwrap();
        assert_eq!(listed.len(), 2 * round, "{listed:?}");
    }
    server.clear_scripts();
    let many = (0..6).map(|at| {
        let raw = signature(subject, &format!("many-{at}"));
        let (registry, name) = (open(server.host(), |_| ()), reference::by_digest(&name, raw.digest()));
        async move { registry.push_manifest(&name, &raw).await.unwrap() }
    });
    futures_util::future::join_all(many).await;
    assert_eq!(open(server.host(), |_| ()).referrers(&name, subject, None).await.unwrap().len(), 10);
}

/// A registry without conditional writes: who has written looks again when others as slow as this one are done.
#[tokio::test]
async fn a_list_is_looked_at_again_when_others_are_done() {
    let sample = samples::image();
    let (server, name) = serve(Options { etags: false, referrers: false, ..Options::default() }, &sample);
    let delay = Duration::from_millis(100);
    server.script(On::target("/manifests/sha256-"), [Fault::Delay(delay)]);
    let raw = signature(sample.top.digest(), "ours");
    let registry = open(server.host(), |_| ());
    registry.manifest(&name).await.unwrap();
    let name = reference::by_digest(&name, raw.digest());
    let start = std::time::Instant::now();
    registry.push_manifest(&name, &raw).await.unwrap();
    // Read, written, waited for as long as both took, read.
    assert!(start.elapsed() >= delay * 5, "{:?}", start.elapsed());
}

/// A registry that shows no list and lets none be made is not asked for ever.
#[tokio::test]
async fn conditions_that_never_hold_end() {
    let sample = samples::image();
    let (server, name) = serve(Options { referrers: false, ..Options::default() }, &sample);
    server.script(On::target("/manifests/sha256-").method("GET"), [Fault::Status(404)]);
    let raw = signature(sample.top.digest(), "ours");
    let name = reference::by_digest(&name, raw.digest());
    assert_kind(open(server.host(), |_| ()).push_manifest(&name, &raw).await, &ErrorKind::Unavailable);
}

pub(crate) fn signature(subject: &Digest, name: &str) -> RawManifest {
    let empty =
        r#""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2"#;
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{manifest}","artifactType":"application/vnd.example.{name}",
        "config":{{"mediaType":"application/vnd.oci.empty.v1+json",{empty}}},"layers":[],
        "subject":{{"mediaType":"{manifest}","digest":"{subject}","size":2}}}}"#
    );
    RawManifest::new(text, None).unwrap()
}

/// A copy moves what is missing, mounts what the registry has, and leaves what may not be redistributed.
#[tokio::test]
async fn copies_move_as_little_as_they_can() {
    let sample = samples::image();
    let (server, name) = serve(Options::default(), &sample);
    let registry = open(server.host(), |_| ());
    let target = reference::parse(&format!("{}/beside:1", server.host())).unwrap();
    copy(&registry, &name, &registry, &target, &CopyOptions::default()).await.unwrap();
    let gets = |server: &FaultServer| {
        let requests = server.requests();
        requests.iter().filter(|x| x.method == "GET" && x.target.contains("/blobs/")).count()
    };
    assert_eq!((gets(&server), uploaded(&server, "PUT").len()), (0, 0));
    assert!(server.content("beside", sample.images[0].config.digest()).is_some());

    // Again elsewhere, twice: the second one reads nothing.
    let to = FaultServer::start().unwrap();
    let target = reference::parse(&format!("{}/a:1", to.host())).unwrap();
    let elsewhere = open(to.host(), |_| ());
    copy(&registry, &name, &elsewhere, &target, &CopyOptions::default()).await.unwrap();
    let first = gets(&server);
    copy(&registry, &name, &elsewhere, &target, &CopyOptions::default()).await.unwrap();
    assert_eq!((first > 0, gets(&server)), (true, first));

    let foreign = samples::non_distributable();
    let (server, name) = serve(Options::default(), &foreign);
    let target = reference::parse(&format!("{}/foreign:1", to.host())).unwrap();
    copy(&open(server.host(), |_| ()), &name, &elsewhere, &target, &CopyOptions::default()).await.unwrap();
    let layers = foreign.images[0].layers.iter();
    let copied = layers.map(|layer| to.content("foreign", layer.descriptor.digest()).is_some());
    assert_eq!(copied.collect::<Vec<_>>(), [false, true]);
}

/// A copy goes through the same trouble as a pull.
#[tokio::test]
async fn copies_try_again() {
    let sample = samples::image();
    let (server, name) = serve(Options::default(), &sample);
    let to = FaultServer::start().unwrap();
    let target = reference::parse(&format!("{}/a:1", to.host())).unwrap();
    server.script(On::blobs().times(1), [Fault::TruncateAt(50)]);
    server.script(On::manifests().times(1), [Fault::Status(503)]);
    to.script(On::any().method("PUT").times(2), [Fault::Status(500)]);
    to.script(On::any().method("HEAD").times(1), [Fault::Close]);
    let mut options = CopyOptions::default();
    options.retry.base = Duration::from_millis(1);
    copy(&open(server.host(), |_| ()), &name, &open(to.host(), |_| ()), &target, &options).await.unwrap();
    to.script(On::any().method("PUT"), [Fault::Status(403)]);
    let again = reference::parse(&format!("{}/b:1", to.host())).unwrap();
    let denied = copy(&open(server.host(), |_| ()), &name, &open(to.host(), |_| ()), &again, &options).await;
    assert_kind(denied, &ErrorKind::Denied);
}

/// What refers to an image goes with it when that is wanted: through the API, through the fallback tag, and what
/// cosign keeps under tags of its own.
#[tokio::test]
async fn referrers_are_copied_when_that_is_wanted() {
    let sample = samples::subject();
    let image = sample.subject.as_ref().unwrap().manifest.digest().clone();
    let (from, name) = serve(Options::default(), &sample);
    let source = open(from.host(), |_| ());
    let of_referrer = signature(sample.top.digest(), "of-a-referrer");
    source.push_manifest(&reference::by_digest(&name, of_referrer.digest()), &of_referrer).await.unwrap();
    let cosign = format!("{}.sig", image.as_ref().replace(':', "-"));
    let signed = reference::parse(&format!("{}/library/app:{cosign}", from.host())).unwrap();
    source.push_manifest(&signed, &signature(&digest::sha256(b"unrelated"), "cosign")).await.unwrap();
    for referrers in [true, false] {
        let to = FaultServer::with(Options { referrers, ..Options::default() }).unwrap();
        let (registry, target) =
            (open(to.host(), |_| ()), reference::parse(&format!("{}/copied:1", to.host())).unwrap());
        let pinned = reference::by_digest(&name, &image);
        let mut options = CopyOptions::default();
        copy(&source, &pinned, &registry, &target, &options).await.unwrap();
        assert!(registry.referrers(&target, &image, None).await.unwrap().is_empty());
        options.referrers = true;
        copy(&source, &pinned, &registry, &target, &options).await.unwrap();
        let listed = registry.referrers(&target, &image, None).await.unwrap();
        assert_eq!(listed, source.referrers(&name, &image, None).await.unwrap());
        let listed = registry.referrers(&target, sample.top.digest(), None).await.unwrap();
        assert_eq!(listed.iter().map(Descriptor::digest).collect::<Vec<_>>(), [of_referrer.digest()]);
        assert!(to.tagged("copied", &cosign).is_some());
    }
}

#[tokio::test]
async fn blobs_are_deleted() {
    let sample = samples::image();
    let (server, name) = serve(Options::default(), &sample);
    let registry = open(server.host(), |_| ());
    let layer = &sample.images[0].layers[0].descriptor;
    registry.delete_blob(&name, layer.digest()).await.unwrap();
    assert_eq!(server.content("library/app", layer.digest()), None);
    assert_kind(registry.delete_blob(&name, layer.digest()).await, &ErrorKind::NotFound);
    server.configure(|options| options.push = false);
    assert_kind(registry.delete(&name).await, &ErrorKind::Unsupported);
}
