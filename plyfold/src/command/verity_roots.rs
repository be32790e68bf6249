//! The root hashes that `verity --check` and `--roots` ask for.

use std::path::Path;

use crate::materializers::verity::RootHash;
use crate::{Error, HashedDisk, Result, RootHashes};

use super::disk_args::Expected;
use super::verity_options::Told;

/// The root hashes that a disk has to have.
pub(crate) enum Roots {
    /// A document, of `verity IMAGE --as FORMAT`.
    Document(Box<RootHashes>),
    /// Those of the command line.
    Given(Vec<Expected>),
}

impl Roots {
    /// Whether it can be one root hash, of all bytes.
    pub(crate) fn is_of_whole(&self) -> bool {
        match self {
            Self::Document(document) => document.disks.iter().any(|disk| disk.partition.is_none()),
            Self::Given(given) => matches!(**given, [Expected { name: None, .. }]),
        }
    }

    /// The one of a file without partitions, and what the document says of its tree.
    pub(crate) fn of_whole(&self, file: &Path) -> Result<(RootHash, Option<Told<'_>>)> {
        let document = match self {
            Self::Document(document) => document,
            Self::Given(given) => {
                return match **given {
                    [Expected { name: None, root }] => Ok((root, None)),
                    _ => Err(Error::config("the file has no partitions, and so has one root hash")
                        .with_hint("write --check ROOT, once")),
                };
            }
        };
        let name = file.file_name().and_then(|name| name.to_str());
        let disk = match *document.disks {
            [ref one] if one.partition.is_none() => Some(one),
            ref many => many.iter().find(|disk| disk.partition.is_none() && Some(disk.name.as_str()) == name),
        };
        let Some(disk) = disk else {
            let names: Vec<&str> = document.disks.iter().map(|disk| disk.name.as_str()).collect();
            let error = Error::config("the document of root hashes does not name this file");
            return Err(error.with_hint(format!(
                "it is of {}, in the format {}",
                names.join(", "),
                document.format.name
            )));
        };
        Ok((root_of(disk)?, Some(Told { disk, format: &document.format })))
    }
}

/// The root hash that a document says.
pub(crate) fn root_of(disk: &HashedDisk) -> Result<RootHash> {
    disk.root_hash.parse().map_err(|e: Error| e.with_context("name", &disk.name))
}
