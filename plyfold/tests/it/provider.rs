//! What is written against `ImageProvider` takes any image from anywhere: `examples/runtime.rs`.

use std::fs;
use std::path::Path;

use plyfold::backends::layout::Store;
use plyfold::memory::MemoryCache;
use plyfold::{
    CacheProvider as _, CacheProviderExt as _, ErrorKind, ImageProvider, Images, Page, Platform, PullOptions,
    reference,
};
use plyfold_conformance::fixtures::MemoryImages;
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::server::FaultServer;

#[expect(dead_code, reason = "its other half is the program's")]
#[path = "../../examples/runtime.rs"]
mod runtime;

fn options() -> PullOptions {
    PullOptions { platform: platform(), ..PullOptions::default() }
}

fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// One image in four kinds of places, each opened by another backend.
fn places(dir: &Path, server: &FaultServer, sample: &Sample) -> [String; 4] {
    let name = "registry.example/app:1";
    server.put("org/app", "1", sample);
    let layout = dir.join("layout");
    fs::create_dir(&layout).unwrap();
    samples::write_layout(&layout, &[(name.to_owned(), sample)]).unwrap();
    let archive = dir.join("app.tar");
    fs::write(&archive, samples::docker_archive(&[(name.to_owned(), sample)])).unwrap();
    // A third party's: a file for the name, and one for each blob.
    let folder = dir.join("folder");
    fs::create_dir_all(folder.join("registry.example/app")).unwrap();
    fs::write(folder.join("registry.example/app/1"), sample.top.digest().as_ref()).unwrap();
    for blob in &sample.blobs {
        fs::write(folder.join(blob.descriptor.digest().as_ref()), &blob.bytes).unwrap();
    }
    [
        format!("registry:{}/org/app:1", server.host()),
        format!("oci:{}:{name}", layout.display()),
        format!("docker-archive:{}", archive.display()),
        format!("folder:{}:{name}", folder.display()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_swaps_where_images_come_from_and_where_they_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (server, sample) = (FaultServer::start().unwrap(), samples::image());
    let places = places(dir.path(), &server, &sample);
    let providers: [Box<dyn ImageProvider>; 3] = [
        Box::new(Images::open(dir.path().join("store")).await.unwrap()),
        Box::new(Images::with_cache(MemoryCache::new().unwrap()).unwrap()),
        Box::new(MemoryImages::new().unwrap()),
    ];
    for images in &providers {
        for place in &places {
            let image = images.force_pull(place, options()).await.unwrap();
            assert_eq!((image.layers.len(), image.platform.clone()), (2, platform()), "{place}");
            // Any reader of layouts finds the image there.
            let layout = Store::open(&image.path).unwrap();
            let top = layout.find_descriptor(&image.reference).await.unwrap().expect("it has its name");
            assert_eq!(*top.digest(), image.digest, "{place}");
            assert!(layout.image_in_cache(&image.reference, &platform()).await.unwrap(), "{place}");
            assert!(images.is_cached(&image.reference, &platform()).await.unwrap());
        }
        runtime::show(&**images).await.unwrap();
        let all = images.list_cached().await.unwrap();
        let names: Vec<String> = all.iter().map(|(name, _)| name.whole()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let first = images.list_page(&Page { limit: Some(1), after: None }).await.unwrap();
        let second = images.list_page(&Page { limit: Some(1), after: first.next }).await.unwrap();
        assert_eq!([first.names, second.names].concat(), all);
        let name = reference::parse("registry.example/app:1").unwrap();
        assert!(images.remove(&name).await.unwrap());
        assert!(!images.remove(&name).await.unwrap());
        assert!(!images.is_cached(&name, &platform()).await.unwrap());
        let error = images.pull("folder:/nowhere:registry.example/app:1", options()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_layout_of_the_double_goes_with_its_image() {
    let dir = tempfile::tempdir().unwrap();
    let (server, sample) = (FaultServer::start().unwrap(), samples::image());
    let places = places(dir.path(), &server, &sample);
    let images = MemoryImages::new().unwrap();
    let image = images.pull(&places[1], options()).await.unwrap();
    let (path, other) = (image.path.clone(), image.clone());
    drop(image);
    assert!(path.join("index.json").is_file(), "a clone holds it");
    drop(other);
    assert!(!path.exists());
    assert_eq!(images.list_cached().await.unwrap().len(), 1);
}
