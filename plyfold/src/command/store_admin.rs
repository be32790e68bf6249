//! `list`, `remove`, `pin`, `unpin` and `gc`: administration of the store.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::cache::{ImageUsage, Missed, PartialBlob};
use crate::{
    CacheProvider as _, CacheProviderExt as _, Collect, Collected, Descriptor, Digest, Error, NameChange,
    Reference, Result, Usage, printable, reference,
};
use serde_json::{Value, json};

use super::age::ago;
use super::context::refuse_digest;
use super::program;
use super::progress::short;
use super::session::Session;
use super::size::Size;
use super::suggestions;
use super::terminal::{columns, table_within};

/// How long partial downloads wait for the next pull.
pub(crate) const RESUMABLE: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) async fn list(session: &Session, no_trunc: bool) -> Result<()> {
    let usage = session.images.usage().await?;
    let away = in_fleet_alone(session, &usage).await?;
    let images: Vec<Value> = usage.images.iter().map(image).collect();
    let partial =
        |it: &PartialBlob| json!({ "digest": it.digest, "size": it.size, "used": seconds(it.used) });
    let mut document = json!({
        "images": images,
        "blobs": usage.blobs,
        "artifacts": usage.artifacts,
        "unused": usage.unused,
        "partials": usage.partials.iter().map(partial).collect::<Vec<_>>(),
    });
    if session.context.fleet.is_some() {
        let named = |(name, found): &(Reference, Descriptor)| json!({ "reference": name.whole(), "digest": found.digest(), "media_type": found.media_type() });
        document["fleet"] = away.iter().map(named).collect();
    }
    session.terminal.show(&document, || {
        let called = |name: &Reference, digest: &Digest| {
            [
                if no_trunc { name.whole() } else { familiar(name) },
                if no_trunc { digest.to_string() } else { short(digest).to_owned() },
            ]
        };
        let row = |image: &ImageUsage| {
            let [name, digest] = called(&image.reference, image.descriptor.digest());
            [
                name,
                digest,
                Size(image.size).to_string(),
                Size(image.unique).to_string(),
                image.used.map_or_else(|| "-".to_owned(), ago),
                if image.pinned { "yes".to_owned() } else { String::new() },
            ]
        };
        let row_of_fleet = |(name, found): &(Reference, Descriptor)| {
            let [name, digest] = called(name, found.digest());
            let none = || "-".to_owned();
            [name, digest, none(), none(), "in the fleet".to_owned(), String::new()]
        };
        let head = ["IMAGE", "DIGEST", "SIZE", "UNIQUE", "USED", "PINNED"];
        let columns = columns().filter(|_| !no_trunc);
        let rows = usage.images.iter().map(row).chain(away.iter().map(row_of_fleet));
        table_within(columns, head, &rows.collect::<Vec<_>>()) + &totals(&usage)
    })
}

/// The names that the fleet has, and this machine has not.
async fn in_fleet_alone(session: &Session, usage: &Usage) -> Result<Vec<(Reference, Descriptor)>> {
    if session.context.fleet.is_none() {
        return Ok(Vec::new());
    }
    let here: HashSet<String> = usage.images.iter().map(|image| image.reference.whole()).collect();
    let mut names = session.images.list_cached().await?;
    names.retain(|(name, _)| !here.contains(&name.whole()));
    Ok(names)
}

/// The short form of a name: without the parts that every verb adds, and with a short digest.
pub(crate) fn familiar(name: &Reference) -> String {
    let whole = name.whole();
    let about = name.tag().filter(|_| reference::is_about_images(name));
    let hex = about.and_then(|tag| tag.split_once('-')?.1.split('.').next());
    let whole = match hex {
        Some(hex) => whole.replace(hex, &format!("{}…", &hex[..12])),
        None => whole,
    };
    let whole = match name.digest().and_then(|digest| digest.split_once(':')) {
        Some((algorithm, hex)) if hex.len() > 12 => {
            whole.replace(&format!("{algorithm}:{hex}"), &format!("{algorithm}:{}…", &hex[..12]))
        }
        _ => whole,
    };
    let on_hub = whole.strip_prefix("docker.io/").map(|name| name.strip_prefix("library/").unwrap_or(name));
    on_hub.map_or(whole.clone(), str::to_owned)
}

/// The error for an image where none is expected.
pub(crate) fn no_files(image: &str) -> Error {
    let image = printable(image);
    Error::config("all images of the store are listed, and no image by itself").with_image(&image).with_hint(
        format!(
            "`plyfold ls {image}` lists the files of an image, `plyfold inspect {image}` shows the image"
        ),
    )
}

/// Gives an image of the store one more name.
pub(crate) async fn tag(session: &Session, image: &str, name: &str) -> Result<()> {
    let from = session.stored(image).await?;
    let to = new_name(session, name)?;
    let descriptor = suggestions::known(&session.images, &from).await?;
    let before = session.images.cache().find_descriptor(&to).await?;
    session.images.cache().descriptor_write(&to, &descriptor).await?;
    show_named(session, &to, &descriptor, before.as_ref())
}

/// Shows what a name of the store stands for now, and what it stood for before, where that is another image.
pub(crate) fn show_named(
    session: &Session,
    name: &Reference,
    now: &Descriptor,
    before: Option<&Descriptor>,
) -> Result<()> {
    let digest = now.digest();
    let replaced = before.map(Descriptor::digest).filter(|before| *before != digest);
    let document = json!({ "reference": name.whole(), "digest": digest, "replaced": replaced });
    session.terminal.show(&document, || {
        let replaced = replaced.map_or_else(String::new, |digest| format!(", replaced {digest}"));
        format!("{name}  {digest}{replaced}\n")
    })
}

/// A name in the store that an image is to have.
pub(crate) fn new_name(session: &Session, name: &str) -> Result<Reference> {
    match session.context.name(name)? {
        Some(name) if name.digest().is_none() => refuse_digest(&name).map(|()| name),
        Some(_) => Err(Error::config("the new name must be a tag, not a digest").with_image(printable(name))),
        None => {
            let error = Error::config("the target must be a name in the store, not a place")
                .with_image(printable(name));
            Err(error.with_hint("write [HOST/]REPOSITORY:TAG; `plyfold push` copies to another place"))
        }
    }
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn image(image: &ImageUsage) -> Value {
    json!({
        "reference": image.reference.whole(),
        "digest": image.descriptor.digest(),
        "media_type": image.descriptor.media_type(),
        "size": image.size,
        "unique": image.unique,
        "used": image.used.and_then(seconds),
        "pinned": image.pinned,
    })
}

/// The store as a whole, where it holds anything.
fn totals(usage: &Usage) -> String {
    let total = usage.blobs + usage.artifacts;
    if total == 0 && usage.partials.is_empty() {
        return String::new();
    }
    let unused = match usage.unused {
        0 => String::new(),
        unused => format!("; `{} gc` frees {}", program::name(), Size(unused)),
    };
    let partials = match usage.partials.len() {
        0 => String::new(),
        count => format!(
            "{} ({}): pulling again resumes, `{} gc --partial` drops\n",
            counted(count as u64, "partial download", "partial downloads"),
            Size(usage.partial()),
            program::name()
        ),
    };
    format!("\n{} in all{unused}\n{partials}", Size(total))
}

pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

pub(crate) fn leftovers(count: u64) -> String {
    counted(count, "leftover of an interrupted process", "leftovers of interrupted processes")
}

/// Changes names, all of them or none, and shows which; `what` was done to them.
pub(crate) async fn change(
    session: &Session,
    images: &[String],
    change: fn(Reference) -> NameChange,
    what: &str,
) -> Result<()> {
    let names = session.known(images).await?;
    let changes: Vec<NameChange> = names.iter().cloned().map(change).collect();
    session.images.cache().update(&changes).await?;
    let document = json!({ what: names.iter().map(Reference::whole).collect::<Vec<_>>() });
    session.terminal.show(&document, || lines(&names, what))
}

fn lines(names: &[Reference], what: &str) -> String {
    names.iter().map(|name| format!("{name} {what}\n")).collect::<Vec<_>>().concat()
}

pub(crate) async fn collect(session: &Session, policy: Collect) -> Result<()> {
    let Collect { budget, dry_run, .. } = policy;
    let collected = session.images.collect(&policy).await?;
    let document = json!({
        "dry_run": dry_run,
        "evicted": collected.evicted.iter().map(Reference::whole).collect::<Vec<_>>(),
        "blobs": collected.blobs,
        "artifacts": collected.artifacts,
        "partials": collected.partials,
        "remains": collected.remains,
        "freed": collected.freed,
        "kept": collected.kept,
        "resumable": collected.resumable,
        "missed": collected.missed,
    });
    // As JSON the document says it.
    if let (Some(missed), Some(budget), false) = (collected.missed, budget, session.terminal.json) {
        session.terminal.say("warning", &beyond(collected.kept, budget, missed));
    }
    session.terminal.show(&document, || summary(&collected, dry_run))
}

/// By how much a budget is missed, and what needs the room.
fn beyond(kept: u64, budget: u64, missed: Missed) -> String {
    let reasons = [
        (missed.pinned, "by pinned images"),
        (missed.leased, "by work that goes on"),
        (missed.recent, "by what was used within the grace"),
    ];
    let reasons = reasons.iter().filter(|(bytes, _)| *bytes > 0);
    let reasons: Vec<String> = reasons.map(|(bytes, why)| format!("{} {why}", Size(*bytes))).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    format!(
        "{} are in use, {} more than the budget of {}{reasons}",
        Size(kept).against(Size(budget)),
        Size(missed.bytes),
        Size(budget).against(Size(kept)),
    )
}

fn summary(collected: &Collected, dry_run: bool) -> String {
    let Collected { evicted, blobs, artifacts, partials, remains, freed, kept, resumable, .. } = collected;
    let (removed, freed_word) =
        if dry_run { ("would be removed", "would be freed") } else { ("removed", "freed") };
    let counts = [
        (blobs.len() as u64, counted(blobs.len() as u64, "blob", "blobs")),
        (*artifacts, counted(*artifacts, "artifact", "artifacts")),
        (partials.len() as u64, counted(partials.len() as u64, "partial download", "partial downloads")),
        (*remains, leftovers(*remains)),
    ];
    let counts: Vec<String> =
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(_, words)| words).collect();
    let what = if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") };
    let waiting = match resumable {
        0 => String::new(),
        waiting => format!("{} of partial downloads are kept: --partial removes them\n", Size(*waiting)),
    };
    let outcome = format!("{what} {removed}: {} {freed_word}, {} in use\n", Size(*freed), Size(*kept));
    lines(evicted, removed) + &outcome + &waiting
}
