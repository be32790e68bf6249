//! Machines whose clocks differ from the service's, and from each other's, by hours.
//!
//! No date of a machine is used: how long something has lasted is measured by one machine, and dates are compared with
//! dates of the service alone. So a machine whose clock is an hour late sees what one sees whose service is an hour ahead, and
//! that is how it is made here: two services on the same objects, whose dates differ by two hours.

use std::time::{Duration, Instant};

use plyfold_core::{CacheProvider as _, CacheProviderExt as _, Collect};
use plyfold_object_store::{Config, ObjectStoreCache};

use crate::content::{blob, names, put, set};
use crate::front::{Front, URI};
use crate::medium::Medium;

const HOUR: i64 = 3600;

async fn machines() -> (Medium, [Front; 2], [ObjectStoreCache; 2]) {
    let medium = Medium::memory();
    let services = [HOUR, -HOUR].map(|skew| Front::skewed(medium.memory.as_ref().unwrap(), skew));
    let open = async |service: &Front| {
        let config = Config { lease_seconds: 1, ..service.config() };
        ObjectStoreCache::open(URI, &config).await.unwrap()
    };
    let caches = [open(&services[0]).await, open(&services[1]).await];
    (medium, services, caches)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_protects_from_a_machine_with_another_clock() {
    let (_medium, _services, caches) = machines().await;
    for [holder, collector] in [[0, 1], [1, 0]].map(|order| order.map(|at| &caches[at])) {
        let (leased, unused) = (blob(b"leased"), blob(b"unused"));
        let lease = holder.lease(std::slice::from_ref(leased.digest())).await.unwrap();
        put(holder, b"leased").await.unwrap();
        put(holder, b"unused").await.unwrap();
        // It is renewed meanwhile.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let collected = collector.collect(&Collect::default()).await.unwrap();
        assert_eq!(collected.blobs, [unused.digest().clone()]);
        set(holder, "a.example/a:1", &leased).await.unwrap();
        drop(lease);
        holder.settle().await;
        collector.collect(&Collect::default()).await.unwrap();
        assert_eq!(names(collector).await.len(), 1);
        collector.verify_blob(&leased).await.unwrap();
        holder
            .update(&[plyfold_core::NameChange::Remove(crate::content::name("a.example/a:1"))])
            .await
            .unwrap();
        let collected = collector.collect(&Collect::default()).await.unwrap();
        assert_eq!(collected.blobs, [leased.digest().clone()]);
    }
}

/// What was stored this short a time ago stays, whatever the dates are.
#[tokio::test(flavor = "multi_thread")]
async fn grace_is_by_the_clock_of_the_service() {
    let (_medium, _services, caches) = machines().await;
    for [writer, collector] in [[0, 1], [1, 0]].map(|order| order.map(|at| &caches[at])) {
        let stored = put(writer, b"stored").await.unwrap();
        let policy = Collect { grace: Duration::from_secs(600), ..Collect::default() };
        assert_eq!(collector.collect(&policy).await.unwrap().blobs, []);
        let policy = Collect { grace: Duration::ZERO, ..Collect::default() };
        assert_eq!(collector.collect(&policy).await.unwrap().blobs, [stored.digest().clone()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_is_taken_over_in_time() {
    let (_medium, _services, caches) = machines().await;
    for [holder, next] in [[0, 1], [1, 0]].map(|order| order.map(|at| &caches[at])) {
        let held = holder.single_flight("some work").await.unwrap();
        let begun = Instant::now();
        let waiting = {
            let next = next.clone();
            tokio::spawn(async move { next.single_flight("some work").await.unwrap() })
        };
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(!waiting.is_finished(), "its holder renews it");
        drop(held);
        drop(waiting.await.unwrap());
        assert!(begun.elapsed() < Duration::from_secs(5));
        next.settle().await;
    }
}
