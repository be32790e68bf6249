//! Signals that ask the program to end.

use std::fs::File;
use std::future;
use std::io::{self, Read as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::task::Poll;

use crate::{CacheProvider, Digest, Error, ErrorKind, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::{flag, low_level};
use tokio::signal::unix::{self, SignalKind};

use super::size::Size;
use super::terminal;

/// The number of a signal.
pub(crate) type Signal = i32;

/// Set by the signal handler first.
static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether an interrupt has come: what is drawn from now on would stand below what the terminal shows of it.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The signals that ask the program to end.
pub(crate) struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
    is_asked: Arc<AtomicBool>,
}

/// Listens from now on: to be called before anything is made that a signal would leave behind.
pub(crate) fn listen() -> Result<Signals> {
    let failed = |e| Error::io("listening for signals", e);
    let (mut streams, is_asked) = (Vec::new(), Arc::new(AtomicBool::new(false)));
    flag::register(SIGINT, INTERRUPTED.clone()).map_err(failed)?;
    // A write beyond `ulimit -f` fails then, and what is half-made is removed.
    flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    // That the terminal has gone is to be ignored under nohup.
    for number in
        [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|number| *number != SIGHUP || !is_ignored(SIGHUP))
    {
        let stream = handled(number, &is_asked, || unix::signal(SignalKind::from_raw(number)));
        streams.push((number, stream.map_err(failed)?));
    }
    Ok(Signals { streams, is_asked })
}

/// Listens for a signal by `listen`, and lets the next one end the program once `is_asked`.
///
/// In this order, which is that of the handlers: what hears of a signal sets the flag, and a handler that looks at it
/// later would take the first signal for the second, and end the program in the middle of its work.
fn handled<T>(
    number: Signal,
    is_asked: &Arc<AtomicBool>,
    listen: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    flag::register_conditional_default(number, is_asked.clone())?;
    listen()
}

/// Whether the program was started to ignore a signal (`proc(5)`, `SigIgn`).
fn is_ignored(signal: Signal) -> bool {
    let mut status = String::with_capacity(4096);
    let _ = File::open("/proc/self/status").and_then(|mut file| file.read_to_string(&mut status));
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

impl Signals {
    /// Waits until the user or the system asks the program to end. A second signal, while the work is being
    /// cancelled, ends it at once.
    pub(crate) async fn asked(mut self) -> Signal {
        let number = future::poll_fn(|context| {
            let mut numbers = self.streams.iter_mut();
            let come = numbers.find_map(|(number, it)| it.poll_recv(context).is_ready().then_some(*number));
            come.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        if number == SIGINT {
            terminal::erase_typed();
        }
        self.is_asked.store(true, Ordering::Relaxed);
        number
    }
}

/// What was fetched into the cache and is kept when the work is cancelled.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// The cache that it is in.
    pub(crate) cache: OnceLock<Box<dyn CacheProvider>>,
    begun: Mutex<Vec<Digest>>,
    whole: AtomicU64,
}

impl Leftovers {
    /// A blob of this size is complete.
    pub(crate) fn whole(&self, size: u64) {
        self.whole.fetch_add(size, Ordering::Relaxed);
    }

    /// A blob has begun to arrive, and is not complete.
    pub(crate) fn begun(&self, digest: &Digest) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(digest.clone());
    }

    /// How many bytes are there; asked for when nothing writes any more.
    pub(crate) fn bytes(&self) -> u64 {
        let whole = self.whole.load(Ordering::Relaxed);
        let begun = std::mem::take(&mut *self.begun.lock().unwrap_or_else(PoisonError::into_inner));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let (Some(cache), Ok(runtime)) = (self.cache.get(), runtime) else { return whole };
        let partial = begun.iter().map(|digest| runtime.block_on(cache.partial(digest)).unwrap_or(0));
        partial.fold(whole, u64::saturating_add)
    }
}

/// The error of a run that was interrupted, with what is kept of its work.
pub(crate) fn interrupted(leftovers: &Leftovers) -> Error {
    let message = match leftovers.bytes() {
        0 => "interrupted".to_owned(),
        bytes => format!("interrupted; {} are kept, and the same command resumes there", Size(bytes)),
    };
    Error::new(ErrorKind::Cancelled, message)
}

/// Ends the program by the signal that it got: a shell's loop goes on after any exit code, and a supervisor treats one
/// as a failure.
pub(crate) fn end_by(number: Signal) -> ExitCode {
    // It returns only if the signal could not be sent. Shells know the other way to say so.
    let _ = low_level::emulate_default_handler(number);
    ExitCode::from(u8::try_from(128 + number).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::SIGUSR1;

    use super::*;

    /// The thread that is interrupted may stand still between two handlers, while another one hears of the signal.
    #[test]
    fn the_first_signal_is_not_taken_for_the_second() {
        let is_asked = Arc::new(AtomicBool::new(false));
        let heard = || flag::register(SIGUSR1, is_asked.clone());
        handled(SIGUSR1, &is_asked, heard).unwrap();
        low_level::raise(SIGUSR1).unwrap();
        assert!(is_asked.load(Ordering::Relaxed));
    }
}
