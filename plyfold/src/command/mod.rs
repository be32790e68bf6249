//! The command as a library: a program of three lines is plyfold with other backends and materializers.
//!
//! ```no_run
//! # /*
//! use my_backend as _; // a crate that nothing names is not linked, also if Cargo.toml lists it
//! # */
//!
//! fn main() -> std::process::ExitCode {
//!     plyfold::command::main()
//! }
//! ```
//!
//! `examples/command` is such a program. It has every verb of `plyfold`, and takes its name from its file.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::layer::{Hashing, LayerOptions};
use crate::{Error, Result, Sparse};
use clap::FromArgMatches as _;

use args::{Args, Verb};
use places::Places;
use screen::Screen;
use session::{Fetch, Session};
use stop::{Leftovers, Signal};

mod age;
mod args;
mod backends;
mod complete;
mod disk;
mod events;
mod export;
mod failure;
mod formats;
mod grammar;
mod hints;
mod image;
mod inspect;
mod kept;
mod layer;
mod log;
#[cfg(feature = "registry")]
mod login;
mod materialize;
mod near;
mod path;
mod places;
mod program;
mod progress;
mod registry;
mod screen;
mod session;
mod size;
mod stop;
mod store;
mod verbs;
mod verify;

/// Runs the program with the process's arguments, and returns its exit code.
///
/// Call it from `main` alone, first and once: it handles the process's signals, listens to its logs, and starts an
/// async runtime.
pub fn main() -> ExitCode {
    if let Some(words) = complete::asked() {
        return complete::answer(&words);
    }
    let args = grammar::grammar().try_get_matches().and_then(|found| Args::from_arg_matches(&found));
    let args = match args {
        Ok(args) => args,
        Err(usage) => return failure::usage(&usage),
    };
    let screen = Screen::new(&args.global);
    log::listen(screen);
    match run(args, screen) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Stopped(signal, leftovers)) => {
            failure::report(&stop::interrupted(&leftovers), screen);
            stop::end_by(signal)
        }
        Err(error) => failure::report(&error, screen),
    }
}

/// The longest that the program waits, at its end, for threads that have been cancelled.
/// It is more than any of them waits for another.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a run ends that does not fail.
enum Outcome {
    Done,
    Stopped(Signal, Arc<Leftovers>),
}

fn run(args: Args, screen: Screen) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::io("starting threads", e))?;
    let leftovers = Arc::<Leftovers>::default();
    let outcome = runtime.block_on(async {
        let signals = stop::listen()?;
        tokio::select! {
            outcome = verb(args, screen, &leftovers) => outcome.map(|()| Outcome::Done),
            signal = signals.asked() => Ok(Outcome::Stopped(signal, leftovers.clone())),
        }
    });
    // Threads take their temporary files with them when they end. A disk that hangs does not keep the program.
    runtime.shutdown_timeout(PATIENCE);
    outcome
}

async fn verb(args: Args, screen: Screen, leftovers: &Arc<Leftovers>) -> Result<()> {
    let Args { global, verb } = args;
    let session = Session::open(&global, screen, leftovers);
    let places = || Places::new(&global, screen, leftovers);
    match verb {
        Verb::Pull { image, policy, force, verify } => {
            let fetch = Fetch { policy: policy.map(Into::into), force, verify, ..Fetch::default() };
            store::pull_image(&session.await?, &image, fetch).await
        }
        #[cfg(feature = "registry")]
        Verb::Login(options) => login::store(options, &global, screen).await,
        #[cfg(feature = "registry")]
        Verb::Logout { registry, authfile } => login::forget(registry, authfile, &global, screen).await,
        Verb::List { image: Some(image), .. } => Err(kept::no_files(&image)),
        Verb::List { no_trunc, image: None } => kept::list(&session.await?, no_trunc).await,
        Verb::Tag { image, name } => kept::tag(&session.await?, &image, &name).await,
        Verb::Inspect { image, raw, remote, no_trunc } => {
            let shown = inspect::Shown { raw, no_trunc };
            let places = places()?;
            // Directories and archives are read in place: that needs no network.
            if remote || !places.image(&image)?.is_remote(&places.backends) {
                return inspect::there(&places, &image, shown).await;
            }
            inspect::here(&session.await?, &image, shown).await
        }
        Verb::Materialize(options) => materialize::make(&session.await?, options).await,
        Verb::Layer { tar, out, no_digests, bounds, durably } => {
            let hashing = if no_digests { Hashing::Nothing } else { Hashing::Both };
            let options = LayerOptions { hashing, limits: bounds.layer(), ..LayerOptions::default() };
            layer::make(tar, out, options, durably.options(), screen).await
        }
        Verb::Disk(disk) => disk::make(disk, screen).await,
        Verb::Load { archive } => store::load(&session.await?, &archive).await,
        Verb::Export { image, out, bounds, durably } => {
            export::write(&session.await?, &image, out, bounds.layer(), durably.options()).await
        }
        Verb::Copy { source, target, referrers } => {
            registry::copy_image(&places()?, &source, &target, referrers).await
        }
        Verb::Push { image, target, rewrite_index } => {
            let sparse = if rewrite_index { Sparse::Rewrite } else { Sparse::Refuse };
            registry::push(&session.await?, &image, &target, sparse).await
        }
        Verb::Tags { repository } => registry::tags(&places()?, &repository).await,
        Verb::Delete { image, blob } => registry::delete(&places()?, &image, blob).await,
        Verb::Remove { images } => kept::remove(&session.await?, &images).await,
        Verb::Pin { images } => kept::pin(&session.await?, &images, true).await,
        Verb::Unpin { images } => kept::pin(&session.await?, &images, false).await,
        Verb::Gc { dry_run, budget, grace, partial } => {
            kept::collect(&session.await?, dry_run, budget, grace, partial).await
        }
        Verb::Verify { images, repair } => verify::check(&session.await?, &images, repair).await,
        Verb::Backends => backends::list(screen),
        Verb::Formats => formats::list(screen),
        Verb::Completions { shell } => complete::script(shell),
    }
}
