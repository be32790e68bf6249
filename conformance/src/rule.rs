//! Rules: one named behaviour each, with an id, a text and a check.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

/// How long one rule may take; a backend that hangs fails it.
const TIME: Duration = Duration::from_secs(60);

/// One rule over fixtures of type `S`.
pub struct Rule<S: ?Sized> {
    /// Group and number in the catalogue, such as `R 1`.
    pub id: &'static str,
    /// Its name, which is the name of its test.
    pub name: &'static str,
    /// What it demands.
    pub text: &'static str,
    /// The check: panics when the rule is broken.
    pub check: for<'a> fn(&'a S) -> LocalBoxFuture<'a, ()>,
}

/// What comes of a rule on a fixture.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The rule is broken, or took more than a minute; the failed assertion has gone to standard error.
    Broken,
    /// All of the rule was judged, and is kept.
    Kept,
    /// Something was not judged, for these reasons; the rest of the rule is kept.
    NotJudged(Vec<String>),
}

/// What a suite asks a fixture of any kind.
pub trait JudgedFixture {
    /// The names of the rules of which the fixture leaves something unjudged: `not_judged` of its trait.
    fn not_judged(&self) -> &'static [&'static str];

    /// The rules that the backend does not keep, each with the reason: `exceptions` of its trait.
    fn exceptions(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Whether the suites of such fixtures have a rule of this name.
    fn has_rule(name: &str) -> bool;
}

impl<S: JudgedFixture + ?Sized> Rule<S> {
    /// Judges a fixture, in a runtime of its own. What the fixture lists as not judged, and is not, is said on standard
    /// error.
    ///
    /// # Panics
    /// When the rule is broken or takes more than a minute: the message has the rule's id, name and text, and the
    /// failed assertion stands before it. When something of the rule is not judged and the fixture does not list it, and
    /// when it lists a rule that is judged, or one that there is not. When the fixture lists the rule as an exception
    /// and it is kept.
    pub fn judge(&self, fixture: &S) {
        let broken = || format!("rule {self} is broken\n  {}", self.text);
        settle(fixture, self, self.name, &self.verdict(fixture), broken)
            .unwrap_or_else(|why| panic!("{why}"));
    }

    /// As [`Rule::judge`], in the test of this path (`module_path!()`, two colons, its name): a rule that bounds memory
    /// runs this test again as a child process.
    ///
    /// # Panics
    /// As [`Rule::judge`].
    pub fn judge_in(&self, fixture: &S, test: &str) {
        in_test(test, || self.judge(fixture));
    }
}

impl<S: ?Sized> Rule<S> {
    /// Whether the fixture keeps what is judged of the rule; the failed assertion goes to standard error.
    pub fn holds(&self, fixture: &S) -> bool {
        self.verdict(fixture) != Verdict::Broken
    }

    /// As [`Rule::verdict`], in the test of this path, as for [`Rule::judge_in`].
    pub fn verdict_in(&self, fixture: &S, test: &str) -> Verdict {
        in_test(test, || self.verdict(fixture))
    }

    /// What comes of the rule, in a runtime of its own.
    pub fn verdict(&self, fixture: &S) -> Verdict {
        verdict(|| (self.check)(fixture))
    }
}

thread_local! {
    /// What the check on this thread has not judged so far.
    static NOT_JUDGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// The path of the test that runs on this thread, as its harness knows it.
    static TEST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `judge` in the test of this path (`module_path!()`, two colons, its name).
fn in_test<T>(path: &str, judge: impl FnOnce() -> T) -> T {
    // The harness leaves out the name of the crate.
    let path = path.split_once("::").map_or(path, |(_, path)| path);
    TEST.with_borrow_mut(|test| *test = Some(path.to_owned()));
    let judged = judge();
    TEST.take();
    judged
}

/// The test that runs on this thread, where it has said its path.
pub(crate) fn own_test() -> Option<String> {
    TEST.with_borrow(Clone::clone)
}

/// Says that a check leaves something unjudged, and why. On the thread that the check runs on.
pub(crate) fn not_judged(why: impl Into<String>) {
    NOT_JUDGED.with_borrow_mut(|reasons| reasons.push(why.into()));
}

/// Runs a check to its verdict.
pub(crate) fn verdict<F: Future<Output = ()>>(check: impl FnOnce() -> F) -> Verdict {
    let (outcome, verdict) = judged(|| in_time(check));
    if outcome.is_ok() { verdict } else { Verdict::Broken }
}

/// Runs a check on this thread: its outcome, and whether all was judged.
pub(crate) fn judged<T>(check: impl FnOnce() -> T) -> (T, Verdict) {
    NOT_JUDGED.take();
    let outcome = check();
    let mut reasons = NOT_JUDGED.take();
    reasons.dedup();
    (outcome, if reasons.is_empty() { Verdict::Kept } else { Verdict::NotJudged(reasons) })
}

/// Compares what was not kept and what was not judged with what the fixture lists. The error says how they differ;
/// `broken` is the one for a rule that is broken.
pub(crate) fn settle<S: JudgedFixture + ?Sized>(
    fixture: &S,
    rule: impl fmt::Display,
    name: &str,
    verdict: &Verdict,
    broken: impl FnOnce() -> String,
) -> Result<(), String> {
    let (listed, exceptions) = (fixture.not_judged(), fixture.exceptions());
    if let Some(unknown) = listed.iter().find(|name| !S::has_rule(name)) {
        return Err(format!("`not_judged` of the fixture lists `{unknown}`, which is no rule"));
    }
    if let Some((unknown, _)) = exceptions.iter().find(|(name, _)| !S::has_rule(name)) {
        return Err(format!("`exceptions` of the fixture lists `{unknown}`, which is no rule"));
    }
    let excepted = exceptions.iter().find(|(excepted, _)| *excepted == name);
    match verdict {
        Verdict::Broken => {
            let Some((_, why)) = excepted else { return Err(broken()) };
            let _ = writeln!(std::io::stderr(), "{rule} not kept: {why}");
        }
        _ if excepted.is_some() => {
            return Err(format!("`exceptions` of the fixture lists `{name}`, and the rule is kept"));
        }
        Verdict::NotJudged(reasons) => {
            let reasons = reasons.join("; ");
            if !listed.contains(&name) {
                return Err(format!(
                    "rule {rule} is not judged: {reasons}. If that is so, `not_judged` of the fixture lists `{name}`"
                ));
            }
            // Not the macro, whose text a test that passes does not show.
            let _ = writeln!(std::io::stderr(), "{rule} not judged: {reasons}");
        }
        Verdict::Kept if listed.contains(&name) => {
            return Err(format!("`not_judged` of the fixture lists `{name}`, and all of it is judged"));
        }
        Verdict::Kept => {}
    }
    Ok(())
}

/// Runs a check in a runtime of its own, and ends it when it takes too long.
fn in_time<F: Future<Output = ()>>(check: impl FnOnce() -> F) -> Result<(), Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let outcome = runtime.block_on(async { tokio::time::timeout(TIME, check()).await });
        // A blocking thread that hangs must not delay the result.
        runtime.shutdown_background();
        assert!(outcome.is_ok(), "no result after {TIME:?}");
    }))
}

impl<S: ?Sized> Clone for Rule<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Rule<S> {}

impl<S: ?Sized> fmt::Display for Rule<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.id, self.name)
    }
}

impl<S: ?Sized> fmt::Debug for Rule<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({self})")
    }
}

/// A table of rules (id, function, text), and a macro that hands their names to another macro of this crate: so the
/// tests of a suite are made from its tables. The first token is a dollar, which a macro cannot write by itself.
macro_rules! rules {
    ($d:tt $names:ident of $fixture:ty; $($id:literal $check:ident: $text:literal,)+) => {
        pub(super) const RULES: &[$crate::Rule<$fixture>] = &[$($crate::Rule {
            id: $id,
            name: stringify!($check),
            text: $text,
            check: |fixture| Box::pin($check(fixture)),
        }),+];
        $crate::rule::names! { $d $names: $($check)+ }
    };
}
pub(crate) use rules;

/// The macro `$names! { NEXT ARGUMENTS }`, which calls `NEXT! { ARGUMENTS NAME… }`.
macro_rules! names {
    ($d:tt $names:ident: $($name:ident)+) => {
        #[doc(hidden)]
        #[macro_export]
        macro_rules! $names {
            ($d next:ident $d arguments:tt) => {
                $crate::$d next! { $d arguments $($name)+ }
            };
        }
    };
}
pub(crate) use names;
