//! `sync`: the images of a list into one place.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::context::Context;
use super::copy_args::Sparse;
use super::image::Image;
use super::layer::{Input, refuse_terminal};
use super::path::{self, Written};
use super::progress::Doing;
use super::replaced::{refuse_in, refuse_same, refuse_within};
use super::save::{NOTHING_LEFT_OUT, of_base};
use super::session::Session;
use super::size::Size;
use super::store_place::StorePlace;
use super::store_use::not_there;
use super::sync_args::{STORE, Sync};
use super::terminal::write;
use crate::atomic_file::{AtomicFile, FileOptions};
use crate::blocking::blocking;
use crate::memory::MemoryCache;
use crate::sync::list::{OfLine, is_written};
use crate::{
    Advice, Backends, Error, Images, Location, Result, SyncChange, SyncFault, SyncList, SyncOptions,
    SyncReport, SyncTarget, SyncedName, printable, reference, shell,
};

/// How lists end.
const LIST: &str = ".toml";

pub(crate) async fn bring(
    options: Sync,
    context: impl Fn() -> Result<Context>,
    session: impl Future<Output = Result<Session>>,
) -> Result<()> {
    let context = context()?;
    let to_pipe = options.report.as_deref() == Some(Path::new("-"));
    if to_pipe && context.terminal.json {
        let error = Error::config("the report and the document of --json cannot both be standard output");
        return Err(error.with_hint("the document has the report; --report FILE writes it to a file, too"));
    }
    let of_store = options.source == STORE;
    let is_list = is_list(&context, &options.source);
    if is_list {
        refuse_choice(&context, &options)?;
    }
    let list = match &options.source {
        _ if of_store => None,
        list if is_list => Some(read(PathBuf::from(list)).await?),
        word => Some(place(&context, word)?),
    };
    let names_store = list.as_ref().is_some_and(|list| list.has_name(STORE));
    let mut target = target(&context, &options.target)?;
    let named: Vec<&str> =
        list.iter().flat_map(|list| &list.entries).map(|entry| entry.name.as_str()).collect();
    refuse_replacing(&options, &target, &named, &context.backends)?;
    let mut since = Vec::with_capacity(options.since.len());
    let uses_store =
        of_store || names_store || matches!(target, SyncTarget::Cache) || !options.since.is_empty();
    let images = if uses_store {
        let session = session.await?;
        match &session.absent {
            Some(store) if names_store => return Err(not_there(store)),
            Some(store) if matches!(target, SyncTarget::Cache) => {
                target = new_store(&context, store)?;
            }
            _ => {}
        }
        for base in &options.since {
            let base = of_base(&session, base)?;
            refuse_replacing(&options, &target, &[&base], &context.backends)?;
            since.push(session.images.save_base(&base).await?);
        }
        let store = session.images.cache().to_string();
        refuse_replacing(&options, &target, &[&store], &context.backends)?;
        session.images
    } else {
        // Nothing comes into a store.
        Images::with_cache(MemoryCache::new()?)?
            .with_backends(context.backends.clone())
            .with_options(context.options.clone())
    };
    let store = images.cache().to_string();
    let list = match list {
        Some(list) if is_list => list.with_place(STORE, &store),
        list => chosen(list.unwrap_or_else(|| SyncList::of_place(&store)), &context, &options),
    };
    let list = if options.no_referrers { list.without_referrers() } else { list };
    // Before anything is moved: a report that cannot be written is an error then.
    if let Some(path) = options.report.clone().filter(|_| !to_pipe) {
        blocking(move |stop| AtomicFile::create(&path, FileOptions::default(), stop).map(drop)).await?;
    }
    let brought = context.telling(Doing::Copy, |progress| {
        let sync = SyncOptions {
            dry_run: options.dry_run,
            progress,
            refresh: options.refresh,
            retry: context.retry,
            since,
            ..SyncOptions::default()
        };
        let (images, list, target) = (&images, &list, &target);
        async move { images.sync(list, target, &sync).await }
    });
    let report =
        brought.await.map_err(|e| if is_list { in_list(e, &options) } else { in_place(e, &options) })?;
    if !options.since.is_empty() && report.left_out == 0 {
        context.terminal.say("warning", NOTHING_LEFT_OUT);
    }
    if to_pipe {
        return write(&report.to_json());
    }
    if let Some(path) = options.report {
        let json = report.to_json();
        blocking(move |stop| {
            let mut file = AtomicFile::create(&path, FileOptions::default(), stop)?;
            file.write_all(&json).map_err(|e| Error::io("writing the report", e))?;
            file.publish()
        })
        .await?;
    }
    let document = json!({ "digest": report.digest(), "report": report.document() });
    context.terminal.show(&document, || text(&report))
}

/// What a run would make at this path: a look at it makes nothing.
fn new_store(context: &Context, store: &StorePlace) -> Result<SyncTarget> {
    let message = format!("there is no store at {store}: a run without --dry-run makes it");
    context.terminal.say("warning", &message);
    // A look through the cache makes nothing in a bucket.
    let StorePlace::Directory(store) = store else { return Ok(SyncTarget::Cache) };
    let path = std::path::absolute(store);
    let path = path.map_err(|e| Error::io(format!("finding {}", store.display()), e))?;
    Ok(SyncTarget::Place(format!("oci:{}", path.display())))
}

/// Refuses files that would replace what they are made of, or each other: `named` are places of images that are read.
fn refuse_replacing(options: &Sync, target: &SyncTarget, named: &[&str], backends: &Backends) -> Result<()> {
    let place = match target {
        SyncTarget::Place(place) => Some(place.as_str()),
        SyncTarget::Cache => None,
    };
    if let Some(report) = options.report.as_ref().filter(|report| report.as_os_str() != "-") {
        refuse_same(Path::new(&options.source), report)?;
        place.iter().chain(named).try_for_each(|place| refuse_in(place, report, backends))?;
    }
    let Some(place) = place else { return Ok(()) };
    let archive = Location::parse(place).ok().filter(|at| at.scheme.ends_with("archive"));
    let Some(archive) = archive.as_ref().map(|at| Path::new(at.path_and_image().0)) else {
        return named.iter().try_for_each(|named| refuse_within(named, place, backends));
    };
    refuse_same(Path::new(&options.source), archive)?;
    named.iter().try_for_each(|named| refuse_in(named, archive, backends))
}

/// What the flags choose of a place.
fn chosen(place: SyncList, context: &Context, options: &Sync) -> SyncList {
    let place = place.with_platforms(&context.platforms());
    match options.sparse {
        Some(sparse) => place.with_sparse(sparse.into()),
        None => place,
    }
}

fn is_list(context: &Context, word: &str) -> bool {
    word == "-" || word.ends_with(LIST) && !context.backends.knows(word)
}

/// Refuses to choose by flags what a list says of each image.
fn refuse_choice(context: &Context, options: &Sync) -> Result<()> {
    if !context.only.is_empty() {
        let error = Error::config("the list says which platforms are brought");
        return Err(
            error.with_hint("write `platforms = [\"linux/amd64\"]` into it, for an image or as a default")
        );
    }
    if options.sparse.is_some() {
        let error = Error::config("the list says what becomes of an index");
        return Err(error.with_hint("write `sparse = \"rewrite\"` into it, for an image or as a default"));
    }
    Ok(())
}

/// A place of images as a list of all that it has.
fn place(context: &Context, word: &str) -> Result<SyncList> {
    if let Some(place) = path::existing(word, &context.backends) {
        return Ok(SyncList::of_place(place));
    }
    // `HOST/PREFIX/`.
    if word.ends_with('/') && !word.starts_with('.') && path::is_host(word) {
        return Ok(SyncList::of_place(word));
    }
    Ok(SyncList::of_place(match Image::parse(word, &context.backends)? {
        // A tag is never guessed: it is the repository.
        Image::Name(name) if !is_written(&name, word) => reference::repository_of(&name),
        image => image.text(),
    }))
}

/// Puts an error into the words of lists, and names the list that its line is of.
fn in_list(error: Error, options: &Sync) -> Error {
    let hint = match error.advice() {
        Some(Advice::LoadBase { bases }) => Some(of_base_first(bases, &options.target)),
        Some(Advice::LeaveReferrers) => Some(
            "`referrers = false` in the list, or --no-referrers, brings the images without what refers to them"
                .to_owned(),
        ),
        Some(Advice::RewriteIndex) => Some(
            "`sparse = \"rewrite\"` brings an index of what is brought, with another digest; `sparse = \"keep\"` the \
             index as it is, where the target takes it"
                .to_owned(),
        ),
        Some(Advice::ChoosePart) => Some(
            "`platforms` in the list chooses of it, `sparse = \"rewrite\"` brings an index of what is there, with another \
             digest"
                .to_owned(),
        ),
        Some(Advice::ChoosePlatform { available }) => {
            Some(format!("it is available for {}; `platforms` in the list chooses", available.join(", ")))
        }
        _ => None,
    };
    let error = match hint {
        Some(hint) => error.with_better_hint(hint),
        None => error,
    };
    let is_of_line = error.detail::<OfLine>().is_some() || error.detail::<SyncFault>().is_some();
    if is_of_line { error.with_context("path", &options.source) } else { error }
}

/// Puts an error into the words of places, which flags choose of.
fn in_place(error: Error, options: &Sync) -> Error {
    let is_rewritten = options.sparse == Some(Sparse::Rewrite);
    let hint = match error.advice() {
        Some(Advice::LoadBase { bases }) => of_base_first(bases, &options.target),
        Some(Advice::LeaveReferrers) => {
            "--no-referrers brings the images without what refers to them".to_owned()
        }
        Some(Advice::RewriteIndex | Advice::ChoosePart) if !is_rewritten => {
            "--sparse rewrite brings of each index what is there, with another digest; one --platform brings the image for it \
             alone, of every image"
                .to_owned()
        }
        Some(Advice::ChoosePlatform { available }) => format!(
            "it is available for {}: without --platform all of it is brought{}",
            available.join(", "),
            if is_rewritten { "" } else { ", and with --sparse rewrite what is there of it" },
        ),
        _ if error.detail::<SyncFault>().is_some() && options.source != STORE => {
            return error.with_context("path", &options.source);
        }
        _ => return error,
    };
    error.with_better_hint(hint)
}

fn of_base_first(bases: &[String], target: &str) -> String {
    let bases = bases.join(", ");
    format!("the archive was made against {bases}: bring that to {target} first, and then the archive")
}

/// Reads a list from a file, or from a pipe until that ends.
async fn read(path: PathBuf) -> Result<SyncList> {
    refuse_terminal(&path)?;
    let place = path.clone();
    let read = blocking(move |stop| {
        if place != Path::new("-") && !place.exists() {
            return Err(Error::not_found("there is no such list"));
        }
        let mut text = String::new();
        let mut input = Input::open(&place, stop)?.take(SyncList::LENGTH as u64 + 1);
        input.read_to_string(&mut text).map_err(|e| Error::io("reading the list", e))?;
        Ok(text)
    });
    let at = |e: Error| e.with_context("path", path.display());
    SyncList::parse(&read.await.map_err(at)?).map_err(at)
}

fn target(context: &Context, word: &str) -> Result<SyncTarget> {
    if word == STORE {
        return Ok(SyncTarget::Cache);
    }
    if let Some(store) = word.strip_prefix("store:") {
        let hint = format!("write `--store {} store`", shell::quoted(Path::new(store)));
        return Err(Error::config("another store is not a target by its path").with_hint(hint));
    }
    if context.backends.knows(word) {
        return Ok(SyncTarget::Place(word.to_owned()));
    }
    path::refuse_foreign(word, true)?;
    if let Some(place) = Written::place(word)? {
        return Ok(SyncTarget::Place(place));
    }
    if path::is_host(word) {
        return Ok(SyncTarget::Place(word.to_owned()));
    }
    let hint = "write FILE.tar for an archive, DIR/ for a layout, HOST/[PREFIX] for a registry, or store";
    Err(Error::config("the target is no place for images").with_image(printable(word)).with_hint(hint))
}

fn text(report: &SyncReport) -> String {
    let mut text = String::new();
    let changed = report.names.iter().filter(|name| name.change != SyncChange::Unchanged || name.moved > 0);
    for SyncedName { target, before, after, change, moved, referrers, .. } in changed {
        let replaced = match (change, before) {
            (SyncChange::Replaced, Some(before)) => format!(", replaced {before}"),
            _ => String::new(),
        };
        let size = if *moved > 0 { format!(", {}", Size(*moved)) } else { String::new() };
        let referrers = match referrers.as_ref().map_or(0, Vec::len) {
            0 => String::new(),
            1 => ", with 1 document that refers to it".to_owned(),
            count => format!(", with {count} documents that refer to it"),
        };
        let _ = writeln!(text, "{target}  {after}{replaced}{size}{referrers}");
    }
    for missing in &report.missing {
        let _ = writeln!(text, "{}  not there", printable(missing));
    }
    let count = |change| report.names.iter().filter(|name| name.change == change).count();
    let [added, replaced, unchanged] =
        [SyncChange::Added, SyncChange::Replaced, SyncChange::Unchanged].map(count);
    let would = if report.dry_run { " to move" } else { " moved" };
    let left_out = match report.left_out {
        0 => String::new(),
        left_out => format!(", {} left out", Size(left_out)),
    };
    let _ = writeln!(
        text,
        "{added} added, {replaced} replaced, {unchanged} unchanged: {}{would}, {} there{left_out}",
        Size(report.moved),
        Size(report.present),
    );
    let _ = writeln!(text, "report {}", report.digest());
    text
}
