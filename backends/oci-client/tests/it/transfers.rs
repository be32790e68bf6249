//! What the suites do not ask, or not of a client without mirrors and stored credentials.

use std::error::Error as _;
use std::sync::OnceLock;

use bytes::Bytes;
use oci_client::Client;
use oci_client::secrets::RegistryAuth;
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::server::{Auth, Fault, FaultServer, Login, On, Options};
use plyfold_core::{
    Backend, Backends, Blob, BlobRange, Capabilities, CopyOptions, Descriptor, ErrorKind, ImageRegistry,
    MediaType, Opened, Page, Reference, copy, digest, reference,
};
use plyfold_oci_client::OciClient;
use plyfold_registry::{Config, Registry};

use crate::fixture::client;
use crate::pull::pull_with;

macro_rules! tests {
    ($($name:ident)*) => {
        pub(crate) const TESTS: &[(&str, fn())] = &[$((stringify!($name), || run($name()))),*];
    };
}

tests! {
    a_blob_that_is_not_what_it_says_is_not_uploaded
    a_large_blob_goes_up_in_parts
    a_program_gives_it_a_scheme
    a_range_ends_where_it_was_asked_to
    a_refused_mount_is_no_error
    credentials_stay_with_their_registry
    it_pulls_what_the_registry_backend_pushes_and_the_reverse
    lists_end
    nothing_shows_a_secret
    the_documented_example_pulls
    what_makes_the_client_panic_is_an_error
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

const PASSWORD: &str = "s3cret-word";

fn serve(options: Options, sample: &Sample) -> (FaultServer, Reference) {
    let server = FaultServer::with(options).unwrap();
    server.put("library/app", "1.2", sample);
    let name = reference::parse(&format!("{}/library/app:1.2", server.host())).unwrap();
    (server, name)
}

fn open(server: &FaultServer) -> OciClient {
    OciClient::new(client(), server.host())
}

fn with_login(server: &FaultServer) -> OciClient {
    open(server).with_auth(RegistryAuth::Basic("user".to_owned(), PASSWORD.to_owned()))
}

fn bearer() -> Options {
    let ttl = std::time::Duration::from_secs(60);
    Options {
        auth: Auth::Bearer { login: Some(Login::new("user", PASSWORD)), ttl, realm: None },
        ..Options::default()
    }
}

fn layer(content: &Bytes) -> Descriptor {
    Descriptor::new(MediaType::ImageLayer, content.len() as u64, digest::sha256(content))
}

async fn the_documented_example_pulls() {
    let (_server, name) = serve(Options::default(), &samples::image());
    assert_eq!(pull_with(client(), &name.whole()).await.unwrap(), 2);
}

async fn it_pulls_what_the_registry_backend_pushes_and_the_reverse() {
    let sample = samples::image();
    let (from, name) = serve(Options::default(), &sample);
    let to = FaultServer::start().unwrap();
    let registry = Registry::new(to.host(), &Config { hosts_dir: Vec::new(), ..Config::default() }).unwrap();
    let target = |name: &str| reference::parse(&format!("{}/{name}:1", to.host())).unwrap();
    let (ours, theirs) = (target("ours"), target("theirs"));
    copy(&open(&from), &name, &registry, &ours, &CopyOptions::default()).await.unwrap();
    assert_eq!(open(&to).manifest(&ours).await.unwrap().descriptor(), &sample.top);
    copy(&registry, &ours, &open(&to), &theirs, &CopyOptions::default()).await.unwrap();
    assert_eq!(registry.manifest(&theirs).await.unwrap().bytes(), sample.top_bytes());
    assert!(registry.has_blob(&theirs, &sample.images[0].layers[0].descriptor).await.unwrap());
}

async fn credentials_stay_with_their_registry() {
    let (home, name) = serve(bearer(), &samples::image());
    let (other, foreign) = serve(bearer(), &samples::image());
    let registry = with_login(&home);
    registry.manifest(&name).await.unwrap();
    assert!(
        home.requests()
            .iter()
            .any(|seen| seen.header("authorization").is_some_and(|it| it.starts_with("Basic")))
    );
    assert_eq!(*registry.manifest(&foreign).await.unwrap_err().kind(), ErrorKind::Auth);
    assert!(!other.requests().is_empty());
    assert!(other.requests().iter().all(|seen| seen.header("authorization").is_none()));
}

async fn a_range_ends_where_it_was_asked_to() {
    let sample = samples::image();
    let blob = sample.images[0].layers[0].descriptor.clone();
    let content = sample.blob(blob.digest()).unwrap().clone();
    for accept_ranges in [true, false] {
        let (server, name) = serve(Options { accept_ranges, ..Options::default() }, &sample);
        if !accept_ranges {
            server.script(On::blob(blob.digest()), [Fault::IgnoreRange]);
        }
        let part = open(&server).blob(&name, &blob, BlobRange::new(5, 25)).await.unwrap();
        let start = usize::try_from(part.offset()).unwrap();
        assert_eq!(start, if accept_ranges { 5 } else { 0 });
        assert_eq!(part.bytes(1 << 20).await.unwrap(), content[start..25]);
        let empty = open(&server).blob(&name, &blob, BlobRange::new(7, 7)).await.unwrap();
        assert!(empty.bytes(1).await.unwrap().is_empty());
    }
}

async fn a_large_blob_goes_up_in_parts() {
    let (server, name) = serve(Options::default(), &samples::image());
    let content = Bytes::from(vec![7; (9 << 20) + 1]);
    let chunks: Vec<_> = content.chunks(100_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let blob = Blob::new(&layer(&content), futures_util::stream::iter(chunks)).unwrap();
    open(&server).push_blob(&name, blob).await.unwrap();
    assert!(server.content("library/app", layer(&content).digest()) == Some(content));
    assert_eq!(server.requests().iter().filter(|seen| seen.method == "PATCH").count(), 3);
}

async fn a_blob_that_is_not_what_it_says_is_not_uploaded() {
    let (server, name) = serve(Options::default(), &samples::image());
    let promised = layer(&Bytes::from_static(b"what was promised"));
    let blob =
        Blob::from_bytes(&promised, BlobRange::FULL, &Bytes::from_static(b"what has come up!")).unwrap();
    let error = open(&server).push_blob(&name, blob).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(error.detail::<plyfold_core::Mismatch>().unwrap().expected, *promised.digest());
    assert_eq!(server.content("library/app", promised.digest()), None);
}

async fn a_refused_mount_is_no_error() {
    let sample = samples::image();
    let (server, name) = serve(Options::default(), &sample);
    let blob = &sample.images[0].layers[0].descriptor;
    let target = reference::parse(&format!("{}/other:1", server.host())).unwrap();
    assert!(open(&server).mount_blob(&target, blob, &name).await.unwrap());
    assert!(open(&server).has_blob(&target, blob).await.unwrap());
    let absent = layer(&Bytes::from_static(b"absent"));
    assert!(!open(&server).mount_blob(&target, &absent, &name).await.unwrap());
    let elsewhere = reference::parse("registry.example/app:1").unwrap();
    assert!(!open(&server).mount_blob(&target, blob, &elsewhere).await.unwrap());
}

async fn lists_end() {
    let sample = samples::image();
    let (server, name) = serve(Options { page: 2, ..Options::default() }, &sample);
    for tag in ["1.3", "1.4", "1.5", "2"] {
        server.put("library/app", tag, &sample);
    }
    let repository = reference::repository_of(&name);
    for limit in [None, Some(1), Some(100)] {
        let (mut page, mut tags) = (Page { limit, after: None }, Vec::new());
        loop {
            let found = open(&server).tags(&repository, page.clone()).await.unwrap();
            tags.extend(found.names);
            match found.next {
                Some(next) => page.after = Some(next),
                None => break,
            }
        }
        assert_eq!(tags, ["1.2", "1.3", "1.4", "1.5", "2"], "{limit:?}");
    }
    let repositories = open(&server).repositories(Page::default()).await.unwrap();
    assert_eq!(repositories.names, [repository]);
    let after = Page { limit: None, after: repositories.next };
    assert_eq!(open(&server).repositories(after).await.unwrap().names, Vec::<String>::new());
}

/// The parts of the rule about secrets that need no stored credentials.
async fn nothing_shows_a_secret() {
    const SIGNATURE: &str = "sig-93af61";
    let sample = samples::image();
    let blob = &sample.images[0].layers[0].descriptor;
    let (storage, _) = serve(Options::default(), &sample);
    for fault in [Fault::Status(403), Fault::Status(503), Fault::Close, Fault::TruncateAt(10), Fault::Flip(3)]
    {
        let (server, name) = serve(bearer(), &sample);
        storage.clear_scripts();
        storage.script(On::any(), [fault.clone()]);
        let to = format!("{}/v2/library/app/blobs/{}?sig={SIGNATURE}", storage.url(), blob.digest());
        server.script(On::blob(blob.digest()), [Fault::Redirect(307, to)]);
        let registry = with_login(&server);
        let read = async { registry.blob(&name, blob, BlobRange::FULL).await?.bytes(1 << 20).await };
        let error = read.await.unwrap_err();
        assert!(storage.requests().iter().any(|seen| seen.target.contains(SIGNATURE)), "{fault:?}: {error}");
        let mut shown = format!("{error} {error:?} {registry} {registry:?}");
        let mut cause = error.source();
        while let Some(next) = cause {
            shown = format!("{shown} {next} {next:?}");
            cause = next.source();
        }
        assert!(!shown.contains(SIGNATURE) && !shown.contains(PASSWORD), "{fault:?}: {shown}");
    }
}

async fn what_makes_the_client_panic_is_an_error() {
    let (server, name) = serve(bearer(), &samples::image());
    server.script(On::token(), [Fault::Body(Bytes::from_static(b"{\"token\":\"a\\nb\"}"))]);
    let error = with_login(&server).manifest(&name).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Internal, "{error}");
}

/// The client of a program, where the scheme of the program finds it.
static CLIENT: OnceLock<Client> = OnceLock::new();

async fn a_program_gives_it_a_scheme() {
    let company = Backend {
        schemes: &["company"],
        package: env!("CARGO_PKG_NAME"),
        summary: "the program's own client",
        syntax: "company:HOST/REPOSITORY[:TAG]",
        options: "",
        capabilities: Capabilities { push: true, ..Capabilities::READ },
        takes_credentials: false,
        open: |request| {
            Box::pin(async move {
                request.options.refuse()?;
                let reference = reference::parse(&request.location.rest)?;
                let registry = OciClient::new(CLIENT.get_or_init(client).clone(), reference.registry());
                Ok(Opened { registry: Box::new(registry), reference: Some(reference) })
            })
        },
    };
    let (_server, name) = serve(Options::default(), &samples::image());
    let backends = Backends::none().with(company).unwrap();
    let opened =
        backends.open(&format!("company:{}", name.whole()), &plyfold_core::Options::default()).await.unwrap();
    let name = opened.reference().await.unwrap();
    assert_eq!(opened.registry.manifest(&name).await.unwrap().descriptor(), &samples::image().top);
}
