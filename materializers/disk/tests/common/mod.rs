//! Disks of tars, and the partitions that are found on one.

use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use plyfold_core::digest::sha256;
use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_core::{
    Digest, Input, InputArtifact, LocalArtifact, Made, Materializer, Materializers, Result, Role, Sink,
};
use plyfold_erofs::{ErofsLayer, ErofsMerged, Options};
use plyfold_vmdk::VmdkStream;

/// What the engine gives a disk: the merged image, made beside `file`, then the layers.
pub(crate) fn join(
    disk: &dyn Materializer,
    layers: &[InputArtifact],
    file: &Path,
    options: &Options,
    out: &mut dyn Sink,
) -> Result<Made> {
    disk.join(&with_merged(layers, file, options)?, out)
}

/// What the engine gives a descriptor: the same files under their names beside it.
pub(crate) fn join_named(
    disk: &dyn Materializer,
    layers: &[InputArtifact],
    file: &Path,
    options: &Options,
    out: &mut dyn Sink,
) -> Result<Made> {
    let files = with_merged(layers, file, options)?.into_iter().map(|of| {
        let name = Path::new(&of.name).file_name().unwrap_or_default().to_string_lossy();
        InputArtifact::new(name, of.role, of.artifact.clone(), of.diff_id.clone())
    });
    disk.join(&files.collect::<Vec<_>>(), out)
}

/// Gives the tables of a descriptor in a file the name that it has in a set.
pub(crate) fn name_tables(descriptor: &Path) {
    let (made, named) = (descriptor.with_extension("gpt"), descriptor.with_file_name("partitions.gpt"));
    std::fs::copy(made, named).expect("the tables are beside the descriptor");
}

/// A compressed disk of a format that is made of the same files.
pub(crate) fn join_stream(
    stream: &VmdkStream,
    layers: &[InputArtifact],
    file: &Path,
    options: &Options,
    out: &mut dyn Sink,
) -> Result<Made> {
    let path = file.with_file_name("rootfs.img");
    let mut disk = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let Input::Artifacts { format, options: of_disk } = stream.input() else {
        panic!("a stream is made of a disk")
    };
    let content = Materializers::linked()?.open(format, &of_disk)?;
    let made = join(&*content, layers, file, options, &mut disk)?;
    let mut disk = InputArtifact::local(&path, None)?;
    disk.artifact = Box::new(LocalArtifact::new(path, disk.artifact.size(), made));
    stream.join(&[disk], out)
}

/// The merged image, made beside `file`, and its layers.
pub(crate) fn with_merged(
    layers: &[InputArtifact],
    file: &Path,
    options: &Options,
) -> Result<Vec<InputArtifact>> {
    let path = file.with_file_name("merged.erofs");
    let mut merged = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let verified = layers.iter().all(|layer| layer.artifact.made().hash_tree.is_some());
    let format = ErofsMerged::new(options.clone());
    let format = if verified { format.with_hash_trees() } else { format };
    let told = format.join(layers, &mut merged)?;
    Ok([&[finished(&path, told, None)?], layers].concat())
}

/// A finished file, with what its materializer has said.
pub(crate) fn finished(path: &Path, told: Made, diff_id: Option<Digest>) -> Result<InputArtifact> {
    let artifact = LocalArtifact::new(path.to_owned(), std::fs::metadata(path)?.len(), told);
    Ok(InputArtifact::new(path.to_string_lossy(), Role::Image, Box::new(artifact), diff_id))
}

/// The layers' images of tars, in a folder.
pub(crate) fn layers(tars: &[Vec<u8>], folder: &Path, options: &Options) -> Result<Vec<InputArtifact>> {
    let layer = |(number, tar): (usize, &Vec<u8>)| {
        let path = folder.join(format!("layer-{number}.erofs"));
        let mut file = File::create_new(&path)?;
        let mut layer = LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default())?;
        ErofsLayer::new(options.clone()).layer(&mut layer, &mut file)?;
        InputArtifact::local(&path, Some(sha256(tar)))
    };
    tars.iter().enumerate().map(layer).collect()
}

/// An entry of a partition table: its name, its GUID as it is written, and its first and last byte.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) guid: [u8; 16],
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// The used entries of the table whose header is at a sector, the primary one at 1.
pub(crate) fn entries(disk: &File, header: u64) -> std::io::Result<Vec<Entry>> {
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        disk.read_exact_at(&mut bytes, at).map(|()| bytes)
    };
    let header = read(header * 512, 512)?;
    assert_eq!(&header[..8], b"EFI PART");
    let long = |bytes: &[u8], at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
    let (start, count) = (long(&header, 72), long(&header, 80) & 0xffff_ffff);
    let mut entries = Vec::new();
    for index in 0..count {
        let entry = read(start * 512 + index * 128, 128)?;
        if entry[..16] == [0; 16] {
            continue;
        }
        let units = entry[56..].chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        entries.push(Entry {
            name: String::from_utf16_lossy(&units),
            guid: std::array::from_fn(|at| entry[16 + at]),
            first: long(&entry, 32) * 512,
            last: long(&entry, 40) * 512 + 511,
        });
    }
    Ok(entries)
}
