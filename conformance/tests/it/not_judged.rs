//! A rule without anything to judge says so, and no fixture hides it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use async_trait::async_trait;
use plyfold_conformance::fixtures::{DockerArchive, Form, Memory};
use plyfold_conformance::samples::Sample;
use plyfold_conformance::tree::TreeLine;
use plyfold_conformance::{
    BackendUnderTest, CacheFixture, CacheUnderTest, Condition, Fidelity, Fixture, FixtureImage,
    FormatFidelity, HttpFixture, HttpSetup, JudgedFixture, LayoutFixture, MaterializerFixture, Rule, Verdict,
    hostile, rules,
};
use plyfold_core::{CacheProvider, ImageRegistry, InputArtifact, Materializer, Result};

use crate::mutants::{
    BrokenCaches, BrokenLayouts, CacheFault, HttpFault, LayoutFault, ListingFault, Listings, Makes, Small,
};
use plyfold_core::memory::MemoryRegistry;

/// A sound backend in memory, on a fixture that lists these rules as not judged.
struct Listing(&'static [&'static str]);

#[async_trait]
impl Fixture for Listing {
    async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
        Fixture::open(&Memory, images).await
    }

    fn not_judged(&self) -> &'static [&'static str] {
        self.0
    }
}

/// A backend with its images or without any, on a fixture that lists this rule as an exception.
struct Excepting {
    rule: &'static str,
    is_empty: bool,
}

#[async_trait]
impl Fixture for Excepting {
    async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
        let mut subject = Fixture::open(&Memory, images).await;
        if self.is_empty {
            subject.registry = Box::new(MemoryRegistry::new("empty"));
        }
        subject
    }

    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        match self.rule {
            EXACT => &[(EXACT, "it is empty")],
            HOSTILE => &[(HOSTILE, "it is empty")],
            "" => &[],
            _ => &[("exact", "it is no rule")],
        }
    }
}

const EXACT: &str = "pull_by_tag_returns_exact_manifest_bytes";
const HOSTILE: &str = "layers_and_manifests_at_once";

#[test]
fn a_rule_that_is_broken_passes_only_as_an_exception() {
    let empty = |rule| Excepting { rule, is_empty: true };
    let said = failure(EXACT, &empty("")).expect("it passes");
    assert!(said.contains("is broken"), "{said}");
    assert_eq!(failure(EXACT, &empty(EXACT)), None);
    let row = hostile::rows().find(|row| row.name == HOSTILE).expect("there is such a row");
    assert!(catch_unwind(|| row.judge(&empty(""))).is_err(), "it passes");
    row.judge(&empty(HOSTILE));
}

#[test]
fn an_exception_that_is_kept_fails() {
    let whole = |rule| Excepting { rule, is_empty: false };
    assert_eq!(failure(EXACT, &whole("")), None);
    let said = failure(EXACT, &whole(EXACT)).expect("it passes");
    assert!(said.contains("and the rule is kept"), "{said}");
    let said = failure(EXACT, &whole("exact")).expect("it passes");
    assert!(said.contains("`exact`, which is no rule"), "{said}");
}

/// What the test of a rule says when it fails.
fn failure(rule: &str, fixture: &(dyn Fixture + 'static)) -> Option<String> {
    failure_of(rules::registry(), rule, fixture)
}

/// The same for the rules of any suite.
fn failure_of<S: JudgedFixture + ?Sized>(
    mut rules: impl Iterator<Item = Rule<S>>,
    name: &str,
    fixture: &S,
) -> Option<String> {
    let rule = rules.find(|rule| rule.name == name).expect("there is such a rule");
    let panic = catch_unwind(AssertUnwindSafe(|| rule.judge(fixture))).err()?;
    Some(*panic.downcast::<String>().expect("a panic with a message"))
}

/// Sound media of the other suites that give some rules nothing to judge, on fixtures that list these rules.
struct Lacking(&'static [&'static str]);

#[async_trait]
impl CacheFixture for Lacking {
    /// It grants no work to one task alone.
    async fn open(&self) -> CacheUnderTest {
        BrokenCaches(CacheFault::NoSingleFlight).open().await
    }

    fn not_judged(&self) -> &'static [&'static str] {
        self.0
    }
}

#[async_trait]
impl LayoutFixture for Lacking {
    /// It does not collect.
    async fn open(&self, directory: &Path) -> Result<Box<dyn CacheProvider>> {
        LayoutFixture::open(&BrokenLayouts(LayoutFault::CollectsNothing), directory).await
    }

    async fn registry(&self, directory: &Path) -> Option<Box<dyn ImageRegistry>> {
        BrokenLayouts(LayoutFault::None).registry(directory).await
    }

    fn not_judged(&self) -> &'static [&'static str] {
        self.0
    }
}

#[async_trait]
impl HttpFixture for Lacking {
    async fn open(&self, setup: &HttpSetup) -> Result<Box<dyn ImageRegistry>> {
        HttpFixture::open(&Small(HttpFault::None), setup).await
    }

    fn not_judged(&self) -> &'static [&'static str] {
        self.0
    }
}

impl MaterializerFixture for Lacking {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(LISTINGS)
    }

    /// Its layers cannot be stacked.
    fn fidelity(&self) -> FormatFidelity {
        FormatFidelity::default().without_overlay_form()
    }

    fn tree(&self, file: &Path, layers: &[InputArtifact]) -> Vec<TreeLine> {
        LISTINGS.tree(file, layers)
    }

    fn check(&self, file: &Path, layers: &[InputArtifact]) {
        LISTINGS.check(file, layers);
    }

    fn not_judged(&self) -> &'static [&'static str] {
        self.0
    }
}

const LISTINGS: Listings = Listings { makes: Makes::Layers, fault: ListingFault::None };

/// A rule that has nothing to judge fails on a fixture that lists nothing and passes on one that lists it; a rule that
/// is judged fails on a fixture that lists it. `judge` runs one rule.
fn assert_nothing_passes_unseen(
    judge: impl Fn(&str, Lacking) -> Option<String>,
    not_judged: &'static [&'static str],
    judged: &'static [&'static str],
) {
    for name in not_judged {
        let said = judge(name, Lacking(&[])).unwrap_or_else(|| panic!("{name} passes without a look"));
        assert!(said.contains("is not judged: ") && said.contains(&format!("lists `{name}`")), "{said}");
        assert_eq!(judge(name, Lacking(not_judged)), None);
    }
    let said = judge(judged[0], Lacking(judged)).expect("a rule that is listed and judged passes");
    assert!(said.contains(&format!("lists `{}`, and all of it is judged", judged[0])), "{said}");
}

#[test]
fn nothing_about_caches_passes_unseen() {
    let judge = |name: &str, lacking| failure_of::<dyn CacheFixture>(rules::cache(), name, &lacking);
    let not_judged = &["two_handles_one_process_exclude_each_other"];
    assert_nothing_passes_unseen(judge, not_judged, &["absent_is_ok_none_not_error"]);
}

#[test]
fn nothing_about_layouts_passes_unseen() {
    let judge = |name: &str, lacking| failure_of::<dyn LayoutFixture>(rules::layout(), name, &lacking);
    let not_judged = &["push_beside_collection_leaves_whole_images"];
    assert_nothing_passes_unseen(judge, not_judged, &["unsupported_layout_version_refused"]);
}

#[test]
fn nothing_about_http_passes_unseen() {
    let judge = |name: &str, lacking| failure_of::<dyn HttpFixture>(rules::http(), name, &lacking);
    assert_nothing_passes_unseen(judge, &[], &["resume_sends_closed_range_at_exact_offset"]);
}

#[test]
fn nothing_about_materializers_passes_unseen() {
    let judge =
        |name: &str, lacking| failure_of::<dyn MaterializerFixture>(rules::materializer(), name, &lacking);
    let not_judged = &[
        "appended_patch_reads_back",
        "options_that_change_bytes_are_in_the_format",
        "stacked_layers_equal_flat_image",
        "whiteouts_and_opaque_in_overlay_form",
    ];
    assert_nothing_passes_unseen(judge, not_judged, &["fsck_is_clean"]);
}

const DELAYS: &str = "rate_limited_carries_delay_in_all_three_shapes";

#[test]
fn a_rule_that_judged_nothing_fails_unless_the_fixture_lists_it() {
    let said = failure(DELAYS, &Listing(&[])).expect("it passes without a look");
    assert!(said.contains("is not judged: the medium knows no RateLimited"), "{said}");
    assert!(said.contains(&format!("`not_judged` of the fixture lists `{DELAYS}`")), "{said}");
    assert_eq!(failure(DELAYS, &Listing(&[DELAYS])), None);
}

#[test]
fn a_rule_that_is_listed_and_judged_fails() {
    let exact = "pull_by_tag_returns_exact_manifest_bytes";
    assert_eq!(failure(exact, &Listing(&[])), None);
    let said = failure(exact, &Listing(&["pull_by_tag_returns_exact_manifest_bytes"])).expect("it passes");
    assert!(said.contains("and all of it is judged"), "{said}");
}

#[test]
fn a_name_that_no_rule_has_fails() {
    let said = failure(DELAYS, &Listing(&[DELAYS, "rate_limited"])).expect("it passes");
    assert!(said.contains("`rate_limited`, which is no rule"), "{said}");
}

/// It is the part that was not judged that a verdict names.
#[test]
fn the_verdict_says_which_part() {
    let rule = rules::registry().find(|rule| rule.id == "E 108").expect("there is such a rule");
    let Verdict::NotJudged(why) = rule.verdict(&Memory) else { panic!("memory has no outages") };
    let parts = ["Denied", "Unauthorized", "Unavailable"];
    assert_eq!(why, parts.map(|condition| format!("the medium knows no {condition}")));
}

/// A medium without documents, of which no hostile one can be judged.
struct WithoutDocuments;

#[async_trait]
impl Fixture for WithoutDocuments {
    fn fidelity(&self) -> Fidelity {
        Fidelity::DiffIds
    }

    async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
        Fixture::open(&Memory, images).await
    }

    async fn open_with_untagged(&self, _: &[FixtureImage<'_>], _: &[&Sample]) -> Option<BackendUnderTest> {
        None
    }

    async fn open_under(&self, _: &FixtureImage<'_>, _: Condition) -> Option<BackendUnderTest> {
        None
    }
}

#[test]
fn hostile_documents_are_not_judged_where_there_are_none() {
    for row in hostile::rows() {
        let judged = catch_unwind(|| row.judge(&WithoutDocuments));
        let said = *judged.expect_err("it passes").downcast::<String>().expect("a panic with a message");
        assert!(said.contains("the medium keeps no documents"), "{said}");
    }
}

/// The fixtures for media that many backends read list what is true of them, whatever the backend.
#[test]
fn a_fixture_may_list_by_its_form() {
    let fixture = |form| DockerArchive::new(form, |_| async { unreachable!("nothing is opened") });
    let (legacy, hybrid) = (fixture(Form::Legacy), fixture(Form::Hybrid));
    assert!(legacy.not_judged().contains(&"nested_index_descends"));
    assert!(!hybrid.not_judged().contains(&"nested_index_descends"));
}
