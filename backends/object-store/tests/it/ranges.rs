//! Artifacts read by ranges: how often the service is asked, and what a reader gets of damage.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use plyfold_core::block_sums::BLOCK;
use plyfold_core::{ArtifactHandle, CacheProvider as _, Error, ErrorKind};
use plyfold_object_store::{Config, ObjectStoreCache};

use crate::content::{artifact_key, commit, make};
use crate::medium::Medium;
use crate::objects::PREFIX;
use crate::wrapped::{Fault, Wrapped};

/// Two blocks of data, two of zeros, and one and a half of data.
fn content() -> Vec<u8> {
    let block = BLOCK as usize;
    let mut content: Vec<u8> = (0..block * 11 / 2).map(|at| (at % 251) as u8).collect();
    content[2 * block..4 * block].fill(0);
    content
}

/// What a range has, or the error and what was handed out before it. It is read on a thread that may block.
async fn read(artifact: Box<dyn ArtifactHandle>, range: Range<u64>) -> (Vec<u8>, io::Result<()>) {
    let read = move || {
        let mut found = Vec::new();
        let ended = artifact.read_range(range, &mut |piece| {
            assert!(!piece.is_empty() && piece.len() <= 256 << 10, "a piece of {} bytes", piece.len());
            found.extend_from_slice(piece);
            Ok(())
        });
        (found, ended)
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_made_for_the_data_of_a_range() {
    let medium = Medium::memory();
    let content = content();
    commit(make(&medium.cache().await.unwrap(), &content).await).await.unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let store = Wrapped::around(medium.store.clone(), Fault::Counts(requests.clone()));
    let cache = ObjectStoreCache::on(store, &PREFIX.into(), "test:bucket", &Config::default()).await.unwrap();
    let artifact = cache.find_artifact(&artifact_key()).await.unwrap().unwrap();
    let size = artifact.size();
    for (range, expected) in [
        (0..size, 2),
        (0..2 * BLOCK, 1),
        // Zeros are known by their checksums.
        (2 * BLOCK..4 * BLOCK, 0),
        (BLOCK + 7..BLOCK + 8, 1),
        (2 * BLOCK - 1..4 * BLOCK + 1, 2),
        (size - 1..size, 1),
        (size..size, 0),
        (7..7, 0),
    ] {
        let before = requests.load(Ordering::SeqCst);
        let (found, ended) = read(artifact.clone(), range.clone()).await;
        ended.unwrap();
        assert!(found == content[range.start as usize..range.end as usize], "{range:?}");
        assert_eq!(requests.load(Ordering::SeqCst) - before, expected, "{range:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_range_is_an_error() {
    let (medium, content) = (Medium::memory(), content());
    let cache = medium.cache().await.unwrap();
    let artifact = commit(make(&cache, &content).await).await.unwrap();
    let path = medium.objects().into_iter().find(|(path, _)| path.starts_with("data/artifacts/")).unwrap().0;
    let flipped = |at: usize| {
        let mut altered = content.clone();
        altered[at] ^= 1;
        altered
    };
    let block = BLOCK as usize;
    for (altered, handed_out) in [
        (flipped(block + 5), 2 * block),
        (flipped(content.len() - 1), content.len()),
        (content[..block + 9].to_vec(), block + 9),
        (content[..4 * block].to_vec(), 4 * block),
    ] {
        medium.raw().write(&path, Bytes::from(altered));
        let (found, ended) = read(artifact.clone(), 0..content.len() as u64).await;
        let error = Error::io("reading", ended.unwrap_err());
        assert!(found.len() <= handed_out, "{} of {handed_out} bytes: {error}", found.len());
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unavailable), "{error:?}");
    }
    medium.raw().write(&path, Bytes::from(content.clone()));
    assert!(read(artifact.clone(), 0..content.len() as u64).await.0 == content);
}
