//! `pull` and `load`: images come into the store.

use std::path::Path;

use crate::{PullOptions, PulledImage, PulledLayer, Result};
use serde_json::{Value, json};

use super::args::Pull;
use super::layer::refuse_terminal;
use super::progress::Doing;
use super::session::Session;

pub(crate) async fn pull_image(session: &Session, options: Pull) -> Result<()> {
    let Pull { image, policy, force, verify } = options;
    let options = PullOptions { force, verify, ..PullOptions::default() };
    let image = session.pull(&image, policy.map(Into::into), options).await?;
    session.terminal.show(&pulled(&image), || format!("{}  {}\n", image.reference, image.digest))
}

pub(crate) async fn load(session: &Session, archive: &str) -> Result<()> {
    refuse_terminal(Path::new(archive))?;
    // The backend reads what comes once, and names its images after `stdin`.
    let archive = match archive {
        "-" => "docker-archive:/dev/stdin",
        // The content of an archive decides its form, not the scheme.
        path if !session.context.backends.knows(path) && Path::new(path).is_dir() => &format!("oci:{path}"),
        path if !session.context.backends.knows(path) => &format!("docker-archive:{path}"),
        uri => uri,
    };
    let loaded = session.context.telling(Doing::Fetch, |progress| {
        let options = PullOptions { platform: session.context.platform(), progress, ..Default::default() };
        session.images.load(archive, options)
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

/// What a pulled image is, as JSON.
pub(crate) fn pulled(image: &PulledImage) -> Value {
    let layer = |layer: &PulledLayer| {
        json!({
            "digest": layer.descriptor.digest(),
            "size": layer.descriptor.size(),
            "media_type": layer.descriptor.media_type(),
            "diff_id": layer.diff_id,
        })
    };
    json!({
        "reference": image.reference.whole(),
        "digest": image.digest,
        "manifest": image.manifest,
        "platform": image.made_for().map(|platform| platform.to_string()),
        "store": image.path.display().to_string(),
        "cached": image.cached,
        "layers": image.layers.iter().map(layer).collect::<Vec<_>>(),
    })
}
