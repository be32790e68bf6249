//! Progress as JSON lines; the manual's page `command` has their schema.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::Digest;
use crate::progress::Event;
use serde_json::Value;

/// How often the progress of one blob is reported.
const PAUSE: Duration = Duration::from_millis(250);

/// Turns events into documents, and leaves out what comes too often.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    told: HashMap<Option<Digest>, Instant>,
}

impl Documents {
    /// The document of an event, if it is to be reported now.
    pub(crate) fn of(&mut self, event: &Event) -> Option<Value> {
        match event {
            Event::BlobProgress { digest, .. } if !self.is_due(Some(digest)) => return None,
            Event::VerifyProgress { .. } if !self.is_due(None) => return None,
            // Not in the schema: the result has the files.
            Event::FormatDone { .. } => return None,
            _ => {}
        }
        serde_json::to_value(event).ok()
    }

    fn is_due(&mut self, what: Option<&Digest>) -> bool {
        let now = Instant::now();
        let is_due = self.told.get(&what.cloned()).is_none_or(|last| now.duration_since(*last) >= PAUSE);
        if is_due {
            self.told.insert(what.cloned(), now);
        }
        is_due
    }
}

/// Whether an event is shown with `-q`.
pub(crate) fn is_warning(event: &Event) -> bool {
    matches!(event, Event::Retrying { .. } | Event::Warning { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_now_and_then() {
        let mut documents = Documents::default();
        let [one, other] = ["one", "other"].map(|text| crate::digest::sha256(text.as_bytes()));
        let progress = |digest: &Digest| Event::BlobProgress { digest: digest.clone(), received: 1 };
        assert!(documents.of(&progress(&one)).is_some());
        assert!(documents.of(&progress(&one)).is_none());
        assert!(documents.of(&progress(&other)).is_some());
        assert!(documents.of(&Event::Finished { success: true }).is_some());
    }
}
