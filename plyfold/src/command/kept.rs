//! `list`, `remove`, `pin`, `unpin` and `gc`: what stays in the store.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use plyfold::cache::ImageUsage;
use plyfold::{
    CacheProvider as _, Collect, Collected, Error, NameChange, Reference, Result, Usage, printable,
};
use serde_json::{Value, json};

use super::age::ago;
use super::screen::table;
use super::session::Session;
use super::size::Size;

/// How long partial downloads wait for the next pull.
const RESUMABLE: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) async fn list(session: &Session) -> Result<()> {
    let usage = session.images.usage().await?;
    let images: Vec<Value> = usage.images.iter().map(image).collect();
    let document = json!({
        "images": images,
        "blobs": usage.blobs,
        "artifacts": usage.artifacts,
        "unused": usage.unused,
    });
    session.screen.show(&document, || {
        let row = |image: &ImageUsage| {
            [
                printable(&image.reference.whole()).to_string(),
                image.descriptor.digest().to_string(),
                Size(image.size).to_string(),
                Size(image.unique).to_string(),
                image.used.map_or_else(|| "-".to_owned(), ago),
                if image.pinned { "yes".to_owned() } else { String::new() },
            ]
        };
        let head = ["IMAGE", "DIGEST", "SIZE", "UNIQUE", "USED", "PINNED"];
        table(head, &usage.images.iter().map(row).collect::<Vec<_>>()) + &totals(&usage)
    })
}

fn image(image: &ImageUsage) -> Value {
    let since_epoch = |used: SystemTime| used.duration_since(SystemTime::UNIX_EPOCH).ok();
    json!({
        "reference": image.reference.whole(),
        "digest": image.descriptor.digest(),
        "media_type": image.descriptor.media_type(),
        "size": image.size,
        "unique": image.unique,
        "used": image.used.and_then(since_epoch).map(|used| used.as_secs()),
        "pinned": image.pinned,
    })
}

/// The store as a whole, where it holds anything.
fn totals(usage: &Usage) -> String {
    let total = usage.blobs + usage.artifacts;
    if total == 0 {
        return String::new();
    }
    let unused = match usage.unused {
        0 => String::new(),
        unused => format!("; `plyfold gc` frees {}", Size(unused)),
    };
    format!("\n{} in all{unused}\n", Size(total))
}

pub(crate) async fn remove(session: &Session, images: &[String]) -> Result<()> {
    let names = known(session, images).await?;
    change(session, &names, NameChange::Remove).await?;
    let document = json!({ "removed": names.iter().map(Reference::whole).collect::<Vec<_>>() });
    session.screen.show(&document, || lines(&names, "removed"))
}

pub(crate) async fn pin(session: &Session, images: &[String], pinned: bool) -> Result<()> {
    let names = known(session, images).await?;
    change(session, &names, if pinned { NameChange::Pin } else { NameChange::Unpin }).await?;
    let what = if pinned { "pinned" } else { "unpinned" };
    let document = json!({ what: names.iter().map(Reference::whole).collect::<Vec<_>>() });
    session.screen.show(&document, || lines(&names, what))
}

/// The names of these images, all of which are in the store.
async fn known(session: &Session, images: &[String]) -> Result<Vec<Reference>> {
    let here: HashSet<Reference> =
        session.images.list_cached().await?.into_iter().map(|(name, _)| name).collect();
    let mut names: Vec<Reference> = Vec::with_capacity(images.len());
    for image in images {
        let name = session.name(image).await?;
        if !here.contains(&name) {
            return Err(Error::not_found("not in the store")
                .with_image(name)
                .with_hint("`plyfold list` shows what is in the store"));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// All of the changes or none.
async fn change(session: &Session, names: &[Reference], change: fn(Reference) -> NameChange) -> Result<()> {
    let changes: Vec<NameChange> = names.iter().cloned().map(change).collect();
    session.images.store().update(&changes).await
}

fn lines(names: &[Reference], what: &str) -> String {
    names.iter().map(|name| format!("{name} {what}\n")).collect::<Vec<_>>().concat()
}

pub(crate) async fn collect(
    session: &Session,
    dry_run: bool,
    budget: Option<u64>,
    grace: Duration,
) -> Result<()> {
    let policy = Collect { budget, dry_run, grace, resumable: RESUMABLE };
    let collected = session.images.collect(&policy).await?;
    let document = json!({
        "dry_run": dry_run,
        "evicted": collected.evicted.iter().map(Reference::whole).collect::<Vec<_>>(),
        "blobs": collected.blobs,
        "artifacts": collected.artifacts,
        "remains": collected.remains,
        "freed": collected.freed,
        "kept": collected.kept,
    });
    session.screen.show(&document, || summary(&collected, dry_run))
}

fn summary(collected: &Collected, dry_run: bool) -> String {
    let Collected { evicted, blobs, artifacts, remains, freed, kept } = collected;
    let (removed, freed_word) =
        if dry_run { ("would be removed", "would be freed") } else { ("removed", "freed") };
    let counts = [
        (blobs.len() as u64, "blob", "blobs"),
        (*artifacts, "artifact", "artifacts"),
        (*remains, "remain of broken work", "remains of broken work"),
    ];
    let counts = counts.iter().filter(|(count, ..)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }))
        .collect();
    let what = if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") };
    lines(evicted, removed)
        + &format!("{what} {removed}: {} {freed_word}, {} in use\n", Size(*freed), Size(*kept))
}
