//! Hostile and odd documents: what a pull of each must get, and what must remain.
//!
//! Each must get a typed error that names the image, and leaves no new name and what was stored before intact.

mod documents;
mod row;

use plyfold_core::layer::LayerTar;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{
    CacheProvider, CacheProviderExt, Completeness, ErrorKind, Format, Input, Made, Materializer, PullOptions,
    Result, Role, Sink,
};

pub use self::row::{Outcome, Row};
use crate::fixtures::fill;
use crate::rule::{not_judged, settle, verdict};
use crate::samples;
use crate::{BackendUnderTest, Client as _, CoreClient, Fidelity, Fixture, FixtureImage, Verdict};

/// All rows. Media that keep no documents (docker-archive) have nothing to be judged by them.
pub fn rows() -> impl Iterator<Item = Row> {
    documents::ROWS.iter().copied()
}

impl Row {
    /// Judges a fixture.
    ///
    /// # Panics
    /// When the outcome is another, or what was there before is not there any more; and as [`Rule::judge`](crate::Rule::judge)
    /// where nothing is judged.
    pub fn judge(&self, fixture: &dyn Fixture) {
        let broken = || format!("hostile input `{}` must get {:?}", self.name, self.outcome);
        settle(fixture, format_args!("`{}`", self.name), self.name, &self.verdict(fixture), broken)
            .unwrap_or_else(|why| panic!("{why}"));
    }

    /// Whether the fixture deals with it as it must; the failed assertion goes to standard error.
    pub fn holds(&self, fixture: &dyn Fixture) -> bool {
        self.verdict(fixture) != Verdict::Broken
    }

    fn verdict(&self, fixture: &dyn Fixture) -> Verdict {
        verdict(|| self.check(fixture))
    }

    async fn check(&self, fixture: &dyn Fixture) {
        if fixture.fidelity() == Fidelity::DiffIds {
            return not_judged("the medium keeps no documents");
        }
        let cache = cache_with_an_image().await;
        let names = names(&cache).await;
        let sample = (self.sample)();
        let subject = fixture.open(&[FixtureImage::new("registry.example/hostile:1", &sample)]).await;
        let pulled = pull(&subject, &cache).await;
        match (self.outcome, pulled) {
            (Outcome::Image(platform), Ok(digest)) => {
                assert_eq!(digest, sample.image_for(platform).manifest.digest().to_string());
            }
            (Outcome::Image(_), Err(error)) => panic!("{error}"),
            (_, Ok(_)) => panic!("it was pulled"),
            (outcome, Err(error)) => {
                let fits = match outcome {
                    Outcome::Refused(kinds) => kinds.contains(error.kind()),
                    _ => matches!(error.kind(), ErrorKind::PlatformNotFound { .. }),
                };
                assert!(fits, "{}: {error}", error.kind().name());
                assert!(error.context("image").is_some(), "the error names no image: {error}");
                assert_eq!(self::names(&cache).await, names, "a name has appeared");
            }
        }
        assert_whole(&cache).await;
    }
}

/// Pulls the image as a runtime would, each layer read to its end; yields the manifest's digest.
async fn pull(subject: &BackendUnderTest, cache: &MemoryCache) -> Result<String> {
    let platform = "linux/arm/v7".parse()?;
    let options = PullOptions { platform, materializer: Some(Box::new(Drain)), ..PullOptions::default() };
    let pulled = subject.client.pull(&*subject.registry, subject.reference(), cache, &options).await?;
    Ok(pulled.manifest.digest().to_string())
}

/// Makes an empty file of a layer that is sound.
#[derive(Clone, Copy, Debug)]
struct Drain;

impl Materializer for Drain {
    fn format(&self) -> Format {
        Format { name: "drain", version: 1, options: String::new(), extension: "empty" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        out.output(Role::Image)?;
        tar.finish()?;
        Ok(Made::default())
    }
}

const BEFORE: &str = "registry.example/before:1";

async fn cache_with_an_image() -> MemoryCache {
    let (cache, registry) = (MemoryCache::new(), MemoryRegistry::new("before"));
    let cache = cache.expect("a temporary directory can be made");
    let sample = samples::image();
    let image = FixtureImage::new(BEFORE, &sample);
    fill(&registry, &image);
    let options = PullOptions { platform: amd64(), ..PullOptions::default() };
    CoreClient
        .pull(&registry, &image.reference, &cache, &options)
        .await
        .expect("a sound image can be pulled");
    cache
}

async fn assert_whole(cache: &MemoryCache) {
    let sample = samples::image();
    let name = FixtureImage::new(BEFORE, &sample).reference;
    let found = cache.completeness(&name, &amd64()).await;
    assert_eq!(found.expect("the cache still answers"), Completeness::Complete);
    for blob in &sample.blobs {
        cache.verify_blob(&blob.descriptor).await.expect("what was stored before is intact");
    }
}

async fn names(cache: &MemoryCache) -> Vec<String> {
    let list = cache.list().await.expect("the cache still answers");
    list.into_iter().map(|(name, _)| name.whole()).collect()
}

fn amd64() -> plyfold_core::Platform {
    "linux/amd64".parse().expect("a valid platform")
}
