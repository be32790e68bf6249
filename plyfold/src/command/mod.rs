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

use std::env;
use std::ffi::OsStr;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::{Collect, DiskSet, Error, NameChange, Result};
use clap::FromArgMatches as _;
use rustix::thread::sched_getaffinity;

use args::{Args, Inspect, Verb};
use context::Context;
use session::Session;
use stop::{Leftovers, Signal};
use store_admin::change;
use store_use::{StoreUse, asks};
use terminal::Terminal;

mod age;
mod args;
mod boot;
mod bounds;
mod complete;
mod context;
mod copy_args;
mod damage;
mod diff;
mod diff_args;
mod disk_args;
mod disks_document;
mod edit;
mod edit_args;
mod export;
mod failure;
mod files;
mod global;
mod grammar;
mod hash_tree;
mod hash_trees;
mod hints;
mod image;
mod inspect;
mod inspect_disk;
mod inspect_file_system;
mod inspect_partitions;
mod inspect_set;
mod layer;
mod listed;
mod load;
mod load_args;
mod log;
#[cfg(feature = "registry")]
mod login;
mod machine_args;
mod materialize;
mod one_layer;
mod patch;
mod path;
mod pipe;
mod plugins;
mod program;
mod progress;
mod reading;
mod registry;
mod remote_store;
mod replaced;
mod resize;
mod root_hashes;
mod runtime;
mod save;
mod save_args;
mod sbom;
mod sbom_args;
mod session;
mod shown;
mod size;
mod snapshot;
mod snapshot_args;
mod stop;
mod store;
mod store_admin;
mod store_place;
mod store_to_make;
mod store_use;
mod suggestions;
mod sync;
mod sync_args;
mod terminal;
mod verbs;
mod verify;
mod verity;
mod verity_check;
mod verity_done;
mod verity_options;
mod verity_partitions;
mod verity_place;
mod verity_roots;
mod vmdk_parts;
mod written_files;

/// Runs the program with the process's arguments, and returns its exit code.
///
/// Call it from `main` alone, first and once: it handles the process's signals, listens to its logs, and starts an
/// async runtime.
pub fn main() -> ExitCode {
    if let Some(words) = complete::asked() {
        return complete::answer(&words);
    }
    // The end of the process frees the grammar at once: piece by piece takes a fiftieth of a short run.
    let mut grammar = ManuallyDrop::new(grammar::grammar());
    let args = grammar.try_get_matches_from_mut(env::args_os());
    let args = args.and_then(|found| Args::from_arg_matches(&found));
    let args = match args {
        Ok(args) => args,
        Err(usage) => return failure::usage(&usage),
    };
    let terminal = Terminal::new(&args.global);
    log::listen(terminal);
    let leftovers = Arc::default();
    match run(args, terminal, &leftovers) {
        Ok(End::Of(code)) => code,
        Ok(End::By(signal)) => {
            failure::report(&stop::interrupted(&leftovers), terminal.json);
            stop::end_by(signal)
        }
        Err(error) => failure::report(&error, terminal.json),
    }
}

/// The longest that the program waits, at its end, for threads that have been cancelled.
/// It is more than any of them waits for another.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest that the program waits, at its end, for what its cache has not ended yet.
const SETTLING: Duration = Duration::from_secs(5);

/// Threads for tasks: one for each processor, but no more than transfers keep busy. The default of the runtime reads
/// the files of control groups first, which takes longer than starting a thread.
fn workers() -> usize {
    let processors = sched_getaffinity(None).map_or(8, |set| set.count() as usize);
    processors.clamp(1, 8)
}

/// How a verb has ended.
enum End {
    Of(ExitCode),
    By(Signal),
}

/// Runs a verb until its end, or until a signal asks for it.
fn run(args: Args, terminal: Terminal, leftovers: &Arc<Leftovers>) -> Result<End> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build();
    let runtime = runtime.map_err(|e| Error::io("starting threads", e))?;
    let outcome = runtime.block_on(async {
        let signals = stop::listen()?;
        let outcome = tokio::select! {
            outcome = explained(args, terminal, leftovers) => outcome.map(End::Of),
            signal = signals.asked() => Ok(End::By(signal)),
        };
        if let Some(cache) = leftovers.cache.get() {
            // What other machines wait for is ended in the bucket, and has no need to expire.
            let _ = tokio::time::timeout(SETTLING, cache.settle()).await;
        }
        outcome
    });
    // Threads take their temporary files with them when they end. A disk that hangs does not keep the program.
    runtime.shutdown_timeout(PATIENCE);
    outcome
}

async fn explained(args: Args, terminal: Terminal, leftovers: &Arc<Leftovers>) -> Result<ExitCode> {
    match Box::pin(verb(args, terminal, leftovers)).await {
        Err(e) => Err(damage::explained(e, leftovers.cache.get().map(|cache| &**cache)).await),
        done => done,
    }
}

async fn verb(args: Args, terminal: Terminal, leftovers: &Arc<Leftovers>) -> Result<ExitCode> {
    let Args { global, verb } = args;
    let takes_several = matches!(
        verb,
        Verb::Append(_)
            | Verb::Config(_)
            | Verb::Copy(_)
            | Verb::Load(_)
            | Verb::Push(_)
            | Verb::Save(_)
            | Verb::Sync(_)
    );
    if let ([_, second, ..], false) = (global.platform.as_slice(), takes_several) {
        return Err(Error::config(format!("one platform is needed here, and {second} is another one")));
    }
    let session = Session::open(&global, terminal, leftovers, StoreUse::of(&verb), asks(&verb));
    let context = || Context::new(&global, terminal, leftovers);
    let done = match verb {
        Verb::Materialize(options) => return materialize::make(&session.await?, options).await,
        Verb::Boot(options) => return boot::start(options, terminal).await,
        Verb::Pull(options) => store::pull_image(&session.await?, options).await,
        #[cfg(feature = "registry")]
        Verb::Login(options) => login::store(options, &global, terminal).await,
        #[cfg(feature = "registry")]
        Verb::Logout { registry, authfile } => login::forget(registry, authfile, &global, terminal).await,
        Verb::List { image: Some(image), .. } => Err(store_admin::no_files(&image)),
        Verb::List { no_trunc, image: None } => store_admin::list(&session.await?, no_trunc).await,
        Verb::Ls(options) => match options.image.clone() {
            None => store_admin::list(&session.await?, false).await,
            Some(image) => files::ls(session, image, options, terminal).await,
        },
        Verb::Diff(options) => diff::show(&session.await?, options).await,
        Verb::Cat(options) => files::cat(session, options, terminal).await,
        Verb::Append(options) => edit::append(&session.await?, options).await,
        Verb::Config(options) => edit::configure(&session.await?, options).await,
        Verb::Tag { image, name } => store_admin::tag(&session.await?, &image, &name).await,
        Verb::Inspect(options) => inspect(&options, context, session, terminal).await,
        Verb::Layer(options) => layer::make(options, terminal).await,
        Verb::Disk(disk) => layer::make_disk(disk, terminal).await,
        Verb::Patch(options) => patch::apply(options, terminal).await,
        Verb::Resize(options) => resize::grow(options, terminal).await,
        Verb::Verity(options) => match options.format.clone() {
            Some(format) => Box::pin(root_hashes::show(&session.await?, options, &format)).await,
            None => verity::run(options, terminal).await,
        },
        Verb::Snapshot(verb) => snapshot::run(verb, session, terminal).await,
        Verb::Load(options) => load::load(&session.await?, options).await,
        Verb::Save(options) => save::write(&session.await?, options).await,
        Verb::Sbom(options) => sbom::show(&session.await?, options).await,
        Verb::Export(options) => export::write(&session.await?, options).await,
        Verb::Copy(options) => registry::copy_image(&context()?, options).await,
        Verb::Push(options) => registry::push(&session.await?, options).await,
        Verb::Sync(options) => sync::bring(options, context, session).await,
        Verb::Tags { repository } => registry::tags(&context()?, &repository).await,
        Verb::Delete { image, blob } => registry::delete(&context()?, &image, blob).await,
        Verb::Remove { images } => change(&session.await?, &images, NameChange::Remove, "removed").await,
        Verb::Pin { images } => change(&session.await?, &images, NameChange::Pin, "pinned").await,
        Verb::Unpin { images } => change(&session.await?, &images, NameChange::Unpin, "unpinned").await,
        Verb::Gc { dry_run, budget, grace, partial } => {
            let resumable = if partial { Duration::ZERO } else { store_admin::RESUMABLE };
            store_admin::collect(&session.await?, Collect { budget, dry_run, grace, resumable }).await
        }
        Verb::Verify { images, repair } => verify::check(&session.await?, &images, repair).await,
        Verb::Backends => plugins::backends(terminal),
        Verb::Formats => plugins::formats(terminal),
        Verb::Stores => plugins::stores(terminal),
        Verb::Completions { shell } => complete::script(shell),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Shows an image, a disk or a directory of disks: what is here by that name decides.
async fn inspect(
    options: &Inspect,
    context: impl Fn() -> Result<Context>,
    session: impl Future<Output = Result<Session>>,
    terminal: Terminal,
) -> Result<()> {
    if options.runtime_spec {
        return runtime::show(&session.await?, options).await;
    }
    let image = OsStr::new(&options.image);
    if !options.remote && DiskSet::is_in(Path::new(image)) {
        return inspect_set::show(Path::new(image), options, terminal);
    }
    let disk = if options.remote { None } else { files::disk(image)? };
    if let Some(disk) = disk {
        return inspect_disk::show(&disk, options, terminal).await;
    }
    let context = context()?;
    // Directories and archives are read in place: that needs no network.
    if options.remote || !context.image(&options.image)?.is_remote(&context.backends) {
        return inspect::there(&context, options).await;
    }
    inspect::here(&session.await?, options).await
}
