//! Content that was stored well and is not what it was.

use bytes::Bytes;
use plyfold_core::cache::{Damage, DamagedPart};
use plyfold_core::{CacheProviderExt, Descriptor, ErrorKind, PullOptions, PullPolicy, Verify};

use super::setup::{amd64, name, pull, pulled, registry_with};
use crate::rule::rules;
use crate::rules::probe::{Counting, NAME, assert_kind, sound};
use crate::samples;
use crate::{CacheFixture, CacheUnderTest};

rules! {
    $ __cache_damage_rules of dyn CacheFixture;
    "C 54" verification_policy_applies_on_hit:
        "a pull that is asked to verify reads again what is here, and fetches what is damaged",
    "D 133" truncated_or_bitflipped_blob_detected_on_read_and_by_fsck_and_refetched:
        "damage shows when content is read and when it is verified; repaired, the next pull brings it again",
}

async fn verification_policy_applies_on_hit(fixture: &dyn CacheFixture) {
    let sample = samples::index();
    let subject = pulled(fixture, &sample, NAME).await;
    let image = sample.image_for("linux/amd64");
    let with = |policy, verify, force| PullOptions {
        policy,
        verify,
        force,
        platform: amd64(),
        ..PullOptions::default()
    };
    for part in [&image.layers[0].descriptor, &image.layers[1].descriptor, &image.config] {
        for (verify, force) in [(true, false), (false, true)] {
            damage(&subject, part, flipped).await;
            let counting = Counting::new(&registry_with(&sample, NAME));
            let options = with(PullPolicy::Never, true, false);
            let refused = subject.client.pull(&counting, &name(NAME), &*subject.cache, &options).await;
            assert_kind(refused, &ErrorKind::Corrupt);
            assert_eq!(counting.calls(), 0, "Never does no network I/O, damaged or not");

            let options = with(PullPolicy::IfMissing, verify, force);
            let pulled = subject.client.pull(&counting, &name(NAME), &*subject.cache, &options).await;
            drop(sound(pulled));
            // A forced pull may ask for the config again: it says what the image is.
            let fetched = counting.fetched().into_iter();
            let fetched: Vec<_> = fetched.filter(|blob| !force || blob != image.config.digest()).collect();
            let expected = [part.digest().clone()].into_iter();
            let expected = expected.filter(|blob| !force || blob != image.config.digest());
            assert_eq!(fetched, expected.collect::<Vec<_>>(), "what is damaged, and nothing else");
            sound(subject.cache.verify_blob(part).await);
        }
    }
    // Nothing is damaged: no network I/O.
    let counting = Counting::new(&registry_with(&sample, NAME));
    let options = with(PullPolicy::IfMissing, true, false);
    assert!(sound(subject.client.pull(&counting, &name(NAME), &*subject.cache, &options).await).cached);
    assert_eq!(counting.calls(), 0);
}

async fn truncated_or_bitflipped_blob_detected_on_read_and_by_fsck_and_refetched(fixture: &dyn CacheFixture) {
    let sample = samples::image();
    let subject = pulled(fixture, &sample, NAME).await;
    let image = &sample.images[0];
    for part in [&image.layers[0].descriptor, &image.config, &image.manifest] {
        for change in [flipped, truncated, lengthened] {
            damage(&subject, part, change).await;
            assert_kind(subject.cache.content(part, u64::MAX).await, &ErrorKind::Corrupt);
            for images in [None, Some(vec![name(NAME)])] {
                let found = verify(&subject, images, false).await;
                let [found] = found.as_slice() else { panic!("one thing is damaged, not {found:?}") };
                assert_eq!((&found.part, found.repaired), (&DamagedPart::Blob(part.digest().clone()), false));
                assert_eq!(found.images, [name(NAME)]);
            }
            let found = verify(&subject, None, true).await;
            let parts: Vec<_> = found.iter().map(|damage| (&damage.part, damage.repaired)).collect();
            assert_eq!(parts, [(&DamagedPart::Blob(part.digest().clone()), true)]);
            let found = verify(&subject, None, false).await;
            let parts: Vec<_> = found.iter().map(|damage| &damage.part).collect();
            assert_eq!(parts, [&DamagedPart::Missing(part.digest().clone())], "quarantined");

            let registry = registry_with(&sample, NAME);
            drop(sound(pull(&subject, &registry, &name(NAME), PullPolicy::IfMissing).await));
            assert_eq!(verify(&subject, None, false).await, []);
            sound(subject.cache.verify_blob(part).await);
        }
    }
    let verified = sound(subject.cache.verify(&Verify::default()).await);
    assert!(verified.checked >= 4, "manifest, config, two layers");
    let needed: u64 = sample.blobs.iter().map(|blob| blob.descriptor.size()).sum();
    assert!(verified.bytes >= needed, "all of it is read");
    let absent = Verify { images: Some(vec![name("registry.example/absent:1")]), ..Verify::default() };
    assert_kind(subject.cache.verify(&absent).await, &ErrorKind::NotFound);
}

pub(super) async fn verify(
    subject: &CacheUnderTest,
    images: Option<Vec<plyfold_core::Reference>>,
    repair: bool,
) -> Vec<Damage> {
    sound(subject.cache.verify(&Verify { images, repair, ..Verify::default() }).await).damage
}

async fn damage(subject: &CacheUnderTest, part: &Descriptor, change: fn(&[u8]) -> Vec<u8>) {
    let content: Bytes = sound(subject.cache.content(part, u64::MAX).await);
    subject.medium.damage(part.digest(), &change(&content));
}

pub(super) fn flipped(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    let middle = content.len() / 2;
    content[middle] ^= 0x10;
    content
}

pub(super) fn truncated(content: &[u8]) -> Vec<u8> {
    content[..content.len() / 2].to_vec()
}

pub(super) fn lengthened(content: &[u8]) -> Vec<u8> {
    [content, &[0]].concat()
}
