//! The suite that every backend runs: here is all that this one needs to tell it.

use std::fs;

use async_trait::async_trait;
use example_backend::Folder;
use plyfold_conformance::{BackendUnderTest, Fixture, FixtureImage, hostile_suite, registry_suite};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{Backends, OptionFault, Options, Platform, PullOptions, pull};

registry_suite!(Folders);

mod hostile {
    super::hostile_suite!(super::Folders);
}

/// Puts samples into folders.
#[derive(Debug)]
struct Folders;

#[async_trait]
impl Fixture for Folders {
    async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
        let folder = tempfile::tempdir().unwrap();
        for FixtureImage { reference, sample } in images {
            let name = folder.path().join(reference.whole().replace(':', "/"));
            fs::create_dir_all(name.parent().unwrap()).unwrap();
            fs::write(name, sample.top.digest().as_ref()).unwrap();
            for blob in &sample.blobs {
                fs::write(folder.path().join(blob.descriptor.digest().as_ref()), &blob.bytes).unwrap();
            }
        }
        let names = images.iter().map(|image| image.reference.clone()).collect();
        BackendUnderTest::new(Box::new(Folder(folder.path().to_owned())), names, folder)
    }

    /// A folder refuses nothing and has no outages, every image in it has a name, and what is taken away is missing.
    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "io_error_kept_as_source",
            "multi_image_archive_enumerates_and_selects",
            "not_found_vs_unauthorized_vs_denied_vs_unavailable",
            "rate_limited_carries_delay_in_all_three_shapes",
            "retryable_flag_consistent",
        ]
    }
}

#[tokio::test]
async fn a_program_that_links_it_pulls_from_it() {
    let sample = plyfold_conformance::samples::image();
    let subject = Folders.open(&[FixtureImage::new("registry.example/app:1", &sample)]).await;
    let uri = format!("{}:registry.example/app:1", subject.registry);
    let backends = Backends::linked().unwrap();
    let opened = backends.open(&uri, &Options::default()).await.unwrap();
    let error = backends.open(&uri, &Options::parse(["depth=3"]).unwrap()).await.unwrap_err();
    assert!(matches!(error.detail(), Some(OptionFault::Unknown(key, _)) if key == "depth"));
    let cache = MemoryCache::new().unwrap();
    let platform: Platform = "linux/amd64".parse().unwrap();
    let options = PullOptions { platform, ..PullOptions::default() };
    let image = pull(&opened.registry, &opened.reference().await.unwrap(), &cache, &options).await.unwrap();
    assert_eq!(image.layers.len(), 2);
}
