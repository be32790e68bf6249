//! `snapshot`: disks of an image, saved with what a guest has written to them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::atomic_file::FileOptions;
use crate::snapshot::{self, DisksToSave, KeptSnapshot, SnapshotFile};
use crate::{
    CopyOptions, Disks, Error, ErrorKind, NameChange, PullOptions, PullPolicy, PulledImage, Reference,
    Result, printable,
};
use serde_json::{Value, json};

use super::disks_document::disks_document_there;
use super::hints;
use super::image::Image;
use super::materialize;
use super::path::Written;
use super::program;
use super::progress::{Doing, short};
use super::session::Session;
use super::size::Size;
use super::snapshot_args::Snapshot;
use super::store_admin::{change, counted, familiar};
use super::suggestions;
use super::terminal::{Terminal, columns, table_within};

pub(crate) async fn run(
    verb: Snapshot,
    session: impl Future<Output = Result<Session>>,
    terminal: Terminal,
) -> Result<()> {
    match verb {
        Snapshot::Save { disks: folder, out: Some(out), live, durably, .. } => {
            let disks = DisksToSave::from(&folder).live(live);
            let kept = snapshot::save(disks, &out, durably.options()).await?;
            show_saved(terminal, &Place::Directory(out), &kept)
        }
        Snapshot::Save { disks: folder, name, attach, live, .. } => {
            let (session, disks) = (session.await?, DisksToSave::from(&folder).live(live));
            let (place, kept) = save(&session, disks, name.as_deref().unwrap_or_default(), attach).await?;
            show_saved(terminal, &place, &kept)
        }
        Snapshot::Load { image, out, mode, owner, durably } => {
            let copy = mode.is_some() || owner.is_some();
            let files = FileOptions { copy, mode, owner, ..durably.options() };
            let (place, (kept, disks)) = if let Some(directory) = directory(&image) {
                (Place::Directory(directory.to_owned()), snapshot::load(directory, &out, files).await?)
            } else {
                let session = session.await?;
                let pulled = pulled(&session, &image).await?;
                let loaded = session.images.load_snapshot(&pulled, &out, files).await?;
                (Place::Name(pulled.reference), loaded)
            };
            show_loaded(terminal, &place, &kept, &disks)
        }
        Snapshot::Verify { image } => {
            let (place, kept) = if let Some(directory) = directory(&image) {
                (Place::Directory(directory.to_owned()), snapshot::verify(directory).await?)
            } else {
                let session = session.await?;
                let pulled = pulled(&session, &image).await?;
                let kept = session.images.verify_snapshot(&pulled).await?;
                (Place::Name(pulled.reference), kept)
            };
            let document = json!({ "verified": true, "snapshot": document(&place, &kept) });
            terminal.show(&document, || {
                let files = counted(kept.snapshot.files.len() as u64, "file", "files");
                format!("{place}  {files} verified, {}\n", Size(kept.snapshot.stored_size()))
            })
        }
        Snapshot::List { no_trunc } => list(&session.await?, no_trunc).await,
        Snapshot::Remove { images } => {
            let session = session.await?;
            for name in &images {
                let name = session.name(name).await?;
                if session.images.cache().find_descriptor(&name).await?.is_none() {
                    let hint = suggestions::snapshot_in_store(&session.images, &name).await;
                    return Err(suggestions::not_known(&name, hint));
                }
                if session.images.snapshot(&name).await?.is_none() {
                    let error = Error::config("it is no snapshot").with_image(&name);
                    return Err(error.with_hint(format!("`plyfold remove {name}` removes an image")));
                }
                if name.digest().is_some() {
                    let error = Error::config("it has no name that could be removed").with_image(&name);
                    let hint =
                        "an attached snapshot goes with its image: `plyfold remove IMAGE`, then `plyfold gc`";
                    return Err(error.with_hint(hint));
                }
            }
            change(&session, &images, NameChange::Remove, "removed").await
        }
    }
}

/// Where a snapshot is.
enum Place {
    Directory(PathBuf),
    Name(Reference),
    Uri(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Name(name) => write!(f, "{name}"),
            Self::Uri(uri) => f.write_str(&printable(uri)),
        }
    }
}

/// Saves to the store under a name, or to where a URI says.
async fn save(
    session: &Session,
    disks: DisksToSave,
    name: &str,
    attach: bool,
) -> Result<(Place, KeptSnapshot)> {
    let context = &session.context;
    match Image::target(name, &context.backends)? {
        Image::Name(name) if name.digest().is_some() => {
            Err(Error::config("the name must be a tag, not a digest").with_image(name))
        }
        Image::Name(name) => {
            let saved = context.telling(Doing::Copy, |progress| {
                session.images.save_snapshot(disks, &name, attach, progress)
            });
            let kept = saved.await?;
            // `push` and `copy` take the same word for a place in that registry.
            if names_registry(&name) {
                let message = format!(
                    "saved in the store under that name: nothing was sent to {host}; `plyfold push {name} {name}` or \
                     registry:{name} in its place sends it",
                    host = name.registry()
                );
                session.terminal.say("warning", &program::named(&message));
            }
            Ok((Place::Name(name), kept))
        }
        Image::Uri(uri) => {
            let (to, target) = context.target(&uri, &session.images.cache().to_string()).await?;
            let saved = context.telling(Doing::Copy, |progress| {
                let options = CopyOptions { progress, retry: context.retry, ..CopyOptions::default() };
                let (images, to, target) = (&session.images, &*to.registry, &target);
                async move { images.push_snapshot(disks, to, target, attach, &options).await }
            });
            let kept = saved.await?;
            Ok((Place::Uri(uri), kept))
        }
    }
}

/// Whether a name says which registry it is in.
fn names_registry(name: &Reference) -> bool {
    !["docker.io", "localhost"].contains(&name.registry())
}

/// The directory of a snapshot, if that is what the argument is: what is in it decides, then how it is written.
fn directory(argument: &OsStr) -> Option<&Path> {
    let path = Path::new(argument);
    let is_written = || argument.to_str().is_none_or(|word| Written::certain(word).is_some());
    let is_one =
        snapshot::is_in(path) || (path.is_dir() && !path.join("oci-layout").exists() && is_written());
    is_one.then_some(path)
}

/// Brings a snapshot into the store, unless it is there.
async fn pulled(session: &Session, name: &OsStr) -> Result<PulledImage> {
    let name = name.to_str().ok_or_else(|| {
        Error::config("the name of a snapshot is not UTF-8").with_image(printable(&name.to_string_lossy()))
    })?;
    // A directory is hardly meant as a name of a registry.
    let image = session.context.image(name);
    let is_name = matches!(image, Ok(Image::Name(_)));
    let is_either =
        Path::new(name).is_dir() && image.map_or(true, |image| image.is_remote(&session.context.backends));
    let policy = is_either.then_some(PullPolicy::Never);
    let error = match session.read(name, policy, PullOptions::default()).await {
        Ok(pulled) => return Ok(pulled),
        Err(error) => error,
    };
    let hint = "a snapshot in a directory has the file snapshot.json; registry:NAME is one in a registry";
    Err(match error.kind() {
        _ if !is_either && is_name => not_in_store(session, name, error).await,
        _ if !is_either => error,
        ErrorKind::NotFound => {
            let message = "no snapshot is in this directory, and the store has none of this name";
            Error::not_found(message).with_image(name).with_hint(hint)
        }
        _ => error.with_better_hint(hint),
    })
}

/// The error of a registry that was asked for a snapshot, with a hint that the store has none of this name.
async fn not_in_store(session: &Session, name: &str, error: Error) -> Error {
    use ErrorKind::{Auth, Denied, NotFound, RateLimited, Timeout, Tls, Unavailable};

    let is_of_registry =
        matches!(error.kind(), Auth | Denied | NotFound | RateLimited { .. } | Timeout | Tls | Unavailable);
    let Ok(wanted) = session.name(name).await else { return error };
    let found = session.images.cache().find_descriptor(&wanted).await;
    if !is_of_registry || !matches!(found, Ok(None)) {
        return error;
    }
    let near = suggestions::snapshot_in_store(&session.images, &wanted).await;
    let hint = format!("the store has no snapshot of this name, so that its registry was asked: {near}");
    let hint = hints::of(&error).map_or_else(|| hint.clone(), |other| format!("{hint}; {other}"));
    error.with_better_hint(hint)
}

fn document(place: &Place, kept: &KeptSnapshot) -> Value {
    let said: Value = serde_json::from_slice(&kept.snapshot.to_json()).unwrap_or_default();
    json!({
        "reference": if let Place::Name(name) = place { Some(name.whole()) } else { None },
        "path": if let Place::Directory(path) = place { Some(path.display().to_string()) } else { None },
        "uri": if let Place::Uri(uri) = place { Some(uri) } else { None },
        "digest": kept.manifest.digest(),
        "stored": kept.snapshot.stored_size(),
        "image": said["image"],
        "kernel": said["kernel"],
        "files": said["files"],
    })
}

fn show_saved(terminal: Terminal, place: &Place, kept: &KeptSnapshot) -> Result<()> {
    kept.notes.iter().for_each(|note| terminal.say("warning", note));
    let mut shown = document(place, kept);
    shown["notes"] = json!(kept.notes);
    terminal.show(&shown, || {
        let line = |file: &SnapshotFile| {
            let changed = if file.file.writable {
                format!(", of which {} are saved", Size(file.stored().1))
            } else {
                String::new()
            };
            format!("  {}  {}{changed}\n", file.file.name, Size(file.size))
        };
        let files: String = kept.snapshot.files.iter().map(line).collect();
        format!("{place}  {}\n{files}", kept.manifest.digest())
    })
}

fn show_loaded(terminal: Terminal, place: &Place, kept: &KeptSnapshot, disks: &Disks) -> Result<()> {
    let mut shown = disks_document_there(disks, &kept.snapshot.image, &[]);
    shown["snapshot"] = document(place, kept);
    terminal.show(&shown, || materialize::disks_text(disks, |_| String::new()))
}

async fn list(session: &Session, no_trunc: bool) -> Result<()> {
    let found = session.images.snapshots().await?;
    let documents: Vec<Value> =
        found.iter().map(|(name, kept)| document(&Place::Name(name.clone()), kept)).collect();
    session.terminal.show(&documents, || {
        let row = |(name, kept): &(Reference, KeptSnapshot)| {
            let (digest, image) = (kept.manifest.digest(), &kept.snapshot.image);
            [
                if no_trunc { name.whole() } else { familiar(name) },
                if no_trunc { digest.to_string() } else { short(digest).to_owned() },
                Size(kept.snapshot.stored_size()).to_string(),
                printable(&image.reference),
                if no_trunc { image.digest.to_string() } else { short(&image.digest).to_owned() },
            ]
        };
        let head = ["SNAPSHOT", "DIGEST", "SIZE", "IMAGE", "IMAGE DIGEST"];
        let columns = columns().filter(|_| !no_trunc);
        table_within(columns, head, &found.iter().map(row).collect::<Vec<_>>())
    })
}
