//! The copy engine.

use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{
    CacheProviderExt, CopyOptions, ErrorKind, ImageRegistry, ImageRegistryExt, ImageSourceExt, Platforms,
    copy, digest,
};

use crate::fixture::{AMD64, index_of, layer, name, put_image};

/// An index of two images under `example.com/app:1`.
async fn two_platforms() -> MemoryRegistry {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let (arm64, amd64) = ([layer("arm64", 10)], [layer("amd64", 10)]);
    index_of(&registry, &image, &[("arm64", &arm64), ("amd64", &amd64)]).await;
    registry
}

#[tokio::test]
async fn an_index_keeps_its_digest_and_one_platform_has_its_own() {
    let (from, to) = (two_platforms().await, MemoryRegistry::new("b"));
    let (image, target) = (name("example.com/app:1"), name("other.org/x:2"));
    let copied = copy(&from, &image, &to, &target, &CopyOptions::default()).await.unwrap();
    assert_eq!(copied, *from.fetch_raw(&image).await.unwrap().descriptor());
    let platform = AMD64.parse().unwrap();
    for platform in ["linux/arm64", AMD64] {
        let source = to.image(&target, &platform.parse().unwrap()).await.unwrap();
        assert_eq!(source.config().await.unwrap().platform_or(None).to_string(), platform);
        assert_eq!(source.layers().unwrap().len(), 1);
    }
    let one = name("other.org/one:2");
    let options = CopyOptions { platforms: Platforms::One(platform), ..CopyOptions::default() };
    let copied = copy(&from, &image, &to, &one, &options).await.unwrap();
    let source = from.image(&image, &AMD64.parse().unwrap()).await.unwrap();
    assert_eq!(copied.digest(), source.descriptor().digest());
}

#[tokio::test]
async fn damage_and_read_only_targets_leave_no_name() {
    let (from, to) = (MemoryRegistry::new("a"), MemoryRegistry::new("b"));
    let (image, target) = (name("example.com/app:1"), name("other.org/x:2"));
    let content = layer("a", 10);
    put_image(&from, &image, ("linux", "amd64"), std::slice::from_ref(&content));
    from.insert_blob(&image, digest::sha256(&content), vec![0; content.len()]);
    let error = copy(&from, &image, &to, &target, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.detail::<plyfold_core::Mismatch>().is_some()),
        (&ErrorKind::Corrupt, true)
    );
    assert!(!to.exists(&target).await.unwrap());

    let read_only = MemoryCache::new().unwrap().as_registry();
    let error = copy(&from, &image, &read_only, &target, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(!read_only.capabilities().push);
}
