//! Progress: bars on a terminal, lines elsewhere, JSON lines for programs.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::progress::Event;
use crate::{Digest, Progress, Result, digest, printable};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rustix::termios::tcgetwinsize;
use serde_json::Value;

use super::size::Size;
use super::stop::{self, Leftovers};
use super::terminal::{Loudness, Terminal, draw, erase, tell};

/// The direction of the transfer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Doing {
    /// Blobs go from one place to another, past the store.
    Copy,
    /// Blobs come into the store.
    Fetch,
    /// A file is read and hashed, and nothing is moved.
    Hash,
}

/// Shows the events of one piece of work.
pub(crate) struct Reporter {
    terminal: Terminal,
    doing: Doing,
    leftovers: Arc<Leftovers>,
    documents: Documents,
    blobs: HashMap<Digest, Transfer>,
    total: Total,
    verification: Option<ProgressBar>,
    /// The reasons for retries that were shown: each is shown once.
    reasons: HashSet<String>,
    /// How the fleet is called as an endpoint.
    fleet: Option<String>,
}

/// One blob that is under way.
struct Transfer {
    bar: ProgressBar,
    resumed_at: u64,
    /// Whether it comes from the fleet.
    is_of_fleet: bool,
}

/// All blobs together: the bytes that this run has to move.
#[derive(Default)]
struct Total {
    planned: u64,
    moved: u64,
    bar: Option<ProgressBar>,
}

impl Reporter {
    pub(crate) fn new(terminal: Terminal, doing: Doing, leftovers: Arc<Leftovers>) -> Self {
        Self {
            terminal,
            doing,
            leftovers,
            documents: Documents::default(),
            blobs: HashMap::new(),
            total: Total::default(),
            verification: None,
            reasons: HashSet::new(),
            fleet: None,
        }
    }

    /// The same that says what comes from this fleet.
    pub(crate) fn with_fleet(mut self, uri: Option<String>) -> Self {
        self.fleet = uri.map(|uri| uri.trim_end_matches('/').to_owned());
        self
    }

    /// Runs work that sends events, and shows them until the last one.
    pub(crate) async fn telling<T, F>(mut self, work: impl FnOnce(Progress) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let (progress, mut events) = Progress::channel();
        let report = async {
            while let Some(event) = events.next().await {
                self.tell(event);
            }
        };
        // The work drops its end of the channel, and so ends the report.
        let work = Box::pin(work(progress));
        let (outcome, ()) = tokio::join!(work, report);
        outcome
    }

    fn tell(&mut self, event: Event) {
        if self.terminal.draws() && stop::is_interrupted() {
            return;
        }
        if self.terminal.json {
            let is_warning = matches!(event, Event::Retrying { .. } | Event::Warning { .. });
            let least = if is_warning { Loudness::Quiet } else { Loudness::Normal };
            if self.terminal.loudness >= least
                && let Some(document) = self.documents.of(&event)
            {
                tell(&format!("{document}\n"));
            }
        }
        match event {
            Event::Resolved { image, digest, size } => {
                self.plan(size);
                let (image, digest) = (printable(&image), short(&digest));
                self.line(Loudness::Normal, &format!("{image} is {digest}, {}", Size(size)));
            }
            Event::Planned { size } => self.plan(size),
            Event::BlobStarted { digest, size, resumed_at } => self.start(digest, size, resumed_at),
            Event::BlobOpened { digest, endpoint, attempt } => self.opened(&digest, &endpoint, attempt),
            Event::BlobProgress { digest, received } => self.received(&digest, received),
            Event::BlobDone { digest, size, cached } => self.done(&digest, size, cached),
            Event::Converted { original, digest } => {
                if let Some(transfer) = self.blobs.remove(&original) {
                    self.total.moved += transfer.bar.length().unwrap_or_default();
                    erase(&transfer.bar);
                    self.show_total();
                }
                self.line(Loudness::Normal, &format!("{} is {} now", short(&original), short(&digest)));
            }
            Event::LayerDone { digest, cached, .. } => {
                let (least, done) = if cached {
                    (Loudness::Verbose, "is converted already")
                } else {
                    (Loudness::Normal, "converted")
                };
                self.line(least, &format!("{} {done}", short(&digest)));
            }
            Event::Retrying { what, attempt, reason } => {
                let line = format!("{}: attempt {attempt} failed: {}", shown(&what), printable(&reason));
                if self.reasons.insert(reason) {
                    self.line(Loudness::Quiet, &format!("warning: {line}; trying again"));
                } else {
                    self.line(Loudness::Verbose, &line);
                }
            }
            Event::Waiting { what } => {
                self.line(Loudness::Normal, &format!("waiting for another pull of {}", shown(&what)));
            }
            Event::Warning { message } => {
                self.line(Loudness::Quiet, &format!("warning: {}", printable(&message)));
            }
            Event::VerifyProgress { read, total } => {
                let what = if self.doing == Doing::Hash { "hashed" } else { "read again" };
                let bar = self.verification.get_or_insert_with(|| bar(self.terminal, what, total, 0, None));
                // The next partition has another size.
                bar.set_length(total);
                bar.set_position(read);
            }
            Event::BlobStopped { digest } => {
                if let Some(transfer) = self.blobs.remove(&digest) {
                    erase(&transfer.bar);
                    if self.doing == Doing::Fetch {
                        self.leftovers.begun(&digest);
                    }
                }
            }
            // The caller reports the end.
            _ => self.clear(),
        }
    }

    /// More is to be moved, as far as it is not there.
    fn plan(&mut self, size: u64) {
        self.total.planned = self.total.planned.saturating_add(size);
    }

    fn start(&mut self, digest: Digest, size: u64, resumed_at: u64) {
        if resumed_at > 0 {
            let kept = Size(resumed_at);
            self.line(Loudness::Normal, &format!("{} resumes after {kept}", short(&digest)));
        }
        // One blob that is all there is to move needs no second bar.
        self.total.planned = self.total.planned.saturating_sub(resumed_at);
        if self.total.bar.is_none() && self.total.planned > size + SMALL {
            self.total.bar = Some(bar(self.terminal, "total", self.total.planned, 0, None));
        }
        let transfer = Transfer {
            bar: bar(self.terminal, short(&digest), size, resumed_at, self.total.bar.as_ref()),
            resumed_at,
            is_of_fleet: false,
        };
        self.blobs.insert(digest, transfer);
        self.show_total();
    }

    /// Shows the endpoint that answered, and the attempt if it is not the first.
    fn opened(&mut self, digest: &Digest, endpoint: &str, attempt: u32) {
        let is_of_fleet = self.fleet.as_deref() == Some(endpoint);
        let endpoint = printable(endpoint);
        // On a narrow terminal the end is cut off: the endpoint is the same most of the time.
        let from = match attempt {
            1 => format!("from {endpoint}"),
            _ => format!("attempt {attempt} from {endpoint}"),
        };
        if let Some(transfer) = self.blobs.get_mut(digest) {
            transfer.bar.set_message(format!(", {from}"));
            transfer.is_of_fleet = is_of_fleet;
        }
        self.line(Loudness::Verbose, &format!("{} is read, {from}", short(digest)));
    }

    fn received(&mut self, digest: &Digest, received: u64) {
        if let Some(transfer) = self.blobs.get(digest) {
            transfer.bar.set_position(received);
            self.show_total();
        }
    }

    fn done(&mut self, digest: &Digest, size: u64, cached: bool) {
        let (place, done) = match self.doing {
            Doing::Copy => ("there", "copied"),
            Doing::Fetch | Doing::Hash => ("here", "fetched"),
        };
        if cached {
            self.total.planned = self.total.planned.saturating_sub(size);
            self.show_total();
            self.line(Loudness::Verbose, &format!("{} is {place} already", short(digest)));
        } else if let Some(transfer) = self.blobs.remove(digest) {
            erase(&transfer.bar);
            self.total.moved += size.saturating_sub(transfer.resumed_at);
            self.show_total();
            if self.doing == Doing::Fetch {
                self.leftovers.whole(size);
            }
            let from = if transfer.is_of_fleet { " from the fleet" } else { "" };
            self.line(Loudness::Normal, &format!("{} {done}{from}, {}", short(digest), Size(size)));
        }
    }

    fn show_total(&self) {
        let Some(bar) = &self.total.bar else { return };
        let under_way = self.blobs.values().map(|blob| blob.bar.position().saturating_sub(blob.resumed_at));
        bar.set_length(self.total.planned);
        bar.set_position(under_way.fold(self.total.moved, u64::saturating_add).min(self.total.planned));
    }

    /// Writes a line, unless the user wants less.
    fn line(&self, least: Loudness, line: &str) {
        if self.terminal.loudness >= least && !self.terminal.json {
            tell(&format!("{line}\n"));
        }
    }

    /// Erases the bars.
    fn clear(&mut self) {
        let blobs = self.blobs.values().map(|transfer| &transfer.bar);
        blobs.chain(&self.total.bar).chain(&self.verification).for_each(erase);
        self.verification = None;
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.clear();
        if self.doing == Doing::Fetch {
            self.blobs.keys().for_each(|digest| self.leftovers.begun(digest));
        }
    }
}

/// How often the progress of one blob is reported.
const PAUSE: Duration = Duration::from_millis(250);

/// Turns events into JSON, as the manual's page `command` says, and leaves out what comes too often.
#[derive(Debug, Default)]
struct Documents {
    told: HashMap<Option<Digest>, Instant>,
}

impl Documents {
    /// The document of an event, if it is to be reported now.
    fn of(&mut self, event: &Event) -> Option<Value> {
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

/// Bytes beside a blob that are not worth a second bar, such as an image's config.
const SMALL: u64 = 64 << 10;

/// Columns that a terminal needs for a bar beside the numbers and where they come from.
const WIDE: u16 = 100;

/// A bar, above another if there is one.
fn bar(terminal: Terminal, what: &str, size: u64, start: u64, above: Option<&ProgressBar>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden());
    bar.set_position(start);
    bar.tick();
    // Resumed bytes do not count for the speed.
    bar.reset_eta();
    let is_wide = tcgetwinsize(io::stderr()).is_ok_and(|terminal| terminal.ws_col >= WIDE);
    // A wrapped line cannot be redrawn: long lines are cut at the width of the terminal.
    let template = match what {
        "total" => "{prefix:12} {wide_bar} {done} of {size}, {speed}/s, {eta}",
        _ if is_wide => "{prefix} {wide_bar} {done} of {size}, {speed}/s, {eta}{msg}",
        _ => "{prefix} {done} of {size}, {speed}/s, {eta}{wide_msg}",
    };
    // The templates are constants: they parse. What cannot be written is not shown.
    if let Ok(style) = ProgressStyle::with_template(template) {
        let shown = |bytes: fn(&ProgressState) -> u64| {
            move |state: &ProgressState, out: &mut dyn Write| {
                let _ = write!(out, "{}", Size(bytes(state)));
            }
        };
        let style = style.with_key("done", shown(ProgressState::pos));
        let style = style.with_key("size", shown(|state| state.len().unwrap_or(0)));
        #[expect(clippy::cast_sign_loss, reason = "no speed is negative")]
        bar.set_style(style.with_key("speed", shown(|state| state.per_sec() as u64)));
    }
    bar.set_prefix(what.to_owned());
    if terminal.draws() { draw(bar, above) } else { bar }
}

/// What something is about: a digest as in all other lines, or else as it is.
fn shown(what: &str) -> String {
    digest::parse(what).map_or_else(|_| printable(what), |digest| short(&digest).to_owned())
}

/// The short form of a digest.
pub(crate) fn short(digest: &Digest) -> &str {
    let hex = digest.digest();
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_now_and_then() {
        let mut documents = Documents::default();
        let [one, other] = ["one", "other"].map(|text| digest::sha256(text.as_bytes()));
        let progress = |digest: &Digest| Event::BlobProgress { digest: digest.clone(), received: 1 };
        assert!(documents.of(&progress(&one)).is_some());
        assert!(documents.of(&progress(&one)).is_none());
        assert!(documents.of(&progress(&other)).is_some());
        assert!(documents.of(&Event::Finished { success: true }).is_some());
    }
}
