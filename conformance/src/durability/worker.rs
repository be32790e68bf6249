//! The process that is killed: it opens a cache, pulls and evicts images, and says how it went.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use async_trait::async_trait;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Blob, BlobRange, CacheProvider, Collect, Descriptor, Error, ErrorKind, ImageRegistry, NameChange,
    PullOptions, PullResult, RawManifest, Reference, Result, pull, reference,
};

use super::artifact::Summed;
use super::fixture::DurabilityFixture;
use super::image;
use crate::FixtureImage;
use crate::fixtures::fill;
use crate::oracle::{Failure, Run};
use crate::samples::Sample;

/// Set for a worker: the name of its fixture.
const FIXTURE: &str = "PLYFOLD_DURABILITY_FIXTURE";
/// Set for a worker: the cache's directory.
const STORE: &str = "PLYFOLD_DURABILITY_STORE";
/// Set for a worker: what to do, separated by spaces; without it orders come line by line.
const ORDERS: &str = "PLYFOLD_DURABILITY_ORDERS";
/// Stands in front of an image that is to be evicted, with what it alone needs.
pub(super) const EVICT: char = '-';

/// What a worker prints, in front of the order, when it was reported as a success.
pub(super) const DONE: &str = "done ";
/// What a worker prints, in front of the error's kind.
pub(super) const FAILED: &str = "failed ";

/// The child process of these tests, when this process is one: with one of `fixtures`, by its name, it does what it was
/// told. It ends with its parent.
pub fn child(fixtures: &[&'static dyn DurabilityFixture]) -> Option<ExitCode> {
    let (name, directory) = (env::var(FIXTURE).ok()?, env::var_os(STORE)?);
    let fixture = fixtures.iter().find(|fixture| fixture.name() == name)?;
    let killed = Some(rustix::process::Signal::KILL);
    let outcome = rustix::process::set_parent_process_death_signal(killed)
        .map_err(|e| Error::io("asking to die with the parent", e.into()))
        .and_then(|()| work(*fixture, directory.as_ref()));
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("{FAILED}{:?} {e}", e.kind()));
            ExitCode::FAILURE
        }
    })
}

/// Makes a command a worker that does what `orders` say, step by step the same each time.
pub(super) fn directed(run: Run, fixture: &dyn DurabilityFixture, store: &Path, orders: &str) -> Run {
    // Of cargo's folders for libraries each costs a dozen calls before the worker begins.
    let run = run.env("LD_LIBRARY_PATH", "");
    run.env(FIXTURE, fixture.name()).env(STORE, store).env(ORDERS, orders)
}

/// A worker that takes orders line by line.
pub(super) fn commanded(fixture: &dyn DurabilityFixture, store: &Path) -> Result<Command, Failure> {
    let mut command = Command::new(myself()?);
    command.env(FIXTURE, fixture.name()).env(STORE, store).env_remove(ORDERS);
    Ok(command)
}

/// The test binary itself.
pub(super) fn myself() -> Result<PathBuf, Failure> {
    Ok(env::current_exe()?)
}

fn work(fixture: &'static dyn DurabilityFixture, directory: &Path) -> Result<()> {
    let orders = env::var(ORDERS).ok();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    if orders.is_some() {
        runtime.max_blocking_threads(fixture.blocking_threads());
    }
    let runtime = runtime.enable_all().build()?;
    // On the thread that will do the rest: strace counts for each thread.
    let (handle, directory) = (runtime.handle().clone(), directory.to_owned());
    let opened = runtime.spawn_blocking(move || handle.block_on(fixture.open(&directory)));
    let broken = |e| Error::new(ErrorKind::Internal, "opening the cache was cut off").with_source(e);
    let cache = runtime.block_on(opened).map_err(broken)??;
    let obey = |order: &str, concurrency: usize| -> Result<()> {
        runtime.block_on(async {
            match order.strip_prefix(EVICT) {
                Some(image) => evict(image, &*cache).await,
                None => pull_image(order, &*cache, concurrency).await.map(drop),
            }
        })?;
        say(&format!("{DONE}{order}"));
        Ok(())
    };
    match orders {
        Some(orders) => orders.split_whitespace().try_for_each(|order| obey(order, 1)),
        None => io::stdin().lines().try_for_each(|order| obey(&order?, 4)),
    }
}

fn say(line: &str) {
    // A parent that is gone hears nothing.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Evicts one image: all others are pinned, and nothing fits the budget.
pub(super) async fn evict(image: &str, cache: &dyn CacheProvider) -> Result<()> {
    let image = reference::parse(image)?;
    let others = cache.list().await?.into_iter().filter(|(name, _)| *name != image);
    cache.update(&others.map(|(name, _)| NameChange::Pin(name)).collect::<Vec<_>>()).await?;
    let policy = Collect { budget: Some(0), ..Collect::default() };
    cache.collect(&policy).await.map(drop)
}

/// Pulls one image, so many layers at once, each into an artifact.
pub(super) async fn pull_image(
    image: &str,
    cache: &dyn CacheProvider,
    concurrency: usize,
) -> Result<PullResult> {
    pull_from(&Origin::of(image)?, image, cache, concurrency).await
}

/// As [`pull_image`], from a registry that has it.
pub(super) async fn pull_from(
    origin: &dyn ImageRegistry,
    image: &str,
    cache: &dyn CacheProvider,
    concurrency: usize,
) -> Result<PullResult> {
    let options = PullOptions {
        concurrency,
        materializer: Some(Box::new(Summed)),
        platform: "linux/amd64".parse()?,
        ..PullOptions::default()
    };
    pull(origin, &reference::parse(image)?, cache, &options).await
}

/// A registry with one image, which arrives in pieces.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    registry: MemoryRegistry,
    sample: Sample,
}

impl Origin {
    pub(super) fn of(image: &str) -> Result<Self> {
        let (registry, sample) = (MemoryRegistry::new("durability"), image::image(image));
        fill(&registry, &FixtureImage { reference: reference::parse(image)?, sample: &sample });
        Ok(Self { registry, sample })
    }
}

#[async_trait]
impl ImageRegistry for Origin {
    async fn manifest(&self, name: &Reference) -> Result<RawManifest> {
        self.registry.manifest(name).await
    }

    async fn blob(&self, _: &Reference, blob: &Descriptor, range: BlobRange) -> Result<Blob> {
        const PIECE: usize = 100_000;
        let bytes = self.sample.blob(blob.digest()).ok_or_else(|| Error::not_found("no such blob"))?;
        let wanted = range.resolve(bytes.len() as u64)?;
        let bytes = bytes.slice(wanted.start as usize..wanted.end as usize);
        let pieces: Vec<_> = bytes.chunks(PIECE).map(|piece| Ok(bytes.slice_ref(piece))).collect();
        Blob::ranged(blob, wanted, futures_util::stream::iter(pieces))
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.registry.fmt(f)
    }
}
