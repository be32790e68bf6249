//! Progress as JSON lines; the manual's page `command` has their schema.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::Digest;
use crate::progress::Event;
use serde_json::{Value, json};

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
            _ => {}
        }
        document(event)
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

fn document(event: &Event) -> Option<Value> {
    Some(match event {
        Event::BlobDone { digest, size, cached } => {
            json!({ "event": "blob-done", "digest": digest, "size": size, "cached": cached })
        }
        Event::BlobOpened { digest, endpoint, attempt } => {
            json!({ "event": "blob-opened", "digest": digest, "endpoint": endpoint, "attempt": attempt })
        }
        Event::BlobProgress { digest, received } => {
            json!({ "event": "blob-progress", "digest": digest, "received": received })
        }
        Event::BlobStarted { digest, size, resumed_at } => {
            json!({ "event": "blob-started", "digest": digest, "size": size, "resumed_at": resumed_at })
        }
        Event::BlobStopped { digest } => json!({ "event": "blob-stopped", "digest": digest }),
        Event::Finished { success } => json!({ "event": "finished", "success": success }),
        Event::LayerDone { digest, diff_id, cached } => {
            json!({ "event": "layer-done", "digest": digest, "diff_id": diff_id, "cached": cached })
        }
        Event::Planned { size } => json!({ "event": "planned", "size": size }),
        Event::Resolved { image, digest, size } => {
            json!({ "event": "resolved", "image": image, "digest": digest, "size": size })
        }
        Event::Retrying { what, attempt, reason } => {
            json!({ "event": "retrying", "what": what, "attempt": attempt, "reason": reason })
        }
        Event::VerifyProgress { read, total } => {
            json!({ "event": "verify-progress", "read": read, "total": total })
        }
        Event::Waiting { what } => json!({ "event": "waiting", "what": what }),
        Event::Warning { message } => json!({ "event": "warning", "message": message }),
        // A later version of the library may have more; each gets a line here with its documentation.
        _ => return None,
    })
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
