//! The process that is killed: it opens a store, pulls and evicts images, and says how it went.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use plyfold_core::{
    CacheProvider as _, Collect, ImageRegistry, NameChange, PullOptions, PullResult, Result, reference,
};
use plyfold_erofs::ErofsLayer;
use plyfold_layout::{Config, Layout, Store};

/// Set for a worker: the store.
pub(crate) const STORE: &str = "PLYFOLD_TEST_STORE";
/// Set for a worker: the layout that it pulls from.
pub(crate) const ORIGIN: &str = "PLYFOLD_TEST_ORIGIN";
/// Set for a worker: the images to pull, separated by spaces; without it they come line by line.
pub(crate) const ORDERS: &str = "PLYFOLD_TEST_ORDERS";
/// Stands in front of an image that is to be evicted, and what it alone needs with it.
pub(crate) const EVICT: char = '-';

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
    let obey = |order: &str, concurrency: usize| -> Result<()> {
        runtime.block_on(async {
            match order.strip_prefix(EVICT) {
                Some(image) => evict(image, &store).await,
                None => pull_from(origin.as_ref(), order, &store, concurrency).await.map(drop),
            }
        })?;
        say(&format!("{DONE}{order}"));
        Ok(())
    };
    match env::var(ORDERS) {
        // Step by step the same each time.
        Ok(orders) => orders.split_whitespace().try_for_each(|order| obey(order, 1)),
        Err(_) => io::stdin().lines().try_for_each(|order| obey(&order?, 4)),
    }
}

/// Evicts one image: all others are pinned, and nothing fits the budget.
async fn evict(image: &str, store: &Store) -> Result<()> {
    let image = reference::parse(image)?;
    let others = store.list().await?.into_iter().filter(|(name, _)| *name != image);
    store.update(&others.map(|(name, _)| NameChange::Pin(name)).collect::<Vec<_>>()).await?;
    let policy = Collect { budget: Some(0), grace: Duration::ZERO, ..Collect::default() };
    store.collect(&policy).await.map(drop)
}

fn say(line: &str) {
    // A parent that is gone hears nothing.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Pulls one image from a layout, so many layers at once, each into an EROFS image.
pub(crate) async fn pull_from(
    origin: &Path,
    image: &str,
    store: &Store,
    concurrency: usize,
) -> Result<PullResult> {
    pull(&Layout::new(origin, Config::default()), image, store, concurrency).await
}

/// As [`pull_from`], from any registry.
pub(crate) async fn pull(
    registry: &dyn ImageRegistry,
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
    plyfold_core::pull(registry, &reference::parse(image)?, store, &options).await
}
