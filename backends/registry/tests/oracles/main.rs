//! The backend against real registries: plain, TLS, client certificates, htpasswd and tokens.

mod certificates;
mod cosign;
mod hosts;
mod peers;
mod registry;
mod rules;
mod token;

use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfold_conformance::oracle::{Failure, Need, Run, Verdict};
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::server::FaultServer;
use plyfold_core::memory::MemoryCache;
use plyfold_core::pull::Retry;
use plyfold_core::{
    Blob, BlobRange, CopyOptions, Descriptor, ErrorKind, ImageRegistry, ImageRegistryExt, Page, PullOptions,
    PullPolicy, RawManifest, Reference, copy, reference,
};
use plyfold_registry::{Config, Registry, Secret};

use self::certificates::Authority;
use self::hosts::{
    a_pull_through_mirror_and_its_end, hosts_toml_names_certificates,
    podman_s_login_is_ours_and_ours_is_skopeo_s,
};
use self::peers::{
    crane_pulls_what_we_push_and_we_what_it_pushes, docker_registry_takes_chunks,
    oras_pulls_what_we_push_and_we_what_it_pushes, signatures_and_sboms_are_listed_and_copied,
    what_cosign_and_oras_attest_is_read,
};
use self::registry::DockerRegistry;
use self::rules::{
    every_rule_on_a_plain_registry, every_rule_over_mutual_tls, every_rule_over_tls,
    every_rule_through_a_mirror, every_rule_with_a_password, every_rule_with_tokens_that_expire,
};
use self::token::TokenServer;

const DOCKER_REGISTRY: Need = Need::Tool { name: "docker-registry", package: "docker-registry" };

plyfold_conformance::oracle_tests! {
    images_go_there_and_come_back needs [DOCKER_REGISTRY];
    skopeo_reads_what_we_push needs [DOCKER_REGISTRY, Need::SKOPEO];
    bytes_changed_on_its_disk_are_seen needs [DOCKER_REGISTRY];
    passwords_are_checked needs [DOCKER_REGISTRY];
    tokens_are_renewed_when_they_expire needs [DOCKER_REGISTRY];
    a_token_server_of_another_name_has_to_be_trusted needs [DOCKER_REGISTRY];
    a_token_runs_out_in_the_middle_of_a_pull needs [DOCKER_REGISTRY];
    tls_with_an_own_ca needs [DOCKER_REGISTRY];
    certificates_that_are_no_good needs [DOCKER_REGISTRY];
    client_certificates needs [DOCKER_REGISTRY];
    hosts_toml_names_certificates needs [DOCKER_REGISTRY];
    a_pull_through_mirror_and_its_end needs [DOCKER_REGISTRY];
    podman_s_login_is_ours_and_ours_is_skopeo_s needs [DOCKER_REGISTRY, Need::SKOPEO];
    docker_registry_takes_chunks needs [DOCKER_REGISTRY];
    crane_pulls_what_we_push_and_we_what_it_pushes needs [DOCKER_REGISTRY, Need::CRANE];
    oras_pulls_what_we_push_and_we_what_it_pushes needs [DOCKER_REGISTRY, Need::ORAS];
    signatures_and_sboms_are_listed_and_copied needs [DOCKER_REGISTRY, Need::COSIGN, Need::ORAS];
    what_cosign_and_oras_attest_is_read needs [DOCKER_REGISTRY, Need::COSIGN, Need::ORAS];
    every_rule_on_a_plain_registry needs [DOCKER_REGISTRY];
    every_rule_over_tls needs [DOCKER_REGISTRY];
    every_rule_over_mutual_tls needs [DOCKER_REGISTRY];
    every_rule_with_a_password needs [DOCKER_REGISTRY];
    every_rule_with_tokens_that_expire needs [DOCKER_REGISTRY];
    every_rule_through_a_mirror needs [DOCKER_REGISTRY];
}

fn images_go_there_and_come_back() -> Verdict {
    let server = DockerRegistry::start("", "")?;
    let registry = open(&server, |_| ())?;
    for sample in [samples::image(), samples::index(), samples::docker_image(), samples::zstandard()] {
        let name = push(&registry, &server, &sample)?;
        let raw = block_on(registry.fetch_raw(&name))?;
        assert_eq!(raw.descriptor(), &sample.top, "{}", sample.name);
        assert_eq!(block_on(registry.resolve(&name))?, sample.top);
        let layer = &sample.images[0].layers[0].descriptor;
        let content = sample.blob(layer.digest()).ok_or_else(|| Failure::new("no layer"))?;
        for range in [BlobRange::FULL, BlobRange::from_start(1), BlobRange::new(2, 5)] {
            let bytes = block_on(async { registry.blob(&name, layer, range).await?.bytes(1 << 20).await })?;
            let range = range.resolve(layer.size())?;
            assert_eq!(bytes, content.slice(range.start as usize..range.end as usize));
        }
        let tags = block_on(registry.tags(&reference::repository_of(&name), Page::default()))?;
        assert_eq!(tags.names, ["1"]);
        assert!(block_on(registry.referrers(&name, sample.top.digest(), None))?.is_empty());
        let mounted = reference::parse(&format!("{}/mounted/{}:1", server.host(), name.repository()))?;
        assert!(block_on(registry.mount_blob(&mounted, layer, &name))?);
        block_on(registry.delete(&reference::by_digest(&name, sample.top.digest())))?;
        assert!(!block_on(registry.exists(&name))?);
    }
    let repositories = block_on(registry.repositories(Page { limit: Some(2), after: None }))?;
    assert_eq!(repositories.names.len(), 2);
    assert!(repositories.next.is_some());
    // A range beyond the blob: the descriptor says more than there is.
    let sample = samples::uncompressed();
    let name = push(&registry, &server, &sample)?;
    let mut layer = sample.images[0].layers[0].descriptor.clone();
    layer.set_size(layer.size() + 1000);
    let beyond = BlobRange::from_start(layer.size() - 10);
    let outcome = block_on(async { registry.blob(&name, &layer, beyond).await?.bytes(1 << 20).await });
    assert_kind(outcome, &ErrorKind::Corrupt);
    Ok(())
}

fn skopeo_reads_what_we_push() -> Verdict {
    let server = DockerRegistry::start("", "")?;
    let sample = samples::index();
    let name = push(&open(&server, |_| ())?, &server, &sample)?;
    let image = format!("docker://{}", name.whole());
    let raw = Run::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &image]).success()?;
    assert_eq!(raw.stdout.as_bytes(), &sample.top_bytes()[..]);
    let folder = tempfile::tempdir()?;
    let copy = format!("oci:{}:t", folder.path().display());
    Run::new("skopeo").args(["copy", "-q", "--all", "--src-tls-verify=false", &image, &copy]).success()?;
    Ok(())
}

/// A real server that lies: it serves what is on its disk under the right digest header.
fn bytes_changed_on_its_disk_are_seen() -> Verdict {
    let server = DockerRegistry::start("", "")?;
    let registry = open(&server, |_| ())?;
    let sample = samples::image();
    let name = push(&registry, &server, &sample)?;
    for blob in [&sample.images[0].layers[0].descriptor, &sample.images[0].config] {
        let file = server.blob_file(blob.digest());
        let mut content = std::fs::read(&file)?;
        content[10] ^= 1;
        std::fs::write(&file, content)?;
        let read =
            block_on(async { registry.blob(&name, blob, BlobRange::FULL).await?.bytes(1 << 20).await });
        let error = assert_kind(read, &ErrorKind::Corrupt);
        assert!(
            error.detail::<plyfold_core::Mismatch>().is_some_and(|mismatch| mismatch.actual.is_some()),
            "{error}"
        );
    }
    Ok(())
}

fn passwords_are_checked() -> Verdict {
    let folder = tempfile::tempdir()?;
    let auth = htpasswd(folder.path())?;
    let server = DockerRegistry::start(&auth, "")?;
    let name = push(&open(&server, with_login)?, &server, &samples::image())?;
    assert_kind(block_on(open(&server, |_| ())?.manifest(&name)), &ErrorKind::Auth);
    let wrong = open(&server, |config| {
        with_login(config);
        config.password = Some(Secret::new("s3cret-guess"));
    })?;
    assert_kind(block_on(wrong.manifest(&name)), &ErrorKind::Auth);
    Ok(())
}

fn tokens_are_renewed_when_they_expire() -> Verdict {
    let tokens = TokenServer::start(Duration::from_secs(2))?;
    let server = DockerRegistry::start(&tokens.configuration(), "")?;
    let registry = open(&server, with_login)?;
    let sample = samples::image();
    let name = push(&registry, &server, &sample)?;
    let before = tokens.issued();
    block_on(registry.manifest(&name))?;
    block_on(registry.manifest(&name))?;
    assert_eq!(tokens.issued(), before + 1);
    std::thread::sleep(Duration::from_secs(3));
    block_on(registry.manifest(&name))?;
    assert_eq!(tokens.issued(), before + 2);
    assert_kind(block_on(open(&server, |_| ())?.manifest(&name)), &ErrorKind::Auth);
    Ok(())
}

/// The registry is an address, and its token server a name that is looked up.
fn a_token_server_of_another_name_has_to_be_trusted() -> Verdict {
    let tokens = TokenServer::start(Duration::from_secs(300))?;
    let server = DockerRegistry::start(&tokens.configuration_at(&tokens.by_name()), "")?;
    let sample = samples::image();
    // What is reached without TLS may be anybody's answer: it gets nothing for another host.
    let name = Reference::with_tag(server.host().to_owned(), "library/app".to_owned(), "1.2".to_owned());
    let refused = assert_kind(block_on(open(&server, with_login)?.manifest(&name)), &ErrorKind::Auth);
    assert_eq!(tokens.issued(), 0, "{refused}");
    let trusting = open(&server, |config| {
        with_login(config);
        config.trusted_realm = Some(vec![tokens.by_name()]);
        config.plain_http = vec![tokens.by_name()];
    })?;
    let name = push(&trusting, &server, &sample)?;
    assert_eq!(block_on(trusting.manifest(&name))?.digest(), sample.top.digest());
    assert!(tokens.issued() > 0);
    Ok(())
}

/// A token is good for two seconds, and the layers come one after the other, each of them late.
fn a_token_runs_out_in_the_middle_of_a_pull() -> Verdict {
    let tokens = TokenServer::start(Duration::from_secs(2))?;
    let server = DockerRegistry::start(&tokens.configuration(), "")?;
    let registry = open(&server, with_login)?;
    let sample = samples::image();
    let name = push(&registry, &server, &sample)?;
    let before = tokens.issued();
    let options = PullOptions {
        concurrency: 1,
        platform: "linux/amd64".parse()?,
        policy: PullPolicy::Always,
        retry: Retry { attempts: 1, ..Retry::default() },
        ..PullOptions::default()
    };
    let cache = MemoryCache::new()?;
    let slow = Late(open(&server, with_login)?);
    let pulled = block_on(plyfold_core::pull(&slow, &name, &cache, &options))?;
    assert_eq!(pulled.layers.len(), sample.images[0].layers.len());
    assert!(tokens.issued() > before + 1, "{} tokens", tokens.issued() - before);
    Ok(())
}

/// Reads blobs a second and a half later than it is asked to.
#[derive(Clone, Debug)]
struct Late(Registry);

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait::async_trait]
impl ImageRegistry for Late {
    async fn manifest(&self, reference: &Reference) -> plyfold_core::Result<RawManifest> {
        self.0.manifest(reference).await
    }

    async fn blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        range: BlobRange,
    ) -> plyfold_core::Result<Blob> {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        self.0.blob(reference, blob, range).await
    }
}

fn tls_with_an_own_ca() -> Verdict {
    let authority = Authority::new()?;
    let server = DockerRegistry::start("", &authority.server_options(&["localhost", "127.0.0.1"])?)?;
    let trusting = open(&server, |config| config.ca = vec![authority.certificate()])?;
    let name = push(&trusting, &server, &samples::image())?;
    // Another name of the same server.
    let alias = reference::parse(&name.whole().replace("127.0.0.1", "localhost"))?;
    block_on(trusting.manifest(&alias))?;
    let plain = assert_kind(block_on(open(&server, |_| ())?.manifest(&name)), &ErrorKind::Unsupported);
    assert!(plain.hint().is_some_and(|hint| hint.contains("https=")), "{plain:?}");
    let distrusting = open(&server, |config| config.https = vec![server.host().to_owned()])?;
    let error = assert_kind(block_on(distrusting.manifest(&name)), &ErrorKind::Tls);
    assert!(error.hint().is_some_and(|hint| hint.contains("ca=")), "{error:?}");
    Ok(())
}

fn certificates_that_are_no_good() -> Verdict {
    let authority = Authority::new()?;
    let other = Authority::new()?;
    for (what, options) in [
        ("expired", authority.expired_server_options()?),
        ("wrong host", authority.server_options(&["elsewhere.example"])?),
        ("common name only", authority.server_options(&[])?),
        ("another CA", other.server_options(&["127.0.0.1"])?),
        ("a name that the CA may not vouch for", authority.constrained_server_options()?),
    ] {
        let server = DockerRegistry::start("", &options)?;
        let registry = open(&server, |config| config.ca = vec![authority.certificate()])?;
        let name = reference::parse(&format!("{}/a:1", server.host()))?;
        let error = assert_kind(block_on(registry.manifest(&name)), &ErrorKind::Tls);
        assert!(error.hint().is_some(), "{what}: {error}");
        assert!(error.message().contains("certificate"), "{what}: {error}");
    }
    for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), broken)?;
        let config = Config { ca: vec![file.path().to_owned()], ..Config::default() };
        assert_kind(Registry::new("r.example", &config), &ErrorKind::Config);
    }
    Ok(())
}

fn client_certificates() -> Verdict {
    let authority = Authority::new()?;
    let options = authority.server_options(&["127.0.0.1"])?;
    let wants =
        format!("{}, clientcas: [{}]}}", options.trim_end_matches('}'), authority.certificate().display());
    let server = DockerRegistry::start("", &wants)?;
    let (certificate, key) = authority.client()?;
    let known = open(&server, |config| {
        config.ca = vec![authority.certificate()];
        config.client_cert = Some(certificate.clone());
        config.client_key = Some(key.clone());
    })?;
    let name = push(&known, &server, &samples::image())?;
    // With TLS 1.3 the client learns of it after its part of the handshake, while it sends the request or just before.
    let mut told = 0;
    for round in 0..100 {
        let unknown = open(&server, |config| {
            config.ca = vec![authority.certificate()];
            config.read_timeout = Duration::from_secs(2);
        })?;
        let Err(error) = block_on(unknown.manifest(&name)) else { panic!("it succeeded in round {round}") };
        // Once in some ten thousand times hyper loses a request that is queued while its connection ends.
        if *error.kind() == ErrorKind::Timeout {
            continue;
        }
        assert_eq!(*error.kind(), ErrorKind::Tls, "round {round}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("client-cert=")), "{error:?}");
        told += 1;
    }
    assert!(told > 90, "{told} of 100");
    let half = Config { client_key: Some(key), ..Config::default() };
    assert_kind(Registry::new("r.example", &half), &ErrorKind::Config);
    Ok(())
}

/// Copies a sample, through the suite's own server, to a repository of its name.
fn push(registry: &Registry, server: &DockerRegistry, sample: &Sample) -> Result<Reference, Failure> {
    let from = FaultServer::start()?;
    from.put("a", "1", sample);
    let source = Registry::new(from.host(), &Config { anonymous: true, ..Config::default() })?;
    let image = reference::parse(&format!("{}/a:1", from.host()))?;
    let target = reference::parse(&format!("{}/{}:1", server.host(), sample.name.replace('_', "-")))?;
    block_on(copy(&source, &image, registry, &target, &CopyOptions::default()))?;
    // What is there already is a success (rule E 116).
    let layer = &sample.images[0].layers[0].descriptor;
    let content = sample.blob(layer.digest()).ok_or_else(|| Failure::new("the sample has no layer"))?;
    block_on(registry.push_blob(&target, Blob::from_bytes(layer, BlobRange::FULL, content)?))?;
    Ok(target)
}

fn open(server: &DockerRegistry, change: impl FnOnce(&mut Config)) -> plyfold_core::Result<Registry> {
    let mut config = Config {
        docker_config: Some(PathBuf::from("/nonexistent")),
        hosts_dir: Vec::new(),
        ..Config::default()
    };
    change(&mut config);
    Registry::new(server.host(), &config)
}

/// What makes the registry ask for the password that [`with_login`] knows.
fn htpasswd(folder: &Path) -> Result<String, Failure> {
    let file = folder.join("htpasswd");
    // `user:s3cret-word`
    std::fs::write(&file, "user:$2y$05$cAfH4dHE53643aXilCb9f.Eo0AztPrQx8g.9CuvnYC5S0KZLDEWZK\n")?;
    Ok(format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", file.display()))
}

fn with_login(config: &mut Config) {
    config.username = Some(Secret::new("user"));
    config.password = Some(Secret::new("s3cret-word"));
}

#[track_caller]
fn assert_kind<T>(outcome: plyfold_core::Result<T>, kind: &ErrorKind) -> plyfold_core::Error {
    let Err(error) = outcome else { panic!("expected {kind:?}, it succeeded") };
    assert_eq!(error.kind(), kind, "{error}");
    error
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    // Connections of a registry outlive one call: so must the runtime that drives them.
    static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> =
        std::sync::LazyLock::new(|| tokio::runtime::Runtime::new().expect("a runtime starts"));
    RUNTIME.block_on(future)
}
