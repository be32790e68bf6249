//! The suite on a real S3 service: `s3s-fs` on a port of this machine.

mod service;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use plyfold_conformance::Verdict as Outcome;
use plyfold_conformance::oracle::{Failure, Need, Verdict};
use plyfold_conformance::{CacheFixture, CacheMedium, CacheUnderTest, rules};
use plyfold_core::{ArtifactKey, CacheProvider, Digest, Result};
use plyfold_object_store::{Config, ObjectStoreCache};

use objects::{Objects, PREFIX};
use service::Service;

#[expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]
#[expect(dead_code, reason = "the other suite uses all of it")]
#[path = "../it/objects.rs"]
mod objects;

plyfold_conformance::oracle_tests! {
    every_rule_on_an_s3_service needs [Need::Peer("s3s-fs")];
}

/// Its artifacts are read through the cache, and an interrupted download begins again.
const NOT_JUDGED: [&str; 2] =
    ["a_changed_artifact_is_made_again", "partial_downloads_are_counted_and_dropped"];

/// Rules that are judged at the same time.
const THREADS: usize = 4;

fn every_rule_on_an_s3_service() -> Verdict {
    let fixture = Buckets(Arc::new(Service::start()?));
    let (rules, broken) = (Mutex::new(rules::cache()), Mutex::new(Vec::new()));
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
        let bucket = self.0.bucket().expect("a bucket can be made");
        let medium = Bucket { service: self.0.clone(), bucket };
        CacheUnderTest::new(medium.reopen().await.expect("a cache opens"), medium)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// A bucket of the service, whose objects are files.
#[derive(Debug)]
struct Bucket {
    service: Arc<Service>,
    bucket: String,
}

impl Bucket {
    fn objects(&self) -> Objects {
        Objects::Folder(self.service.folder().join(&self.bucket))
    }
}

#[async_trait]
impl CacheMedium for Bucket {
    async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
        let config = Config { service: self.service.options(), ..Config::default() };
        let uri = format!("s3://{}/{PREFIX}", self.bucket);
        Ok(Box::new(ObjectStoreCache::open(&uri, &config).await?))
    }

    async fn reopen_from_nothing(&self) -> Option<Result<Box<dyn CacheProvider>>> {
        Some(self.reopen().await)
    }

    fn damage(&self, digest: &Digest, content: &[u8]) {
        self.objects().damage(digest, content);
    }

    async fn damage_artifact(&self, key: &ArtifactKey, content: &[u8]) -> bool {
        self.objects().damage_artifact(key, content)
    }

    fn leftovers(&self) -> Vec<String> {
        self.objects().leftovers()
    }
}
