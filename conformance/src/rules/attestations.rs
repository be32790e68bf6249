//! S: what attests to an image.

use plyfold_core::{Attestation, ImageSource};

use super::probe::{Counting, at, open, open_index, sound};
use super::pushes::push;
use crate::rule::rules;
use crate::samples::{self, Sample};
use crate::{BackendUnderTest, Client, Fixture};

rules! {
    $ __attestation_rules of dyn Fixture;
    "S 95" sboms_none_is_empty_multiple_supported_predicate_extracted:
        "an image without SBOMs has none, one with several has all of them, in SPDX and CycloneDX; their list is made without \
         reading them, and the predicate of each is what its statement has, byte for byte; so it is with provenance",
    "S 96" attestations_by_annotation_and_by_referrers_agree:
        "what stands beside an image in its index, and the same as referrers, plain or in envelopes, are the same SBOMs and \
         provenance; a statement that is in both places is one",
}

async fn sboms_none_is_empty_multiple_supported_predicate_extracted(fixture: &dyn Fixture) {
    let plain = open(fixture, &samples::image()).await;
    let source = sound(plain.image("linux/amd64").await);
    assert_eq!(attested(&*plain.client, &*source).await, [], "an image without attestations");
    let Some(subject) = open_index(fixture, &samples::attested()).await else { return };
    let counting = Counting::new(&*subject.registry);
    let platform = sound("linux/amd64".parse());
    let source = sound(subject.client.image(&counting, subject.reference(), &platform).await);
    let before = counting.fetched();
    let found = sound(subject.client.sboms(&*source).await);
    assert_eq!(found.len(), 3, "SBOMs");
    assert_eq!(counting.fetched(), before, "blobs were read for a list");
    assert_eq!(attested(&*subject.client, &*source).await, wanted(&samples::ATTESTED));
    let source = sound(subject.image("linux/arm64").await);
    assert_eq!(attested(&*subject.client, &*source).await, wanted(&[samples::ATTESTED_ARM64]));
}

async fn attestations_by_annotation_and_by_referrers_agree(fixture: &dyn Fixture) {
    let Some(indexed) = open_index(fixture, &samples::attested()).await else { return };
    let referrers = samples::attestation_referrers();
    let by_index = sound(indexed.image("linux/amd64").await);
    let wanted = wanted(&samples::ATTESTED);
    assert_eq!(attested(&*indexed.client, &*by_index).await, wanted, "by annotation");
    let alone = open(fixture, &samples::attested_image()).await;
    let source = sound(alone.image("linux/amd64").await);
    assert_eq!(attested(&*alone.client, &*source).await, [], "before anything refers to it");
    let can = alone.registry.capabilities();
    if !can.push || !can.referrers {
        return;
    }
    for referrer in &referrers {
        attach(&alone, referrer).await;
    }
    assert_eq!(attested(&*alone.client, &*source).await, wanted, "by referrers");
    // The last one has the statement of the index.
    attach(&indexed, &referrers[3]).await;
    assert_eq!(attested(&*indexed.client, &*by_index).await, wanted, "in both places");
}

/// Types and predicates of all SBOMs and provenance of an image, sorted.
async fn attested(client: &dyn Client, source: &dyn ImageSource) -> Vec<(String, String)> {
    let mut all: Vec<Attestation> = sound(client.sboms(source).await);
    all.extend(sound(client.provenance(source).await));
    let mut found = Vec::new();
    for one in &all {
        let predicate = sound(client.predicate(one).await);
        let kind = one.predicate_type().unwrap_or_default().to_owned();
        found.push((kind, String::from_utf8_lossy(&predicate).into_owned()));
    }
    found.sort();
    found
}

fn wanted(of: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut wanted: Vec<_> = of.iter().map(|(kind, text)| ((*kind).to_owned(), (*text).to_owned())).collect();
    wanted.sort();
    wanted
}

async fn attach(subject: &BackendUnderTest, referrer: &Sample) {
    let (registry, name) = (&*subject.registry, subject.reference());
    for blob in referrer.blobs.iter().filter(|blob| !blob.is_manifest()) {
        push(registry, name, referrer, &blob.descriptor).await;
    }
    let raw =
        sound(plyfold_core::RawManifest::new(referrer.top_bytes().clone(), Some(referrer.top.media_type())));
    sound(registry.push_manifest(&at(name, raw.digest()), &raw).await);
}
