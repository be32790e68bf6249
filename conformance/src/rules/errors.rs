//! E: the same fault has the same kind of error in every backend.

use std::error::Error as _;
use std::time::Duration;

use plyfold_core::{
    Blob, BlobRange, Descriptor, Error, ErrorKind, ImageRegistry, ImageRegistryExt, ImageSourceExt,
    MediaType, Page, RawManifest, Reference, Result, digest,
};

use super::probe::{
    altered, assert_kind, error_of, moved_layer, of_tag, open, open_index, open_under, read, sound,
};
use crate::rule::{not_judged, rules};
use crate::samples;
use crate::{BackendUnderTest, Condition, Fidelity, Fixture, RetryAfter};

rules! {
    $ __error_rules of dyn Fixture;
    "E 108" not_found_vs_unauthorized_vs_denied_vs_unavailable:
        "what is absent is NotFound, refused credentials are Auth, a missing permission Denied, an outage Unavailable",
    "E 109" rate_limited_carries_delay_in_all_three_shapes:
        "a request for patience carries its delay, whether given in seconds, as a date or not at all",
    "E 110" digest_mismatch_carries_expected_actual_size:
        "a blob that is not what its descriptor says ends in Corrupt, with both digests or both sizes",
    "E 111" unsupported_media_type_not_not_found:
        "content that is there but of no known type is Unsupported, not NotFound",
    "E 112" platform_mismatch_carries_available:
        "a single image for another platform is PlatformNotFound and says which platform it has",
    "E 113" read_only_backend_returns_unsupported_statically:
        "what capabilities() does not list answers Unsupported at once, without the medium",
    "E 114" io_error_kept_as_source:
        "the error of the system or the network below stays in the chain of sources",
    "E 115" retryable_flag_consistent:
        "faults that pass by themselves are retryable, all others are not",
    "E 116" already_exists_is_not_failure:
        "storing what is there already is a success",
}

async fn not_found_vs_unauthorized_vs_denied_vs_unavailable(fixture: &dyn Fixture) {
    let sample = samples::image();
    let subject = open(fixture, &sample).await;
    let absent = [
        of_tag(subject.reference(), "library/app", "absent"),
        of_tag(subject.reference(), "library/absent", "1.2"),
    ];
    for name in &absent {
        assert_kind(subject.registry.manifest(name).await, &ErrorKind::NotFound);
        assert_kind(subject.registry.resolve(name).await, &ErrorKind::NotFound);
        assert!(!sound(subject.registry.exists(name).await), "{name}");
    }
    assert!(sound(subject.registry.exists(subject.reference()).await));
    let blob = Descriptor::new(MediaType::ImageLayer, 6, digest::sha256(b"absent"));
    let outcome = read(subject.registry.blob(subject.reference(), &blob, BlobRange::FULL).await).await;
    assert_kind(outcome, &ErrorKind::NotFound);

    let conditions = [
        (Condition::Denied, ErrorKind::Denied),
        (Condition::Unauthorized, ErrorKind::Auth),
        (Condition::Unavailable, ErrorKind::Unavailable),
    ];
    for (condition, kind) in conditions {
        for error in errors_under(fixture, condition).await {
            assert_eq!(*error.kind(), kind, "{condition:?}: {error}");
        }
    }
}

async fn rate_limited_carries_delay_in_all_three_shapes(fixture: &dyn Fixture) {
    for shape in [RetryAfter::Date, RetryAfter::Missing, RetryAfter::Seconds] {
        for error in errors_under(fixture, Condition::RateLimited(shape)).await {
            let ErrorKind::RateLimited { retry_after } = *error.kind() else { panic!("{error}") };
            match shape {
                // The server's clock had whole seconds, and some may have passed.
                RetryAfter::Date => {
                    let delay = retry_after.expect("a date is a delay");
                    assert!(
                        (Duration::from_secs(15)..=Duration::from_secs(31)).contains(&delay),
                        "{delay:?}"
                    );
                }
                RetryAfter::Missing => assert_eq!(retry_after, None),
                RetryAfter::Seconds => assert_eq!(retry_after, Some(Duration::from_secs(7))),
            }
        }
    }
}

async fn digest_mismatch_carries_expected_actual_size(fixture: &dyn Fixture) {
    let sample = samples::uncompressed();
    let honest = sample.images[0].layers[0].descriptor.clone();
    if fixture.fidelity() == Fidelity::DiffIds {
        // The medium has no digest of its own to hold a layer to: the image's diff_id does.
        let subject = open(fixture, &moved_layer(sample)).await;
        let source = sound(subject.image("linux/amd64").await);
        let tar = sound(source.layer_tar(0).await);
        let finished = tokio::task::spawn_blocking(move || {
            let mut tar = tar;
            tar.finish()
        })
        .await;
        let error = assert_kind(finished.expect("the layer reader ends"), &ErrorKind::Corrupt);
        let mismatch = error
            .detail::<plyfold_core::Mismatch>()
            .unwrap_or_else(|| panic!("expected and actual are missing: {error}"));
        assert_ne!(mismatch.actual.as_ref(), Some(&mismatch.expected), "{error}");
        return;
    }
    let content = sample.blob(honest.digest()).expect("the sample has its layer").clone();
    let size = honest.size();
    let flipped = [&content[..700], b"?", &content[701..]].concat();
    let grown = [&content[..], b"more"].concat();
    for (damaged, actual_size) in [(flipped, size), (content[..1000].to_vec(), 1000), (grown, size + 4)] {
        let subject =
            open(fixture, &altered(sample.clone(), honest.digest(), |_| damaged.clone().into())).await;
        let blob = subject.registry.blob(subject.reference(), &honest, BlobRange::FULL).await;
        let error = assert_kind(read(blob).await, &ErrorKind::Corrupt);
        let mismatch = error
            .detail::<plyfold_core::Mismatch>()
            .unwrap_or_else(|| panic!("expected and actual are missing: {error}"));
        assert_eq!(mismatch.expected, *honest.digest());
        assert_eq!(mismatch.expected_size, Some(size));
        if actual_size == size {
            assert!(mismatch.actual.as_ref().is_some_and(|actual| actual != honest.digest()), "{error}");
        } else {
            // A backend may stop at the first byte too many.
            assert_ne!(mismatch.actual_size, size, "{error}");
        }
    }
}

async fn unsupported_media_type_not_not_found(fixture: &dyn Fixture) {
    if fixture.fidelity() == Fidelity::Exact {
        for sample in [samples::schema1(), samples::unknown_document()] {
            let subject = open(fixture, &sample).await;
            let error = error_of(subject.registry.manifest(subject.reference()).await);
            assert_eq!(*error.kind(), ErrorKind::Unsupported, "{}: {error}", sample.name);
        }
        let subject = open(fixture, &samples::artifact()).await;
        let source = sound(subject.image("linux/amd64").await);
        assert_kind(source.config().await, &ErrorKind::Unsupported);
    } else {
        not_judged("the medium holds no documents of other types");
    }
    let subject = open(fixture, &samples::image()).await;
    assert_kind(subject.registry.fetch_index(subject.reference()).await, &ErrorKind::Unsupported);
}

async fn platform_mismatch_carries_available(fixture: &dyn Fixture) {
    let subject = open(fixture, &samples::image()).await;
    let available = vec!["linux/amd64".to_owned()];
    assert_kind(subject.image("linux/s390x").await, &ErrorKind::PlatformNotFound { available });
    if let Some(subject) = open_index(fixture, &samples::variants()).await {
        let error = error_of(subject.image("windows/amd64").await);
        let ErrorKind::PlatformNotFound { available } = error.kind() else { panic!("{error}") };
        assert_eq!(available.len(), 6, "{available:?}");
    }
}

async fn read_only_backend_returns_unsupported_statically(fixture: &dyn Fixture) {
    let mut subject = open(fixture, &samples::image()).await;
    let raw = sound(subject.registry.manifest(subject.reference()).await);
    let name = subject.reference().clone();
    subject.unplug();
    let (registry, can) = (&*subject.registry, subject.registry.capabilities());
    let repository = plyfold_core::reference::repository_of(&name);
    let layer = Descriptor::new(MediaType::ImageLayer, 1, digest::sha256(b"x"));
    let blob = sound(Blob::from_bytes(&layer, BlobRange::FULL, &bytes::Bytes::from_static(b"x")));
    let static_answers = [
        (can.delete, registry.delete(&name).await.err()),
        (can.mount, registry.mount_blob(&name, &layer, &name).await.err()),
        (can.push, registry.push_blob(&name, blob).await.err()),
        (can.push, registry.push_manifest(&name, &raw).await.err()),
        (can.referrers, registry.referrers(&name, raw.digest(), None).await.err()),
        (can.repositories, registry.repositories(Page::default()).await.err()),
        (can.tags, registry.tags(&repository, Page::default()).await.err()),
    ];
    for (number, (listed, error)) in static_answers.into_iter().enumerate() {
        let unsupported = error.as_ref().is_some_and(|error| *error.kind() == ErrorKind::Unsupported);
        assert_eq!(unsupported, !listed, "answer {number} against {can:?}: {error:?}");
    }
}

async fn io_error_kept_as_source(fixture: &dyn Fixture) {
    let mut subject = open(fixture, &samples::image()).await;
    subject.unplug();
    let Err(error) = subject.registry.manifest(subject.reference()).await else {
        return not_judged("the medium does no input and output that could fail, such as memory");
    };
    let expected = [ErrorKind::Io, ErrorKind::NotFound, ErrorKind::Unavailable];
    assert!(expected.contains(error.kind()), "{error}");
    if *error.kind() == ErrorKind::NotFound {
        return not_judged("where the medium is taken away, its content is only missing");
    }
    assert!(error.source().is_some(), "{error} has no source");
}

async fn retryable_flag_consistent(fixture: &dyn Fixture) {
    let conditions = [
        (Condition::Denied, false),
        (Condition::DigestLies, false),
        (Condition::RateLimited(RetryAfter::Missing), true),
        (Condition::RateLimited(RetryAfter::Seconds), true),
        (Condition::Unauthorized, false),
        (Condition::Unavailable, true),
    ];
    for (condition, passes) in conditions {
        for error in errors_under(fixture, condition).await {
            assert_eq!(error.is_retryable(), passes, "{condition:?}: {error}");
        }
    }
    let subject = open(fixture, &samples::image()).await;
    let absent = of_tag(subject.reference(), "library/app", "absent");
    assert!(!error_of(subject.registry.manifest(&absent).await).is_retryable());
    if fixture.fidelity() == Fidelity::Exact {
        let sample = samples::bad_digest();
        let layer = sample.images[0].layers[0].descriptor.clone();
        let subject = open(fixture, &sample).await;
        let blob = subject.registry.blob(subject.reference(), &layer, BlobRange::FULL).await;
        assert!(!error_of(read(blob).await).is_retryable());
    } else {
        not_judged("the medium has no digests of its own");
    }
}

async fn already_exists_is_not_failure(fixture: &dyn Fixture) {
    let subject = open(fixture, &samples::image()).await;
    let raw = sound(subject.registry.manifest(subject.reference()).await);
    let layer = sound(raw.image()).layers()[0].clone();
    let content =
        sound(read(subject.registry.blob(subject.reference(), &layer, BlobRange::FULL).await).await);
    for _ in 0..2 {
        let pushed = push(&subject, subject.reference(), &raw, &layer, &content).await;
        if !subject.registry.capabilities().push {
            assert_kind(pushed, &ErrorKind::Unsupported);
            continue;
        }
        sound(pushed);
        let again = sound(subject.registry.manifest(subject.reference()).await);
        assert_eq!(again.bytes(), raw.bytes());
    }
}

async fn push(
    subject: &BackendUnderTest,
    name: &Reference,
    raw: &RawManifest,
    layer: &Descriptor,
    content: &bytes::Bytes,
) -> Result<()> {
    subject.registry.push_blob(name, Blob::from_bytes(layer, BlobRange::FULL, content)?).await?;
    subject.registry.push_manifest(name, raw).await
}

/// The errors of each way to read under a condition; none when the medium knows no such condition.
async fn errors_under(fixture: &dyn Fixture, condition: Condition) -> Vec<Error> {
    let sample = samples::image();
    let Some(subject) = open_under(fixture, &sample, condition).await else { return Vec::new() };
    let mut errors = vec![error_of(subject.registry.manifest(subject.reference()).await)];
    if condition != Condition::DigestLies {
        let layer = &sample.images[0].layers[0].descriptor;
        let blob = subject.registry.blob(subject.reference(), layer, BlobRange::FULL).await;
        errors.push(error_of(read(blob).await));
        errors.push(error_of(subject.registry.resolve(subject.reference()).await));
    }
    errors
}
