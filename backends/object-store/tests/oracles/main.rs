//! The suite on real services: an S3 service, and Azurite.

mod service;

use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use plyfold_conformance::Verdict as Outcome;
use plyfold_conformance::oracle::{Failure, Need, Verdict};
use plyfold_conformance::{CacheFixture, CacheMedium, CacheUnderTest, rules};
use plyfold_core::{ArtifactKey, CacheProvider, Digest, Result};
use plyfold_object_store::ObjectStoreCache;

use objects::{Objects, PREFIX};
use service::{Kind, Service};

#[expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]
#[expect(dead_code, reason = "the other suite uses all of it")]
#[path = "../it/objects.rs"]
mod objects;

plyfold_conformance::oracle_tests! {
    child on_azurite;
    every_rule_on_an_s3_service needs [Need::Peer("plyfold-s3-service")];
    every_rule_on_azurite needs [Need::Peer("azurite-blob")];
}

/// Its artifacts are read through the cache, and an interrupted download begins again.
const NOT_JUDGED: [&str; 2] =
    ["a_changed_artifact_is_made_again", "partial_downloads_are_counted_and_dropped"];

/// Rules that are judged at the same time.
const THREADS: usize = 4;

fn every_rule_on_an_s3_service() -> Verdict {
    every_rule_on(Service::start(Kind::S3)?)
}

/// Where Azurite is, for `object_store`: no option says it.
const AZURITE: &str = "AZURITE_BLOB_STORAGE_URL";
/// Set for a child: the port.
const PORT: &str = "PLYFOLD_ORACLE_AZURITE";

fn every_rule_on_azurite() -> Verdict {
    let service = Service::start(Kind::Azure)?;
    let mut child = Command::new(std::env::current_exe()?);
    child.env(AZURITE, format!("http://127.0.0.1:{}", service.port())).env(PORT, service.port().to_string());
    let ended = child.output()?;
    if ended.status.success() {
        return Ok(());
    }
    Err(Failure::new(String::from_utf8_lossy(&ended.stderr).into_owned()))
}

/// Judges every rule, when this process is such a child.
fn on_azurite() -> Option<ExitCode> {
    let port = std::env::var(PORT).ok()?.parse().ok()?;
    let judged = Service::at(Kind::Azure, port).and_then(every_rule_on);
    let Err(failure) = judged else { return Some(ExitCode::SUCCESS) };
    // The parent reads it.
    let _ = writeln!(std::io::stderr(), "{failure:?}");
    Some(ExitCode::FAILURE)
}

fn every_rule_on(service: Service) -> Verdict {
    let fixture = Buckets(Arc::new(service));
    // A rule of this name alone, for one who looks for a fault.
    let only = std::env::var("PLYFOLD_RULE").ok();
    let wanted: Vec<_> =
        rules::cache().filter(|rule| only.as_ref().is_none_or(|only| rule.name == only)).collect();
    let (rules, broken) = (Mutex::new(wanted.into_iter()), Mutex::new(Vec::new()));
    let next = || rules.lock().unwrap_or_else(PoisonError::into_inner).next();
    // Most of the time is waiting for answers.
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(rule) = next() {
                    match rule.verdict(&fixture) {
                        Outcome::Kept => {}
                        Outcome::NotJudged(_) if NOT_JUDGED.contains(&rule.name) => {}
                        outcome => {
                            let broken_rule = format!("{}: {outcome:?}", rule.name);
                            broken.lock().unwrap_or_else(PoisonError::into_inner).push(broken_rule);
                        }
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    if broken.is_empty() { Ok(()) } else { Err(Failure::new(broken.join("\n"))) }
}

/// A bucket for each cache.
struct Buckets(Arc<Service>);

#[async_trait]
impl CacheFixture for Buckets {
    async fn open(&self) -> CacheUnderTest {
        let bucket = self.0.bucket().await.expect("a bucket can be made");
        let objects = Objects::Bucket(self.0.store(&bucket).expect("a bucket is opened"));
        let medium = Bucket { service: self.0.clone(), name: bucket, objects };
        CacheUnderTest::new(medium.reopen().await.expect("a cache opens"), medium)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// A bucket of the service.
#[derive(Debug)]
struct Bucket {
    service: Arc<Service>,
    name: String,
    objects: Objects,
}

#[async_trait]
impl CacheMedium for Bucket {
    async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
        let uri = self.service.uri(&self.name, PREFIX);
        Ok(Box::new(ObjectStoreCache::open(&uri, &self.service.config()).await?))
    }

    async fn reopen_from_nothing(&self) -> Option<Result<Box<dyn CacheProvider>>> {
        Some(self.reopen().await)
    }

    fn damage(&self, digest: &Digest, content: &[u8]) {
        self.objects.damage(digest, content);
    }

    async fn damage_artifact(&self, key: &ArtifactKey, content: &[u8]) -> bool {
        self.objects.damage_artifact(key, content)
    }

    fn leftovers(&self) -> Vec<String> {
        self.objects.leftovers()
    }
}
