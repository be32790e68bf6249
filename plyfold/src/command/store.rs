//! `pull` and `load`: images come into the store.

use std::path::Path;

use crate::{PullOptions, PullPolicy, PulledImage, PulledLayer, Result};
use serde_json::{Value, json};

use super::layer::refuse_terminal;
use super::progress::Doing;
use super::session::Session;

pub(crate) async fn pull_image(
    session: &Session,
    image: &str,
    policy: Option<PullPolicy>,
    options: PullOptions,
) -> Result<()> {
    let image = session.pull(image, policy, options).await?;
    session.terminal.show(&pulled(&image), || format!("{}  {}\n", image.reference, image.digest))
}

pub(crate) async fn load(session: &Session, archive: &str) -> Result<()> {
    refuse_terminal(Path::new(archive))?;
    // The backend reads what comes once, and names its images after `stdin`.
    let archive =
        if archive == "-" { "docker-archive:/dev/stdin".to_owned() } else { archive_uri(archive, session) };
    let loaded = session.context.telling(Doing::Fetch, |progress| {
        let options = PullOptions { platform: session.context.platform(), progress, ..Default::default() };
        session.images.load(&archive, options)
    });
    let loaded = loaded.await?;
    let documents: Vec<Value> = loaded
        .iter()
        .map(|image| json!({ "reference": image.reference.whole(), "digest": image.digest }))
        .collect();
    session.terminal.show(&documents, || {
        let line = |image: &PulledImage| format!("{}  {}\n", image.reference, image.digest);
        loaded.iter().map(line).collect()
    })
}

/// A path as a URI. The content of an archive decides its form, not the scheme.
fn archive_uri(archive: &str, session: &Session) -> String {
    if session.context.backends.knows(archive) {
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
