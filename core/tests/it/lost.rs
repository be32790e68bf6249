//! Content that another process moves away between two steps, as a repair of a damaged store does.

use bytes::Bytes;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, CacheProvider as _, CacheProviderExt as _, Descriptor, ErrorKind, MediaType,
    PullOptions, PullPolicy, PullResult, Reference, digest, pull,
};

use crate::events::{Asked, Watched};
use crate::fixture::{Drain, Scripted, index_of, layer, name, options};

/// An index of an image of two layers, and a cache that has it.
async fn staged() -> (Reference, Scripted, Watched, PullResult) {
    let (image, registry, cache) = (name("example.com/app:1"), MemoryRegistry::new("a"), Watched::new());
    index_of(&registry, &image, &[("amd64", &[layer("a", 300), layer("b", 700)])]).await;
    let pulled = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    (image, Scripted::new(&registry, &[]), cache, pulled)
}

/// Index, manifest, config and layers.
fn parts(pulled: &PullResult) -> Vec<Descriptor> {
    let config = pulled.config.as_ref().unwrap().descriptor();
    let documents = [&pulled.descriptor, pulled.manifest.descriptor(), config];
    documents.into_iter().chain(pulled.layers.iter().map(|layer| &layer.descriptor)).cloned().collect()
}

#[tokio::test]
async fn what_is_lost_before_the_name_is_set_is_stored_again() {
    let (image, scripted, _, pulled) = staged().await;
    for part in parts(&pulled) {
        let cache = Watched::new();
        // More than a repair takes away that moves every blob a few times.
        cache.lose(part.digest(), 20, |asked| matches!(asked, Asked::Update(_)));
        let again = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
        assert!(!again.cached);
        assert_eq!(cache.find_descriptor(&image).await.unwrap().as_ref(), Some(&pulled.descriptor));
        for part in parts(&pulled) {
            cache.verify_blob(&part).await.unwrap();
        }
    }
    for layer in &pulled.layers {
        assert_eq!(scripted.reads_of(layer.descriptor.digest()), 5 + 20);
    }
}

#[tokio::test]
async fn a_cache_that_loses_everything_ends_a_pull() {
    let (image, scripted, _, pulled) = staged().await;
    let (cache, lost) = (Watched::new(), pulled.layers[0].descriptor.digest());
    cache.lose(lost, usize::MAX, |asked| matches!(asked, Asked::Update(_)));
    let error = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap_err();
    assert_eq!((error.kind(), error.context("blob")), (&ErrorKind::NotFound, Some(lost.as_ref())));
    assert_eq!(cache.find_descriptor(&image).await.unwrap(), None);
}

#[tokio::test]
async fn a_blob_that_is_lost_after_it_was_found_is_stored() {
    let (cache, content) = (Watched::new(), Bytes::from_static(b"some bytes"));
    let described = Descriptor::new(MediaType::ImageLayer, content.len() as u64, digest::sha256(&content));
    let blob = || Blob::from_bytes(&described, BlobRange::FULL, &content).unwrap();
    cache.put(blob()).await.unwrap();
    let opened = Asked::Open(described.digest().clone());
    cache.lose(described.digest(), 1, move |asked| *asked == opened);
    cache.put(blob()).await.unwrap();
    cache.verify_blob(&described).await.unwrap();
}

#[tokio::test]
async fn a_layer_that_is_lost_before_it_is_converted_is_fetched_again() {
    let (image, scripted, cache, pulled) = staged().await;
    let lost = pulled.layers[1].descriptor.digest().clone();
    let opened = Asked::Open(lost.clone());
    cache.lose(&lost, 1, move |asked| *asked == opened);
    let options = PullOptions { materializer: Some(Box::new(Drain)), ..options(PullPolicy::IfMissing) };
    let made = pull(&scripted, &image, &cache, &options).await.unwrap();
    assert!(made.layers.iter().all(|layer| layer.artifact.is_some()));
    assert_eq!(scripted.reads_of(&lost), 1);
    cache.verify_blob(&pulled.layers[1].descriptor).await.unwrap();
}

#[tokio::test]
async fn what_is_lost_is_not_fetched_when_fetching_is_forbidden() {
    let (image, scripted, cache, pulled) = staged().await;
    let lost = pulled.layers[1].descriptor.digest().clone();
    let wanted = Asked::Ingest(lost.clone());
    cache.lose(&lost, 1, move |asked| *asked == wanted);
    let error = pull(&scripted, &image, &cache, &options(PullPolicy::Never)).await.unwrap_err();
    assert_eq!((error.kind(), error.context("layer")), (&ErrorKind::NotFound, Some(lost.as_ref())));
    assert_eq!(scripted.requests(), 0);
}
