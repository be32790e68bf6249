//! Progress: bars on a terminal, lines elsewhere.

use std::collections::HashMap;

use indicatif::{ProgressBar, ProgressStyle};
use plyfold::progress::Event;
use plyfold::{Digest, printable};

use super::screen::{BARS, Loudness, Screen, tell};
use super::size::Size;

/// Shows the events of one pull.
pub(crate) struct Reporter {
    screen: Screen,
    blobs: HashMap<Digest, (ProgressBar, u64)>,
    verification: Option<ProgressBar>,
}

impl Reporter {
    pub(crate) fn new(screen: Screen) -> Self {
        Self { screen, blobs: HashMap::new(), verification: None }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        match event {
            Event::Resolved { image, digest, size } => {
                let image = printable(&image);
                self.line(Loudness::Normal, &format!("{image} is {digest}, {}", Size(size)));
            }
            Event::BlobStarted { digest, size, resumed_at } => self.start(digest, size, resumed_at),
            Event::BlobOpened { digest, endpoint, attempt } => self.opened(&digest, &endpoint, attempt),
            Event::BlobProgress { digest, received } => {
                if let Some((bar, _)) = self.blobs.get(&digest) {
                    bar.set_position(received);
                }
            }
            Event::BlobDone { digest, cached } => self.done(&digest, cached),
            Event::LayerDone { diff_id, cached: false } => {
                self.line(Loudness::Normal, &format!("{} converted", short(&diff_id)));
            }
            Event::LayerDone { diff_id, cached: true } => {
                self.line(Loudness::Verbose, &format!("{} is converted already", short(&diff_id)));
            }
            Event::Retrying { what, attempt, reason } => {
                let (what, reason) = (printable(&what), printable(&reason));
                self.line(Loudness::Quiet, &format!("warning: {what}: attempt {attempt} failed: {reason}"));
            }
            Event::Waiting { what } => {
                let what = printable(&what);
                self.line(Loudness::Normal, &format!("waiting for another pull of {what}"));
            }
            Event::Warning { message } => {
                self.line(Loudness::Quiet, &format!("warning: {}", printable(&message)));
            }
            Event::VerifyProgress { read, total } => {
                let bar = self.verification.get_or_insert_with(|| bar(self.screen, "read again", total));
                bar.set_position(read);
            }
            // The caller knows how it ended.
            _ => {
                if let Some(bar) = self.verification.take() {
                    bar.finish_and_clear();
                }
            }
        }
    }

    fn start(&mut self, digest: Digest, size: u64, resumed_at: u64) {
        if resumed_at > 0 {
            let kept = Size(resumed_at);
            self.line(Loudness::Normal, &format!("{} resumes after {kept}", short(&digest)));
        }
        let bar = bar(self.screen, short(&digest), size);
        bar.set_position(resumed_at);
        self.blobs.insert(digest, (bar, size));
    }

    /// Says who answered, and at which attempt when it is not the first.
    fn opened(&mut self, digest: &Digest, endpoint: &str, attempt: u32) {
        let endpoint = printable(endpoint);
        let from = match attempt {
            1 => format!("from {endpoint}"),
            _ => format!("from {endpoint}, attempt {attempt}"),
        };
        if let Some((bar, _)) = self.blobs.get(digest) {
            bar.set_message(format!(" {from}"));
        }
        self.line(Loudness::Verbose, &format!("{} is read {from}", short(digest)));
    }

    fn done(&mut self, digest: &Digest, cached: bool) {
        if cached {
            return self.line(Loudness::Verbose, &format!("{} is here already", short(digest)));
        }
        if let Some((bar, size)) = self.blobs.remove(digest) {
            bar.finish_and_clear();
            self.line(Loudness::Normal, &format!("{} fetched, {}", short(digest), Size(size)));
        }
    }

    /// Writes a line, unless the user wants less.
    fn line(&self, least: Loudness, line: &str) {
        if self.screen.loudness() >= least {
            tell(&format!("{line}\n"));
        }
    }
}

fn bar(screen: Screen, what: &str, size: u64) -> ProgressBar {
    let bar = if screen.draws() { BARS.add(ProgressBar::new(size)) } else { ProgressBar::hidden() };
    let style =
        "{prefix} {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta}{msg}";
    // The template is a constant: it parses.
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar
}

/// Enough of a digest to tell it from others.
pub(crate) fn short(digest: &Digest) -> &str {
    let hex = digest.digest();
    hex.get(..12).unwrap_or(hex)
}
