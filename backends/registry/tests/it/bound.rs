//! What is for one host stays with its scheme, host and port: certificates, CAs, `skip_verify` and proxies, wherever a
//! registry sends us; and who may see credentials.

use std::env;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plyfold_conformance::samples;
use plyfold_conformance::server::{Auth, Fault, FaultServer, Login, On, Options};
use plyfold_core::{BlobRange, ErrorKind, ImageRegistry, Reference, Result, reference};
use plyfold_registry::{Config, Registry};
use tracing::field::{Field, Visit};

use crate::front::{Authority, Front};
use crate::{assert_kind, open, serve, with_login};

/// A registry with TLS whose layers are at a storage with TLS on another address.
struct Scene {
    authority: Authority,
    registry: Front,
    storage: Front,
    /// Behind the two.
    plain: [FaultServer; 2],
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let (authority, sample) = (Authority::new(), samples::image());
        let plain = [(); 2].map(|()| serve(Options::default(), &sample).0);
        let registry = Front::start(&authority, "127.0.0.1", &plain[0]);
        let storage = Front::start(&authority, "127.0.0.2", &plain[1]);
        let layer = sample.images[0].layers[0].descriptor.digest();
        let to = format!("{}/v2/library/app/blobs/{layer}?sig=x", storage.url());
        plain[0].script(On::blob(layer), [Fault::Redirect(307, to)]);
        Self { authority, registry, storage, plain, folder: tempfile::tempdir().unwrap() }
    }

    /// Writes the `hosts.toml` of a host.
    fn configure(&self, host: &str, text: &str) {
        let own = self.folder.path().join(host);
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("hosts.toml"), text).unwrap();
    }

    fn open(&self, change: impl FnOnce(&mut Config)) -> Registry {
        open(&self.registry.host, |config| {
            config.hosts_dir = vec![self.folder.path().to_owned()];
            config.https = vec![self.registry.host.clone(), self.storage.host.clone()];
            change(config);
        })
    }

    /// Reads a manifest from the registry, and a layer from the storage.
    async fn read(&self, registry: &Registry) -> Result<()> {
        let (name, sample) = (name(&self.registry.host), samples::image());
        registry.manifest(&name).await.expect("the registry itself is trusted");
        let layer = &sample.images[0].layers[0].descriptor;
        registry.blob(&name, layer, BlobRange::FULL).await?.bytes(1 << 20).await.map(drop)
    }
}

fn name(host: &str) -> Reference {
    reference::parse(&format!("{host}/library/app:1.2")).unwrap()
}

fn ca(path: &Path) -> String {
    format!("ca = {:?}\n", path.display().to_string())
}

#[tokio::test]
async fn a_ca_of_a_registry_is_not_one_of_its_storage() {
    let scene = Scene::new();
    for text in [ca(&scene.authority.certificate()), "skip_verify = true\n".to_owned()] {
        scene.configure(&scene.registry.host, &text);
        let error = assert_kind(scene.read(&scene.open(|_| ())).await, &ErrorKind::Tls);
        assert_eq!(error.context("endpoint"), Some(scene.storage.url().as_str()), "{error}");
        assert!(scene.storage.shown().is_empty(), "{text}: nothing is asked of it");
    }
    // One that is for every host, and one of its own.
    scene.read(&scene.open(|config| config.ca = vec![scene.authority.certificate()])).await.unwrap();
    scene.configure(&scene.storage.host, &ca(&scene.authority.certificate()));
    scene.read(&scene.open(|_| ())).await.unwrap();
    scene.configure(&scene.storage.host, "skip_verify = true\n");
    scene.read(&scene.open(|_| ())).await.unwrap();
    assert_eq!(scene.storage.shown().len(), 3);
}

#[tokio::test]
async fn the_default_is_for_registries_and_not_for_their_storages() {
    let scene = Scene::new();
    scene.configure("_default", "skip_verify = true\n");
    assert_kind(scene.read(&scene.open(|_| ())).await, &ErrorKind::Tls);
    assert!(scene.storage.shown().is_empty());
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_its_own_host() {
    let scene = Scene::new();
    let (certificate, client) = (scene.authority.certificate(), scene.authority.client());
    // As an option, and in the file of the registry.
    let by_option = |config: &mut Config| {
        config.ca = vec![certificate.clone()];
        config.client_cert = Some(client.clone());
    };
    scene.read(&scene.open(by_option)).await.unwrap();
    let own = format!("client = {:?}\n", client.display().to_string());
    scene.configure(&scene.registry.host, &(ca(&certificate) + &own));
    scene.configure(&scene.storage.host, &ca(&certificate));
    scene.read(&scene.open(|_| ())).await.unwrap();
    assert_eq!(scene.storage.shown(), [false, false], "the storage sees none");
    assert!(scene.registry.shown().iter().all(|shown| *shown));
    // What a file gives it, it gets.
    scene.configure(&scene.storage.host, &(ca(&certificate) + &own));
    scene.read(&scene.open(|_| ())).await.unwrap();
    assert_eq!(scene.storage.shown(), [false, false, true]);
    // A registry that the URI does not name is another host.
    let registry = open(&scene.storage.host, by_option);
    let (before, name) = (scene.registry.shown().len(), name(&scene.registry.host));
    registry.manifest(&name).await.unwrap();
    assert_eq!(scene.registry.shown()[before..], [false]);
}

#[tokio::test]
async fn a_proxy_of_a_registry_is_not_one_of_its_storage() {
    let scene = Scene::new();
    let nowhere = FaultServer::start().unwrap();
    // It answers CONNECT with an error: what goes through it fails.
    let through = format!("proxy = \"{}\"\n", nowhere.url());
    scene.configure(&scene.storage.host, &(ca(&scene.authority.certificate()) + &through));
    scene.configure(&scene.registry.host, &ca(&scene.authority.certificate()));
    scene.read(&scene.open(|_| ())).await.unwrap_err();
    assert!(scene.storage.shown().is_empty() && !nowhere.requests().is_empty());
}

/// A registry with TLS whose token server is one with TLS on another address.
fn with_token_server() -> Scene {
    let scene = Scene::new();
    let login = Some(Login::new("user", "s3cret-word"));
    let realm = Some(format!("{}/token", scene.storage.url()));
    let ttl = Duration::from_secs(300);
    scene.plain[0].configure(|options| options.auth = Auth::Bearer { login: login.clone(), ttl, realm });
    scene.plain[1].configure(|options| options.auth = Auth::Bearer { login, ttl, realm: None });
    scene
}

impl Scene {
    /// Whether the token server was asked with credentials.
    async fn credentials_went(&self, change: impl FnOnce(&mut Config)) -> bool {
        self.plain[1].clear_requests();
        let registry = self.open(|config| {
            with_login(config);
            change(config);
        });
        // Its tokens are not the registry's.
        assert_kind(registry.manifest(&name(&self.registry.host)).await, &ErrorKind::Auth);
        self.plain[1].requests().iter().any(|seen| seen.header("authorization").is_some())
    }
}

#[tokio::test]
async fn a_registry_with_a_verified_certificate_names_its_token_server() {
    let scene = with_token_server();
    let certificate = scene.authority.certificate();
    let trusting = |config: &mut Config| config.ca = vec![certificate.clone()];
    assert!(scene.credentials_went(trusting).await);
    let listed = |list: &[String]| {
        let list = list.to_vec();
        let certificate = certificate.clone();
        move |config: &mut Config| {
            config.ca = vec![certificate];
            config.trusted_realm = Some(list);
        }
    };
    assert!(!scene.credentials_went(listed(&[])).await, "a list that is empty");
    assert!(!scene.credentials_went(listed(&["sso.example".to_owned()])).await, "a list of others");
    assert!(scene.credentials_went(listed(std::slice::from_ref(&scene.storage.host))).await);
    // One that does not prove its name is not believed, whatever its token server proves.
    scene.configure(&scene.registry.host, "skip_verify = true\n");
    scene.configure(&scene.storage.host, &ca(&certificate));
    assert!(!scene.credentials_went(|_| ()).await, "skip_verify");
}

/// A mirror has the credentials that are stored for it, or none, wherever its token server is.
#[tokio::test]
async fn a_mirror_without_credentials_has_none_to_send() {
    let scene = with_token_server();
    let (origin, _) = serve(Options::default(), &samples::image());
    let mirror = format!("[host.\"{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", scene.registry.url());
    scene.configure(origin.host(), &mirror);
    let registry = open(origin.host(), |config| {
        config.hosts_dir = vec![scene.folder.path().to_owned()];
        config.ca = vec![scene.authority.certificate()];
        config.plain_http = vec![origin.host().to_owned()];
        with_login(config);
    });
    registry.manifest(&name(origin.host())).await.unwrap();
    let asked = scene.plain[1].requests();
    assert!(
        !asked.is_empty() && asked.iter().all(|seen| seen.header("authorization").is_none()),
        "{asked:?}"
    );
}

/// In a process of its own: where another thread logs a line first, while no one listens, `tracing` may keep that line
/// from one who listens later.
#[test]
fn the_log_says_where_credentials_go() {
    const ALONE: &str = "PLYFOLD_TEST_ALONE";
    if env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return runtime.unwrap().block_on(the_log_says_where());
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "bound::the_log_says_where_credentials_go", "--nocapture"]).env(ALONE, "1");
    let ended = child.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let ran = ended.status.success() && said.contains(" 1 passed");
    assert!(ran, "{said}{}", String::from_utf8_lossy(&ended.stderr));
}

async fn the_log_says_where() {
    let scene = with_token_server();
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.clone());
    scene.credentials_went(|config| config.ca = vec![scene.authority.certificate()]).await;
    let (basic, name) = serve(
        Options { auth: Auth::Basic(Login::new("user", "s3cret-word")), ..Options::default() },
        &samples::image(),
    );
    open(basic.host(), with_login).manifest(&name).await.unwrap();
    drop(guard);
    let lines = log.0.lock().unwrap().clone();
    for (level, parts) in [
        ("INFO", [scene.registry.host.as_str(), &scene.storage.url()]),
        ("DEBUG", [basic.host(), &basic.url()]),
    ] {
        let tells = |line: &&String| line.starts_with(level) && parts.iter().all(|part| line.contains(part));
        assert_eq!(lines.iter().filter(tells).count(), 1, "{parts:?}: {lines:#?}");
    }
    assert!(lines.iter().all(|line| !line.contains("s3cret-word")), "{lines:#?}");
}

/// The lines of this crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("plyfold_registry")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::Id) {}

    fn exit(&self, _: &tracing::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        // A String takes whatever is written to it.
        let _ = write!(self.0, " {value:?}");
    }
}
