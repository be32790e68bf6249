//! Requests that are made again.

use std::time::Duration;

use plyfold_core::{Error, ErrorKind};

use crate::clock::Moment;

/// Times that a request is made. `object_store` makes those again that surely did not arrive, and those that only read and got no
/// answer, for as long as is set for its client; what it gives up at once may be made again here.
const TRIES: u32 = 4;
/// Not when the failure took longer than this: the client has waited long enough.
const SOON: Duration = Duration::from_secs(15);
/// The first pause; each next one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);

/// The tries of one request that does no harm when it is made twice.
#[derive(Debug)]
pub(crate) struct Tries {
    begun: Moment,
    made: u32,
}

impl Tries {
    pub(crate) fn new() -> Self {
        Self { begun: Moment::now(), made: 0 }
    }

    /// After a failure: whether to make it again. Waits before.
    pub(crate) async fn again(&mut self, error: &Error) -> bool {
        self.made += 1;
        let may_pass = *error.kind() == ErrorKind::Unavailable;
        if !may_pass || self.made == TRIES || self.begun.elapsed() > SOON {
            return false;
        }
        tokio::time::sleep(PAUSE * (1 << self.made)).await;
        true
    }
}
