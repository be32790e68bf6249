//! Layers without their compression.

use std::fs::File;

use super::options::SaveOptions;
use crate::durable::temporary_file;
use crate::layer::{LayerForm, LayerOptions, LayerTar};
use crate::pull::Row;
use crate::resumed::BlobOpener;
use crate::{Descriptor, Digest, Error, Result};

/// A layer's tar in a file without a name, verified: a tar has the size of a member before its content.
pub(super) fn expanded(
    opener: BlobOpener,
    layer: &Descriptor,
    diff_id: &Digest,
    options: &SaveOptions,
) -> Result<File> {
    let folder = options.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let (file, mut row) = (temporary_file(&folder)?, Row::default());
    let blob = opener.open(layer, 0, &mut row)?;
    let options = LayerOptions {
        diff_id: Some(diff_id.clone()),
        form: LayerForm::of(layer)?,
        ..LayerOptions::default()
    };
    let mut tar = LayerTar::new(opener.resumed(blob, row)?, options)?;
    tar.copy_to(file.try_clone().map_err(|e| Error::io("opening a temporary file", e))?)?;
    tar.finish()?;
    Ok(file)
}
