//! `pull`: images come into the store.

use crate::cache::CacheProviderExt as _;
use crate::layer::LayerLimits;
use crate::{PullOptions, PulledImage, PulledLayer, Result};
use serde_json::{Value, json};

use super::args::Pull;
use super::session::Session;

pub(crate) async fn pull_image(session: &Session, options: Pull) -> Result<()> {
    let Pull { image, policy, force, verify, index } = options;
    let options = PullOptions { force, verify, ..PullOptions::default() };
    let image = session.pull(&image, policy.map(Into::into), options).await?;
    if index {
        let cache = session.images.cache();
        for layer in &image.layers {
            cache.make_gzip_index(&layer.descriptor, &LayerLimits::default()).await?;
        }
    }
    session.terminal.show(&pulled(&image), || {
        let replaced = image.replaced.as_ref().map(|digest| format!(", replaced {digest}"));
        format!("{}  {}{}\n", image.reference, image.digest, replaced.unwrap_or_default())
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
        "replaced": image.replaced,
        "manifest": image.manifest,
        "platform": image.made_for().map(|platform| platform.to_string()),
        "store": image.path.display().to_string(),
        "cached": image.cached,
        "layers": image.layers.iter().map(layer).collect::<Vec<_>>(),
    })
}
