//! Caches by their schemes.

use bytes::Bytes;
use plyfold_core::{
    Blob, BlobRange, CacheProvider as _, CacheProviderExt as _, Caches, Descriptor, ErrorKind, MediaType,
    OptionFault, Options, digest,
};
use plyfold_object_store as _;

fn options(pairs: &[&str]) -> Options {
    Options::parse(pairs.iter().copied()).unwrap()
}

#[tokio::test]
async fn every_scheme_is_linked_and_refuses_what_it_does_not_know() {
    let caches = Caches::linked().unwrap();
    for uri in [
        "s3://bucket/prefix",
        "s3a://bucket",
        "gs://bucket/prefix",
        "az://container/prefix",
        "abfs://container",
        "abfss://container",
        "adl://container",
        "azure://container",
        "file:///nonexistent/plyfold",
        "memory:///entries",
    ] {
        let error = caches.open(uri, &options(&["no-such-option=1"])).await.unwrap_err();
        assert!(matches!(error.detail(), Some(OptionFault::Unknown(..))), "{uri}: {error}");
        assert_eq!(error.context("option"), Some("no-such-option"), "{uri}: {error}");
        for (pair, name) in [
            ("lease-seconds=soon", "lease-seconds"),
            ("lease-seconds=0", "lease-seconds"),
            ("read-only=perhaps", "read-only"),
        ] {
            let error = caches.open(uri, &options(&[pair])).await.unwrap_err();
            assert!(
                matches!(error.detail(), Some(OptionFault::Value(wrong, _)) if wrong == name),
                "{uri}: {error}"
            );
        }
    }
    for uri in
        ["s3:", "s3:///prefix", "file:relative", "file://host/folder", "az://", "s3://user:word@bucket/a"]
    {
        let error = caches.open(uri, &Options::default()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config, "{uri}: {error}");
        assert!(error.hint().is_some(), "{uri}: {error}");
    }
}

/// An option of one service is said to be of that one.
#[tokio::test]
async fn an_option_of_another_service_is_pointed_to() {
    let caches = Caches::linked().unwrap();
    let error = caches.open("file:///nonexistent/plyfold", &options(&["region=here"])).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("s3")), "{error:?}");
}

#[tokio::test]
async fn what_a_folder_is_opened_with_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let caches = Caches::linked().unwrap();
    let uri = format!("file://{}/fleet", folder.path().display());
    let error = caches.open_existing(&uri, &Options::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    assert!(!folder.path().join("fleet").exists(), "a look has made it");
    let scratch = folder.path().join("scratch");
    let pair = format!("scratch={}", scratch.display());
    let cache = caches.open(&uri, &options(&[&pair, "lease-seconds=2"])).await.unwrap();
    assert_eq!((cache.scratch(), cache.is_read_only()), (Some(scratch), false));
    let content = Bytes::from_static(b"shared");
    let blob = Descriptor::new(MediaType::ImageConfig, content.len() as u64, digest::sha256(&content));
    cache.put(Blob::from_bytes(&blob, BlobRange::FULL, &content).unwrap()).await.unwrap();
    cache.settle().await;
    let reader = caches.open_existing(&uri, &options(&["read-only=true"])).await.unwrap();
    assert!(reader.is_read_only());
    assert_eq!(reader.stat(blob.digest()).await.unwrap(), Some(blob.size()));
}
