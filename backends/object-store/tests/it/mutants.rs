//! Services that keep no promise: the suite finds them, and a service without conditions is refused.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use plyfold_conformance::{CacheFixture, CacheUnderTest, rules};
use plyfold_core::{CacheProvider as _, ErrorKind, Ingest, NameChange, digest};
use plyfold_core::{Descriptor, reference};

use crate::medium::Medium;
use crate::wrapped::{Fault, Wrapped};

/// Buckets of a service with a fault, which was sound when the first writer asked it.
struct Faulty(Fault);

#[async_trait]
impl CacheFixture for Faulty {
    async fn open(&self) -> CacheUnderTest {
        let mut medium = Medium::memory();
        medium.cache().await.unwrap();
        medium.store = Wrapped::around(medium.store, self.0.clone());
        medium.under_test().await
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }
}

fn assert_found(fault: Fault, by: &str) {
    let rule = rules::cache().find(|rule| rule.name == by).unwrap();
    assert!(!rule.holds(&Faulty(fault)), "{by} does not find it");
}

#[test]
fn a_service_that_ignores_conditions_is_found() {
    assert_found(Fault::IgnoresConditions, "n_threads_same_blob_one_write");
}

#[test]
fn a_service_that_lists_late_is_found() {
    assert_found(Fault::ListsLate(Duration::from_millis(300)), "descriptor_write_requires_name_and_replaces");
}

#[tokio::test]
async fn a_service_without_conditions_is_read_from() {
    let mut medium = Medium::memory();
    let whole = medium.store.clone();
    medium.store = Wrapped::around(whole.clone(), Fault::IgnoresConditions);
    let cache = medium.cache().await.unwrap();
    assert!(cache.is_read_only());
    let blob = Descriptor::new("application/octet-stream".into(), 4, digest::sha256(b"blob"));
    assert_eq!(*cache.ingest(&blob).await.unwrap_err().kind(), ErrorKind::Unsupported);
    let remove = NameChange::Remove(reference::parse("a.example/b:1").unwrap());
    assert_eq!(*cache.update(&[remove]).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(medium.objects(), [], "nothing is left of the question");

    medium.store = whole;
    let Ingest::Vacant(mut writer) = medium.cache().await.unwrap().ingest(&blob).await.unwrap() else {
        panic!("nothing is stored yet")
    };
    writer.write(b"blob"[..].into()).await.unwrap();
    writer.commit().await.unwrap();
    assert_eq!(cache.stat(blob.digest()).await.unwrap(), Some(4), "what others store is read");
}

/// The holder of a right ends; whether the next one gets it in the time of a lease, and twice that for looks.
async fn is_succeeded(mut medium: Medium, lease_seconds: u64) -> bool {
    let cache = medium.cache().await.unwrap();
    let died = Wrapped::around(medium.store.clone(), Fault::DiesAfter(Arc::new(AtomicUsize::new(1))));
    let dying = Medium { store: died, ..medium.clone() }.cache().await.unwrap();
    let blob = Descriptor::new("application/octet-stream".into(), 4, digest::sha256(b"blob"));
    drop(dying.ingest(&blob).await);
    dying.settle().await;
    medium.config.lease_seconds = lease_seconds;
    let next = medium.cache().await.unwrap();
    drop(cache);
    tokio::time::timeout(Duration::from_secs(3), next.ingest(&blob)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_never_expires_is_found() {
    let medium = || {
        let mut medium = Medium::memory();
        medium.config.lease_seconds = 1;
        medium
    };
    assert!(is_succeeded(medium(), 1).await, "the next writer takes over");
    assert!(!is_succeeded(medium(), 1 << 40).await, "nothing finds it");
}
