//! Services that stop to answer as they did: the bucket is gone, may not be written, or the credentials have expired.

use std::time::{Duration, Instant};

use plyfold_core::{CacheProvider as _, Collect, Error, ErrorKind, Result};
use plyfold_object_store::ObjectStoreCache;

use crate::content::{blob, commit, make, put, set};
use crate::front::{Fault, Front};
use crate::medium::Medium;

/// Everything that writes; the errors.
async fn writes(cache: &ObjectStoreCache) -> Vec<Error> {
    let image = blob(b"here");
    let results: [Result<()>; 4] = [
        put(cache, b"more").await.map(drop),
        set(cache, "a.example/b:1", &image).await,
        cache.collect(&Collect::default()).await.map(drop),
        cache.single_flight("some work").await.map(drop),
    ];
    results.into_iter().filter_map(Result::err).collect()
}

/// Everything that reads; the errors.
async fn reads(cache: &ObjectStoreCache) -> Vec<Error> {
    let image = blob(b"here");
    let results: [Result<()>; 3] = [
        cache.list().await.map(drop),
        cache.stat(image.digest()).await.map(drop),
        cache.open(&image, plyfold_core::BlobRange::FULL).await.map(drop),
    ];
    results.into_iter().filter_map(Result::err).collect()
}

fn assert_kind(errors: &[Error], kind: &ErrorKind, count: usize) {
    assert_eq!(errors.len(), count, "{errors:?}");
    for error in errors {
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    }
}

async fn service() -> (Medium, Front, ObjectStoreCache) {
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let cache = service.cache().await.unwrap();
    let image = put(&cache, b"here").await.unwrap();
    set(&cache, "a.example/a:1", &image).await.unwrap();
    (medium, service, cache)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_vanishes_is_told() {
    let (_medium, service, cache) = service().await;
    // Not by HEAD: an answer without a body does not tell it from an absent object.
    service.plan(|_| Some(Fault::Said(404, "NoSuchBucket")));
    assert_kind(&reads(&cache).await, &ErrorKind::NotFound, 3);
    assert_kind(&writes(&cache).await, &ErrorKind::NotFound, 4);
    assert_kind(&[service.cache().await.unwrap_err()], &ErrorKind::NotFound, 1);
    service.heal();
    assert!(writes(&cache).await.is_empty(), "it is there again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_may_not_be_written_any_more_is_told() {
    let (_medium, service, cache) = service().await;
    service.plan(|request| {
        let is_write = request.method != "GET" && request.method != "HEAD";
        is_write.then_some(Fault::Said(403, "AccessDenied"))
    });
    assert!(reads(&cache).await.is_empty());
    assert_kind(&writes(&cache).await, &ErrorKind::Denied, 4);
    // One that is opened now reads.
    assert!(reads(&service.cache().await.unwrap()).await.is_empty());
    service.heal();
    assert!(writes(&cache).await.is_empty(), "it may be written again");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_expire_are_told() {
    let (_medium, service, cache) = service().await;
    for (status, code, kind) in [
        (400, "ExpiredToken", ErrorKind::Auth),
        (401, "Unauthorized", ErrorKind::Auth),
        (403, "RequestTimeTooSkewed", ErrorKind::Auth),
        (403, "InvalidAccessKeyId", ErrorKind::Denied),
    ] {
        service.plan(move |request| (request.method != "HEAD").then_some(Fault::Said(status, code)));
        assert_kind(&reads(&cache).await, &kind, 3);
        assert_kind(&writes(&cache).await, &kind, 4);
    }
    service.heal();
    assert!(reads(&cache).await.is_empty() && writes(&cache).await.is_empty());
}

/// While a blob and an artifact are being written.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_written_then_is_given_up() {
    let (medium, service, cache) = service().await;
    for content in [b"small".to_vec(), vec![3; 100_000], vec![5; 6 << 20]] {
        let plyfold_core::Ingest::Vacant(mut writer) = cache.ingest(&blob(&content)).await.unwrap() else {
            panic!("it was never stored")
        };
        let artifact = make(&cache, &content).await;
        service.plan(|request| (request.method != "GET").then_some(Fault::Said(403, "AccessDenied")));
        let written = async {
            writer.write(content.clone().into()).await?;
            writer.commit().await
        };
        assert_kind(&[written.await.unwrap_err()], &ErrorKind::Denied, 1);
        assert_kind(&[commit(artifact).await.unwrap_err()], &ErrorKind::Denied, 1);
        cache.settle().await;
        service.heal();
        // Their rights expire.
        let begun = Instant::now();
        let (stored, made) = tokio::join!(put(&cache, &content), make(&cache, &content));
        stored.unwrap();
        drop(made);
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    }
    cache.settle().await;
    assert_eq!(medium.left(), [""; 0]);
}
