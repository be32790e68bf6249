//! R: what a registry must do when images are pulled from it.

use plyfold_core::{ErrorKind, ImageRegistry, Reference, digest, reference};

use super::probe::{
    Counting, NAME, altered, assert_chosen, assert_kind, at, carried, error_of, is_sha256, open, open_index,
    respaced, sound,
};
use crate::rule::{not_judged, rules};
use crate::samples::{self, Sample};
use crate::{Condition, Fidelity, Fixture, FixtureImage};

rules! {
    $ __pull_rules of dyn Fixture;
    "R 1" pull_by_tag_returns_exact_manifest_bytes:
        "a tag gives the manifest byte for byte as it was stored, with its media type, digest and size",
    "R 2" pull_by_digest_verifies_against_requested_digest_not_header:
        "content that does not match its digest is corrupt, whatever headers say",
    "R 3" digest_header_disagrees_with_body_is_error:
        "a name that points at one digest and yields the content of another is corrupt",
    "R 4" missing_digest_header_is_computed:
        "where the medium states no digest, the descriptor's digest is computed from the bytes",
    "R 5" index_bytes_verified_before_platform_selection:
        "an index that does not hash to its digest is corrupt before any of its children is looked at",
    "R 6" child_manifest_verified_by_descriptor_digest_and_size:
        "the child of an index must have the digest and the size that the index says",
    "R 7" tag_plus_digest_uses_digest_only:
        "with tag and digest in a reference the digest alone decides, also when there is no such tag",
    "R 8" short_names_normalise_identically_in_every_backend:
        "a short name means the same image in every backend",
    "R 9" invalid_reference_rejected_before_io:
        "an invalid reference is refused before any I/O",
    "R 10" platform_exact_match_beats_compatible:
        "the child for exactly the wanted platform is chosen, wherever it stands; else the best that runs",
    "R 11" variant_matching_arm_v6_v7_v8_distinct:
        "variants of arm are different platforms; an older one runs on a newer one, never the reverse",
    "R 12" no_matching_platform_lists_available:
        "when no child fits, the error lists the platforms that there are",
    "R 13" unknown_unknown_attestations_never_selected:
        "attestations are no images: neither unknown/unknown nor an index of them alone gives one",
    "R 14" descriptor_without_platform_handled:
        "a child without a platform is judged by its own config",
    "R 15" nested_index_descends:
        "an index within an index is searched too",
    "R 16" cyclic_or_too_deep_index_bounded:
        "nesting and width of indexes are bounded, and so are the requests they cause",
    "R 257" os_features_choose_between_images_of_one_platform:
        "a child that needs OS features is chosen where they are wanted; where they are not, only one of EROFS layers is, and \
         that only if there is no other for the platform",
}

async fn pull_by_tag_returns_exact_manifest_bytes(fixture: &dyn Fixture) {
    for sample in carried(fixture) {
        let subject = open(fixture, &sample).await;
        let raw = sound(subject.registry.manifest(subject.reference()).await);
        let again = sound(subject.registry.manifest(subject.reference()).await);
        assert_eq!(raw.bytes(), again.bytes(), "{}: two reads", sample.name);
        assert_eq!(raw.descriptor().size(), raw.bytes().len() as u64, "{}", sample.name);
        let own_digest = digest::sha256(raw.bytes());
        if fixture.fidelity() == Fidelity::DiffIds {
            assert_eq!(*raw.digest(), own_digest, "{}", sample.name);
            continue;
        }
        assert!(raw.bytes() == sample.top_bytes(), "{}: bytes", sample.name);
        assert_eq!(raw.descriptor().media_type(), sample.top.media_type(), "{}", sample.name);
        // By tag a backend may use any digest algorithm.
        assert!(
            [sample.top.digest(), &own_digest].contains(&raw.digest()),
            "{}: {}",
            sample.name,
            raw.digest()
        );
    }
}

async fn pull_by_digest_verifies_against_requested_digest_not_header(fixture: &dyn Fixture) {
    if fixture.fidelity() == Fidelity::DiffIds {
        let subject = open(fixture, &samples::image()).await;
        let own = sound(subject.registry.manifest(subject.reference()).await);
        let by_digest = at(subject.reference(), own.digest());
        assert_eq!(sound(subject.registry.manifest(&by_digest).await).bytes(), own.bytes());
        let other = at(subject.reference(), samples::index().top.digest());
        assert_kind(subject.registry.manifest(&other).await, &ErrorKind::NotFound);
        return;
    }
    let sample = samples::image();
    let bad = altered(sample.clone(), sample.top.digest(), respaced);
    let subject = open(fixture, &bad).await;
    let by_digest = at(subject.reference(), sample.top.digest());
    let read = subject.registry.manifest(&by_digest).await;
    if fixture.states_digests() {
        let error = assert_kind(read, &ErrorKind::Corrupt);
        let mismatch = error.detail::<plyfold_core::Mismatch>().expect("both digests are in the error");
        assert_eq!(mismatch.expected, *sample.top.digest());
    } else {
        assert_kind(read, &ErrorKind::NotFound);
    }

    let samples = [samples::image(), samples::sha512(), samples::index()];
    for sample in samples.into_iter().filter(|sample| fixture.states_digests() || is_sha256(sample)) {
        let subject = open(fixture, &sample).await;
        let by_digest = at(subject.reference(), sample.top.digest());
        let raw = sound(subject.registry.manifest(&by_digest).await);
        assert_eq!(raw.digest(), sample.top.digest(), "{}", sample.name);
    }
}

async fn digest_header_disagrees_with_body_is_error(fixture: &dyn Fixture) {
    let sample = samples::image();
    let has_digests = fixture.fidelity() == Fidelity::Exact && fixture.states_digests();
    if has_digests {
        let bad = altered(sample.clone(), sample.top.digest(), respaced);
        let subject = open(fixture, &bad).await;
        assert_kind(subject.registry.manifest(subject.reference()).await, &ErrorKind::Corrupt);
    }
    let lying = fixture.open_under(&FixtureImage::new(NAME, &sample), Condition::DigestLies).await;
    if lying.is_none() && !has_digests {
        not_judged("the medium has no digests of its own");
    }
    if let Some(subject) = lying {
        assert_kind(subject.registry.manifest(subject.reference()).await, &ErrorKind::Corrupt);
    }
    let subject = open(fixture, &sample).await;
    let raw = sound(subject.registry.manifest(subject.reference()).await);
    assert_eq!(*raw.digest(), digest::sha256(raw.bytes()));
}

async fn missing_digest_header_is_computed(fixture: &dyn Fixture) {
    let sample = samples::image();
    let image = FixtureImage::new(NAME, &sample);
    let subject = match fixture.open_under(&image, Condition::DigestUnstated).await {
        Some(subject) => subject,
        None => open(fixture, &sample).await,
    };
    let raw = sound(subject.registry.manifest(subject.reference()).await);
    assert_eq!(*raw.digest(), digest::sha256(raw.bytes()));
    let resolved = sound(subject.registry.resolve(subject.reference()).await);
    assert_eq!(resolved.digest(), raw.digest());
    assert_eq!(resolved.size(), raw.descriptor().size());
}

async fn index_bytes_verified_before_platform_selection(fixture: &dyn Fixture) {
    let sample = samples::index();
    let bad = altered(sample.clone(), sample.top.digest(), respaced);
    let Some(mut subject) = open_index(fixture, &bad).await else { return };
    if !fixture.states_digests() {
        subject.references[0] = at(subject.reference(), sample.top.digest());
        assert_kind(subject.image("linux/amd64").await, &ErrorKind::NotFound);
        return not_judged("the medium says no digest of an index");
    }
    let by_tag = subject.image("linux/amd64").await;
    assert_kind(by_tag, &ErrorKind::Corrupt);
    subject.references[0] = at(subject.reference(), sample.top.digest());
    let by_digest = subject.image("linux/amd64").await;
    assert_kind(by_digest, &ErrorKind::Corrupt);
}

async fn child_manifest_verified_by_descriptor_digest_and_size(fixture: &dyn Fixture) {
    let sample = samples::index();
    let child = sample.image_for("linux/amd64").manifest.digest().clone();
    let Some(subject) = open_index(fixture, &altered(sample, &child, respaced)).await else { return };
    assert_kind(subject.image("linux/amd64").await, &ErrorKind::Corrupt);

    let subject = open(fixture, &samples::lying_child_size()).await;
    let error = assert_kind(subject.image("linux/amd64").await, &ErrorKind::Corrupt);
    let mismatch = error.detail::<plyfold_core::Mismatch>().expect("both sizes are in the error");
    assert_ne!(mismatch.expected_size, Some(mismatch.actual_size));
}

async fn tag_plus_digest_uses_digest_only(fixture: &dyn Fixture) {
    let (first, second) = (samples::image(), samples::custom_fields());
    let images =
        [FixtureImage::new(NAME, &first), FixtureImage::new("registry.example/library/app:other", &second)];
    let images = if fixture.holds_several_images() { &images[..] } else { &images[..1] };
    let subject = fixture.open(images).await;
    let last = &subject.references[images.len() - 1];
    let wanted = sound(subject.registry.manifest(last).await);
    for tag in ["1.2", "no-such-tag"] {
        let (host, name) = (subject.reference().registry(), subject.reference().repository());
        let text = format!("{host}/{name}:{tag}@{}", wanted.digest());
        let both = sound(reference::parse(&text));
        assert_eq!(sound(subject.registry.manifest(&both).await).bytes(), wanted.bytes(), "{text}");
    }
}

async fn short_names_normalise_identically_in_every_backend(fixture: &dyn Fixture) {
    let long_forms = [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3", "docker.io/library/alpine:3"),
        ("user/x", "docker.io/user/x:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x:1", "localhost:5000/x:1"),
        ("host:80/a/b/c", "host:80/a/b/c:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
    ];
    let sample = samples::image();
    for (short, long) in long_forms {
        assert_eq!(sound(reference::parse(short)).whole(), long);
        if fixture.holds_any_host() {
            let subject = fixture.open(&[FixtureImage::new(long, &sample)]).await;
            let by_short = sound(subject.registry.manifest(&sound(reference::parse(short))).await);
            let by_long = sound(subject.registry.manifest(subject.reference()).await);
            assert_eq!(by_short.bytes(), by_long.bytes(), "{short}");
        } else {
            not_judged("every name in the medium has the medium's own host");
        }
    }
    // Whatever its host: a name without a tag means `latest`.
    let subject = fixture.open(&[FixtureImage::new("registry.example/library/app:latest", &sample)]).await;
    let (host, name) = (subject.reference().registry(), subject.reference().repository());
    let bare = sound(reference::parse(&format!("{host}/{name}")));
    sound(subject.registry.manifest(&bare).await);
}

async fn invalid_reference_rejected_before_io(fixture: &dyn Fixture) {
    let long = format!("registry.example/{}", "a/".repeat(200));
    for text in ["", ":", "a b", "UPPER/case", "x:tag with space", "a//b", "../x", "a@sha256:", "x:-t", &long]
    {
        assert_kind(reference::parse(text), &ErrorKind::Config);
    }
    let mut subject = open(fixture, &samples::image()).await;
    let (host, name) =
        (subject.reference().registry().to_owned(), subject.reference().repository().to_owned());
    subject.unplug();
    let path = "sha256:../../../../etc/passwd".to_owned();
    let upper = format!("sha256:{}", "A".repeat(64));
    for text in [path, upper, format!("sha256:{}", "0".repeat(63)), "md5:00".to_owned(), "sha256".to_owned()]
    {
        let invalid = Reference::with_digest(host.clone(), name.clone(), text.clone());
        let error = error_of(subject.registry.manifest(&invalid).await);
        let expected = [ErrorKind::Config, ErrorKind::Corrupt, ErrorKind::Unsupported];
        assert!(expected.contains(error.kind()), "{text}: {error}");
    }
}

async fn platform_exact_match_beats_compatible(fixture: &dyn Fixture) {
    let sample = samples::variants();
    let Some(subject) = open_index(fixture, &sample).await else { return };
    for platform in ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/arm/v7", "linux/arm64"] {
        assert_chosen(subject.image(platform).await, &sample, platform);
    }
    // What is not there is replaced by the best that runs, never by more than the host can.
    assert_chosen(subject.image("linux/amd64/v4").await, &sample, "linux/amd64/v3");
    assert_chosen(subject.image("linux/arm/v6").await, &sample, "linux/arm/v5");
}

async fn variant_matching_arm_v6_v7_v8_distinct(fixture: &dyn Fixture) {
    let sample = samples::index();
    let Some(subject) = open_index(fixture, &sample).await else { return };
    let wanted =
        [("linux/arm/v6", "linux/arm/v6"), ("linux/arm/v7", "linux/arm/v7"), ("linux/arm", "linux/arm/v7")];
    for (platform, chosen) in wanted {
        assert_chosen(subject.image(platform).await, &sample, chosen);
    }
    assert_chosen(subject.image("linux/arm64/v8").await, &sample, "linux/arm64/v8");
    let error = error_of(subject.image("linux/arm/v5").await);
    assert!(matches!(error.kind(), ErrorKind::PlatformNotFound { .. }), "{error}");
}

async fn no_matching_platform_lists_available(fixture: &dyn Fixture) {
    let Some(subject) = open_index(fixture, &samples::index()).await else { return };
    let available = ["linux/386", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64"];
    let available = available.map(str::to_owned).to_vec();
    assert_kind(subject.image("linux/s390x").await, &ErrorKind::PlatformNotFound { available });
}

async fn unknown_unknown_attestations_never_selected(fixture: &dyn Fixture) {
    let Some(subject) = open_index(fixture, &samples::index()).await else { return };
    let error = error_of(subject.image("unknown/unknown").await);
    assert!(matches!(error.kind(), ErrorKind::PlatformNotFound { .. }), "{error}");

    let subject = open(fixture, &samples::attestations_only()).await;
    for platform in ["linux/amd64", "unknown/unknown"] {
        let error = error_of(subject.image(platform).await);
        assert_eq!(*error.kind(), ErrorKind::PlatformNotFound { available: Vec::new() }, "{error}");
    }
}

async fn descriptor_without_platform_handled(fixture: &dyn Fixture) {
    let sample = samples::descriptor_without_platform();
    let Some(subject) = open_index(fixture, &sample).await else { return };
    assert_chosen(subject.image("linux/amd64").await, &sample, "linux/amd64");
    assert_chosen(subject.image("linux/arm64").await, &sample, "linux/arm64/v8");
    let error = error_of(subject.image("linux/s390x").await);
    assert!(matches!(error.kind(), ErrorKind::PlatformNotFound { .. }), "{error}");
}

async fn os_features_choose_between_images_of_one_platform(fixture: &dyn Fixture) {
    let (plain, native) = ("linux/amd64", "linux(+erofs)/amd64");
    let sample = samples::native_layers(&[samples::LayerBuilder::new().finish()], &[b"an image".to_vec()]);
    let Some(subject) = open_index(fixture, &sample).await else { return };
    for (platform, chosen) in
        [(plain, plain), (native, native), ("linux/amd64/v3", plain), ("linux(+erofs+other)/amd64", native)]
    {
        assert_chosen(subject.image(platform).await, &sample, chosen);
    }
    let error = error_of(subject.image("linux/s390x").await);
    let available = vec![native.to_owned(), plain.to_owned()];
    assert_eq!(*error.kind(), ErrorKind::PlatformNotFound { available }, "{error}");
}

async fn nested_index_descends(fixture: &dyn Fixture) {
    let sample = samples::nested_index();
    let Some(subject) = open_index(fixture, &sample).await else { return };
    for platform in ["linux/amd64", "linux/arm64/v8"] {
        assert_chosen(subject.image(platform).await, &sample, platform);
    }
}

async fn cyclic_or_too_deep_index_bounded(fixture: &dyn Fixture) {
    /// A little more than one index may have children, and far less than all of them.
    const CALLS: usize = 600;
    let Some(subject) = open_index(fixture, &samples::deep_index(4)).await else { return };
    sound(subject.image("linux/amd64").await);
    let bounded = |sample: Sample| async move {
        let mut subject = open(fixture, &sample).await;
        let counting = Counting::new(&*subject.registry);
        subject.registry = Box::new(counting.clone());
        let error = error_of(subject.image("linux/s390x").await);
        assert_eq!(*error.kind(), ErrorKind::Limit, "{error}");
        assert!(counting.calls() <= CALLS, "{} calls", counting.calls());
    };
    bounded(samples::deep_index(50)).await;
    bounded(samples::wide_index(700)).await;
}
