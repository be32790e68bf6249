//! The command: arguments in, one verb, an exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use plyfold::{Error, ErrorKind, Result, Sparse};

use args::{Args, Verb};
use places::Places;
use screen::Screen;
use session::{Fetch, Session};
use stop::Signal;

mod age;
mod args;
mod backends;
mod disk;
mod export;
mod failure;
mod image;
mod kept;
mod layer;
mod log;
#[cfg(feature = "registry")]
mod login;
mod materialize;
mod path;
mod places;
mod progress;
mod registry;
mod screen;
mod session;
mod size;
mod stop;
mod store;
mod verify;

/// Runs the program with the process's arguments.
pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(usage) => return failure::usage(&usage),
    };
    let screen = Screen::new(&args.global);
    log::listen(screen);
    match run(args, screen) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Stopped(signal)) => {
            failure::report(&Error::new(ErrorKind::Cancelled, "interrupted"), screen);
            stop::end_by(signal)
        }
        Err(error) => failure::report(&error, screen),
    }
}

/// How a run ends that does not fail.
enum Outcome {
    Done,
    Stopped(Signal),
}

fn run(args: Args, screen: Screen) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::io("starting threads", e))?;
    // Dropping the runtime waits for its blocking threads, and those take their temporary files with them.
    runtime.block_on(async {
        tokio::select! {
            outcome = verb(args, screen) => outcome.map(|()| Outcome::Done),
            signal = stop::asked() => signal.map(Outcome::Stopped),
        }
    })
}

async fn verb(args: Args, screen: Screen) -> Result<()> {
    let Args { global, verb } = args;
    let session = Session::open(&global, screen);
    let places = || Places::new(&global, screen);
    match verb {
        Verb::Pull { image, policy, force, verify } => {
            let fetch = Fetch { policy: policy.map(Into::into), force, verify, materializer: None };
            store::pull_image(&session.await?, &image, fetch).await
        }
        #[cfg(feature = "registry")]
        Verb::Login(options) => login::store(options, &global, screen).await,
        #[cfg(feature = "registry")]
        Verb::Logout { registry, authfile } => login::forget(registry, authfile, &global, screen).await,
        Verb::List => kept::list(&session.await?).await,
        Verb::Inspect { image, raw, remote } => {
            let places = places()?;
            // What is on this machine is shown as it is there: asking costs nothing.
            if remote || !places.image(&image)?.is_remote(&places.backends) {
                return store::inspect_remote(&places, &image, raw).await;
            }
            store::inspect(&session.await?, &image, raw).await
        }
        Verb::Materialize(options) => materialize::make(&session.await?, options).await,
        Verb::Layer { tar, out, no_digests } => layer::make(tar, out, !no_digests, screen).await,
        Verb::Disk(disk) => disk::make(disk, screen).await,
        Verb::Load { archive } => store::load(&session.await?, &archive).await,
        Verb::Export { image, out } => export::write(&session.await?, &image, out).await,
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
        Verb::Gc { dry_run, budget, grace } => kept::collect(&session.await?, dry_run, budget, grace).await,
        Verb::Verify { images, repair } => verify::check(&session.await?, &images, repair).await,
        Verb::Backends => backends::list(screen),
        Verb::Completions { shell } => backends::completions(shell),
    }
}
