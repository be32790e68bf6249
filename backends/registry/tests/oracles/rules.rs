//! The published rules on a real registry, in each of its set-ups.

use std::any::Any;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use plyfold_conformance::oracle::{Failure, Verdict};
use plyfold_conformance::{BackendUnderTest, Fixture, FixtureImage, rules};
use plyfold_core::Reference;
use plyfold_registry::{Config, Registry};

use super::certificates::Authority;
use super::registry::DockerRegistry;
use super::token::TokenServer;
use super::{htpasswd, open, with_login};

/// What this registry cannot be asked: it signs manifests of schema 1 anew, and takes none whose layer has a `file:`
/// URL.
const LEFT_OUT: [&str; 2] = ["unsupported_media_type_not_not_found", "round_trip_a_b_a_identity"];

pub(super) fn every_rule_on_a_plain_registry() -> Verdict {
    judge(Plain, &LEFT_OUT)
}

pub(super) fn every_rule_over_tls() -> Verdict {
    judge(Tls { authority: Authority::new()?, is_mutual: false }, &LEFT_OUT)
}

pub(super) fn every_rule_over_mutual_tls() -> Verdict {
    judge(Tls { authority: Authority::new()?, is_mutual: true }, &LEFT_OUT)
}

pub(super) fn every_rule_with_a_password() -> Verdict {
    let folder = tempfile::tempdir()?;
    judge(Password { auth: htpasswd(folder.path())?, _folder: folder }, &LEFT_OUT)
}

pub(super) fn every_rule_with_tokens_that_expire() -> Verdict {
    judge(Token(TokenServer::start(Duration::from_secs(4))?), &LEFT_OUT)
}

pub(super) fn every_rule_through_a_mirror() -> Verdict {
    // Wrong content of a mirror is that mirror's failure: the next attempt asks the registry. And this mirror lists what
    // it has fetched, which is nothing at first.
    let of_mirrors = [
        "config_raw_bytes_hash_to_descriptor",
        "digest_mismatch_carries_expected_actual_size",
        "multi_image_archive_enumerates_and_selects",
        "retryable_flag_consistent",
    ];
    judge(Mirror, &[&LEFT_OUT[..], &of_mirrors].concat())
}

/// A fresh registry, the backend on it, and what both need.
type Started = (DockerRegistry, Registry, Box<dyn Any + Send + Sync>);

/// One way to run the registry, and to be let in.
trait SetUp: Send + Sync {
    fn start(&self) -> Result<Started, Failure>;
}

struct Plain;

impl SetUp for Plain {
    fn start(&self) -> Result<Started, Failure> {
        let server = DockerRegistry::start("", "")?;
        let registry = open(&server, |_| ())?;
        Ok((server, registry, Box::new(())))
    }
}

struct Tls {
    authority: Authority,
    is_mutual: bool,
}

impl SetUp for Tls {
    fn start(&self) -> Result<Started, Failure> {
        let mut options = self.authority.server_options(&["127.0.0.1"])?;
        let ca = self.authority.certificate();
        if self.is_mutual {
            options = format!("{}, clientcas: [{}]}}", options.trim_end_matches('}'), ca.display());
        }
        let server = DockerRegistry::start("", &options)?;
        let (certificate, key) = self.authority.client()?;
        let registry = open(&server, |config| {
            config.ca = vec![ca];
            if self.is_mutual {
                config.client_cert = Some(certificate);
                config.client_key = Some(key);
            }
        })?;
        Ok((server, registry, Box::new(())))
    }
}

struct Password {
    auth: String,
    _folder: tempfile::TempDir,
}

impl SetUp for Password {
    fn start(&self) -> Result<Started, Failure> {
        let server = DockerRegistry::start(&self.auth, "")?;
        let registry = open(&server, with_login)?;
        Ok((server, registry, Box::new(())))
    }
}

struct Token(TokenServer);

impl SetUp for Token {
    fn start(&self) -> Result<Started, Failure> {
        let server = DockerRegistry::start(&self.0.configuration(), "")?;
        let registry = open(&server, with_login)?;
        Ok((server, registry, Box::new(())))
    }
}

/// A mirror that fetches from the registry, which is asked for nothing else.
struct Mirror;

impl SetUp for Mirror {
    fn start(&self) -> Result<Started, Failure> {
        let server = DockerRegistry::start("", "")?;
        let proxy = format!("proxy: {{remoteurl: \"http://{}\"}}", server.host());
        let mirror = DockerRegistry::start(&proxy, "")?;
        let folder = tempfile::tempdir()?;
        let own = folder.path().join(server.host());
        fs::create_dir(&own)?;
        let entry = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.host());
        fs::write(own.join("hosts.toml"), entry)?;
        let registry =
            open(&server, |config: &mut Config| config.hosts_dir = vec![folder.path().to_owned()])?;
        Ok((server, registry, Box::new((mirror, folder))))
    }
}

/// Samples in the storage of a registry, as it would keep them: it takes no push of what is not sound.
struct Stored<S>(S);

#[async_trait::async_trait]
impl<S: SetUp> Fixture for Stored<S> {
    fn holds_any_host(&self) -> bool {
        false
    }

    async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
        let (server, registry, others) = self.0.start().expect("the registry starts");
        let mut references = Vec::new();
        for image in images {
            let (repository, tag) = (image.reference.repository(), image.reference.tag().unwrap_or("latest"));
            server.put(repository, tag, image.sample).expect("its storage can be written");
            let host = server.host().to_owned();
            references.push(Reference::with_tag(host, repository.to_owned(), tag.to_owned()));
        }
        BackendUnderTest::new(Box::new(registry), references, (server, others))
    }
}

/// Judges the backend by every rule that is not left out, several at a time.
fn judge(set_up: impl SetUp + 'static, left_out: &[&str]) -> Verdict {
    let fixture = Stored(set_up);
    let rules = rules::registry().filter(|rule| !left_out.contains(&rule.name));
    let left = Mutex::new(rules.collect::<Vec<_>>());
    let broken = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(rule) = left.lock().ok().and_then(|mut left| left.pop()) {
                    if !rule.holds(&fixture)
                        && let Ok(mut broken) = broken.lock()
                    {
                        broken.push(rule.to_string());
                    }
                }
            });
        }
    });
    let broken = broken.into_inner()?;
    assert!(broken.is_empty(), "broken: {broken:#?}");
    Ok(())
}
