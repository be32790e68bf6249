//! A program that keeps its images in the bucket.

use std::fs;

use example_cache::BucketCache;
use plyfold::{
    CacheProvider as _, Collect, ErrorKind, ImageSourceExt as _, Images, Platform, PullOptions, Verify,
    flatten,
};
use plyfold_conformance::samples;

fn options() -> PullOptions {
    let platform: Platform = "linux/amd64".parse().unwrap();
    PullOptions { platform, ..PullOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_loads_pulls_exports_and_collects() {
    let dir = tempfile::tempdir().unwrap();
    let (bucket, sample) = (BucketCache::default(), samples::image());
    let images = Images::with_cache(bucket.clone()).unwrap();
    let archive = dir.path().join("images.tar");
    let name = "a.example/app:1";
    fs::write(&archive, samples::docker_archive(&[(name.to_owned(), &sample)])).unwrap();
    let uri = format!("docker-archive:{}", archive.display());
    // An image is pulled as a layout directory, and the bucket is none.
    let error = images.pull(&uri, options()).await.unwrap_err();
    assert_eq!((error.kind(), bucket.objects()), (&ErrorKind::Config, 0), "nothing was fetched: {error}");

    let images = images.with_scratch(dir.path().join("scratch"));
    let loaded = images.load(&uri, options()).await.unwrap();
    assert_eq!(loaded[0].reference.whole(), name);
    let image = images.pull(&uri, options()).await.unwrap();
    assert!(image.cached && image.path.join("oci-layout").is_file());
    let source = images.source(&image);
    let tar = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        let (mut tar, layers) = (Vec::new(), source.layers()?.len());
        flatten(layers, |layer| runtime.block_on(source.layer_tar(layer)), &mut tar).map(|()| tar)
    });
    assert!(tar.await.unwrap().unwrap().len() > 1024);
    assert_eq!(images.verify(&Verify::default()).await.unwrap().damage, []);
    assert!(bucket.layout().is_none() && bucket.objects() > 0);

    images.remove(&image.reference).await.unwrap();
    let all = Collect::default();
    assert_eq!(images.collect(&all).await.unwrap().freed, 0, "the image is in hand");
    drop((image, loaded));
    assert!(images.collect(&all).await.unwrap().freed > 0);
    assert_eq!(bucket.objects(), 0);
}
