//! Hosts as `hosts.toml` and the configuration name them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::server::{Auth, Exchange, Fault, FaultServer, Login, On, Options};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{BlobRange, ErrorKind, ImageRegistry, Page, Reference, digest, pull, reference};
use plyfold_registry::{Config, Credential, Registry, Secret};

use crate::push::signature;
use crate::transfers::quick;
use crate::{assert_kind, open};

/// Three servers with the same image: two mirrors and the registry.
fn servers(sample: &Sample) -> [FaultServer; 3] {
    std::array::from_fn(|_| {
        let server = FaultServer::start().unwrap();
        server.put("library/app", "1.2", sample);
        server
    })
}

/// A folder with a `hosts.toml` for a registry.
fn folder(registry: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join(registry);
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("hosts.toml"), text).unwrap();
    folder
}

fn with_hosts(host: &str, folder: &Path) -> Registry {
    open(host, |config| config.hosts_dir = vec![folder.to_owned()])
}

fn name(registry: &str) -> Reference {
    reference::parse(&format!("{registry}/library/app:1.2")).unwrap()
}

#[tokio::test]
async fn a_file_sends_requests_to_its_hosts_in_its_order() {
    let sample = samples::image();
    let [z, a, origin] = servers(&sample);
    // Neither the ports nor the alphabet decide.
    let mut text = format!("server = \"{}\"\n", origin.url());
    for mirror in [&z, &a] {
        write!(text, "[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.url()).unwrap();
        write!(text, "[host.\"{}\".header]\nx-mirror = \"key-of-{}\"\n", mirror.url(), mirror.host())
            .unwrap();
    }
    let folder = folder("registry.example", &text);
    let registry = with_hosts("registry.example", folder.path());
    z.script(On::any().skip(1), [Fault::Status(503)]);
    registry.manifest(&name("registry.example")).await.unwrap();
    registry.manifest(&name("registry.example")).await.unwrap();
    assert_eq!((z.requests().len(), a.requests().len(), origin.requests().len()), (2, 1, 0));
    for mirror in [&z, &a] {
        let own = format!("key-of-{}", mirror.host());
        assert!(mirror.requests().iter().all(|seen| seen.header("x-mirror") == Some(&own)));
        assert!(mirror.requests().iter().all(|seen| seen.target.ends_with("?ns=registry.example")));
    }
    a.script(On::any(), [Fault::Status(404)]);
    registry.manifest(&name("registry.example")).await.unwrap();
    // The server has another name than the registry: it is a mirror like the others.
    assert!(origin.requests().iter().all(|seen| seen.target.ends_with("?ns=registry.example")));
    assert!(origin.requests()[0].header("x-mirror").is_none());
}

#[tokio::test]
async fn the_default_is_for_registries_without_a_folder() {
    let sample = samples::image();
    let [mirror, origin, _] = servers(&sample);
    let folder = folder("_default", &format!("[host.\"{}\"]\n", mirror.url()));
    let registry = with_hosts(origin.host(), folder.path());
    registry.manifest(&name(origin.host())).await.unwrap();
    assert_eq!((mirror.requests().len(), origin.requests().len()), (1, 0));
    // Without capabilities a host takes everything, writes too: so does containerd.
    let pushed = registry.manifest(&name(origin.host())).await.unwrap();
    registry
        .push_manifest(&reference::parse(&format!("{}/library/app:2", origin.host())).unwrap(), &pushed)
        .await
        .unwrap();
    assert!(mirror.tagged("library/app", "2").is_some() && origin.tagged("library/app", "2").is_none());
}

#[tokio::test]
async fn what_is_written_goes_to_a_host_that_takes_it() {
    let sample = samples::image();
    let [mirror, origin, _] = servers(&sample);
    let text = format!("[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.url());
    let own = folder(origin.host(), &text);
    let registry = with_hosts(origin.host(), own.path());
    let manifest = registry.manifest(&name(origin.host())).await.unwrap();
    mirror.clear_requests();
    let target = reference::parse(&format!("{}/library/app:2", origin.host())).unwrap();
    registry.push_manifest(&target, &manifest).await.unwrap();
    assert!(mirror.requests().is_empty() && origin.tagged("library/app", "2").is_some());
    let readers = folder(origin.host(), "capabilities = [\"pull\"]\n");
    let registry = with_hosts(origin.host(), readers.path());
    assert_kind(registry.push_manifest(&target, &manifest).await, &ErrorKind::Unsupported);
    // No host is trusted to resolve names.
    assert_kind(registry.manifest(&target).await, &ErrorKind::Unsupported);
}

/// A repository may have the words of the API in its name: that does not make a host trusted with its tags.
#[tokio::test]
async fn capabilities_are_for_what_is_asked_and_not_for_names() {
    let sample = samples::image();
    let [mirror, origin, _] = servers(&sample);
    let capabilities = "capabilities = [\"pull\", \"referrers\"]";
    let own = folder(origin.host(), &format!("[host.\"{}\"]\n{capabilities}\n", mirror.url()));
    let registry = with_hosts(origin.host(), own.path());
    for repository in ["a/referrers/b", "a/manifests/b"] {
        for server in [&mirror, &origin] {
            server.put(repository, "1.2", &sample);
        }
        let name = reference::parse(&format!("{}/{repository}:1.2", origin.host())).unwrap();
        registry.manifest(&name).await.unwrap();
        assert!(mirror.requests().is_empty(), "{:?}", mirror.requests());
    }
    let capabilities = "capabilities = [\"pull\"]";
    let own = folder(origin.host(), &format!("[host.\"{}\"]\n{capabilities}\n", mirror.url()));
    let registry = with_hosts(origin.host(), own.path());
    let name = reference::parse(&format!("{}/a/manifests/b:1.2", origin.host())).unwrap();
    registry.referrers(&name, sample.top.digest(), None).await.unwrap();
    assert!(mirror.requests().is_empty(), "{:?}", mirror.requests());
}

#[tokio::test]
async fn a_path_of_its_own_is_the_whole_prefix() {
    let sample = samples::image();
    let [mirror, origin, _] = servers(&sample);
    mirror.put("cache/library/app", "1.2", &sample);
    let text = format!("[host.\"{}/v2/cache\"]\noverride_path = true\n", mirror.url());
    let folder = folder(origin.host(), &text);
    let registry = with_hosts(origin.host(), folder.path());
    registry.manifest(&name(origin.host())).await.unwrap();
    let target = mirror.requests()[0].target.clone();
    assert!(target.starts_with("/v2/cache/library/app/manifests/1.2?ns="), "{target}");
    assert!(origin.requests().is_empty());
}

/// A mirror's links lead below its own path.
#[tokio::test]
async fn pages_of_a_mirror_with_a_path_of_its_own() {
    let sample = samples::image();
    let [mirror, origin, _] = servers(&sample);
    mirror.configure(|options| options.page = 1);
    for tag in ["1", "2", "3"] {
        mirror.put("cache/library/app", tag, &sample);
    }
    let text = format!("[host.\"{}/v2/cache\"]\noverride_path = true\n", mirror.url());
    let folder = folder(origin.host(), &text);
    let registry = with_hosts(origin.host(), folder.path());
    let (repository, mut page) = (format!("{}/library/app", origin.host()), Page::default());
    for tag in ["1", "2", "3"] {
        let names = registry.tags(&repository, page).await.unwrap();
        assert_eq!(names.names, [tag]);
        page = Page { after: names.next, limit: None };
    }
    assert_eq!(page.after, None);
    // A link to the page that it stands on.
    let circle = Fault::Header("Link", Some("</v2/cache/library/app/tags/list?last=2>; rel=next".to_owned()));
    mirror.script(On::target("/tags/list"), [circle]);
    origin.script(On::any(), [Fault::Close]);
    let circle = Page { after: Some("?last=2".to_owned()), limit: None };
    assert_kind(registry.tags(&repository, circle).await, &ErrorKind::Corrupt);
}

/// A mirror may be behind: the list of referrers is changed as it is where it is written.
#[tokio::test]
async fn a_list_of_referrers_is_read_where_it_is_written() {
    let sample = samples::subject();
    let subject = sample.subject.as_ref().unwrap().manifest.digest().clone();
    let old = FaultServer::with(Options { referrers: false, ..Options::default() }).unwrap();
    let origin = FaultServer::with(Options { referrers: false, ..Options::default() }).unwrap();
    // The mirror has a list of long ago, the registry has one with the sample in it.
    old.put("library/app", "1.2", &sample);
    let tag = subject.as_ref().replace(':', "-");
    let empty = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let digest = digest::sha256(empty.as_bytes());
    old.put_manifest("library/app", &digest, "application/vnd.oci.image.index.v1+json", empty.into());
    old.tag("library/app", &tag, &digest);
    origin.put("library/app", "1.2", &sample);
    let text = format!("[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", old.url());
    let own = folder(origin.host(), &text);
    let registry = with_hosts(origin.host(), own.path());
    let ours = signature(&subject, "ours");
    let name = reference::by_digest(&name(origin.host()), ours.digest());
    registry.push_manifest(&name, &ours).await.unwrap();
    let listed = open(origin.host(), |_| ()).referrers(&name, &subject, None).await.unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
}

/// Behind a path of its own a repository has another name, for the token server too.
#[tokio::test]
async fn a_mirror_has_credentials_and_scopes_of_its_own() {
    let sample = samples::image();
    let [mirror, origin, _] = servers(&sample);
    mirror.put("cache/library/app", "1.2", &sample);
    let login = Login::new("mirror-user", "mirror-pw");
    mirror.configure(|options| {
        options.auth = Auth::Bearer { login: Some(login), ttl: Duration::from_secs(300), realm: None };
    });
    let text = format!("[host.\"{}/v2/cache\"]\noverride_path = true\n", mirror.url());
    let folder = folder(origin.host(), &text);
    // "mirror-user:mirror-pw" and "user:s3cret-word"
    let stored = format!(
        r#"{{"auths":{{"{}":{{"auth":"bWlycm9yLXVzZXI6bWlycm9yLXB3"}},"{}":{{"auth":"dXNlcjpzM2NyZXQtd29yZA=="}}}}}}"#,
        mirror.host(),
        origin.host()
    );
    std::fs::write(folder.path().join("config.json"), stored).unwrap();
    let registry = open(origin.host(), |config| {
        config.hosts_dir = vec![folder.path().to_owned()];
        config.docker_config = Some(folder.path().to_owned());
    });
    registry.manifest(&name(origin.host())).await.unwrap();
    assert!(origin.requests().is_empty());
    let asked = |exchange: &&Exchange| exchange.target.starts_with("/token");
    let requests = mirror.requests();
    let token = requests.iter().find(asked).unwrap();
    assert!(token.target.contains("scope=repository%3Acache%2Flibrary%2Fapp%3Apull"), "{}", token.target);
}

#[tokio::test]
async fn a_blob_that_broke_off_goes_on_at_the_next_host() {
    let sample = samples::image();
    let layer = sample.images[0].layers[0].descriptor.clone();
    let [mirror, origin, _] = servers(&sample);
    let folder = folder(origin.host(), &format!("[host.\"{}\"]\n", mirror.url()));
    let registry = with_hosts(origin.host(), folder.path());
    mirror.script(On::blobs(), [Fault::TruncateAt(100)]);
    let name = name(origin.host());
    let half = registry.blob(&name, &layer, BlobRange::FULL).await.unwrap().bytes(1 << 20).await;
    assert_kind(half, &ErrorKind::Unavailable);
    let rest = registry.blob(&name, &layer, BlobRange::from_start(100)).await.unwrap();
    assert_eq!(rest.bytes(1 << 20).await.unwrap(), sample.blob(layer.digest()).unwrap().slice(100..));
    assert_eq!(origin.served(layer.digest()).requests, 1);
}

#[tokio::test]
async fn a_proxy_is_used_for_its_host_alone_and_its_password_is_not_shown() {
    let sample = samples::image();
    let [mirror, origin, proxy] = servers(&sample);
    proxy.script(On::any(), [Fault::Status(404)]);
    let text = format!("[host.\"{}\"]\nproxy = \"http://me:s3cret-word@{}\"\n", mirror.url(), proxy.host());
    let folder = folder(origin.host(), &text);
    let registry = with_hosts(origin.host(), folder.path());
    assert!(!format!("{registry:?}").contains("s3cret-word"));
    registry.manifest(&name(origin.host())).await.unwrap();
    assert!(mirror.requests().is_empty(), "through the proxy or not at all");
    assert_eq!(origin.requests().len(), 1);
    let seen = &proxy.requests()[0];
    assert!(seen.target.starts_with(&mirror.url()), "{seen:?}");
    assert_eq!(seen.header("proxy-authorization"), Some("Basic bWU6czNjcmV0LXdvcmQ="));
    origin.script(On::any(), [Fault::Status(404)]);
    assert_kind(registry.manifest(&name(origin.host())).await, &ErrorKind::NotFound);
    // A proxy that is not there.
    let text = format!("proxy = \"http://me:s3cret-word@127.0.0.1:1\"\nserver = \"{}\"\n", mirror.url());
    let folder = self::folder(origin.host(), &text);
    let registry = with_hosts(origin.host(), folder.path());
    assert_kind(registry.manifest(&name(origin.host())).await, &ErrorKind::Unavailable);
    for broken in ["s3cret-word", "ftp://s3cret-word", "socks9://a"] {
        let folder = self::folder("r.example", &format!("proxy = \"{broken}\"\n"));
        let config = Config { hosts_dir: vec![folder.path().to_owned()], ..Config::default() };
        assert_kind(Registry::new("r.example", &config), &ErrorKind::Config);
    }
}

#[test]
fn mistakes_are_told_when_the_registry_is_opened() {
    let broken = [
        "[host.\"https://user:s3cret-word@m.example\"]\n",
        "[host.\"https://169.254.169.254\"]\n",
        "server = \"ftp://m.example\"\n",
        "ca = \"none-such.pem\"\n",
        "[header]\nx = \"s3cret-word\\n\"\n",
        "[header]\n\"x y\" = \"s3cret-word\"\n",
    ];
    for text in broken {
        let folder = folder("r.example", text);
        let config = Config { hosts_dir: vec![folder.path().to_owned()], ..Config::default() };
        let error = Registry::new("r.example", &config).unwrap_err();
        let kinds = [ErrorKind::Config, ErrorKind::Unsupported];
        assert!(kinds.contains(error.kind()), "{text}: {error}");
        assert!(!format!("{error} {error:?}").contains("s3cret-word"), "{error:?}");
    }
    let unknown = plyfold_core::Options::parse([
        r#"hosts={"r.example":{"host":[{"url":"https://m","skip-verify":true}]}}"#,
    ]);
    let config: Config = unknown.unwrap().config().unwrap();
    let error = assert_kind(Registry::new("r.example", &config), &ErrorKind::Config);
    assert!(error.message().contains("skip-verify"), "{error}");
}

/// The login of the URI's registry is not for a mirror of that registry.
#[tokio::test]
async fn a_server_of_another_name_gets_no_login() {
    let sample = samples::image();
    let [server, _, _] = servers(&sample);
    server.configure(|options| options.auth = Auth::Basic(Login::new("user", "s3cret-word")));
    let folder = folder("registry.example", &format!("server = \"{}\"\n", server.url()));
    let registry = open("registry.example", |config| {
        config.hosts_dir = vec![folder.path().to_owned()];
        config.username = Some(Secret::new("user"));
        config.password = Some(Secret::new("s3cret-word"));
    });
    assert_kind(registry.manifest(&name("registry.example")).await, &ErrorKind::Auth);
    assert!(server.requests().iter().all(|seen| seen.header("authorization").is_none()));
}

/// A mirror that goes silent is passed over for that blob, before its answer and in the middle of it; also when only
/// the engine's time-out notices.
#[tokio::test]
async fn a_silent_mirror_is_passed_over() {
    let sample = samples::image();
    for fault in
        [Fault::Delay(Duration::from_secs(20)), Fault::StallAt(10), Fault::Pace(1, Duration::from_secs(1))]
    {
        let [mirror, origin, _] = servers(&sample);
        mirror.script(On::blobs(), [fault.clone()]);
        let text = format!("[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.url());
        let folder = folder(origin.host(), &text);
        let registry = with_hosts(origin.host(), folder.path());
        let cache = MemoryCache::new().unwrap();
        pull(&registry, &name(origin.host()), &cache, &quick()).await.unwrap();
        for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
            let of_blob = format!("/blobs/{}", blob.descriptor.digest());
            let asked = mirror.requests().iter().filter(|seen| seen.target.contains(&of_blob)).count();
            assert_eq!(asked, 1, "{fault:?}: the mirror is asked for {}", blob.descriptor.digest());
        }
    }
}

/// The mirror cuts each blob once, and nothing listens where the registry should be.
#[tokio::test]
async fn a_mirror_that_cuts_once_serves_the_pull_of_a_registry_that_is_gone() {
    let sample = samples::image();
    let [mirror, gone, _] = servers(&sample);
    let host = gone.host().to_owned();
    drop(gone);
    for layer in &sample.images[0].layers {
        mirror.script(On::blob(layer.descriptor.digest()).times(1), [Fault::TruncateAt(20)]);
        // That the registry is gone for good is no reason to give up the mirror.
        mirror.script(On::blob(layer.descriptor.digest()).times(1), [Fault::Status(503)]);
    }
    let folder =
        folder(&host, &format!("[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.url()));
    let registry = with_hosts(&host, folder.path());
    let cache = MemoryCache::new().unwrap();
    pull(&registry, &name(&host), &cache, &quick()).await.unwrap();
}

/// The registry says what a credential may read: a mirror, and what is configured for this machine, do not know it.
#[tokio::test]
async fn a_credential_of_calls_is_for_the_registry_itself() {
    let sample = samples::image();
    let [mirror, _, origin] = servers(&sample);
    let layer = &sample.images[0].layers[0].descriptor;
    let host = origin.host().to_owned();
    let text = format!(
        "server = \"http://{host}\"\n[header]\nauthorization = \"Basic bWFjaGluZTpwdw==\"\nx-site = \"1\"\n\
         [host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n[host.\"{0}\".header]\nauthorization = \"Basic bQ==\"\n",
        mirror.url()
    );
    let folder = folder(&host, &text);
    let registry = with_hosts(&host, folder.path());
    registry.manifest(&name(&host)).await.unwrap();
    assert_eq!((mirror.requests().len(), origin.requests().len()), (1, 0), "without one the mirror answers");
    mirror.clear_requests();
    origin.configure(|options| options.auth = Auth::Basic(Login::new("tenant", "pw")));
    let tenant = registry.with_credential(Credential::basic("tenant", "pw"));
    tenant.manifest(&name(&host)).await.unwrap();
    tenant.resolve(&reference::by_digest(&name(&host), sample.top.digest())).await.unwrap();
    tenant.tags(&format!("{host}/library/app"), Page::default()).await.unwrap();
    assert_eq!(mirror.requests().len(), 0);
    tenant.blob(&name(&host), layer, BlobRange::FULL).await.unwrap().bytes(1 << 20).await.unwrap();
    assert_eq!(mirror.requests().len(), 1, "layers have digests");
    let seen = origin.requests().into_iter().chain(mirror.requests());
    for seen in seen {
        assert!(matches!(seen.header("authorization"), None | Some("Basic dGVuYW50OnB3")), "{seen:?}");
        assert!(seen.header("x-site").is_some() || seen.target.contains("ns="), "{seen:?}");
    }
    for other in [Credential::basic("tenant", "wrong"), Credential::Anonymous] {
        assert_kind(tenant.with_credential(other).manifest(&name(&host)).await, &ErrorKind::Auth);
    }
    tenant.manifest(&name(&host)).await.unwrap();
}
