//! Progress: bars on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use plyfold::progress::Event;
use plyfold::{Digest, digest, printable};
use rustix::termios::tcgetwinsize;

use super::screen::{BARS, Loudness, Screen, tell};
use super::size::Size;

/// What the events are about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doing {
    /// Blobs go from one place to another, past the store.
    Copy,
    /// Blobs come into the store.
    Fetch,
}

/// Shows the events of one piece of work.
pub(crate) struct Reporter {
    screen: Screen,
    doing: Doing,
    blobs: HashMap<Digest, (ProgressBar, u64)>,
    verification: Option<ProgressBar>,
}

impl Reporter {
    pub(crate) fn new(screen: Screen, doing: Doing) -> Self {
        Self { screen, doing, blobs: HashMap::new(), verification: None }
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
                let (what, reason) = (shown(&what), printable(&reason));
                self.line(Loudness::Quiet, &format!("warning: {what}: attempt {attempt} failed: {reason}"));
            }
            Event::Waiting { what } => {
                self.line(Loudness::Normal, &format!("waiting for another pull of {}", shown(&what)));
            }
            Event::Warning { message } => {
                self.line(Loudness::Quiet, &format!("warning: {}", printable(&message)));
            }
            Event::VerifyProgress { read, total } => {
                let bar = self.verification.get_or_insert_with(|| bar(self.screen, "read again", total, 0));
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
        let bar = bar(self.screen, short(&digest), size, resumed_at);
        self.blobs.insert(digest, (bar, size));
    }

    /// Says who answered, and at which attempt when it is not the first.
    fn opened(&mut self, digest: &Digest, endpoint: &str, attempt: u32) {
        let endpoint = printable(endpoint);
        // On a narrow terminal the end is cut off: the endpoint is the same most of the time.
        let from = match attempt {
            1 => format!("from {endpoint}"),
            _ => format!("attempt {attempt} from {endpoint}"),
        };
        if let Some((bar, _)) = self.blobs.get(digest) {
            bar.set_message(format!(", {from}"));
        }
        self.line(Loudness::Verbose, &format!("{} is read, {from}", short(digest)));
    }

    fn done(&mut self, digest: &Digest, cached: bool) {
        if cached {
            let place = match self.doing {
                Doing::Copy => "there",
                Doing::Fetch => "here",
            };
            return self.line(Loudness::Verbose, &format!("{} is {place} already", short(digest)));
        }
        if let Some((bar, size)) = self.blobs.remove(digest) {
            bar.finish_and_clear();
            let done = match self.doing {
                Doing::Copy => "copied",
                Doing::Fetch => "fetched",
            };
            self.line(Loudness::Normal, &format!("{} {done}, {}", short(digest), Size(size)));
        }
    }

    /// Writes a line, unless the user wants less.
    fn line(&self, least: Loudness, line: &str) {
        if self.screen.loudness() >= least {
            tell(&format!("{line}\n"));
        }
    }
}

/// Columns that a terminal needs for a bar beside the numbers and where they come from.
const WIDE: u16 = 100;

fn bar(screen: Screen, what: &str, size: u64, start: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden());
    bar.set_position(start);
    bar.tick();
    // What was here before tells nothing about the speed.
    bar.reset_eta();
    let is_wide = tcgetwinsize(io::stderr()).is_ok_and(|terminal| terminal.ws_col >= WIDE);
    // A line that wraps is in the way of the next: what is too long for a narrow terminal is cut off.
    let template = if is_wide {
        "{prefix} {wide_bar} {done} of {size}, {binary_bytes_per_sec}, {eta}{msg}"
    } else {
        "{prefix} {done} of {size}, {binary_bytes_per_sec}, {eta}{wide_msg}"
    };
    // The templates are constants: they parse. What cannot be written is not shown.
    if let Ok(style) = ProgressStyle::with_template(template) {
        let done = |state: &ProgressState, out: &mut dyn Write| {
            let _ = write!(out, "{}", Size(state.pos()));
        };
        let total = move |_: &ProgressState, out: &mut dyn Write| {
            let _ = write!(out, "{}", Size(size));
        };
        bar.set_style(style.with_key("done", done).with_key("size", total));
    }
    bar.set_prefix(what.to_owned());
    if screen.draws() { BARS.add(bar) } else { bar }
}

/// What something is about: a digest as in all other lines, or else as it is.
fn shown(what: &str) -> String {
    digest::parse(what).map_or_else(|_| printable(what).to_string(), |digest| short(&digest).to_owned())
}

/// Enough of a digest to tell it from others.
pub(crate) fn short(digest: &Digest) -> &str {
    let hex = digest.digest();
    hex.get(..12).unwrap_or(hex)
}
