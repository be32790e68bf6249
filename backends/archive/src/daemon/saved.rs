//! Images that a daemon has saved.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use bytes::Bytes;
use plyfold_core::blocking::blocking;
use plyfold_core::{
    Advice, Digest, Error, ErrorKind, ImageRegistry, Opened, Reference, Result, Size, printable,
};
use tokio::sync::Mutex;

use super::client::Client;
use super::fault::DaemonFault;
use super::identity;
use crate::Archive;

/// Bytes that are written to the disk at once.
const BATCH: usize = 1 << 20;

/// What a handle was given: each image once, as an archive in a file without a name.
#[derive(Debug)]
pub(super) struct Saved {
    /// Bytes that all of them may have.
    limit: u64,
    images: Mutex<Vec<Image>>,
}

/// What a daemon is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    Id(&'a Digest),
    Name(&'a Reference),
}

impl Wanted<'_> {
    /// As the daemon understands it.
    fn text(self) -> String {
        match self {
            Self::Id(id) => id.to_string(),
            Self::Name(name) => name.whole(),
        }
    }

    /// What an image without a name is called after.
    fn place(self) -> PathBuf {
        match self {
            Self::Id(id) => format!("{:.12}", id.digest()).into(),
            Self::Name(_) => "image".into(),
        }
    }
}

#[derive(Debug)]
struct Image {
    name: String,
    archive: Archive,
    size: u64,
}

impl Saved {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, images: Mutex::default() }
    }

    /// An image.
    ///
    /// # Errors
    /// [`DaemonFault::Other`] when the daemon saves another one.
    pub(super) async fn image(&self, client: &Client, wanted: Wanted<'_>) -> Result<Box<dyn ImageRegistry>> {
        let (mut images, name) = (self.images.lock().await, wanted.text());
        if let Some(image) = images.iter().find(|image| image.name == name) {
            return Ok(Box::new(image.archive.clone()));
        }
        let left = self.limit.saturating_sub(images.iter().map(|image| image.size).sum());
        let found = exists(client, &name).await?;
        let (file, size) = spooled(client, &name, left).await?;
        let place = wanted.place();
        let archive = blocking(move |_| Archive::of_file(file, &place)).await?;
        check(&archive, wanted, &found).await?;
        images.push(Image { name, archive: archive.clone(), size });
        Ok(Box::new(archive))
    }

    /// One that has a document of this digest.
    pub(super) async fn having(&self, name: &Reference) -> Result<Option<Box<dyn ImageRegistry>>> {
        for image in self.images.lock().await.iter() {
            if Error::found(image.archive.manifest(name).await)?.is_some() {
                return Ok(Some(Box::new(image.archive.clone())));
            }
        }
        Ok(None)
    }

    pub(super) async fn forget(&self) {
        self.images.lock().await.clear();
    }
}

/// What the daemon says an image is: its ID.
pub(super) async fn id_of(client: &Client, name: &str) -> Result<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inspected {
        id: String,
    }
    client.json(&format!("/images/{}/json", in_path(name))).await.map(|Inspected { id }| id)
}

/// # Errors
/// `NotFound`: a daemon that saves what it does not have answers in many ways.
async fn exists(client: &Client, name: &str) -> Result<String> {
    id_of(client, name).await.map_err(|e| match e.kind() {
        ErrorKind::NotFound => e.with_hint("`docker image ls` lists what the daemon has"),
        _ => e,
    })
}

/// Whether each image of an archive that can be seen is the one that was asked for; under a name it is the one that the daemon
/// has `found`.
async fn check(archive: &Archive, wanted: Wanted<'_>, found: &str) -> Result<()> {
    let (id, names) = match wanted {
        Wanted::Id(id) => {
            let all = Opened { registry: Box::new(archive.clone()), reference: None };
            (id.as_ref(), [all.references().await?, archive.untagged().await?].concat())
        }
        Wanted::Name(name) => (found, vec![name.clone()]),
    };
    for name in &names {
        // A name that it lacks is an error of the question that follows.
        let Some(raw) = Error::found(archive.manifest(name).await)? else { continue };
        if !identity::is_called(&raw, id) {
            return Err(DaemonFault::Other(printable(id), identity::id(&raw).to_string()).into());
        }
    }
    Ok(())
}

/// The stream of `docker save`, in a file without a name.
async fn spooled(client: &Client, name: &str, limit: u64) -> Result<(File, u64)> {
    let mut answer = client.get(&format!("/images/get?names={}", in_path(name))).await?;
    let mut file = tempfile::tempfile().map_err(|e| Error::io("making a temporary file", e))?;
    let (mut size, mut batch, mut held) = (0, Vec::<Bytes>::new(), 0);
    loop {
        let chunk = answer.chunk().await?;
        let is_end = chunk.is_none();
        let chunk = chunk.unwrap_or_default();
        size += chunk.len() as u64;
        held += chunk.len();
        batch.push(chunk);
        if size > limit {
            let error = Error::limit(format!("the daemon's images have more than {}", Size(limit)));
            let advice = Advice::options("raise it with {}", [("spool-limit", "BYTES")]);
            return Err(error.with_advice(advice));
        }
        if held < BATCH && !is_end {
            continue;
        }
        let chunks = std::mem::take(&mut batch);
        held = 0;
        file = blocking(move |_| {
            let written = chunks.iter().try_for_each(|chunk| file.write_all(chunk));
            written.map_err(|e| Error::io("writing the image to the temporary directory", e))?;
            Ok(file)
        })
        .await?;
        if is_end {
            file.seek(SeekFrom::Start(0)).map_err(|e| Error::io("reading the image again", e))?;
            return Ok((file, size));
        }
    }
}

/// A name in the path or the query of a URL, of which no name has another special character.
fn in_path(name: &str) -> String {
    name.replace('[', "%5B").replace(']', "%5D")
}
