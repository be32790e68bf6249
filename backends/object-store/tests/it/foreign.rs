//! Objects of other programs under the prefix, in any folder: passed over, and never removed.

use bytes::Bytes;
use plyfold_core::{CacheProvider as _, Collect, Verify};

use crate::content::{names, put, set};
use crate::medium::Medium;

/// Where another program writes.
const FOREIGN: [&str; 21] = [
    "README.md",
    "artifacts/README.md",
    "artifacts/sub/folder/file",
    "blobs/README.md",
    "blobs/sha256/README.md",
    "blobs/sha256/sub/file",
    "data/README.md",
    "data/artifacts/README.md",
    "data/blobs/sha256/README.md",
    "data/blobs/sha256/sub/file",
    "data/other/folder/0123456789abcdef0123456789abcdef",
    "flights/README.md",
    "leases/README.md",
    "leases/0123456789abcdef0123456789abcdef/file",
    "names/README.md",
    "names/a.example/README",
    "names/a.example/a:1/file",
    "probes/README.md",
    "transactions/README.md",
    "transactions/0123456789abcdef0123456789abcdef/file",
    "usage/file",
];

#[tokio::test(flavor = "multi_thread")]
async fn they_are_passed_over() {
    let contents =
        [Bytes::new(), Bytes::from_static(b"{}"), Bytes::from_static(b"some text of another program")];
    for content in contents.into_iter().chain([Bytes::from(vec![b'x'; 17 << 20])]) {
        let mut medium = Medium::memory();
        medium.config.lease_seconds = 1;
        let cache = medium.cache().await.unwrap();
        // A large one in some places: each costs a copy.
        let step = if content.len() > 1 << 20 { 4 } else { 1 };
        let foreign: Vec<_> = FOREIGN.into_iter().step_by(step).collect();
        for path in &foreign {
            medium.raw().write(path, content.clone());
        }
        let image = put(&cache, b"image").await.unwrap();
        set(&cache, "a.example/a:1", &image).await.unwrap();
        put(&cache, b"unused").await.unwrap();
        // Older than anything of a writer that is gone.
        tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
        assert_eq!(names(&cache).await.len(), 1);
        assert_eq!(cache.usage().await.unwrap().images.len(), 1);
        assert_eq!(cache.verify(&Verify { repair: true, ..Verify::default() }).await.unwrap().damage, []);
        assert_eq!(cache.collect(&Collect::default()).await.unwrap().blobs.len(), 1);
        let left: Vec<_> = medium.objects().into_iter().map(|(path, _)| path).collect();
        for path in foreign {
            assert!(left.iter().any(|left| left == path), "{path} was removed: {left:?}");
        }
    }
}
