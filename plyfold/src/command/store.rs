//! `pull` and `load`: images come into the store.

use std::fs::File;
use std::io;
use std::path::Path;

use plyfold::whole::blocking;
use plyfold::{Error, PullOptions, PulledImage, PulledLayer, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::layer::{Input, refuse_terminal};
use super::progress::Doing;
use super::session::{Fetch, Session};

pub(crate) async fn pull_image(session: &Session, image: &str, fetch: Fetch) -> Result<()> {
    let image = session.pull(image, fetch).await?;
    session.screen.show(&pulled(&image), || format!("{}  {}\n", image.reference, image.digest))
}

pub(crate) async fn load(session: &Session, archive: &str) -> Result<()> {
    refuse_terminal(Path::new(archive))?;
    // It goes away when the images are in the store.
    let spooled = if archive == "-" { Some(spooled().await?) } else { None };
    let archive = match &spooled {
        Some(folder) => format!("docker-archive:{}", folder.path().join(STDIN).display()),
        None => archive_uri(archive, session),
    };
    let loaded = session.places.telling(Doing::Fetch, |progress| {
        let options = PullOptions { platform: session.places.platform(), progress, ..Default::default() };
        session.images.load(&archive, options)
    });
    let loaded = loaded.await?;
    let documents: Vec<Value> = loaded
        .iter()
        .map(|image| json!({ "reference": image.reference.whole(), "digest": image.digest }))
        .collect();
    session.screen.show(&documents, || {
        let line = |image: &PulledImage| format!("{}  {}\n", image.reference, image.digest);
        loaded.iter().map(line).collect()
    })
}

/// What unnamed images of an archive that came through a pipe are called after.
const STDIN: &str = "stdin.tar";

/// Standard input as a file: archives are read in any order, and a pipe comes in its own.
async fn spooled() -> Result<TempDir> {
    blocking(|stop| {
        let folder = tempfile::tempdir().map_err(|e| Error::io("making a temporary folder", e))?;
        let path = folder.path().join(STDIN);
        let at = |e| Error::io("writing standard input to a file", e).with_context("path", path.display());
        let mut file = File::create_new(&path).map_err(at)?;
        io::copy(&mut Input::open(Path::new("-"), stop)?, &mut file).map_err(at)?;
        Ok(folder)
    })
    .await
}

/// A path as a URI. Archives are read by what is in them, whichever scheme they are opened by.
fn archive_uri(archive: &str, session: &Session) -> String {
    if session.places.backends.knows(archive) {
        return archive.to_owned();
    }
    let scheme = if Path::new(archive).is_dir() { "oci" } else { "docker-archive" };
    format!("{scheme}:{archive}")
}

/// What a pulled image is, as JSON.
pub(crate) fn pulled(image: &PulledImage) -> Value {
    let layers: Vec<Value> = image.layers.iter().map(layer).collect();
    json!({
        "reference": image.reference.whole(),
        "digest": image.digest,
        "manifest": image.manifest,
        "platform": image.platform.to_string(),
        "store": image.path,
        "cached": image.cached,
        "layers": layers,
    })
}

fn layer(layer: &PulledLayer) -> Value {
    json!({
        "digest": layer.descriptor.digest(),
        "size": layer.descriptor.size(),
        "media_type": layer.descriptor.media_type(),
        "diff_id": layer.diff_id,
    })
}
