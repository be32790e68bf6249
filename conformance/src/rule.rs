//! Rules: one named behaviour each, with an id, a text and a check.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

/// How long one rule may take; a backend that hangs fails it.
const TIME: Duration = Duration::from_secs(60);

/// One rule over stages of type `S`.
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

impl<S: ?Sized> Rule<S> {
    /// Judges a stage, in a runtime of its own.
    ///
    /// # Panics
    /// When the rule is broken or takes more than a minute. The message has the rule's id, name and text; the
    /// failed assertion stands before it.
    pub fn judge(&self, stage: &S) {
        assert!(self.verdict(stage).is_ok(), "rule {self} is broken\n  {}", self.text);
    }

    /// Whether the stage keeps the rule; the failed assertion goes to standard error.
    pub fn holds(&self, stage: &S) -> bool {
        self.verdict(stage).is_ok()
    }

    fn verdict(&self, stage: &S) -> Result<(), Box<dyn Any + Send>> {
        in_time(|| (self.check)(stage))
    }
}

/// Runs a check in a runtime of its own, and ends it when it takes too long.
pub(crate) fn in_time<F: Future<Output = ()>>(check: impl FnOnce() -> F) -> Result<(), Box<dyn Any + Send>> {
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

/// A table of rules: id, function, text.
macro_rules! rules {
    ($($id:literal $check:ident: $text:literal,)+) => {
        &[$($crate::Rule {
            id: $id,
            name: stringify!($check),
            text: $text,
            check: |stage| Box::pin($check(stage)),
        }),+]
    };
}
pub(crate) use rules;
