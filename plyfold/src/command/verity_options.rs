//! The options of `verity` about trees, and its file.

use std::fs::File;
use std::path::Path;

use crate::disk_file::open_error;
use crate::materializers::verity::{Parameters, TreeLayout};
use crate::{Error, HashedDisk, HashedFormat, Result, printable};

use super::disk_args::Verity;

/// The parameters of the command line.
pub(crate) fn parameters(options: &Verity) -> Result<Parameters> {
    let mut parameters = Parameters::default();
    if let Some(bytes) = options.data_block_size {
        parameters = parameters.with_data_block_size(bytes)?;
    }
    if let Some(bytes) = options.hash_block_size {
        parameters = parameters.with_hash_block_size(bytes)?;
    }
    options.salt.iter().try_fold(parameters, |parameters, salt| parameters.with_salt_text(salt))
}

/// Refuses parameters that a superblock contradicts.
pub(crate) fn check_same(options: &Verity, layout: &TreeLayout) -> Result<()> {
    let (given, there) = (parameters(options)?, layout.parameters());
    let differs = [
        ("--salt", options.salt.is_some() && given.salt() != there.salt(), there.salt_text()),
        (
            "--data-block-size",
            options.data_block_size.is_some_and(|bytes| bytes != there.data_block_size()),
            there.data_block_size().to_string(),
        ),
        (
            "--hash-block-size",
            options.hash_block_size.is_some_and(|bytes| bytes != there.hash_block_size()),
            there.hash_block_size().to_string(),
        ),
    ];
    match differs.into_iter().find(|(_, differs, _)| *differs) {
        Some((option, _, there)) => {
            let error = Error::config(format!("the superblock of the hash tree says {there}"));
            Err(error.with_context("option", option).with_hint("leave the option out"))
        }
        None => Ok(()),
    }
}

/// A regular file: others have no size, or change.
pub(crate) fn open(path: &Path) -> Result<File> {
    let at = |e: Error| e.with_context("path", path.display());
    let is_file = path.metadata().map_or(true, |metadata| metadata.is_file());
    if !is_file {
        let error = at(Error::config("it is not a regular file"));
        return Err(if path.is_dir() {
            error.with_hint("name one file: `plyfold inspect DIRECTORY` lists the disks of a directory")
        } else {
            error.with_hint("copy it to a file first")
        });
    }
    File::open(path).map_err(|e| at(open_error("opening the file", e)))
}

/// Refuses a tree that is another one than a document of root hashes says.
pub(crate) fn check_told(layout: &TreeLayout, told: Told<'_>) -> Result<()> {
    let Told { disk: told, format } = told;
    let parameters = layout.parameters();
    let there = (
        "sha256",
        parameters.salt_hex(),
        layout.data_blocks(),
        parameters.data_block_size(),
        parameters.hash_block_size(),
        layout.hash_offset(),
    );
    let said = (
        told.hash_algorithm.as_str(),
        told.salt.clone(),
        told.data_blocks,
        told.data_block_size,
        told.hash_block_size,
        told.hash_offset,
    );
    if there == said {
        return Ok(());
    }
    let HashedFormat { name, version, options, .. } = format;
    let options = if options.is_empty() { String::new() } else { format!("-{}", printable(options)) };
    let of = format!("{}-v{version}{options}", printable(name));
    let message = format!(
        "the hash tree is of other data, or of other options, than the document says, which is of {of}"
    );
    Err(Error::corrupt(message))
}

/// What a document of root hashes says of a disk, and the format that it is of.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) disk: &'a HashedDisk,
    pub(crate) format: &'a HashedFormat,
}
