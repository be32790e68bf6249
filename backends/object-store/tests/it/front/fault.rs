//! What goes wrong with a request.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It is delivered when the test says so.
    Delayed(Arc<Gate>),
    /// It is carried out, and said to have failed.
    FailedAfter,
    /// It is carried out, and its answer is lost.
    Lost,
    /// It is lost.
    Reset,
    /// It is refused.
    Said(u16, &'static str),
    /// It is lost, and the connection stays open for longer than any client waits.
    Silent,
    /// It is lost, and the connection stays open for longer than the clients of these tests wait.
    Stalled,
    /// It is carried out, and half of the answer arrives, slowly: in three seconds.
    Slow,
    /// It is carried out, and half of the answer arrives.
    Truncated,
    /// It is delivered twice, and the second one is answered.
    Twice,
    /// It is delivered again later.
    TwiceLate(Duration),
    /// It is carried out, and the connection stays open without an answer, as with [`Stalled`](Self::Stalled).
    Unanswered,
}

/// Where a request waits.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Whether a request has arrived, and whether it may pass.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    /// Waits for the test.
    pub(super) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(_, is_open)| !*is_open).unwrap());
    }

    /// Waits for a request.
    pub(crate) fn arrived(&self) {
        let state = self.state.lock().unwrap();
        let waited =
            self.changed.wait_timeout_while(state, Duration::from_secs(30), |(arrived, _)| !*arrived);
        assert!(waited.unwrap().0.0, "no request has come");
    }

    /// Lets the request pass.
    pub(crate) fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}
