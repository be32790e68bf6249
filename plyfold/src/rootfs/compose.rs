//! From finished artifacts to a set of files that appears whole.

use std::io;
use std::path::{Path, PathBuf};

use plyfold_core::block_sums::{BlockSums, Checksum};
use plyfold_core::snapshot::{RECORD, SetFile, SetRecord, SnapshotImage};
use plyfold_core::{
    ArtifactHandle, ArtifactReader, Error, HashTree, HashTreeFault, MadeFile, MadeImage, Result, Role,
    TreePlace,
};

use super::disks::{Disk, Disks};
use super::options::{EXT4, FLAT, GPT, LAYERS, MERGED, RAW, Rootfs, TARS, VMDK, VMDK_GPT, VMDK_STREAM};
use super::set::Set;
use super::set::names::left_in;
use crate::atomic_file::FileOptions;
use crate::blocking::Stop;

/// The format of an upper.
const UPPER_FORMAT: &str = "ext4-upper";
/// The formats of EROFS images, which overlayfs can stack.
const STACKABLE: [&str; 8] = [FLAT, LAYERS, MERGED, TARS, GPT, RAW, VMDK, VMDK_GPT];

impl Rootfs {
    /// Checks what can be checked without an image, before one is pulled.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) when an upper cannot have its size, or the format no upper, or links another
    /// mode than the store's.
    pub fn check(&self) -> Result<()> {
        CompositionPlan::new(self, Path::new("")).map(drop)
    }
}

/// The files to make, checked as far as possible before the work.
#[derive(Debug)]
pub(super) struct CompositionPlan {
    out: PathBuf,
    files: FileOptions,
    rootfs: Rootfs,
    #[cfg(all(feature = "erofs", feature = "ext4"))]
    upper: Option<plyfold_ext4::Ext4Upper>,
}

impl CompositionPlan {
    pub(super) fn new(rootfs: &Rootfs, out: &Path) -> Result<Self> {
        rootfs.files.check()?;
        if rootfs.verified {
            rootfs.check_hash_trees()?;
        }
        let name = rootfs.format.format().name;
        if rootfs.upper.is_some() && !STACKABLE.contains(&name) {
            let message = format!("{name} has no upper: overlayfs stacks EROFS images");
            return Err(
                Error::config(message).with_hint(format!("an upper goes with {}", STACKABLE.join(", ")))
            );
        }
        Ok(Self {
            out: out.to_owned(),
            files: rootfs.files,
            rootfs: rootfs.clone(),
            #[cfg(all(feature = "erofs", feature = "ext4"))]
            upper: rootfs.upper.map(plyfold_ext4::Ext4Upper::new).transpose()?,
        })
    }

    /// Puts all files into another folder, then gives them their place.
    pub(super) fn compose(self, made: &MadeImage, image: SnapshotImage, stop: &Stop) -> Result<Disks> {
        let mut set = Set::new(&self.out, self.files, stop)?;
        let mut disks = Disks { kernel: made.made.kernel, ..Disks::default() };
        disks.notes = made.made.told();
        let is_wanted = |file: &&MadeFile| self.rootfs.is_of_set(file, made);
        let sidecars: Vec<_> = made.files.iter().filter(is_wanted).filter_map(sidecar).collect();
        let names = made.files.iter().filter(is_wanted).map(|file| file.name.as_str());
        set.declare(names.chain(sidecars.iter().map(|(name, ..)| name.as_str())))?;
        let is_verified_for_all = made.files.iter().any(MadeFile::is_verified_for_all);
        let mut recorded = Vec::new();
        for file in in_order(&made.files).filter(is_wanted) {
            let told = file.artifact.made();
            let is_disk = [Role::Descriptor, Role::Image].contains(&file.role);
            let hash_tree = told.hash_tree.clone().filter(|_| is_disk);
            let is_verified = is_verified_for_all || file.role == Role::HashTree || told.is_hashed();
            if self.rootfs.verified && !is_verified {
                return Err(HashTreeFault::Untold(file.name.clone()).into());
            }
            let partitions = if is_disk { told.partitions.clone() } else { Vec::new() };
            if is_upper_link(file, &made.files) {
                set.refers(&file.name);
            }
            let mut checksum = None;
            let (path, size) = if file.writable {
                set.add_writable(&file.name, |out| {
                    out.fill_from(&*file.artifact)?;
                    if file.format.name == made.format.name {
                        self.rootfs.format.adapt(file.role, out)
                    } else {
                        Ok(())
                    }
                })?
            } else {
                checksum = Some(checksum_of(&*file.artifact, stop)?);
                set.add_finished(&file.name, &*file.artifact)?
            };
            let of = record_of(file, hash_tree).with_partitions(partitions);
            let of = checksum.into_iter().fold(of, |of, checksum| of.of_checksum(checksum, size));
            disks.add(Disk::of(&of, path, size));
            recorded.push(of);
        }
        for (name, format, text) in sidecars {
            let (path, size) = set.add(&name, |file| Ok(io::Write::write_all(file, text.as_bytes())?))?;
            let of = SetFile::new(name, Role::Sidecar, format, format);
            let of = of.of_checksum(checksum_in(text.as_bytes())?, size);
            disks.add(Disk::of(&of, path, size));
            recorded.push(of);
        }
        #[cfg(all(feature = "erofs", feature = "ext4"))]
        if let Some(upper) = self.upper {
            use super::set::names::UPPER;
            use plyfold_core::Materializer as _;
            use plyfold_core::snapshot::EmptyDisk;

            // Its root is that of the image.
            let root = plyfold_erofs::ErofsMerged::root(&super::overlay::lowers(made))?;
            let upper = upper.root(root.clone())?;
            let (path, size) = set.add(UPPER, |file| upper.join(&[], file).map(drop))?;
            let format = upper.format();
            let empty = EmptyDisk::new(&format, size, root);
            let of = SetFile::new(UPPER, Role::Image, format.name, format.to_string()).empty(empty);
            disks.add(Disk::of(&of, path, size));
            recorded.push(of);
        }
        let record = SetRecord::new(image, disks.kernel, recorded).to_json();
        set.add(RECORD, |file| Ok(io::Write::write_all(file, &record)?))?;
        disks.notes.extend(set.publish()?);
        disks.notes.extend(disks.left_in(&self.out));
        Ok(disks)
    }
}

impl Disks {
    /// Adds a file, which has the place of its format.
    pub(super) fn add(&mut self, file: Disk) {
        let path = file.path.clone();
        match &*file.format {
            VMDK_GPT if file.role == Role::Sidecar => self.partitions = Some(path),
            _ if ![Role::Descriptor, Role::Image].contains(&file.role) => {}
            EXT4 => self.ext4 = Some(path),
            FLAT => self.flat = Some(path),
            LAYERS | TARS => self.layers.push(path),
            MERGED => self.merged = Some(path),
            VMDK | VMDK_GPT => self.vmdk = Some(path),
            VMDK_STREAM => self.stream = Some(path),
            RAW => self.raw = Some(path),
            GPT => self.gpt = Some(path),
            UPPER_FORMAT => self.upper = Some(path),
            _ => {}
        }
        self.files.push(file);
    }

    /// What to know of disks of an older set that guests may have written to, and that are still in the folder.
    pub(super) fn left_in(&self, folder: &Path) -> Vec<String> {
        let note = |path: PathBuf| {
            let path = path.display();
            format!(
                "{path} was there before and is no part of these disks; `snapshot save` refuses the directory with it"
            )
        };
        left_in(folder, |name| self.paths().any(|path| path.ends_with(name))).map(note).collect()
    }
}

/// What containerd reads the root hash of a layer from, and the name that it looks for.
fn sidecar(file: &MadeFile) -> Option<(String, &'static str, String)> {
    let format = file.format.name;
    let tree = file.artifact.made().hash_tree.as_ref();
    let tree = tree.filter(|tree| [LAYERS, TARS].contains(&format) && tree.place == TreePlace::Append)?;
    Some((format!("{}.dmverity", file.name), format, tree.sidecar()))
}

/// The checksum of a file of the cache, which is read where the cache does not know it.
fn checksum_of(artifact: &dyn ArtifactHandle, stop: &Stop) -> Result<Checksum> {
    match artifact.checksum() {
        Some(known) => Ok(known),
        None => checksum_in(stop.reader(ArtifactReader::open(artifact)?)),
    }
}

fn checksum_in(reader: impl io::Read) -> Result<Checksum> {
    let sums = BlockSums::read_all(reader).map_err(|e| Error::io("reading a file of the cache", e))?;
    Ok(sums.checksum())
}

/// What a snapshot has to know of a file.
fn record_of(file: &MadeFile, hash_tree: Option<HashTree>) -> SetFile {
    let (name, format) = (file.name.as_str(), &file.format);
    SetFile::new(name, file.role, format.name, format.to_string())
        .of_layer(file.diff_id.clone())
        .writable(file.writable)
        .verified(hash_tree)
}

/// What is made from others comes behind them.
fn in_order(files: &[MadeFile]) -> impl Iterator<Item = &MadeFile> {
    let (links, lowest): (Vec<_>, Vec<_>) = files.iter().partition(|file| is_upper_link(file, files));
    lowest.into_iter().chain(links.into_iter().rev())
}

/// Whether a file is made from others of the set.
fn is_upper_link(file: &MadeFile, files: &[MadeFile]) -> bool {
    files.last().is_some_and(|lowest| lowest.format.name != file.format.name)
}
