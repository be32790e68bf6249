//! Images that a daemon is to load.

use std::fs::File;

use plyfold_core::blocking::blocking;
use plyfold_core::{
    Blob, BlobRange, Descriptor, Error, ErrorKind, ImageRegistry as _, RawManifest, Reference, Result,
    printable, reference,
};
use tokio::sync::Mutex;

use super::client::Client;
use super::fault::DaemonFault;
use super::identity::Identity;
use super::saved::id_of;
use super::scratch::Scratch;
use crate::{Archive, Config};

/// What was pushed and not yet loaded: an archive in a temporary folder.
#[derive(Debug, Default)]
pub(super) struct Loading(Mutex<Option<Unloaded>>);

#[derive(Debug)]
struct Unloaded {
    folder: Scratch,
    archive: Archive,
}

impl Unloaded {
    fn new() -> Result<Self> {
        let folder = Scratch::new()?;
        let archive = Archive::new(folder.path().join("load.tar"), Config::default());
        Ok(Self { folder, archive })
    }
}

impl Loading {
    /// The archive, which is made when there is none.
    pub(super) async fn archive(&self) -> Result<Archive> {
        let mut unloaded = self.0.lock().await;
        let there = match unloaded.take() {
            Some(there) => unloaded.insert(there),
            None => unloaded.insert(blocking(|_| Unloaded::new()).await?),
        };
        Ok(there.archive.clone())
    }

    async fn pushed(&self) -> Option<Archive> {
        self.0.lock().await.as_ref().map(|unloaded| unloaded.archive.clone())
    }

    pub(super) async fn push_blob(&self, name: &Reference, blob: Blob) -> Result<()> {
        self.archive().await?.push_blob(name, blob).await
    }

    pub(super) async fn has_blob(&self, name: &Reference, blob: &Descriptor) -> Result<bool> {
        match self.pushed().await {
            Some(archive) => archive.has_blob(name, blob).await,
            None => Ok(false),
        }
    }

    /// What was pushed under a digest, if it was.
    pub(super) async fn manifest(&self, name: &Reference) -> Option<Result<RawManifest>> {
        name.digest()?;
        Error::found(self.pushed().await?.manifest(name).await).transpose()
    }

    pub(super) async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        range: BlobRange,
    ) -> Option<Result<Blob>> {
        Error::found(self.pushed().await?.blob(name, blob, range).await).transpose()
    }

    /// Lets the daemon load what was pushed, when a name is given to something.
    pub(super) async fn load(&self, client: &Client, names: &[(Reference, RawManifest)]) -> Result<()> {
        let archive = self.archive().await?;
        let (tagged, others): (Vec<_>, Vec<_>) =
            names.iter().cloned().partition(|(name, _)| name.tag().is_some());
        for (name, raw) in &others {
            archive.push_manifest(name, raw).await?;
        }
        if tagged.is_empty() {
            return Ok(());
        }
        archive.push_names(&tagged).await?;
        let mut unloaded = self.0.lock().await;
        let Some(loaded) = unloaded.as_ref() else { return Ok(()) };
        let path = loaded.folder.path().join("load.tar");
        let opened = blocking(move |_| {
            let reading = |e| Error::io("reading the archive to load", e);
            let file = File::open(path).map_err(reading)?;
            let size = file.metadata().map_err(reading)?.len();
            Ok((file, size))
        });
        let (file, size) = opened.await?;
        let report = client.post("/images/load?quiet=1", file, size).await?;
        let mut identities = Vec::with_capacity(tagged.len());
        for (name, raw) in &tagged {
            identities.push(Identity::of(&archive, name, raw).await?);
        }
        if let Some(why) = refusal(&report)? {
            let is_zstd = identities.iter().any(|image| image.has_zstd);
            return Err(if is_zstd { DaemonFault::Zstd(why) } else { DaemonFault::Refused(why) }.into());
        }
        for ((name, _), identity) in tagged.iter().zip(&identities) {
            arrived(client, name, identity).await.map_err(|e| e.with_image(name))?;
        }
        *unloaded = None;
        Ok(())
    }
}

/// What a daemon says against an image, in an answer that begins as one of success.
fn refusal(report: &[u8]) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Line {
        error: Option<String>,
    }
    for line in report.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Result<Line, _> = serde_json::from_slice(line);
        let line = line.map_err(|e| Error::from(DaemonFault::Garbled).with_source(e))?;
        if let Some(error) = line.error {
            return Ok(Some(printable(&error)));
        }
    }
    Ok(None)
}

/// Whether the daemon has the image under the name.
async fn arrived(client: &Client, name: &Reference, identity: &Identity) -> Result<()> {
    let whole = format!("{}:{}", reference::repository_of(name), name.tag().unwrap_or_default());
    let id = match id_of(client, &whole).await {
        Err(e) if *e.kind() == ErrorKind::NotFound => {
            let why = "it says nothing, and has no such image: it may be for another platform";
            return Err(Error::from(DaemonFault::Refused(why.to_owned())).with_source(e));
        }
        id => id?,
    };
    if identity.has(&id) {
        return Ok(());
    }
    let message = format!("the daemon has the image {} under the name", printable(&id));
    Err(Error::corrupt(message).with_hint("another program may have given it the name meanwhile"))
}
