//! `inspect --runtime-spec`: an image's configuration as that of a runtime.

use serde_json::Value;

use super::args::Inspect;
use super::session::Session;
use crate::layer::LayerLimits;
use crate::{Error, PullOptions, Result};

/// Shows it as JSON, whatever the form of other output: it is a `config.json`.
pub(crate) async fn show(session: &Session, options: &Inspect) -> Result<()> {
    let image = session.read(&options.image, None, PullOptions::default()).await?;
    let spec = session.images.runtime_spec(&image, LayerLimits::default()).await?;
    // Its tables have no order of their own.
    let document: Value = serde_json::to_value(&spec)
        .map_err(|e| Error::corrupt("the configuration has no form for a runtime").with_source(e))?;
    session.terminal.show(&document, || format!("{document:#}\n"))
}
