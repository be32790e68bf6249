//! Verification: names, the content that they need, and every file, read to its end.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plyfold_core::blocking::{Stop, blocking};
use plyfold_core::cache::{Damage, DamagedPart, Need, Needs, selected};
use plyfold_core::layout_index::{INDEX_LIMIT, LayoutIndex};
use plyfold_core::progress::Event;
use plyfold_core::{
    CacheProvider as _, Descriptor, Digest, Error, ErrorKind, Reference, Result, Verified, Verify, digest,
};

use super::handle::Store;
use super::items::{self, Item};
use super::quarantine::{self, Removal};
use super::queue::NAMES;
use super::reading::{self, Verdict, Watch};
use super::remains;
use crate::durable;
use crate::root::{PathKind, Root};

pub(super) async fn verify(store: &Store, what: &Verify) -> Result<Verified> {
    let mut verified = Verified::default();
    verified.damage.extend(verify_names(store, what.repair).await?);
    let names_are_known = verified.damage.iter().all(|damage| damage.repaired);
    let wanted = match what.images {
        _ if names_are_known => Wanted::of(store, what).await?,
        // The content that it refers to is unknown.
        Some(_) => return Ok(verified),
        None => Wanted::default(),
    };
    let job = Job { wanted, what: what.clone(), read: AtomicU64::new(0), verified: Mutex::new(verified) };
    let root = store.root.clone();
    let job = blocking(move |stop| job.run(&root, stop).map(|()| job)).await?;
    let mut verified = job.verified.into_inner().unwrap_or_else(PoisonError::into_inner);
    verified.bytes = job.read.into_inner();
    let missing = missing(store, what, &job.wanted, &verified.damage).await?;
    verified.damage.extend(missing);
    verified.damage.sort_by_cached_key(|damage| rank(&damage.part));
    Ok(verified)
}

/// Whether the list of names can be read; replaces it if it cannot.
async fn verify_names(store: &Store, repair: bool) -> Result<Option<Damage>> {
    let handle = store.clone();
    let verified = store.work(move |root| {
        let error = match root.index_again() {
            Ok(_) => return Ok(None),
            Err(e) if quarantine::is_damage(&e) => e,
            Err(e) => return Err(e),
        };
        let mut reason = error.message().to_owned();
        if repair {
            let Some(done) = replace_index(&handle)? else { return Ok(None) };
            reason = format!("{reason}; {done}");
        }
        let part = DamagedPart::Names;
        Ok(Some(Damage { part, reason, images: Vec::new(), repaired: repair }))
    });
    verified.await
}

/// Quarantines a damaged `index.json`, and writes one in its place with every entry that can still be read; what was
/// done, in a few words. `None` when it is sound by now.
fn replace_index(store: &Store) -> Result<Option<String>> {
    let root = &*store.root;
    // The marker may be what is missing or damaged.
    let had_marker = root.is_layout().is_ok_and(|is_layout| is_layout);
    store.prepare()?;
    let _lock = durable::lock(root, NAMES)?;
    match root.index_again() {
        Ok(_) if !had_marker => return Ok(Some("the file oci-layout was written anew".to_owned())),
        Ok(_) => return Ok(None),
        Err(e) if quarantine::is_damage(&e) => {}
        Err(e) => return Err(e),
    }
    let index = match root.document("index.json", INDEX_LIMIT) {
        Ok(Some(bytes)) => LayoutIndex::salvage(&bytes, root.path()),
        Ok(None) => LayoutIndex::new(root.path()),
        Err(e) if quarantine::is_damage(&e) => LayoutIndex::new(root.path()),
        // What cannot be read now may hold every name.
        Err(e) => return Err(e),
    };
    let path = root.path().join("index.json");
    let aside = quarantine::keep(root, &path, "index.json")?;
    durable::write_document(root, "index.json", &path, 0o644, &index.to_bytes())?;
    let kept = format!("{} of its entries could be kept", index.entries().count());
    let name = aside.as_deref().and_then(Path::file_name);
    let moved = name.map(|name| format!("; the file is now quarantine/{}", name.display()));
    Ok(Some(kept + &moved.unwrap_or_default()))
}

/// What images need.
#[derive(Debug, Default)]
struct Wanted {
    images: Vec<(Reference, Descriptor)>,
    /// With the images that need it, as places in the list of them.
    blobs: HashMap<Digest, (Need, Vec<usize>)>,
    contents: HashMap<Digest, Vec<usize>>,
}

impl Wanted {
    async fn of(store: &Store, what: &Verify) -> Result<Self> {
        let images = selected(store, what.images.as_deref()).await?;
        let (mut wanted, mut known) = (Self::default(), HashMap::new());
        for (index, (name, top)) in images.iter().enumerate() {
            let needs = match known.entry(top.digest()) {
                Entry::Occupied(needs) => needs.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(match Needs::of(store, top).await {
                    Ok(needs) => needs,
                    Err(e) if *e.kind() == ErrorKind::Io => return Err(e.with_image(name)),
                    Err(e) => {
                        // Content that is there is read all the same; what is missing cannot be known.
                        what.progress.emit(Event::Warning { message: e.with_image(name).to_string() });
                        Needs::default()
                    }
                }),
            };
            wanted.add(needs, index);
        }
        Ok(Self { images, ..wanted })
    }

    fn add(&mut self, needs: &Needs, image: usize) {
        for (digest, need) in &needs.blobs {
            let (known, images) =
                self.blobs.entry(digest.clone()).or_insert_with(|| (need.clone(), Vec::new()));
            known.required |= need.required;
            images.push(image);
        }
        for content in &needs.contents {
            self.contents.entry(content.clone()).or_default().push(image);
        }
    }

    /// The images that need a part.
    fn images_of(&self, part: &DamagedPart) -> impl Iterator<Item = &(Reference, Descriptor)> {
        let images = match part {
            DamagedPart::Artifact(_, content) => self.contents.get(content),
            DamagedPart::Blob(digest) | DamagedPart::Missing(digest) => {
                self.blobs.get(digest).map(|(_, images)| images)
            }
            _ => None,
        };
        images.into_iter().flatten().filter_map(|&index| self.images.get(index))
    }
}

/// The reading of files.
struct Job {
    wanted: Wanted,
    what: Verify,
    read: AtomicU64,
    verified: Mutex<Verified>,
}

impl Job {
    fn run(&self, root: &Root, stop: &Stop) -> Result<()> {
        let everything = self.what.images.is_none();
        let wanted = |digest: &Digest| everything || self.wanted.blobs.contains_key(digest);
        let mut items = items::blobs(root, wanted)?;
        let wanted = |content: &Digest| everything || self.wanted.contents.contains_key(content);
        items.extend(items::artifacts(root, wanted)?);
        let total = items.iter().map(|item| item.size).sum();
        let read = |count| {
            let read = self.read.fetch_add(count, Ordering::Relaxed) + count;
            self.what.progress.emit(Event::VerifyProgress { read, total });
        };
        let watch = Watch { read: &read, stop };
        reading::read_all(items, &watch, |item, verdict| self.judge(root, item, verdict))?;
        if everything {
            let left =
                remains::all(root, remains::Policy { remove: self.what.repair, grace: Duration::ZERO })?;
            let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
            verified.remains += left;
        }
        Ok(())
    }

    fn judge(&self, root: &Root, item: Item, verdict: Verdict) -> Result<()> {
        let (reason, repaired) = match verdict {
            Verdict::Gone | Verdict::Unfinished => return Ok(()),
            Verdict::Remains => {
                let removed = self.what.repair && quarantine::remove(root, &item)? == Removal::Done;
                let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
                remains::note(&mut verified.remains, item.size, removed);
                return Ok(());
            }
            Verdict::Damaged(why) if self.what.repair => match quarantine::remove(root, &item)? {
                Removal::Replaced => return Ok(()),
                Removal::Done => (Some(why), true),
                Removal::Busy => (Some(format!("{why}; another process is writing it again")), false),
            },
            Verdict::Damaged(why) => (Some(why), false),
            Verdict::OtherMode(mode, recorded) => {
                let why = format!("mode mismatch: recorded with mode {recorded:04o}, it has {mode:04o}");
                match self.what.repair.then(|| restore_mode(&item, recorded)).transpose() {
                    Ok(restored) => (Some(why), restored == Some(true)),
                    Err(e) => (Some(format!("{why}; {e}")), false),
                }
            }
            // The content is right and the descriptor is wrong: moving the blob does not help.
            Verdict::Sound => (self.other_size(&item), false),
        };
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.checked += 1;
        if let Some(reason) = reason {
            let images = self.wanted.images_of(&item.part).map(|(name, _)| name.clone()).collect();
            verified.damage.push(Damage { part: item.part, reason, images, repaired });
        }
        Ok(())
    }

    /// What is wrong when a blob is as its digest says, but a descriptor gives it another size.
    fn other_size(&self, item: &Item) -> Option<String> {
        let DamagedPart::Blob(digest) = &item.part else { return None };
        let declared = self.wanted.blobs.get(digest)?.0.descriptor.size();
        let message = || {
            format!("size mismatch: an image declares {declared} bytes, the content has {} bytes", item.size)
        };
        (declared != item.size).then(message)
    }
}

/// Content that is required and not here. Looked for last, and for names that still stand: what others have removed
/// meanwhile is not missing.
async fn missing(store: &Store, what: &Verify, wanted: &Wanted, damage: &[Damage]) -> Result<Vec<Damage>> {
    let absent = absent(store, wanted, damage).await?;
    if absent.is_empty() {
        return Ok(Vec::new());
    }
    let now: HashSet<(Reference, Digest)> =
        store.list().await?.into_iter().map(|(name, top)| (name, top.digest().clone())).collect();
    let mut missing = Vec::new();
    for digest in absent {
        let mut images = Vec::new();
        for (name, top) in wanted.images_of(&DamagedPart::Missing(digest.clone())) {
            let listed = now.contains(&(name.clone(), top.digest().clone()));
            if listed || (what.images.is_some() && store.find_descriptor(name).await?.as_ref() == Some(top)) {
                images.push(name.clone());
            }
        }
        if !images.is_empty() {
            let reason = "an image needs it, and it is missing".to_owned();
            missing.push(Damage { part: DamagedPart::Missing(digest), reason, images, repaired: false });
        }
    }
    Ok(missing)
}

/// Required content that is not here, apart from what was just quarantined.
async fn absent(store: &Store, wanted: &Wanted, damage: &[Damage]) -> Result<Vec<Digest>> {
    let blobs = damage.iter().filter_map(|damage| match &damage.part {
        DamagedPart::Blob(digest) => Some(digest),
        _ => None,
    });
    let removed: HashSet<&Digest> = blobs.collect();
    let required =
        wanted.blobs.iter().filter(|(digest, (need, _))| need.required && !removed.contains(digest));
    let required: Vec<Digest> = required.map(|(digest, _)| digest.clone()).collect();
    let found = store.work(move |root| {
        let mut absent = Vec::new();
        for digest in required {
            // Content of an unsupported algorithm cannot be stored; a pull of it reports that.
            let is_absent =
                digest::supported(&digest).is_ok() && root.stat_blob(&digest)? == PathKind::Absent;
            if is_absent && root.index_as_image(&digest)?.is_none() {
                absent.push(digest);
            }
        }
        Ok(absent)
    });
    found.await
}

/// Gives a file its mode back; `false` when it is gone, or another one by now.
fn restore_mode(item: &Item, mode: u32) -> Result<bool> {
    let Some(file) = reading::open(item)? else { return Ok(false) };
    let restored = file.set_permissions(Permissions::from_mode(mode));
    restored.map(|()| true).map_err(|e| Error::io("setting the mode back", e))
}

/// The order of a report: names, content, artifacts.
fn rank(part: &DamagedPart) -> (u8, String) {
    match part {
        DamagedPart::Names => (0, String::new()),
        DamagedPart::Missing(digest) => (1, digest.to_string()),
        DamagedPart::Blob(digest) => (2, digest.to_string()),
        DamagedPart::Artifact(format, content) => (3, format!("{content} {format}")),
        _ => (4, String::new()),
    }
}
