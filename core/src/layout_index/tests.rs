use super::*;
use crate::{ErrorKind, Page};

const PLACE: &str = "/srv/base";

fn descriptor(seed: &str) -> Descriptor {
    Descriptor::new(MediaType::ImageManifest, seed.len() as u64, digest::sha256(seed.as_bytes()))
}

/// An index of entries `(annotations, seed, other fields)`.
fn index(entries: &[(&str, &str, &str)]) -> Result<LayoutIndex> {
    let entries = entries.iter().map(|(annotations, seed, rest)| {
        let (media_type, digest) = (MediaType::ImageManifest, descriptor(seed).digest().clone());
        let annotations = format!(r#""annotations":{{{annotations}}}"#);
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1,{annotations}{rest}}}"#)
    });
    let list = entries.collect::<Vec<_>>().join(",");
    LayoutIndex::parse(
        format!(r#"{{"schemaVersion":2,"manifests":[{list}],"x":1}}"#).as_bytes(),
        PLACE.as_ref(),
    )
}

fn names(index: &LayoutIndex) -> Vec<String> {
    index.names().iter().map(|(name, _)| name.whole()).collect()
}

fn find(index: &LayoutIndex, text: &str) -> Result<Option<Digest>> {
    let found = index.find(&image_in(PLACE.as_ref(), text)?)?;
    Ok(found.map(|descriptor| descriptor.digest().clone()))
}

#[test]
fn names_as_each_tool_writes_them() {
    let (containerd, oci) = (format!(r#""{CONTAINERD_NAME}":"#), format!(r#""{REF_NAME}":"#));
    let full = format!(r#"{containerd}"docker.io/library/alpine:3.20",{oci}"3.20""#);
    let (tag, long) = (format!(r#"{oci}"v1""#), format!(r#"{oci}"ghcr.io/o/app:2""#));
    let bad = format!(r#"{oci}"../../etc/passwd""#);
    let index = index(&[(&full, "a", ""), (&tag, "b", ""), (&long, "c", ""), (&bad, "d", ""), ("", "e", "")]);
    let index = index.unwrap();
    assert_eq!(names(&index), ["docker.io/library/alpine:3.20", "ghcr.io/o/app:2", "localhost/base:v1"]);
    for (text, seed) in [("alpine:3.20", "a"), ("3.20", "a"), ("v1", "b"), ("ghcr.io/o/app:2", "c")] {
        assert_eq!(find(&index, text).unwrap(), Some(descriptor(seed).digest().clone()), "{text}");
    }
    assert_eq!(find(&index, "latest").unwrap(), None);
}

#[test]
fn a_name_that_stands_twice_is_ambiguous_unless_it_means_one_thing() {
    let tag = format!(r#""{REF_NAME}":"v1""#);
    let twice = index(&[(&tag, "a", ""), (&tag, "b", "")]).unwrap();
    assert_eq!(*find(&twice, "v1").unwrap_err().kind(), ErrorKind::Ambiguous);
    let same = index(&[(&tag, "a", ""), (&tag, "a", "")]).unwrap();
    assert!(find(&same, "v1").unwrap().is_some());
}

#[test]
fn layouts_without_names() {
    let only = index(&[("", "a", "")]).unwrap();
    assert_eq!(names(&only), ["localhost/base:latest"]);
    let several = index(&[("", "a", ""), ("", "b", "")]).unwrap();
    assert_eq!(names(&several), [""; 0]);
    assert_eq!(*find(&several, "latest").unwrap_err().kind(), ErrorKind::Ambiguous);
    let platform = |os: &str| format!(r#","platform":{{"os":"{os}","architecture":"amd64"}}"#);
    let as_image = index(&[("", "a", &platform("linux")), ("", "b", &platform("windows"))]).unwrap();
    assert_eq!(names(&as_image), ["localhost/base:latest"]);
}

#[test]
fn a_list_of_nothing_may_be_null() {
    let bytes = br#"{"schemaVersion":2,"manifests":null}"#;
    let mut index = LayoutIndex::parse(bytes, PLACE.as_ref()).unwrap();
    assert_eq!(names(&index), [""; 0]);
    index.set(&reference::parse("alpine").unwrap(), &descriptor("a"), true);
    let again = LayoutIndex::parse(&index.to_bytes(), PLACE.as_ref()).unwrap();
    assert_eq!(names(&again), ["docker.io/library/alpine:latest"]);
}

#[test]
fn the_only_image_keeps_its_name_beside_another() {
    let mut index = index(&[("", "a", r#","future":[1,2]"#)]).unwrap();
    let latest = image_in(PLACE.as_ref(), "latest").unwrap();
    for name in ["alpine", "busybox"] {
        index.set(&reference::parse(name).unwrap(), &descriptor(name), false);
        let again = LayoutIndex::parse(&index.to_bytes(), PLACE.as_ref()).unwrap();
        assert_eq!(again.find(&latest).unwrap().unwrap().digest(), descriptor("a").digest());
    }
    let text = String::from_utf8(index.to_bytes()).unwrap();
    assert!(text.contains(r#""future":[1,2]"#) && text.contains(r#"ref.name":"latest""#), "{text}");
    // Setting exactly that name replaces the entry.
    index.set(&latest, &descriptor("b"), false);
    assert_eq!(find(&index, "latest").unwrap().as_ref(), Some(descriptor("b").digest()));
}

#[test]
fn an_image_that_is_named_by_digest_is_found_as_the_latest_where_it_is_alone() {
    let named = |seed: &str| format!(r#""{REF_NAME}":"ghcr.io/o/{seed}@{}""#, descriptor(seed).digest());
    let only = index(&[(&named("a"), "a", "")]).unwrap();
    let references: Vec<_> = only.references().iter().map(Reference::whole).collect();
    assert_eq!(references, [format!("ghcr.io/o/a@{}", descriptor("a").digest())]);
    assert_eq!(find(&only, "latest").unwrap().as_ref(), Some(descriptor("a").digest()));
    assert_eq!(find(&only, "v1").unwrap(), None);
    let two = index(&[(&named("a"), "a", ""), (&named("b"), "b", "")]).unwrap();
    assert_eq!(find(&two, "latest").unwrap(), None);
    let tagged = index(&[(&format!(r#""{REF_NAME}":"v1""#), "a", "")]).unwrap();
    assert_eq!(find(&tagged, "latest").unwrap(), None);
}

#[test]
fn changes_keep_what_else_there_is_and_give_the_same_bytes_in_any_order() {
    let (one, two) = (reference::parse("ghcr.io/o/app:1").unwrap(), reference::parse("alpine").unwrap());
    let local = reference::local(PLACE.as_ref(), "v1").unwrap();
    let start = index(&[("", "old", r#","future":[1,2]"#), ("", "older", "")]).unwrap();
    let changed = |order: [&Reference; 3]| {
        let mut index = start.clone();
        for name in order {
            index.set(name, &descriptor(&name.whole()), false);
        }
        index.set(&one, &descriptor("newer"), false);
        String::from_utf8(index.to_bytes()).unwrap()
    };
    let text = changed([&one, &two, &local]);
    assert_eq!(text, changed([&local, &two, &one]));
    for kept in [r#""x":1"#, r#""future":[1,2]"#, r#"ref.name":"v1""#, r#"image.name":"ghcr.io/o/app:1""#] {
        assert!(text.contains(kept), "{kept} in {text}");
    }
    let mut again = LayoutIndex::parse(text.as_bytes(), PLACE.as_ref()).unwrap();
    assert_eq!(names(&again), [two.whole(), one.whole(), local.whole()]);
    assert_eq!(again.find(&one).unwrap(), Some(descriptor("newer")));
    assert!(again.remove(&one) && !again.remove(&one));
    assert_eq!(names(&again), [two.whole(), local.whole()]);
}

/// A look at every entry for each of 10,000 names takes minutes.
#[test]
fn thousands_of_names_are_set_and_looked_for_in_linear_work() {
    let started = std::time::Instant::now();
    let mut index = LayoutIndex::new("/srv/images".as_ref());
    let named = |number: usize| reference::parse(&format!("a.example/b{}:{number}", number % 3)).unwrap();
    let (old, new) = (descriptor("old"), descriptor("new"));
    for (round, count) in [(&old, 10_000), (&new, 5_000)] {
        for number in 0..count {
            index.set(&named(number), round, false);
            assert_eq!(index.find(&named(number)).unwrap().as_ref(), Some(round));
            assert_eq!(index.find(&named(10_000 + number)).unwrap(), None);
        }
        (0..count).for_each(|_| assert_eq!(index.first_names().len(), 20));
        index.pin(&named(7), true);
    }
    assert_eq!(index.pins().collect::<Vec<_>>(), [&named(7)]);
    let read = LayoutIndex::parse(&index.to_bytes(), "/srv/images".as_ref()).unwrap();
    assert_eq!((read.names(), read.first_names()), (index.names(), index.first_names()));
    assert_eq!(index.entry(old.digest()).map(Descriptor::digest), Some(old.digest()));
    for number in 5_000..10_000 {
        index.set(&named(number), &new, false);
    }
    assert_eq!(index.entry(old.digest()), None);
    assert!(started.elapsed() < std::time::Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn verdicts() {
    let parse = |text: &str| LayoutIndex::parse(text.as_bytes(), PLACE.as_ref()).unwrap_err().kind().clone();
    assert_eq!(parse(""), ErrorKind::Corrupt);
    assert_eq!(parse(r#"{"schemaVersion":2,"layers":[]}"#), ErrorKind::Corrupt);
    assert_eq!(parse(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#), ErrorKind::Ambiguous);
    assert_eq!(parse(r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#), ErrorKind::Corrupt);
    assert_eq!(parse(r#"{"schemaVersion":1,"manifests":[]}"#), ErrorKind::Corrupt);
    let escape = r#"{"mediaType":"a/b","size":1,"digest":"sha256:../../../outside"}"#;
    assert_eq!(parse(&format!(r#"{{"schemaVersion":2,"manifests":[{escape}]}}"#)), ErrorKind::Corrupt);
    let entry = format!(r#"{{"mediaType":"a/b","size":1,"digest":"{}"}}"#, descriptor("a").digest());
    let many = vec![entry; ENTRIES + 1].join(",");
    assert_eq!(parse(&format!(r#"{{"schemaVersion":2,"manifests":[{many}]}}"#)), ErrorKind::Limit);

    assert!(check_layout(LAYOUT.as_bytes()).is_ok());
    let kind = |text: &[u8]| check_layout(text).unwrap_err().kind().clone();
    assert_eq!(kind(br#"{"imageLayoutVersion":"2.0.0"}"#), ErrorKind::Unsupported);
    assert_eq!(kind(b"{}"), ErrorKind::Corrupt);
}

#[test]
fn images_in_uris() {
    let digest = descriptor("a").digest().clone();
    for (text, whole) in [
        (format!("@{digest}"), format!("localhost/base@{digest}")),
        (format!("v1@{digest}"), format!("localhost/base:v1@{digest}")),
        ("ghcr.io/o/app:2".to_owned(), "ghcr.io/o/app:2".to_owned()),
    ] {
        assert_eq!(image_in(PLACE.as_ref(), &text).unwrap().whole(), whole);
    }
    for bad in ["../../etc/passwd", "a\u{1b}[31m", "x@sha256:../..", "a b", &"x/".repeat(1 << 19)] {
        assert_eq!(*image_in(PLACE.as_ref(), bad).unwrap_err().kind(), ErrorKind::Config, "{bad:.40}");
    }
}

/// A listing asks for the tags of each repository: what all of them are made of is made once.
#[test]
fn tags_are_put_into_a_table_once() {
    let mut index = LayoutIndex::new(Path::new("/srv/place"));
    let name = |text: &str| reference::parse(text).unwrap();
    for (text, content) in [("r.example/a:2", "x"), ("r.example/a:1", "x"), ("r.example/b:1", "y")] {
        index.set(&name(text), &descriptor(content), false);
    }
    let page = Page::default();
    let table = index.tag_table();
    assert_eq!(table.repositories(&page).names, ["r.example/a", "r.example/b"]);
    assert_eq!(table.tags("r.example/a", &page).unwrap().names, ["1", "2"]);
    assert!(table.tags("r.example/c", &page).is_none());
    assert!(std::ptr::eq(table, index.tag_table()), "it is made anew for each repository");
    index.remove(&name("r.example/b:1"));
    index.set(&name("r.example/c:3"), &descriptor("z"), false);
    assert_eq!(index.tag_table().repositories(&page).names, ["r.example/a", "r.example/c"]);
    assert_eq!(index.tag_table().tags("r.example/c", &page).unwrap().names, ["3"]);
}
