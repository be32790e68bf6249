//! Changes of names, all of them or none.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use object_store::path::Path;
use plyfold_core::cache::check_names;
use plyfold_core::manifest::{RawManifest, is_document, limits};
use plyfold_core::{BlobRange, Descriptor, Digest, Error, NameChange, Reference, Result};

use crate::background;
use crate::bucket::{Bucket, Expected, Swapped, gone, token};
use crate::content;
use crate::fold;
use crate::hold::Hold;
use crate::name::{self, Entry, Image, NameObject, Pending};
use crate::shared::Shared;
use crate::transaction::{self, Outcome, TransactionObject};
use crate::watch::Watch;

/// Makes the changes.
pub(crate) async fn update(shared: &Shared, changes: &[NameChange]) -> Result<()> {
    shared.check_writable()?;
    let names = by_name(changes);
    match names.len() {
        0 => check_content(shared, changes).await,
        1 => {
            let Some((text, (of, own))) = names.iter().next() else { return Ok(()) };
            let _turn = shared.queues.turn(&format!("name {text}")).await;
            one(shared, changes, (text, own)).await.map_err(|e| e.with_image(of))
        }
        _ => many(shared, changes, &names).await,
    }
}

/// The changes of each name, in their order.
type Named<'a> = BTreeMap<String, (&'a Reference, Vec<&'a NameChange>)>;

fn by_name(changes: &[NameChange]) -> Named<'_> {
    let mut names: Named<'_> = BTreeMap::new();
    for change in changes {
        let name = match change {
            NameChange::Pin(name)
            | NameChange::Remove(name)
            | NameChange::Set(name, _)
            | NameChange::Unpin(name) => name,
            NameChange::Require(_) => continue,
        };
        names.entry(name.whole()).or_insert_with(|| (name, Vec::new())).1.push(change);
    }
    names
}

/// What a name stands for after these changes.
fn changed(before: Option<&Image>, changes: &[&NameChange]) -> Result<Option<Image>> {
    let mut image = before.cloned();
    for change in changes {
        match change {
            NameChange::Pin(name) => match &mut image {
                Some(image) => image.pinned = true,
                None => return Err(Error::not_found("not in the store").with_image(name)),
            },
            NameChange::Remove(_) => image = None,
            NameChange::Require(_) => {}
            NameChange::Set(_, descriptor) => {
                let pinned = image.is_some_and(|image| image.pinned);
                image = Some(Image { descriptor: descriptor.clone(), pinned });
            }
            NameChange::Unpin(_) => {
                if let Some(image) = &mut image {
                    image.pinned = false;
                }
            }
        }
    }
    Ok(image)
}

/// Changes one name: says what it will be, looks whether the content is here, and then makes the change. Each by a put
/// that fails when anything has changed the name meanwhile.
async fn one(shared: &Shared, changes: &[NameChange], (text, own): (&str, &[&NameChange])) -> Result<()> {
    let (bucket, path) = (&shared.bucket, name::path(&shared.bucket, text)?);
    let needs_content =
        changes.iter().any(|change| matches!(change, NameChange::Set(..) | NameChange::Require(_)));
    let mut watch = Watch::new(shared.patience());
    loop {
        let entry = free_entry(bucket, &path, text, own, &mut watch).await?;
        let image = changed(entry.image.as_ref(), own)?;
        if image == entry.image && !needs_content && !entry.is_damaged {
            return Ok(());
        }
        let mut expected = entry.expected.clone();
        if needs_content {
            // A collection that begins now sees it, or this sees the content condemned.
            let pending = Pending { image: image.clone(), transaction: None };
            let body = NameObject::body(text, entry.image.clone(), Some(pending))?;
            expected = match bucket.swap(&path, &expected, body).await? {
                Swapped::Done(version) => Expected::Version(version),
                Swapped::Lost => continue,
            };
            if let Err(e) = check_content(shared, changes).await {
                let before = NameObject::body(text, entry.image.clone(), None)?;
                bucket.swap(&path, &expected, before).await?;
                return Err(e);
            }
        }
        let body = NameObject::body(text, image, None)?;
        if matches!(bucket.swap(&path, &expected, body).await?, Swapped::Done(_)) {
            return Ok(());
        }
        watch.pause().await;
    }
}

/// A name that no other writer is about to change. One that was left in a change is freed.
async fn free_entry(
    bucket: &Bucket,
    path: &Path,
    text: &str,
    own: &[&NameChange],
    watch: &mut Watch,
) -> Result<Entry> {
    loop {
        let entry = match Entry::settled(bucket, path).await {
            // What is no name is replaced, unless it has to be known.
            Err(e) if *e.kind() == plyfold_core::ErrorKind::Corrupt => replaced(bucket, path, own, e).await?,
            entry => entry?,
        };
        let (Some(pending), Some(version)) = (&entry.pending, entry.version()) else { return Ok(entry) };
        let Some(id) = &pending.transaction else {
            if watch.has_expired(version) {
                return Ok(entry);
            }
            watch.pause().await;
            continue;
        };
        let decides = transaction::path_of(bucket, id)?;
        match transaction::read(bucket, &decides).await? {
            Some((object, version)) if object.state == Outcome::Pending => {
                if watch.has_expired(&version) {
                    transaction::abort(bucket, &decides, (&object, &version)).await?;
                } else {
                    watch.pause().await;
                }
            }
            _ => fold::fold_name(bucket, id, text).await?,
        }
    }
}

/// A damaged object, as one that stands for nothing, for changes that do not depend on what it was.
async fn replaced(bucket: &Bucket, path: &Path, own: &[&NameChange], error: Error) -> Result<Entry> {
    let first = own.first();
    let is_known = first.is_some_and(|first| matches!(first, NameChange::Set(..) | NameChange::Remove(_)));
    match bucket.look(path).await? {
        Some((version, _)) if is_known => Ok(Entry::damaged(version)),
        _ => Err(error),
    }
}

/// Changes several names. The put that makes the transaction committed makes all of the changes.
async fn many(shared: &Shared, changes: &[NameChange], names: &Named<'_>) -> Result<()> {
    let bucket = &shared.bucket;
    let (id, texts) = (token(), names.keys().cloned().collect::<Vec<_>>());
    let path = transaction::path_of(bucket, &id)?;
    // Those of this process wait for each other here: otherwise they would ask the service in turn.
    let _turn = shared.queues.turn("transactions").await;
    let body = |state| {
        let texts = texts.clone();
        move || TransactionObject::body(state, &texts).unwrap_or_else(|_| gone())
    };
    let (renewed, ended) = (body(Outcome::Pending), body(Outcome::Aborted));
    let taken = Hold::take((bucket, &path, &Expected::Absent), shared.patience(), renewed, ended);
    let Some(hold) = taken.await? else { return Err(given_up(bucket)) };
    let prepared = match prepare(shared, &id, names).await {
        Ok(()) => check_content(shared, changes).await,
        prepared => prepared,
    };
    let outcome = match prepared {
        Ok(()) => match hold.end_with(TransactionObject::body(Outcome::Committed, &texts)?).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(given_up(bucket)),
            Err(e) => Err(e),
        },
        Err(e) => {
            hold.end().await;
            Err(e)
        }
    };
    // Readers know by now; what is left of it costs them a request.
    let folding = bucket.clone();
    let fold = async move {
        if let Err(e) = fold::fold(&folding, &id, &texts).await {
            tracing::debug!("transaction {id} stays until a collection: {e}");
        }
    };
    background::remove(fold);
    outcome
}

/// Says in each name what it will stand for if the transaction is committed. In their order, so that two transactions do
/// not wait for each other.
async fn prepare(shared: &Shared, id: &str, names: &Named<'_>) -> Result<()> {
    let bucket = &shared.bucket;
    for (text, (of, own)) in names {
        let at = |e: Error| e.with_image(of);
        let path = name::path(bucket, text)?;
        let mut watch = Watch::new(shared.patience());
        loop {
            let entry = free_entry(bucket, &path, text, own, &mut watch).await.map_err(at)?;
            let pending = Pending {
                image: changed(entry.image.as_ref(), own).map_err(at)?,
                transaction: Some(id.to_owned()),
            };
            let body = NameObject::body(text, entry.image, Some(pending))?;
            if matches!(bucket.swap(&path, &entry.expected, body).await.map_err(at)?, Swapped::Done(_)) {
                break;
            }
        }
    }
    Ok(())
}

fn given_up(bucket: &Bucket) -> Error {
    let message = "another writer has given up this change of names, which took too long";
    Error::new(plyfold_core::ErrorKind::Unavailable, message).with_endpoint(bucket)
}

/// Refuses names whose content is not here.
async fn check_content(shared: &Shared, changes: &[NameChange]) -> Result<()> {
    let (mut sizes, mut documents) = (HashMap::new(), HashMap::new());
    for change in changes {
        let (NameChange::Set(_, top) | NameChange::Require(top)) = change else { continue };
        let at = |e: Error| match change {
            NameChange::Set(name, _) => e.with_image(name),
            _ => e,
        };
        look(shared, top, &mut sizes, &mut documents).await.map_err(at)?;
    }
    let size = |digest: &Digest| Ok(sizes.get(digest).copied().flatten());
    let document = |blob: &Descriptor| Ok(documents.get(blob.digest()).cloned().unwrap_or_default());
    check_names(changes, size, document).map_err(|e| e.with_endpoint(&shared.bucket))
}

/// Looks for what stands at the top and what it needs.
async fn look(
    shared: &Shared,
    top: &Descriptor,
    sizes: &mut HashMap<Digest, Option<u64>>,
    documents: &mut HashMap<Digest, Bytes>,
) -> Result<()> {
    let size = content::stat(shared, top.digest()).await?;
    sizes.insert(top.digest().clone(), size);
    if size != Some(top.size()) || !is_document(top.media_type()) || documents.contains_key(top.digest()) {
        return Ok(());
    }
    let bytes = content::open(shared, top, BlobRange::FULL).await?.bytes(limits::MANIFEST).await?;
    documents.insert(top.digest().clone(), bytes.clone());
    for blob in RawManifest::described(bytes, top)?.requirements() {
        if !sizes.contains_key(blob.digest()) {
            sizes.insert(blob.digest().clone(), content::stat(shared, blob.digest()).await?);
        }
    }
    Ok(())
}
