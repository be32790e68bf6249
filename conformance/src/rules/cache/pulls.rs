//! What a pull into a cache asks for, and what it answers.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use plyfold_core::pull::Retry;
use plyfold_core::{
    Blob, BlobRange, CacheProviderExt, Completeness, Credential, Descriptor, Error, ErrorKind, ImageRegistry,
    Platform, Progress, PullOptions, PullPolicy, RawManifest, Reference, Result,
};

use super::setup::{amd64, name, pull, pull_for, pulled, registry_with};
use crate::CacheFixture;
use crate::rule::rules;
use crate::rules::probe::{Counting, NAME, assert_kind, error_of, sound};
use crate::samples;

rules! {
    $ __cache_pulls_rules of dyn CacheFixture;
    "C 47" contains_means_complete_for_platform:
        "an image is cached when manifest, config and every layer of that platform are here with the right sizes",
    "C 48" missing_layer_reported_by_digest:
        "what an incomplete image lacks is reported by digest",
    "C 49" pull_if_present_does_no_network_io:
        "with everything present IfMissing and Never do no network I/O, also when the tag has moved; Never lists what is missing",
    "C 50" always_pull_refreshes_moved_tag:
        "Always follows a name that has moved; one that has not costs one question",
    "C 51" pull_fetches_only_missing_blobs:
        "what is here is not fetched again: each blob that is missing is, once",
    "C 52" adding_second_platform_keeps_index_digest:
        "a name of an index refers to that index, whichever of its platforms are present",
    "C 53" platform_is_part_of_the_answer_on_hit:
        "an image for one platform is no answer to a question for another",
    "C 200" a_confirmed_hit_asks_first:
        "with a credential of the call, or when asked to confirm, an image that is here is an answer only after the \
         registry has agreed to its digest: one question, no content; a refusal is the error",
    "C 230" a_refusal_tells_no_digest:
        "until the registry has agreed, no error and no event of a pull tells a digest that only the cache knows: neither \
         of a complete image, nor of one that is damaged, nor when the name has moved",
}

async fn contains_means_complete_for_platform(fixture: &dyn CacheFixture) {
    let sample = samples::index();
    let subject = pulled(fixture, &sample, NAME).await;
    let image = sample.image_for("linux/amd64");
    let cached =
        async |platform: &str| sound(subject.cache.completeness(&name(NAME), &sound(platform.parse())).await);
    assert_eq!(cached("linux/amd64").await, Completeness::Complete);
    assert!(matches!(cached("linux/arm64").await, Completeness::Incomplete(_)), "only amd64 was pulled");

    for part in [&image.layers[0].descriptor, &image.layers[1].descriptor, &image.config] {
        let content = sound(subject.cache.content(part, u64::MAX).await);
        sound(subject.cache.quarantine(part.digest()).await);
        assert_ne!(cached("linux/amd64").await, Completeness::Complete, "without {}", part.digest());
        sound(subject.cache.put(sound(Blob::from_bytes(part, BlobRange::FULL, &content))).await);
        assert_eq!(cached("linux/amd64").await, Completeness::Complete);
    }
    let layer = &image.layers[0].descriptor;
    subject.medium.damage(layer.digest(), b"torn");
    assert_ne!(cached("linux/amd64").await, Completeness::Complete, "with a layer of the wrong size");
}

async fn missing_layer_reported_by_digest(fixture: &dyn CacheFixture) {
    let sample = samples::image();
    let subject = pulled(fixture, &sample, NAME).await;
    let mut missing = Vec::new();
    for layer in &sample.images[0].layers {
        sound(subject.cache.quarantine(layer.descriptor.digest()).await);
        missing.push(layer.descriptor.digest().clone());
        let found = sound(subject.cache.completeness(&name(NAME), &amd64()).await);
        assert_eq!(found, Completeness::Incomplete(missing.clone()));
    }
}

async fn pull_if_present_does_no_network_io(fixture: &dyn CacheFixture) {
    let (sample, newer) = (samples::image(), samples::custom_fields());
    let subject = pulled(fixture, &sample, NAME).await;
    let registry = registry_with(&newer, NAME);
    let counting = Counting::new(&registry);
    for policy in [PullPolicy::IfMissing, PullPolicy::Never] {
        let result = sound(pull(&subject, &counting, &name(NAME), policy).await);
        assert!(result.cached);
        assert_eq!(result.manifest.digest(), sample.top.digest(), "the tag has moved elsewhere, not here");
        assert_eq!(counting.calls(), 0, "calls under {policy:?}");
    }
    let layer = sample.images[0].layers[1].descriptor.digest();
    sound(subject.cache.quarantine(layer).await);
    let error =
        assert_kind(pull(&subject, &counting, &name(NAME), PullPolicy::Never).await, &ErrorKind::NotFound);
    assert!(error.to_string().contains(layer.as_ref()), "{error}");
    assert_eq!(counting.calls(), 0, "calls under Never with a missing layer");
    let absent = pull(&subject, &counting, &name("registry.example/absent:1"), PullPolicy::Never).await;
    assert_kind(absent, &ErrorKind::NotFound);
    assert_eq!(counting.calls(), 0, "calls under Never for an unknown image");
}

async fn always_pull_refreshes_moved_tag(fixture: &dyn CacheFixture) {
    let (sample, newer) = (samples::image(), samples::custom_fields());
    let subject = pulled(fixture, &sample, NAME).await;
    let unmoved = Counting::new(&registry_with(&sample, NAME));
    let result = sound(pull(&subject, &unmoved, &name(NAME), PullPolicy::Always).await);
    assert!(result.cached);
    assert_eq!((unmoved.calls(), unmoved.fetched()), (1, Vec::new()), "one question is enough");

    let moved = Counting::new(&registry_with(&newer, NAME));
    let result = sound(pull(&subject, &moved, &name(NAME), PullPolicy::Always).await);
    assert_eq!(result.descriptor.digest(), newer.top.digest());
    let found = sound(subject.cache.find_descriptor(&name(NAME)).await).expect("the name stays");
    assert_eq!(found.digest(), newer.top.digest());
    assert!(sound(subject.cache.image_in_cache(&name(NAME), &amd64()).await));
    assert_eq!(moved.fetched(), [newer.images[0].config.digest().clone()], "the layers are here");
}

async fn pull_fetches_only_missing_blobs(fixture: &dyn CacheFixture) {
    for sample in [samples::index(), samples::image()] {
        let subject = pulled(fixture, &sample, NAME).await;
        let image = sample.image_for("linux/amd64");
        for missing in [&image.layers[1].descriptor, &image.layers[0].descriptor, &image.config] {
            sound(subject.cache.quarantine(missing.digest()).await);
            let counting = Counting::new(&registry_with(&sample, NAME));
            sound(pull(&subject, &counting, &name(NAME), PullPolicy::IfMissing).await);
            assert_eq!(counting.fetched(), [missing.digest().clone()]);
            assert!(sound(subject.cache.image_in_cache(&name(NAME), &amd64()).await));
        }
        // Another name of another repository finds here what it shares with the first.
        let other = "elsewhere.example/other:1";
        let counting = Counting::new(&registry_with(&sample, other));
        sound(pull(&subject, &counting, &name(other), PullPolicy::IfMissing).await);
        assert_eq!(counting.fetched(), []);
    }
}

async fn adding_second_platform_keeps_index_digest(fixture: &dyn CacheFixture) {
    for sample in [samples::index(), samples::nested_index()] {
        let subject = fixture.open().await;
        let registry = Counting::new(&registry_with(&sample, NAME));
        for platform in ["linux/amd64", "linux/arm64/v8"] {
            let platform: Platform = sound(platform.parse());
            let result = pull_for(&subject, &registry, &name(NAME), PullPolicy::IfMissing, &platform).await;
            assert_eq!(sound(result).descriptor.digest(), sample.top.digest());
            let here = sound(subject.cache.find_descriptor(&name(NAME)).await).expect("the name is set");
            assert_eq!(here.digest(), sample.top.digest());
            assert_eq!(&sound(subject.cache.content(&here, u64::MAX).await), sample.top_bytes());
        }
        for platform in ["linux/amd64", "linux/arm64/v8"] {
            assert!(
                sound(subject.cache.image_in_cache(&name(NAME), &sound(platform.parse())).await),
                "{platform}"
            );
        }
    }
}

async fn platform_is_part_of_the_answer_on_hit(fixture: &dyn CacheFixture) {
    let sample = samples::index();
    let subject = pulled(fixture, &sample, NAME).await;
    let registry = Counting::new(&registry_with(&sample, NAME));
    let arm64: Platform = sound("linux/arm64/v8".parse());
    let image = sample.image_for("linux/arm64/v8");
    let error = assert_kind(
        pull_for(&subject, &registry, &name(NAME), PullPolicy::Never, &arm64).await,
        &ErrorKind::NotFound,
    );
    assert!(error.to_string().contains(image.manifest.digest().as_ref()), "{error}");
    let result = sound(pull_for(&subject, &registry, &name(NAME), PullPolicy::IfMissing, &arm64).await);
    assert_eq!((result.manifest.digest(), result.cached), (image.manifest.digest(), false));
    // Now both are present: each platform has its own answer, without network I/O.
    let counting = Counting::new(&registry_with(&sample, NAME));
    for platform in ["linux/amd64", "linux/arm64/v8"] {
        let wanted: Platform = sound(platform.parse());
        let result = pull_for(&subject, &counting, &name(NAME), PullPolicy::IfMissing, &wanted).await;
        assert_eq!(sound(result).manifest.digest(), sample.image_for(platform).manifest.digest());
    }
    assert_eq!(counting.calls(), 0);
    // An image of one platform is not an image for another, here as little as there.
    let plain = "registry.example/library/plain:1";
    let registry = Counting::new(&registry_with(&samples::image(), plain));
    sound(pull(&subject, &registry, &name(plain), PullPolicy::IfMissing).await);
    for policy in [PullPolicy::IfMissing, PullPolicy::Never] {
        let error = error_of(pull_for(&subject, &registry, &name(plain), policy, &arm64).await);
        let available = vec!["linux/amd64".to_owned()];
        assert_eq!(*error.kind(), ErrorKind::PlatformNotFound { available }, "{error}");
    }
}

async fn a_confirmed_hit_asks_first(fixture: &dyn CacheFixture) {
    let (sample, newer) = (samples::image(), samples::custom_fields());
    let tenant = PullOptions { credential: Some(Credential::basic("b", "pw")), ..PullOptions::default() };
    let refusing = |kind: &ErrorKind| Refusing { kind: kind.clone(), tag: None };
    let asking = PullOptions { confirm: Some(true), ..PullOptions::default() };
    for options in [tenant, asking] {
        let subject = pulled(fixture, &sample, NAME).await;
        let pull = async |registry: &dyn ImageRegistry, policy: PullPolicy, confirm: Option<bool>| {
            let options = PullOptions { policy, confirm, platform: amd64(), ..options.clone() };
            subject.client.pull(registry, &name(NAME), &*subject.cache, &options).await
        };
        let counting = Counting::new(&registry_with(&sample, NAME));
        assert!(sound(pull(&counting, PullPolicy::IfMissing, options.confirm).await).cached);
        assert_eq!((counting.calls(), counting.fetched()), (1, Vec::new()), "one question");
        for kind in [ErrorKind::Denied, ErrorKind::Auth, ErrorKind::NotFound, ErrorKind::Corrupt] {
            for policy in [PullPolicy::IfMissing, PullPolicy::Always] {
                assert_kind(pull(&refusing(&kind), policy, options.confirm).await, &kind);
            }
        }
        let refused = pull(&counting, PullPolicy::Never, options.confirm).await;
        assert_kind(refused, &ErrorKind::Config);
        assert_eq!(counting.calls(), 1, "no request under `Never`");
        let refusing = refusing(&ErrorKind::Denied);
        assert!(sound(pull(&refusing, PullPolicy::Never, Some(false)).await).cached, "trusted to know");
        // What is here is gone there: the name stands for another image now.
        let moved = registry_with(&newer, NAME);
        let result = sound(pull(&moved, PullPolicy::IfMissing, options.confirm).await);
        assert_eq!(result.descriptor.digest(), newer.top.digest());
    }
}

async fn a_refusal_tells_no_digest(fixture: &dyn CacheFixture) {
    let (sample, newer) = (samples::index(), samples::custom_fields());
    let image = sample.image_for("linux/amd64");
    let layers = image.layers.iter().map(|layer| &layer.descriptor);
    let secret: Vec<Descriptor> =
        layers.chain([&sample.top, &image.manifest, &image.config]).cloned().collect();
    let moved = Some(sound(RawManifest::new(newer.top_bytes().clone(), None)));
    for kind in [ErrorKind::Auth, ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Unavailable] {
        for (tag, damaged) in [(None, false), (None, true), (moved.clone(), false)] {
            let subject = pulled(fixture, &sample, NAME).await;
            if damaged {
                let layer = &secret[0];
                let size = usize::try_from(layer.size()).unwrap_or_default();
                subject.medium.damage(layer.digest(), &vec![1; size]);
            }
            let registry = Refusing { kind: kind.clone(), tag: tag.clone() };
            let (progress, mut events) = Progress::channel();
            let retry = Retry { attempts: 2, base: Duration::from_millis(1), ..Retry::default() };
            let credential = Some(Credential::basic("b", "pw"));
            let options = PullOptions {
                credential,
                progress,
                retry,
                platform: amd64(),
                verify: true,
                ..PullOptions::default()
            };
            let error =
                error_of(subject.client.pull(&registry, &name(NAME), &*subject.cache, &options).await);
            assert_eq!(*error.kind(), kind, "{error}");
            drop(options);
            let mut told = vec![format!("{error} {error:?}")];
            while let Some(event) = events.next().await {
                told.push(format!("{event:?}"));
            }
            let told = told.join("\n");
            for secret in &secret {
                assert!(
                    !told.contains(secret.digest().digest()),
                    "{kind:?} tells {}: {told}",
                    secret.digest()
                );
            }
        }
    }
}

/// A registry that refuses what is asked, and repeats it. It answers a tag if there is something that the tag stands for.
#[derive(Clone, Debug)]
struct Refusing {
    kind: ErrorKind,
    tag: Option<RawManifest>,
}

#[async_trait]
impl ImageRegistry for Refusing {
    async fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        match &self.tag {
            Some(tag) if reference.digest().is_none() => Ok(tag.clone()),
            _ => {
                Err(Error::new(self.kind.clone(), format!("refused {}", reference.whole()))
                    .with_image(reference))
            }
        }
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, _: BlobRange) -> Result<Blob> {
        Err(Error::new(self.kind.clone(), format!("refused {}", blob.digest())))
    }
}

impl fmt::Display for Refusing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refusing")
    }
}
