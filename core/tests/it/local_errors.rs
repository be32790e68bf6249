//! What this machine cannot do is no reason to ask another one.

use std::error::Error as _;
use std::io;

use plyfold_core::cache::Needs;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{CacheProvider as _, ErrorKind, PullPolicy, RawManifest, pull};

use crate::events::{Asked, Watched};
use crate::fixture::{Scripted, index_of, layer, name, options, put_image, verifying};

/// `EMFILE` has no kind of its own in the standard library; these stand for it.
const KINDS: [io::ErrorKind; 2] = [io::ErrorKind::PermissionDenied, io::ErrorKind::Other];
const ON: [fn(&Asked) -> bool; 2] =
    [|asked| matches!(asked, Asked::Stat(_)), |asked| matches!(asked, Asked::Open(_))];

#[tokio::test]
async fn an_image_that_cannot_be_looked_at_is_not_fetched() {
    let (registry, image) = (MemoryRegistry::new("a"), name("example.com/app:1"));
    index_of(&registry, &image, &[("amd64", &[layer("a", 300)])]).await;
    for kind in KINDS {
        for (at, options) in [
            (ON[0], options(PullPolicy::IfMissing)),
            (ON[1], options(PullPolicy::IfMissing)),
            (ON[1], verifying(PullPolicy::IfMissing)),
            (ON[1], options(PullPolicy::Never)),
        ] {
            let cache = Watched::new();
            pull(&registry, &image, &cache, &super::fixture::options(PullPolicy::IfMissing)).await.unwrap();
            cache.fail(at, kind);
            let scripted = Scripted::new(&registry, &[]);
            let error = pull(&scripted, &image, &cache, &options).await.unwrap_err();
            assert_eq!((error.kind(), scripted.requests()), (&ErrorKind::Io, 0), "{error}");
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>()).unwrap();
            assert_eq!(source.kind(), kind);
        }
    }
}

/// Without an index the config tells the platform, and is looked for here first.
#[tokio::test]
async fn a_config_that_cannot_be_read_here_is_not_fetched() {
    for at in ON {
        let (registry, cache) = (MemoryRegistry::new("a"), Watched::new());
        let (one, other) = (name("example.com/app:1"), name("example.com/app:2"));
        put_image(&registry, &one, ("linux", "amd64"), &[layer("a", 300)]);
        put_image(&registry, &other, ("linux", "amd64"), &[layer("a", 300)]);
        let pulled = pull(&registry, &one, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
        let config = pulled.config.unwrap().descriptor().digest().clone();
        cache.fail(at, io::ErrorKind::PermissionDenied);
        let scripted = Scripted::new(&registry, &[]);
        let error = pull(&scripted, &other, &cache, &options(PullPolicy::IfMissing)).await.unwrap_err();
        assert_eq!((error.kind(), scripted.reads_of(&config)), (&ErrorKind::Io, 0), "{error}");
        assert!(cache.find_descriptor(&other).await.unwrap().is_none());
    }
}

/// A collection would take what a document leads to for unused.
#[tokio::test]
async fn a_document_that_a_service_does_not_give_is_not_taken_for_damaged() {
    let (registry, cache) = (MemoryRegistry::new("a"), Watched::new());
    let image = name("example.com/app:1");
    put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 300)]);
    let pulled = pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let manifest: &RawManifest = &pulled.manifest;
    let config = pulled.config.as_ref().unwrap().descriptor().digest();
    assert!(!Needs::of(&cache, manifest.descriptor()).await.unwrap().contents.is_empty());
    for lost in [manifest.digest(), config] {
        cache.lose_touch(lost);
        let error = Needs::of(&cache, manifest.descriptor()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    }
}
