//! `verity FILE --check` and `--roots` of a disk with partitions: each image by its own tree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::materializers::disk::PartitionInfo;
use crate::materializers::verity::{RootHash, TreeLayout, Uuid, Work};
use crate::{Error, ErrorKind, HashedDisk, ReadAt, Result, RootHashes, printable};
use serde_json::{Value, json};

use super::disk_args::Verity;
use super::hash_tree::TreeDocument;
use super::hash_trees::{Hashed, Role, blocks, role};
use super::terminal::table;
use super::verity_options::{Told, check_same, check_told};
use super::verity_roots::{Roots, root_of};

/// What became of each partition that is no hash tree.
pub(crate) struct Report {
    path: PathBuf,
    rows: Vec<Row>,
    /// A root hash that no tree has.
    pub(crate) unknown: Option<Error>,
}

struct Row {
    number: u32,
    name: String,
    tree: Option<Stated>,
    outcome: Outcome,
}

/// What a tree says, which is not verified.
struct Stated {
    /// The partition that it is in.
    holder: u32,
    layout: TreeLayout,
    root: RootHash,
    uuid: Uuid,
}

enum Outcome {
    /// No root hash is given for it.
    Unasked,
    Failed(Error),
    Verified,
}

/// Whether a partition has a hash tree, or is one.
pub(crate) fn has_trees(disk: &dyn ReadAt, list: &[PartitionInfo]) -> Result<bool> {
    for index in 0..list.len() {
        match role(disk, list, index) {
            Ok(Role::Other) => {}
            Err(e) if *e.kind() == ErrorKind::Io => return Err(e),
            _ => return Ok(true),
        }
    }
    Ok(false)
}

/// Verifies the images in partitions.
///
/// Where partitions are named, those are verified. Else all are: one without a root hash, or without a tree, is a failure.
pub(crate) fn verify_partitions(
    options: &Verity,
    disk: &dyn ReadAt,
    list: &[PartitionInfo],
    roots: &Roots,
    work: &Work,
) -> Result<Report> {
    let mut wanted = Wanted::of(roots, list)?;
    let mut rows = Vec::new();
    for (index, partition) in list.iter().enumerate() {
        let found = match role(disk, list, index) {
            Ok(Role::Tree(Some(_))) => continue,
            Err(e) if *e.kind() == ErrorKind::Io => return Err(e),
            found => found,
        };
        let mut row = Row {
            number: partition.number,
            name: partition.name.clone(),
            tree: None,
            outcome: Outcome::Unasked,
        };
        if let Ok(Role::Hashed(hashed)) = &found {
            let holder = list.get(hashed.holder).map_or(partition.number, |holder| holder.number);
            let root = hashed.layout.stated_root(&hashed.data, &hashed.tree)?;
            row.tree = Some(Stated { holder, layout: hashed.layout.clone(), root, uuid: hashed.uuid });
        }
        row.outcome = match wanted.take(partition, row.stated()) {
            Asked::Nothing => Outcome::Unasked,
            Asked::Failed(e) => Outcome::Failed(e),
            Asked::Root(root, told) => match verify(options, found, &root, told, row.holder(), work) {
                Ok(()) => Outcome::Verified,
                Err(e) if [ErrorKind::Cancelled, ErrorKind::Io].contains(e.kind()) => return Err(e),
                Err(e) => Outcome::Failed(e),
            },
        };
        rows.push(row);
    }
    let unknown = wanted.unknown(&rows);
    Ok(Report { path: options.file.clone(), rows, unknown })
}

fn verify(
    options: &Verity,
    found: Result<Role<'_>>,
    root: &RootHash,
    told: Option<Told<'_>>,
    holder: Option<u32>,
    work: &Work,
) -> Result<()> {
    let hashed = match found? {
        Role::Hashed(hashed) => hashed,
        Role::Tree(_) => return Err(Error::corrupt("it is the hash tree of no partition that is here")),
        Role::Other => return Err(Error::corrupt("it has no hash tree")),
    };
    let Hashed { layout, data, tree: tree_bytes, .. } = *hashed;
    check_same(options, &layout)?;
    if let Some(told) = told {
        check_told(&layout, told)?;
        if told.disk.hash_partition.or(told.disk.partition) != holder {
            return Err(Error::corrupt("its hash tree is in another partition than the document says"));
        }
    }
    layout.verify(root, &data, &tree_bytes, work)
}

/// What is asked of one partition.
enum Asked<'a> {
    Failed(Error),
    Nothing,
    Root(RootHash, Option<Told<'a>>),
}

/// The root hashes that are asked for, and those that were found.
enum Wanted<'a> {
    /// Of all images, by what their trees say.
    All {
        roots: Vec<RootHash>,
        found: BTreeSet<RootHash>,
    },
    Document(&'a RootHashes),
    /// Of these partitions, by their numbers.
    Named(Vec<(u32, RootHash)>),
}

impl<'a> Wanted<'a> {
    fn of(roots: &'a Roots, list: &[PartitionInfo]) -> Result<Self> {
        let given = match roots {
            Roots::Document(document) => {
                let missing = document.disks.iter().find(|disk| {
                    !list.iter().any(|of| Some(of.number) == disk.partition && of.name == disk.name)
                });
                return match missing {
                    None => Ok(Self::Document(document)),
                    Some(disk) => {
                        let error =
                            Error::corrupt("the disk does not have a partition that the document is of");
                        Err(error.with_context("partition", printable(&disk.name)))
                    }
                };
            }
            Roots::Given(given) => given,
        };
        let with_names = given.iter().filter_map(|expected| Some((expected.name.as_deref()?, expected.root)));
        let named: Vec<_> =
            with_names.map(|(name, root)| Ok((number_of(name, list)?, root))).collect::<Result<_>>()?;
        match named.len() {
            0 => {
                let roots = given.iter().map(|expected| expected.root).collect();
                Ok(Self::All { roots, found: BTreeSet::new() })
            }
            count if count == given.len() => Ok(Self::Named(named)),
            _ => Err(Error::config("--check is given with names of partitions and without")
                .with_hint("write NAME=ROOT for each, or ROOT for each")),
        }
    }

    /// What is asked of a partition whose tree says this root hash.
    fn take(&mut self, partition: &PartitionInfo, stated: Option<RootHash>) -> Asked<'a> {
        match self {
            Self::All { roots, found } => match stated.filter(|stated| roots.contains(stated)) {
                Some(root) => {
                    found.insert(root);
                    Asked::Root(root, None)
                }
                None if stated.is_none() => Asked::Failed(Error::corrupt("it has no hash tree")),
                None => Asked::Failed(Error::config("no root hash is given for it")),
            },
            Self::Document(document) => match of_number(document, partition.number) {
                Some(disk) => root_of(disk).map_or_else(Asked::Failed, |root| {
                    Asked::Root(root, Some(Told { disk, format: &document.format }))
                }),
                None => Asked::Failed(Error::corrupt("the document of root hashes does not name it")),
            },
            Self::Named(named) => {
                let root =
                    named.iter().find(|(number, _)| *number == partition.number).map(|(_, root)| *root);
                root.map_or(Asked::Nothing, |root| Asked::Root(root, None))
            }
        }
    }

    /// The error of a root hash that no tree has.
    fn unknown(&self, rows: &[Row]) -> Option<Error> {
        let Self::All { roots, found } = self else { return None };
        let root = roots.iter().find(|root| !found.contains(root))?;
        let stated =
            rows.iter().filter_map(|row| Some(format!("{} {}", printable(&row.name), row.stated()?)));
        let stated: Vec<String> = stated.collect();
        let error = Error::corrupt(format!("no hash tree on the disk has the root hash {root}"));
        Some(error.with_hint(format!(
            "by their trees, which nothing has verified, they are: {}",
            stated.join(", ")
        )))
    }
}

fn of_number(document: &RootHashes, number: u32) -> Option<&HashedDisk> {
    document.disks.iter().find(|disk| disk.partition == Some(number))
}

/// The number of the partition that is meant: its name, or the number itself.
fn number_of(name: &str, list: &[PartitionInfo]) -> Result<u32> {
    let by_name: Vec<u32> = list.iter().filter(|of| of.name == name).map(|of| of.number).collect();
    let by_number = || list.iter().map(|of| of.number).find(|number| name.parse() == Ok(*number));
    match *by_name {
        [one] => Ok(one),
        [] => by_number().ok_or_else(|| {
            let names: Vec<String> = list.iter().map(|of| printable(&of.name)).collect();
            Error::config("the disk has no such partition")
                .with_context("partition", printable(name))
                .with_hint(format!("it has {}", names.join(", ")))
        }),
        _ => Err(Error::config("several partitions have this name")
            .with_context("partition", printable(name))
            .with_hint("write NUMBER=ROOT")),
    }
}

impl Report {
    pub(crate) fn document(&self) -> Value {
        json!({
            "path": self.path.display().to_string(),
            "verified": self.failed() == 0,
            "partitions": self.rows.iter().map(|row| row.document(&self.path)).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn text(&self) -> String {
        let row = |row: &Row| [row.number.to_string(), printable(&row.name), row.data(), row.said()];
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        format!(
            "disk  {}\n\n{}",
            printable(&self.path.to_string_lossy()),
            table(["NUMBER", "NAME", "DATA", "RESULT"], &rows)
        )
    }

    /// The error that it ends with, if a partition is not verified.
    pub(crate) fn outcome(&self) -> Result<()> {
        let failed = self.failed();
        if failed == 0 {
            return Ok(());
        }
        let is_damaged =
            |row: &Row| matches!(&row.outcome, Outcome::Failed(e) if *e.kind() != ErrorKind::Config);
        let kind = if self.rows.iter().any(is_damaged) { ErrorKind::Corrupt } else { ErrorKind::Config };
        let are = if failed == 1 { "is" } else { "are" };
        let message = format!("{failed} of {} partitions {are} not verified", self.rows.len());
        let error = Error::new(kind.clone(), message).with_context("path", self.path.display());
        Err(match kind {
            ErrorKind::Config => error.with_hint(
                "give the root hash of each by --check, or all by --roots FILE.json, which \
                 `plyfold verity IMAGE --as FORMAT --out FILE.json` writes; --check NAME=ROOT verifies one alone",
            ),
            _ => error,
        })
    }

    fn failed(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_))).count()
    }
}

impl Row {
    fn holder(&self) -> Option<u32> {
        self.tree.as_ref().map(|tree| tree.holder)
    }

    fn stated(&self) -> Option<RootHash> {
        self.tree.as_ref().map(|tree| tree.root)
    }

    fn document(&self, disk: &Path) -> Value {
        let tree = self.tree.as_ref().map(|Stated { holder, layout, root, uuid }| {
            TreeDocument::read(layout, root, Some(*uuid)).at(disk, Some(*holder), layout.hash_offset())
        });
        json!({
            "number": self.number,
            "name": self.name,
            "verified": match self.outcome {
                Outcome::Unasked => None,
                Outcome::Failed(_) => Some(false),
                Outcome::Verified => Some(true),
            },
            "error": if let Outcome::Failed(e) = &self.outcome { Some(e.message()) } else { None },
            "hash_tree": tree,
        })
    }

    fn data(&self) -> String {
        self.tree.as_ref().map_or_else(|| "-".to_owned(), |tree| blocks(&tree.layout))
    }

    fn said(&self) -> String {
        match &self.outcome {
            Outcome::Unasked => "not checked".to_owned(),
            Outcome::Failed(e) => format!("not verified: {}", printable(e.message())),
            Outcome::Verified => "verified".to_owned(),
        }
    }
}
