//! One layer by itself as any format that has one file.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use crate::atomic_file::AtomicFile;
use crate::durable::temporary_file;
use crate::layer::{Hashing, LayerOptions, LayerSummary, LayerTar, TreeLimits};
use crate::tree::MergedTree;
use crate::{Error, ErrorKind, Input, Made, Materializer, Output, OutputSpec, Result, Role, Sink};

/// Checks that a format can be made of one layer.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config).
pub(crate) fn check(format: &dyn Materializer) -> Result<()> {
    let name = format.format().name;
    if !matches!(format.input(), Input::Layer | Input::Image) {
        let error = Error::config(format!("{name} is made of finished files, and not of a layer"));
        return Err(error.with_hint("`plyfold formats` shows what each format is made from"));
    }
    match format.outputs().len() + usize::from(format.separates_hash_trees()) {
        1 => Ok(()),
        files => {
            let hint = if format.has_hash_tree() {
                "-m verity=append puts the hash tree into the same file"
            } else {
                "`plyfold materialize` writes all files of an image"
            };
            Err(Error::config(format!("{name} has {files} files, and one can be written")).with_hint(hint))
        }
    }
}

/// Makes the format of a layer, whose bytes are read to their verified end; yields what is known of the file, and of the
/// layer. With the file that they are in, a format of a whole image takes content from there.
pub(crate) fn convert(
    format: &dyn Materializer,
    (tar, plain): (impl Read + Seek + Send + 'static, Option<File>),
    options: LayerOptions,
    file: &mut AtomicFile,
    folder: &Path,
) -> Result<(Made, LayerSummary)> {
    let limits = options.limits.tree.clone();
    let mut tar = match plain {
        Some(plain) if options.hashing == Hashing::Nothing => {
            LayerTar::in_file_unhashed(tar, plain, options)?
        }
        Some(plain) => LayerTar::in_file(tar, plain, options)?,
        None => LayerTar::new(tar, options)?,
    };
    let output = format.outputs().into_iter().next();
    let output = output.unwrap_or_else(|| OutputSpec::new(Role::Image, format.format().extension));
    let mut sink = OneFile { file, role: output.role, folder, limits: limits.clone() };
    let converted = if format.input() == Input::Layer {
        let made = format.layer(&mut tar, &mut sink)?;
        (made, tar.finish()?)
    } else {
        let image = MergedTree::read([Ok(tar)], limits, folder)?;
        let made = format.image(&image, &mut sink)?.with_losses(image.dropped_xattrs().loss());
        image.check_unchanged()?;
        let summary = image.summaries().first().cloned();
        (made, summary.ok_or_else(|| Error::new(ErrorKind::Internal, "the image has no layer"))?)
    };
    // No cache has it: it is the copy that its users write to.
    if output.writable {
        format.adapt(output.role, file)?;
    }
    Ok(converted)
}

/// A file, and room for temporary ones on the same disk.
struct OneFile<'a> {
    file: &'a mut AtomicFile,
    role: Role,
    folder: &'a Path,
    limits: TreeLimits,
}

impl Sink for OneFile<'_> {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        if role != self.role {
            return Err(Error::unsupported(format!("there is one file, its {}, and no {role}", self.role)));
        }
        Ok(self.file)
    }

    fn scratch(&mut self) -> Result<File> {
        temporary_file(self.folder)
    }

    fn limits(&self) -> TreeLimits {
        self.limits.clone()
    }
}
