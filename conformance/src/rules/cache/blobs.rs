//! Blobs: nothing is visible before it is complete and verified.

use bytes::Bytes;
use plyfold_core::{
    BlobRange, CacheProvider, CacheProviderExt, Completeness, Descriptor, Error, ErrorKind, ImageRegistry,
    Ingest, digest,
};

use super::setup::{amd64, assert_nothing, blob, name, stream_of};
use crate::CacheFixture;
use crate::rule::rules;
use crate::rules::probe::{NAME, assert_kind, at, read, sound};

rules! {
    $ __cache_blobs_rules of dyn CacheFixture;
    "C 40" absent_is_ok_none_not_error:
        "what is not there is None, not an error; reading it is NotFound, an unknown digest algorithm Unsupported",
    "C 43" put_wrong_digest_publishes_nothing:
        "content that does not hash to its digest is corrupt, and nothing of it can be seen afterwards",
    "C 44" put_wrong_size_publishes_nothing:
        "content with more or fewer bytes than declared is corrupt, and nothing of it can be seen afterwards",
    "C 45" put_reader_error_at_end_publishes_nothing_and_leaves_no_temp:
        "a source that fails after its last byte publishes nothing, leaves nothing, and does not spoil the next try",
    "C 46" put_existing_is_idempotent_and_repairs_corrupt_existing:
        "storing again what is there is a success; where what is there is damaged, it is replaced",
    "C 68" get_content_is_verified_or_flagged_raw:
        "content is verified wherever it is read whole; a range, which cannot be, says that it is not",
}

async fn absent_is_ok_none_not_error(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    let absent = blob(b"absent");
    assert_eq!(sound(cache.stat(absent.digest()).await), None);
    let names = [name(NAME), at(&name(NAME), absent.digest())];
    for name in &names {
        assert_eq!(sound(cache.find_descriptor(name).await), None);
        assert_eq!(sound(cache.completeness(name, &amd64()).await), Completeness::Unknown);
        assert!(!sound(cache.image_in_cache(name, &amd64()).await));
    }
    assert_eq!(sound(cache.list().await), []);
    assert_kind(read(cache.open(&absent, BlobRange::FULL).await).await, &ErrorKind::NotFound);
    sound(cache.quarantine(absent.digest()).await);

    let unknown = "blake3:00".try_into().expect("the grammar of digests allows any algorithm");
    assert_kind(cache.stat(&unknown).await, &ErrorKind::Unsupported);
    let unknown = Descriptor::new(absent.media_type().clone(), 6, unknown);
    assert_kind(cache.ingest(&unknown).await, &ErrorKind::Unsupported);
}

async fn put_wrong_digest_publishes_nothing(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let (right, wrong) = (blob(b"right content"), b"wrong content");
    let error = assert_kind(subject.cache.put(stream_of(&right, [Ok(wrong)])).await, &ErrorKind::Corrupt);
    let mismatch = error.detail::<plyfold_core::Mismatch>().expect("both digests are in the error");
    assert_eq!((&mismatch.expected, &mismatch.actual), (right.digest(), &Some(digest::sha256(wrong))));
    assert_nothing(&subject, &right).await;
    sound(subject.cache.put(stream_of(&right, [Ok(b"right content")])).await);
}

async fn put_wrong_size_publishes_nothing(fixture: &dyn CacheFixture) {
    let content = b"thirteen byte";
    for size in [content.len() as u64 - 1, content.len() as u64 + 1, 0, 1 << 50] {
        let subject = fixture.open().await;
        let lying = Descriptor::new(blob(content).media_type().clone(), size, digest::sha256(content));
        let error =
            assert_kind(subject.cache.put(stream_of(&lying, [Ok(content)])).await, &ErrorKind::Corrupt);
        let mismatch = error.detail::<plyfold_core::Mismatch>().expect("both sizes are in the error");
        assert_eq!(mismatch.expected_size, Some(size));
        assert_nothing(&subject, &lying).await;

        // The stream counts too; the writer must not rely on it.
        let Ingest::Vacant(mut writer) = sound(subject.cache.ingest(&lying).await) else {
            panic!("what was not published is present");
        };
        let written = writer.write(Bytes::from_static(content)).await;
        let outcome = if written.is_ok() {
            writer.commit().await
        } else {
            writer.discard().await;
            written
        };
        assert_kind(outcome, &ErrorKind::Corrupt);
        assert_nothing(&subject, &lying).await;
    }
}

async fn put_reader_error_at_end_publishes_nothing_and_leaves_no_temp(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let content = b"all of it arrives, and then the source fails";
    let whole = blob(content);
    let failing = [Ok(&content[..]), Err(Error::new(ErrorKind::Unavailable, "the source is gone"))];
    assert_kind(subject.cache.put(stream_of(&whole, failing)).await, &ErrorKind::Unavailable);
    assert_nothing(&subject, &whole).await;
    sound(subject.cache.put(stream_of(&whole, [Ok(content)])).await);
    assert_eq!(&sound(subject.cache.content(&whole, 100).await)[..], content);
}

async fn put_existing_is_idempotent_and_repairs_corrupt_existing(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let content = b"stored once, stored twice";
    let stored = blob(content);
    for _ in 0..2 {
        sound(subject.cache.put(stream_of(&stored, [Ok(content)])).await);
        assert_eq!(sound(subject.cache.stat(stored.digest()).await), Some(content.len() as u64));
    }
    // The same size with another byte, then a truncation.
    for damaged in [b"stored once, stored twicE".as_slice(), b"stored"] {
        subject.medium.damage(stored.digest(), damaged);
        assert_kind(subject.cache.verify_blob(&stored).await, &ErrorKind::Corrupt);
        sound(subject.cache.put(stream_of(&stored, [Ok(content)])).await);
        assert_eq!(&sound(subject.cache.content(&stored, 100).await)[..], content);
    }
    assert_eq!(subject.medium.leftovers(), [""; 0]);
}

async fn get_content_is_verified_or_flagged_raw(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    let content = b"what was stored is what is read";
    let stored = blob(content);
    sound(cache.put(stream_of(&stored, [Ok(content)])).await);
    let whole = sound(cache.open(&stored, BlobRange::FULL).await);
    assert!(whole.is_verified(), "a whole read is verified");
    assert_eq!(&sound(whole.bytes(100).await)[..], content);
    let part = sound(cache.open(&stored, BlobRange::new(5, 8)).await);
    assert!(!part.is_verified(), "a range cannot be verified");
    assert_eq!((part.offset(), &sound(part.bytes(100).await)[..]), (5, &content[5..8]));

    for damaged in
        [&b"what was stored is what is reaD"[..], &content[..10], b"what was stored is what is read!"]
    {
        subject.medium.damage(stored.digest(), damaged);
        assert_kind(cache.content(&stored, 100).await, &ErrorKind::Corrupt);
        assert_kind(cache.verify_blob(&stored).await, &ErrorKind::Corrupt);
        let seen_as_registry = cache.as_registry().blob(&name(NAME), &stored, BlobRange::FULL).await;
        assert_kind(read(seen_as_registry).await, &ErrorKind::Corrupt);
    }
}
