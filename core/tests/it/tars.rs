//! Images as tars, of layers that break off.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::pull::Retry;
use plyfold_core::save::{SaveOptions, TarReader};
use plyfold_core::{BlobRange, ErrorKind, FlatOptions, ImageRegistryExt as _, ImageSourceTars as _, Result};

use crate::fixture::{AMD64, Fault, Scripted, layer, name, put_image};

/// The flattened tar and both archives of the image, after these faults for each.
async fn tars(registry: &MemoryRegistry, faults: &[Fault]) -> Vec<(Result<Vec<u8>>, Scripted)> {
    let image = name("example.com/app:1");
    let retry = Retry { base: Duration::from_millis(1), ..Retry::default() };
    let flat = FlatOptions { retry, ..FlatOptions::default() };
    let saved = SaveOptions { retry, ..SaveOptions::default() };
    let mut tars = Vec::new();
    for form in 0..3 {
        let scripted = Scripted::new(registry, faults);
        let source = scripted.image(&image, &AMD64.parse().unwrap()).await.unwrap();
        let reader: Result<TarReader> = match form {
            0 => source.tar_reader(&flat).await,
            1 => source.v1_tar_reader(&image, &saved).await,
            _ => source.oci_tar_reader(&image, &saved).await,
        };
        let pieces: Result<Vec<Bytes>> = reader.unwrap().try_collect().await;
        tars.push((pieces.map(|pieces| pieces.concat()), scripted));
    }
    tars
}

#[tokio::test]
async fn a_tar_goes_on_where_a_layer_broke_off() {
    let registry = MemoryRegistry::new("a");
    let layers = [layer("a", 3000), layer("b", 200_000)];
    let (_, digests) = put_image(&registry, &name("example.com/app:1"), ("linux", "amd64"), &layers);
    let expected = tars(&registry, &[]).await;
    for faults in [
        &[Fault::Breaks(100)][..],
        &[Fault::Breaks(700), Fault::IgnoresRange],
        &[Fault::Breaks(0), Fault::Breaks(512), Fault::Breaks(1)],
    ] {
        for ((found, scripted), (expected, _)) in tars(&registry, faults).await.into_iter().zip(&expected) {
            assert!(found.unwrap() == *expected.as_ref().unwrap(), "{faults:?}");
            let read = scripted.log.blobs.lock().unwrap();
            let mut first = read.iter().filter(|(digest, _)| digests.contains(digest));
            let first = first.next().map(|(digest, _)| digest).unwrap();
            let ranges: Vec<_> = read.iter().filter(|(digest, _)| digest == first).collect();
            let Fault::Breaks(at) = faults[0] else { panic!("{faults:?}") };
            let again = if at == 0 { BlobRange::FULL } else { BlobRange::from_start(at) };
            assert_eq!(*ranges[1], (first.clone(), again), "{faults:?}");
        }
    }
}

#[tokio::test]
async fn a_tar_of_a_layer_that_does_not_come_ends_in_the_error() {
    let registry = MemoryRegistry::new("a");
    put_image(&registry, &name("example.com/app:1"), ("linux", "amd64"), &[layer("a", 3000)]);
    let cases = [
        (vec![Fault::Refuses], ErrorKind::Denied),
        // What came first is another blob's.
        (vec![Fault::FlipsAndBreaks(600, 1000)], ErrorKind::Corrupt),
        (vec![Fault::Breaks(10); 5], ErrorKind::Unavailable),
    ];
    for (faults, kind) in cases {
        for (outcome, _) in tars(&registry, &faults).await {
            assert_eq!(*outcome.unwrap_err().kind(), kind, "{faults:?}");
        }
    }
}
