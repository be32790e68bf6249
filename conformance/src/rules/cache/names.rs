//! Names, and what is found by them.

use std::io::Write as _;

use plyfold_core::{
    Blob, BlobRange, CacheProvider as _, CacheProviderExt, Error, ErrorKind, NameChange, Page,
};

use super::setup::{amd64, blob, document, name, names, pulled, set};
use crate::CacheFixture;
use crate::rule::rules;
use crate::rules::probe::{NAME, assert_kind, at, sound};
use crate::samples;

rules! {
    $ __cache_names_rules of dyn CacheFixture;
    "C 41" find_by_tag_digest_and_child_digest:
        "a name is found by its tag, by its digest and by the digest of a child, nested ones included",
    "C 42" find_scoped_to_repository:
        "content that another repository has does not exist in this one",
    "C 58" descriptor_write_requires_name_and_replaces:
        "setting a name replaces what it stood for, in one transaction with other changes",
    "C 59" retag_keeps_other_names:
        "giving content one more name takes none of its names away",
    "C 60" two_names_one_digest:
        "two names may stand for one digest, each with a life of its own",
    "C 61" remove_keeps_shared_blobs:
        "removing a name keeps the content that another name needs",
    "C 62" remove_absent_is_documented_noop:
        "removing a name that is not there is a success and changes nothing",
    "C 67" list_sorted_and_stable:
        "names are listed by their text, the same for every order of changes and on every handle",
    "C 190" pages_of_names_add_up_to_the_list:
        "the pages of the names, of whatever size, are the list in its order, and a page begins after any given name",
    "C 183" a_name_needs_its_content:
        "a name is set only for content that is here: what it stands for and, of a manifest, config and layers, and what is required with it",
    "C 191" what_is_said_of_the_disk_is_true:
        "the layout that a cache says it is holds its images, its scratch folder can be written, and what stores is not read-only",
}

async fn find_by_tag_digest_and_child_digest(fixture: &dyn CacheFixture) {
    for sample in [samples::index(), samples::nested_index()] {
        let subject = pulled(fixture, &sample, NAME).await;
        let top = sound(subject.cache.find_descriptor(&name(NAME)).await).expect("found by tag");
        assert_eq!((top.digest(), top.size()), (sample.top.digest(), sample.top.size()));
        let child = &sample.image_for("linux/amd64").manifest;
        for wanted in [&sample.top, child] {
            let found = sound(subject.cache.find_descriptor(&at(&name(NAME), wanted.digest())).await);
            let found = found.unwrap_or_else(|| panic!("{} is found by digest", wanted.digest()));
            assert_eq!((found.digest(), found.size()), (wanted.digest(), wanted.size()));
            assert_eq!(found.media_type(), wanted.media_type());
        }
        let layer = at(&name(NAME), sample.image_for("linux/amd64").layers[0].descriptor.digest());
        assert_eq!(sound(subject.cache.find_descriptor(&layer).await), None, "a layer is no image");
    }
}

async fn find_scoped_to_repository(fixture: &dyn CacheFixture) {
    let sample = samples::index();
    let subject = pulled(fixture, &sample, NAME).await;
    let elsewhere = name("registry.example/other/app:1.2");
    let child = at(&elsewhere, sample.image_for("linux/amd64").manifest.digest());
    for absent in
        [elsewhere.clone(), at(&elsewhere, sample.top.digest()), child, name("other.example/library/app:1.2")]
    {
        assert_eq!(sound(subject.cache.find_descriptor(&absent).await), None, "{absent}");
    }
    assert_eq!(sound(subject.cache.find_descriptor(&name("registry.example/library/app:2")).await), None);
}

async fn descriptor_write_requires_name_and_replaces(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    let (first, second) = (document(&**cache, "first").await, document(&**cache, "second").await);
    set(&**cache, NAME, &first).await;
    set(&**cache, NAME, &second).await;
    assert_eq!(names(&**cache).await, [(NAME.to_owned(), second.digest().clone())]);

    let other = "registry.example/library/other:1";
    let changes = [
        NameChange::Set(name(other), first.clone()),
        NameChange::Remove(name(NAME)),
        NameChange::Set(name(other), second.clone()),
    ];
    sound(cache.update(&changes).await);
    assert_eq!(names(&**cache).await, [(other.to_owned(), second.digest().clone())]);
}

async fn retag_keeps_other_names(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    let content = document(&**cache, "one").await;
    let all = ["registry.example/a:1", "registry.example/a:2", "registry.example/b:1"];
    for (count, text) in all.iter().enumerate() {
        set(&**cache, text, &content).await;
        let found: Vec<_> = names(&**cache).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, all[..=count]);
    }
}

async fn two_names_one_digest(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    let (one, other) = (document(&**cache, "one").await, document(&**cache, "other").await);
    let (first, second) = ("registry.example/a:1", "registry.example/b:1");
    set(&**cache, first, &one).await;
    set(&**cache, second, &one).await;
    set(&**cache, first, &other).await;
    let both = [(first.to_owned(), other.digest().clone()), (second.to_owned(), one.digest().clone())];
    assert_eq!(names(&**cache).await, both);
    set(&**cache, first, &one).await;
    sound(cache.remove(&name(first)).await);
    assert_eq!(names(&**cache).await, both[1..]);
}

async fn remove_keeps_shared_blobs(fixture: &dyn CacheFixture) {
    let sample = samples::image();
    let subject = pulled(fixture, &sample, NAME).await;
    let other = "registry.example/library/other:1";
    set(&*subject.cache, other, &sample.top).await;
    sound(subject.cache.remove(&name(NAME)).await);
    assert_eq!(sound(subject.cache.find_descriptor(&name(NAME)).await), None);
    assert!(sound(subject.cache.image_in_cache(&name(other), &amd64()).await));
    for layer in &sample.images[0].layers {
        sound(subject.cache.verify_blob(&layer.descriptor).await);
    }
}

async fn remove_absent_is_documented_noop(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    sound(cache.remove(&name(NAME)).await);
    let content = document(&**cache, "stays").await;
    set(&**cache, NAME, &content).await;
    for absent in
        ["registry.example/library/app:1", "registry.example/library/ap:1.2", "other.example/library/app:1.2"]
    {
        sound(cache.remove(&name(absent)).await);
    }
    assert_eq!(names(&**cache).await, [(NAME.to_owned(), content.digest().clone())]);
}

async fn list_sorted_and_stable(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    let sorted = [
        "docker.io/library/alpine:3",
        "registry.example/a/b:1",
        "registry.example/a/b:10",
        "registry.example/a/b:2",
        "registry.example/a:1",
        "registry.example:5000/a:1",
    ];
    let content = document(&**cache, "listed").await;
    for order in [[3, 0, 5, 1, 4, 2], [5, 4, 3, 2, 1, 0]] {
        for place in order {
            set(&**cache, sorted[place], &content).await;
        }
        for handle in [cache.clone(), sound(subject.medium.reopen().await)] {
            let listed: Vec<_> = names(&*handle).await.into_iter().map(|(name, _)| name).collect();
            assert_eq!(listed, sorted);
            assert_eq!(sound(handle.list().await), sound(cache.list().await));
        }
        sound(cache.remove(&name(sorted[1])).await);
        sound(cache.remove(&name(sorted[4])).await);
    }
}

async fn pages_of_names_add_up_to_the_list(fixture: &dyn CacheFixture) {
    let subject = fixture.open().await;
    let cache = &subject.cache;
    let empty = sound(cache.list_page(&Page::default()).await);
    assert_eq!((empty.names.len(), empty.next), (0, None));
    let content = document(&**cache, "listed").await;
    for number in 0..7 {
        set(&**cache, &format!("registry.example/app:{number}"), &content).await;
    }
    for handle in [cache.clone(), sound(subject.medium.reopen().await)] {
        let all = sound(handle.list().await);
        assert_eq!(all.len(), 7);
        for limit in [None, Some(1), Some(2), Some(3), Some(7), Some(100)] {
            let (mut found, mut page) = (Vec::new(), Page { limit, after: None });
            loop {
                let part = sound(handle.list_page(&page).await);
                assert!(part.names.len() <= limit.unwrap_or(usize::MAX), "a page of {}", part.names.len());
                found.extend(part.names);
                page.after = part.next;
                assert!(found.len() <= all.len(), "a name stands on two pages");
                if page.after.is_none() {
                    break;
                }
            }
            assert_eq!(found, all, "in pages of {limit:?}");
        }
        for after in ["registry.example/app:3", "registry.example/app:30"] {
            let page = Page { limit: None, after: Some(after.to_owned()) };
            assert_eq!(sound(handle.list_page(&page).await).names, all[4..], "after {after}");
        }
    }
}

async fn what_is_said_of_the_disk_is_true(fixture: &dyn CacheFixture) {
    let subject = pulled(fixture, &samples::image(), NAME).await;
    for handle in [subject.cache.clone(), sound(subject.medium.reopen().await)] {
        assert!(!handle.is_read_only(), "an image was stored");
        if let Some(layout) = handle.layout() {
            for file in ["oci-layout", "index.json", "blobs"] {
                assert!(layout.join(file).exists(), "{} has no {file}", layout.display());
            }
        }
        if let Some(scratch) = handle.scratch() {
            let mut file = sound(tempfile::tempfile_in(&scratch).map_err(Error::from));
            sound(file.write_all(b"scratch").map_err(Error::from));
        }
    }
    assert_eq!(subject.medium.leftovers(), [""; 0]);
}

async fn a_name_needs_its_content(fixture: &dyn CacheFixture) {
    let sample = samples::image();
    let subject = pulled(fixture, &sample, NAME).await;
    let (cache, other) = (&subject.cache, "registry.example/other:1");
    let whole = [(NAME.to_owned(), sample.top.digest().clone())];
    let absent = blob(b"never stored");
    let changes = [NameChange::Remove(name(NAME)), NameChange::Set(name(other), absent.clone())];
    let error = assert_kind(cache.update(&changes).await, &ErrorKind::NotFound);
    assert!(error.to_string().contains(absent.digest().as_ref()), "{error}");
    assert_eq!(names(&**cache).await, whole, "all of the changes or none");
    let image = &sample.images[0];
    let here = document(&**cache, "here").await;
    for part in [&image.config, &image.layers[0].descriptor] {
        sound(cache.quarantine(part.digest()).await);
        let set = NameChange::Set(name(other), sample.top.clone());
        let required = [NameChange::Set(name(other), here.clone()), NameChange::Require(sample.top.clone())];
        for changes in [std::slice::from_ref(&set), &required] {
            let error = assert_kind(cache.update(changes).await, &ErrorKind::NotFound);
            assert!(error.to_string().contains(part.digest().as_ref()), "{error}");
            assert_eq!(names(&**cache).await, whole);
        }
        let bytes = sample.blob(part.digest()).expect("a blob of the sample");
        sound(cache.put(sound(Blob::from_bytes(part, BlobRange::FULL, bytes))).await);
        for changes in [&[set][..], &required] {
            sound(cache.update(changes).await);
            sound(cache.remove(&name(other)).await);
        }
    }
}
