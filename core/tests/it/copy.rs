//! The copy engine.

use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{
    CacheProviderExt, CopyJob, CopyOptions, Descriptor, ErrorKind, ImageRegistry, ImageRegistryExt,
    ImageSourceExt, Platforms, RawManifest, copy, copy_all, digest,
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

/// All names of a copy are set together, after all content: a target that has no room for the last image has none of the
/// names.
#[tokio::test]
async fn several_images_are_copied_together_or_not_at_all() {
    let (from, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let to = cache.as_target();
    let texts = ["example.com/app:1", "example.com/app:2", "example.com/other:1"];
    let shared = layer("shared", 10);
    for text in texts {
        put_image(&from, &name(text), ("linux", "amd64"), &[shared.clone(), layer(text, 10)]);
    }
    let jobs = texts.map(|text| CopyJob { image: name(text), target: name(text) });
    let content = layer(texts[2], 10);
    from.insert_blob(&name(texts[2]), digest::sha256(&content), vec![0; content.len()]);
    let error = copy_all(&from, &jobs, &to, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    for text in texts {
        assert!(!to.exists(&name(text)).await.unwrap(), "{text}");
    }
    from.insert_blob(&name(texts[2]), digest::sha256(&content), content.clone());
    let copied = copy_all(&from, &jobs, &to, &CopyOptions::default()).await.unwrap();
    for (job, copied) in jobs.iter().zip(&copied) {
        assert_eq!(copied.target, job.target);
        assert_eq!(copied.descriptor, to.resolve(&job.target).await.unwrap());
        assert_eq!(copied.descriptor, from.resolve(&job.image).await.unwrap());
    }
    // What was brought for the first image, or before the error, is not moved again.
    let size = |raw: &RawManifest| raw.requirements().iter().map(Descriptor::size).sum::<u64>();
    for copied in &copied {
        let raw = to.fetch_raw(&copied.target).await.unwrap();
        assert_eq!(copied.moved + copied.present, size(&raw));
    }
    assert_eq!(copied[0].moved, 0);
    let twice = [jobs[0].clone(), CopyJob { image: name(texts[1]), target: name(texts[0]) }];
    let error = copy_all(&from, &twice, &to, &CopyOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
}
