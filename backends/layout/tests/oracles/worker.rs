//! The process that is killed: it opens a store, pulls images, and says how it went.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use plyfold_core::{PullOptions, PullResult, Result, pull, reference};
use plyfold_erofs::ErofsLayer;
use plyfold_layout::{Config, Layout, Store};

/// Set for a worker: the store.
pub(crate) const STORE: &str = "PLYFOLD_TEST_STORE";
/// Set for a worker: the layout that it pulls from.
pub(crate) const ORIGIN: &str = "PLYFOLD_TEST_ORIGIN";
/// Set for a worker: the images, separated by spaces; without it they come line by line.
pub(crate) const IMAGES: &str = "PLYFOLD_TEST_IMAGES";

/// What a worker prints, in front of the image's name, when its pull was reported as a success.
pub(crate) const DONE: &str = "done ";
/// What a worker prints, in front of the error's kind.
pub(crate) const FAILED: &str = "failed ";

/// The worker, when this process is one. It dies with its parent.
pub(crate) fn child() -> Option<ExitCode> {
    let (store, origin) = (env::var_os(STORE)?, env::var_os(ORIGIN)?);
    let killed = Some(rustix::process::Signal::KILL);
    let outcome = rustix::process::set_parent_process_death_signal(killed)
        .map_err(|e| plyfold_core::Error::io("asking to die with the parent", e.into()))
        .and_then(|()| work(&store, &origin));
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("{FAILED}{:?} {e}", e.kind()));
            ExitCode::FAILURE
        }
    })
}

fn work(store: &OsStr, origin: &OsStr) -> Result<()> {
    let store = Store::open(store)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pull = |image: &str, concurrency: usize| -> Result<()> {
        runtime.block_on(pull_from(origin.as_ref(), image, &store, concurrency))?;
        say(&format!("{DONE}{image}"));
        Ok(())
    };
    match env::var(IMAGES) {
        // Step by step the same each time.
        Ok(images) => images.split_whitespace().try_for_each(|image| pull(image, 1)),
        Err(_) => io::stdin().lines().try_for_each(|image| pull(&image?, 4)),
    }
}

fn say(line: &str) {
    // A parent that is gone hears nothing.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Pulls one image, so many layers at once, each into an EROFS image.
pub(crate) async fn pull_from(
    origin: &Path,
    image: &str,
    store: &Store,
    concurrency: usize,
) -> Result<PullResult> {
    let options = PullOptions {
        concurrency,
        materializer: Some(Box::new(ErofsLayer::default())),
        platform: "linux/amd64".parse()?,
        ..PullOptions::default()
    };
    pull(&Layout::new(origin, Config::default()), &reference::parse(image)?, store, &options).await
}
