//! Signals that ask the program to end.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plyfold::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use tokio::signal::unix::{SignalKind, signal};

/// The number of a signal.
pub(crate) type Signal = i32;

/// Waits until the user or the system asks the program to end. Whoever asks again, while the work is being given up,
/// ends it at once.
pub(crate) async fn asked() -> Result<Signal> {
    let listen = |kind| signal(kind).map_err(|e| Error::io("listening for signals", e));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let is_asked = Arc::new(AtomicBool::new(false));
    for number in [SIGINT, SIGTERM] {
        flag::register_conditional_default(number, is_asked.clone())
            .map_err(|e| Error::io("listening for signals", e))?;
    }
    let number = tokio::select! {
        _ = interrupt.recv() => SIGINT,
        _ = terminate.recv() => SIGTERM,
    };
    is_asked.store(true, Ordering::Relaxed);
    Ok(number)
}

/// Ends the program by the signal that it got: a shell's loop goes on after any exit code, and a supervisor takes one
/// for a failure.
pub(crate) fn end_by(number: Signal) -> ExitCode {
    // It returns only if the signal could not be sent. Shells know the other way to say so.
    let _ = low_level::emulate_default_handler(number);
    ExitCode::from(u8::try_from(128 + number).unwrap_or(1))
}
