//! Signals that ask the program to end.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use crate::{CacheProvider, Digest, Error, ErrorKind, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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
    interrupt: unix::Signal,
    terminate: unix::Signal,
    /// The terminal has gone; `None` where that is to be ignored, as under nohup.
    hangup: Option<unix::Signal>,
    is_asked: Arc<AtomicBool>,
}

/// Listens from now on: to be called before anything is made that a signal would leave behind.
pub(crate) fn listen() -> Result<Signals> {
    let listen = |kind| unix::signal(kind).map_err(|e| Error::io("listening for signals", e));
    let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let hangup = if is_ignored(SIGHUP) { None } else { Some(listen(SignalKind::hangup())?) };
    let is_asked = Arc::new(AtomicBool::new(false));
    flag::register(SIGINT, INTERRUPTED.clone()).map_err(|e| Error::io("listening for signals", e))?;
    for number in [SIGINT, SIGTERM].into_iter().chain(hangup.as_ref().map(|_| SIGHUP)) {
        flag::register_conditional_default(number, is_asked.clone())
            .map_err(|e| Error::io("listening for signals", e))?;
    }
    Ok(Signals { interrupt, terminate, hangup, is_asked })
}

/// Whether the program was started to ignore a signal (`proc(5)`, `SigIgn`).
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

impl Signals {
    /// Waits until the user or the system asks the program to end. A second signal, while the work is being
    /// cancelled, ends it at once.
    pub(crate) async fn asked(mut self) -> Signal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => _ = hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let number = tokio::select! {
            () = hangup => SIGHUP,
            _ = self.interrupt.recv() => {
                terminal::erase_typed();
                SIGINT
            }
            _ = self.terminate.recv() => SIGTERM,
        };
        self.is_asked.store(true, Ordering::Relaxed);
        number
    }
}

/// What was fetched into the cache and is kept when the work is cancelled.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    cache: OnceLock<Box<dyn CacheProvider>>,
    begun: Mutex<Vec<Digest>>,
    whole: AtomicU64,
}

impl Leftovers {
    /// The cache that it is in.
    pub(crate) fn cache(&self, cache: Box<dyn CacheProvider>) {
        // The cache of this run.
        let _ = self.cache.set(cache);
    }

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
