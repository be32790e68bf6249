use super::*;
use plyfold_core::ErrorKind;

fn parsed(lines: &str) -> Result<SyncList> {
    SyncList::parse(&format!("version = 1\n{lines}"))
}

#[test]
fn a_list_says_what_is_brought() {
    let list = parsed(
        "[defaults]\nplatforms = [\"linux/amd64\"]\nreferrers = true\n\
         [[image]]\nname = \"a.example/b:1\"\n\
         [[image]]\nname = \"oci:layout\"\ntags = [\"1.*\"]\nplatforms = [\"all\"]\nreferrers = false\n\
         optional = true\nto = \"mirror/b\"\n\
         [[image]]\nname = \"a.example/c\"\nsemver = \"^1\"\nnewest = 2\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nsparse = \"rewrite\"\n",
    );
    let [first, second, third] = &parsed_entries(list)[..] else { panic!() };
    assert!(matches!((&first.pick, &first.platforms), (Pick::Named, Platforms::One(_))), "{first:?}");
    assert_eq!((first.line, first.referrers, first.optional), (5, Some(true), false));
    assert!(matches!((&second.pick, &second.platforms), (Pick::Tags { .. }, Platforms::All)), "{second:?}");
    assert_eq!((second.line, second.referrers, second.optional), (7, Some(false), true));
    assert_eq!(second.to.as_deref(), Some("mirror/b"));
    assert_eq!(third.sparse, Some(Sparse::Rewrite));
    assert!(matches!(&third.platforms, Platforms::Some(two) if two.len() == 2), "{third:?}");
}

fn parsed_entries(list: Result<SyncList>) -> Vec<Entry> {
    list.unwrap().entries
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_its_key() {
    let image = "[[image]]\nname = \"a.example/b\"\n";
    for (lines, line, words) in [
        (format!("{image}tagz = [\"1\"]"), 4, "tagz"),
        (format!("{image}[[imgae]]\nname = \"x\""), 4, "imgae"),
        (format!("[default]\nreferrers = true\n{image}"), 2, "default"),
        (format!("{image}tags = \"1\""), 4, "tags: invalid type"),
        (format!("{image}tags = [\n  \"1\",\n  2,\n]"), 6, "tags: invalid type"),
        (format!("{image}tags = [\"[1\"]"), 4, "tags: \"[1\" is not a pattern"),
        (format!("{image}tags = [\n  \"1.*\",\n  \"a b\"\n]"), 6, "tags: \"a b\" is not a tag"),
        (format!("{image}tags = []"), 3, "tags: there is none"),
        (format!("{image}semver = \">=1,,2\""), 4, "semver: \">=1,,2\" is not a range"),
        (format!("{image}newest = 3"), 4, "newest: it needs `semver`"),
        (format!("{image}semver = \"^1\"\nnewest = 0"), 5, "newest: it is 1 at least"),
        (format!("{image}platforms = [\"linux\"]"), 4, "platforms: "),
        (format!("{image}to = \"host:5000/b\""), 4, "to: "),
        (format!("{image}to = \"b:1\""), 4, "to: "),
        (format!("{image}sparse = \"some\""), 4, "sparse: unknown variant"),
        (format!("{image}name = \"a.example/c\""), 4, "name"),
        ("[[image]]\ntags = [\"1\"]".to_owned(), 2, "missing field `name`"),
        (format!("{image}tags = [\"1\""), 4, "tags"),
    ] {
        let error = parsed(&lines).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config, "{lines}");
        let start = format!("line {line}: ");
        assert!(error.message().starts_with(&start) && error.message().contains(words), "{lines}: {error}");
        assert!(!error.message().contains('\n'), "{lines}: {error}");
    }
    let line_1 = |text: &str, words: &str| {
        let error = SyncList::parse(text).unwrap_err();
        assert!(error.message().starts_with("line 1: ") && error.message().contains(words), "{error}");
    };
    line_1("version = 2\n[[image]]\nname = \"a.example/b:1\"", "version: 2 is not known");
    line_1("version = 1", "there is no [[image]]");
    line_1("[[image]]\nname = \"a.example/b:1\"", "version");
    let error = SyncList::parse(&"#".repeat(SyncList::LENGTH + 1)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Limit);
}

/// Counting the lines before each of 40,000 entries anew takes minutes.
#[test]
fn the_longest_list_is_read_in_one_pass() {
    let image = "[[image]]\nname = \"a.example/b:1\"\n";
    let count = (SyncList::LENGTH - 20) / image.len();
    let started = std::time::Instant::now();
    let entries = parsed_entries(parsed(&image.repeat(count)));
    assert_eq!((entries.len(), entries[count - 1].line), (count, 2 * count));
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_text_is_a_list_or_an_error_with_a_line(
        text in "(version = 1\n)?((\\[\\[image\\]\\]|name|tags|semver|to|newest|é)( ?= ?(\"[^\"]{0,9}\"|\\[.{0,9}\\]|[0-9]{0,20}))?\n?){0,6}.{0,20}",
    ) {
        if let Err(error) = SyncList::parse(&text) {
            proptest::prop_assert!(error.message().starts_with("line "), "{text:?}: {error}");
        }
    }
}
