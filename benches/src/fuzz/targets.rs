//! What is fuzzed, and what must hold of it.

use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use plyfold_conformance::tree::{ContentText, TreeLine, lines};
use plyfold_core::files::{FileType, Files};
use plyfold_core::tree::{Kind, MergedTree};
use plyfold_core::{Error, InputArtifact, Materializer as _};
use plyfold_disk::{Gpt, Raw};
use plyfold_erofs::{ErofsFlat, ErofsMerged, Reader};
use plyfold_ext4::{Ext4Files, Ext4Rootfs, Journal};
use plyfold_verity::{Parameters, TreeLayout, Work};
use plyfold_vmdk::{Descriptor, FlatDisk, SparseDisk, VmdkStream};

use super::mutate::{Random, mutate};
use super::outcome::{Outcome, of, refused};
use super::{archives, corpus, gpt, gzip};
use crate::result::Result;

/// Bytes of files that are read of one input.
const READ: u64 = 8 << 20;

/// Something that reads inputs.
pub(super) struct Target {
    corpus: Corpus,
    judge: fn(&[u8]) -> Outcome,
}

pub(super) const NAMES: &str =
    "archive, disk, erofs, ext4, gpt, gzip, merge, sparse, statement, tar, verity, vmdk";

pub(super) fn target(name: &str) -> Result<Target> {
    let of = |corpus, judge| Target { corpus, judge };
    Ok(match name {
        "archive" => of(
            Corpus { sum: Some(archives::sums), ..Corpus::of(archives::archives(), vec![0..512, 0..4096]) },
            archives::archive,
        ),
        "disk" => of(Corpus { hot: vec![1024..1200, 1152..1800], ..merged()? }, disk),
        "erofs" => of(
            Corpus { sum: Some(erofs_sum), ..Corpus::of(corpus::erofs()?, vec![1024..1152, 1152..8192]) },
            erofs,
        ),
        "ext4" => {
            let mut hot = vec![1024..2048, 4096..8192, 8192..65_536];
            of(Corpus::of(corpus::ext4(&mut hot)?, hot), ext4)
        }
        "gpt" => of(
            Corpus { sum: Some(gpt::sums), ..Corpus::of(gpt::disks()?, vec![512..604, 1024..1664]) },
            gpt::read,
        ),
        "gzip" => of(
            Corpus { sum: Some(gzip::sums), ..Corpus::of(gzip::blobs(), vec![0..20, 0..200]) },
            gzip::judge,
        ),
        "merge" => {
            of(Corpus { sum: Some(erofs_sum), ..Corpus::of(layers()?, vec![1024..1152, 1152..8192]) }, merge)
        }
        "sparse" => of(Corpus::of(sparse_disks()?, vec![0..512, 512..1536]), sparse),
        "statement" => of(Corpus::of(archives::statements()?, vec![]), archives::statement),
        "tar" => of(Corpus::of(small_tars(), vec![0..4096, 0..20_000]), tar),
        "verity" => of(Corpus::of(trees()?, vec![]), verity),
        "vmdk" => of(Corpus::of(descriptors(), vec![]), vmdk),
        _ => return Err(format!("there is no target {name}, but {NAMES}").into()),
    })
}

/// Right inputs, and how they are changed.
struct Corpus {
    inputs: Vec<Vec<u8>>,
    hot: Vec<Range<usize>>,
    /// Makes the checksums right, mostly, so that the fault behind them is reached.
    sum: Option<fn(&mut [u8])>,
}

impl Corpus {
    fn of(inputs: Vec<Vec<u8>>, hot: Vec<Range<usize>>) -> Self {
        Self { inputs, hot, sum: None }
    }
}

impl Target {
    /// An input that is nearly right.
    pub(super) fn input(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = random.one_of(&self.corpus.inputs).clone();
        mutate(&mut bytes, &self.corpus.hot, random);
        if let Some(sum) = self.corpus.sum.filter(|_| random.below(16) > 0) {
            sum(&mut bytes);
        }
        bytes
    }

    /// Reads an input.
    pub(super) fn judge(&self, input: &[u8]) -> Outcome {
        (self.judge)(input)
    }
}

/// Makes the checksum of an EROFS superblock right: of the rest of its block.
fn erofs_sum(bytes: &mut [u8]) {
    let Some(bits) = bytes.get(1036).copied() else { return };
    let end = if bits == 12 { 4096 } else { 1024 + (1 << bits.clamp(9, 11)) };
    if bytes.len() < end {
        return;
    }
    bytes[1028..1032].fill(0);
    let sum = !crc32c::crc32c(&bytes[1024..end]);
    bytes[1028..1032].copy_from_slice(&sum.to_le_bytes());
}

/// The EROFS reader: the superblock, the tree, and the content of files.
fn erofs(input: &[u8]) -> Outcome {
    let summary = plyfold_erofs::Summary::read(Cursor::new(input));
    if let Err(error) = &summary {
        refused(error)?;
    }
    let read = || {
        let mut reader = Reader::new(Cursor::new(input))?;
        reader.root()?;
        let tree = reader.tree()?;
        let (mut buffer, mut left) = (vec![0; 1 << 16], READ);
        for (_, id) in tree.walk() {
            let Kind::File { size, content } = &tree.node(id).kind else { continue };
            // At both ends: between them may be a hole of many TiB.
            for start in [0, size.saturating_sub(1 << 17)] {
                let mut at = start;
                while at < (start + (1 << 18)).min(*size) && left > 0 {
                    match reader.read(content, *size, at, &mut buffer)? {
                        0 => break,
                        count => (at, left) = (at + count as u64, left.saturating_sub(count as u64)),
                    }
                }
            }
        }
        Ok(())
    };
    of(read(), |()| Ok(false))
}

/// A damaged layer that is merged with sound ones.
fn merge(input: &[u8]) -> Outcome {
    let made = || {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("layer.erofs");
        std::fs::write(&path, input)?;
        let layer = InputArtifact::local(&path, None)?;
        ErofsMerged::default().join(&[layer.clone(), layer.clone()], &mut tempfile::tempfile()?)?;
        ErofsMerged::default().overlay_differences(&[layer], true)
    };
    of(made(), |_| Ok(false))
}

/// A damaged merged image in front of sound layers, as one disk.
fn disk(input: &[u8]) -> Outcome {
    let made = || {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("merged.erofs");
        std::fs::write(&path, input)?;
        let mut files = vec![InputArtifact::local(&path, None)?];
        for number in 0..2 {
            let path = folder.path().join(format!("layer-{number}"));
            File::create(&path)?.set_len(8192)?;
            files.push(InputArtifact::local(&path, None)?);
        }
        Gpt::default().join(&files, &mut tempfile::tempfile()?)?;
        Raw::default().join(&files, &mut tempfile::tempfile()?)
    };
    of(made(), |_| Ok(false))
}

/// The merged image of two layers of two blocks each.
fn merged() -> Result<Corpus> {
    let folder = tempfile::tempdir()?;
    let layers = corpus::two_layers(folder.path())?;
    let merged = corpus::written(|out| ErofsMerged::default().join(&layers, out))?;
    Ok(Corpus::of(vec![merged], vec![]))
}

fn layers() -> Result<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let files = corpus::files(folder.path(), &small_tars())?;
    let read = |file: &InputArtifact| Ok(std::fs::read(plyfold_conformance::path_of(file))?);
    files.iter().map(read).collect()
}

/// The ext4 reader, and growth in place.
fn ext4(input: &[u8]) -> Outcome {
    let read = || {
        let mut files = Ext4Files::new(Cursor::new(input.to_vec()))?;
        let (mut folders, mut seen, mut left) = (vec![b"/".to_vec()], 0, READ);
        while let Some(folder) = folders.pop() {
            for file in files.list(&folder)? {
                let path = [&folder[..], b"/", &file.name].concat();
                seen += 1;
                // A directory may name itself.
                if file.kind == FileType::Directory && seen < 5000 && path.len() < 2000 {
                    folders.push(path);
                } else if file.kind == FileType::Regular && left > 0 && file.size < READ {
                    files.read(&path, &mut |bytes| {
                        left = left.saturating_sub(bytes.len() as u64);
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    };
    let found = of(read(), |()| Ok(false))?;
    let grown = || {
        let mut disk = tempfile::tempfile()?;
        disk.write_all(input)?;
        plyfold_ext4::resize(&mut disk, (input.len() as u64).next_multiple_of(4096) + (32 << 20)).map(drop)
    };
    of(grown(), |()| Ok(false)).map(|refused| found && refused)
}

/// What is not too large to be made often.
fn small_tars() -> Vec<Vec<u8>> {
    let mut tars = corpus::tars();
    tars.retain(|tar| tar.len() < 1 << 20);
    tars
}

/// A layer's tar becomes images whose readers show the tree that the tar has, or it is refused.
fn tar(input: &[u8]) -> Outcome {
    of(corpus::image(&[input.to_vec()]), |image| {
        let expected = of_image(&image).map_err(|e| format!("the tree of an image that was read: {e:?}"))?;
        if expected.is_empty() {
            // Too much to compare.
            return Ok(true);
        }
        let flat = corpus::written(|out| ErofsFlat::default().image(&image, out));
        let refusal = of(flat, |flat| {
            let found = of_erofs(flat).map_err(|e| format!("what was made cannot be read: {e:?}"))?;
            same(&found, &expected).map(|()| false)
        })?;
        let journal = Ext4Rootfs::new().journal(Journal::None).map_err(|e| e.to_string())?;
        let disk = corpus::written(|out| journal.image(&image, out));
        of(disk, |disk| of(Ext4Files::new(Cursor::new(disk)), |_| Ok(refusal)))
    })
}

/// No lines for an image with more content than is compared.
fn of_image(image: &MergedTree) -> plyfold_core::Result<Vec<TreeLine>> {
    let tree = image.tree();
    let sizes = tree.walk().filter_map(|(_, id)| match tree.node(id).kind {
        Kind::File { size, .. } => Some(size),
        _ => None,
    });
    if sizes.fold(0_u64, u64::saturating_add) > 128 << 20 {
        return Ok(Vec::new());
    }
    let mut all = lines(tree, |_, _| Ok(String::new()))?;
    for (line, (_, id)) in all.iter_mut().zip(tree.walk()) {
        if let (Kind::File { size, .. }, false) = (&tree.node(id).kind, line.what.starts_with("= ")) {
            let text = ContentText::read(*size, |offset, buffer| image.read_at(id, offset, buffer))?;
            line.what = format!("file {text}");
        }
    }
    Ok(all)
}

fn of_erofs(flat: Vec<u8>) -> plyfold_core::Result<Vec<TreeLine>> {
    let mut reader = Reader::new(Cursor::new(flat))?;
    let tree = reader.tree()?;
    lines(&tree, |content, size| ContentText::read(size, |at, buffer| reader.read(content, size, at, buffer)))
}

/// EROFS drops attributes outside of the namespaces that Linux shows to users.
fn same(found: &[TreeLine], expected: &[TreeLine]) -> std::result::Result<(), String> {
    let known = ["user.", "trusted.", "security.", "system.posix_acl_access=", "system.posix_acl_default="];
    let held = |line: &TreeLine| {
        let mut line = line.clone();
        line.xattrs.retain(|xattr| known.iter().any(|prefix| xattr.starts_with(prefix)));
        line.xattrs.sort();
        line
    };
    let different = found.iter().zip(expected).find(|(found, expected)| held(found) != held(expected));
    match different {
        Some((found, expected)) => Err(format!("{found} in the image, {expected} in the tar")),
        None if found.len() != expected.len() => {
            Err(format!("{} names in the image, {} in the tar", found.len(), expected.len()))
        }
        None => Ok(()),
    }
}

/// Hash trees behind data of some blocks.
fn trees() -> Result<Vec<Vec<u8>>> {
    let mut trees = Vec::new();
    for (block, blocks) in [(512, 3), (512, 40), (4096, 1), (4096, 9)] {
        let parameters = Parameters::default().with_data_block_size(block)?.with_hash_block_size(block)?;
        let size = u64::from(block) * blocks;
        let layout = TreeLayout::appended(parameters, size)?;
        let (stop, mut file) = (plyfold_core::blocking::Stop::default(), tempfile::tempfile()?);
        file.write_all(&vec![7; usize::try_from(size)?])?;
        let data = file.try_clone()?;
        layout.write(&data, &mut file, None, &Work::new(&stop))?;
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
        file.read_exact_at(&mut bytes, 0)?;
        trees.push(bytes);
    }
    Ok(trees)
}

/// The superblock of a hash tree, wherever it may be, and a verification by what it says.
fn verity(input: &[u8]) -> Outcome {
    let read = || {
        let mut file = tempfile::tempfile()?;
        file.write_all(input)?;
        let stop = plyfold_core::blocking::Stop::default();
        let found = TreeLayout::find(&file)?;
        for offset in [512, 1536, 4096, 20_480, 36_864] {
            // Most are none.
            let _ = TreeLayout::read(&file, offset);
        }
        let Some((layout, _)) = found else { return Err(Error::not_found("no hash tree")) };
        let root = layout.root_hash(&file, &Work::new(&stop))?;
        layout.verify(&root, &file, &file, &Work::new(&stop))
    };
    of(read(), |()| Ok(false))
}

/// Compressed disks of one file.
fn sparse_disks() -> Result<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let mut disks = Vec::new();
    for (number, disk) in
        [corpus::varied(), vec![7; 65_536], [vec![0; 1 << 20], vec![1; 512]].concat()].iter().enumerate()
    {
        let path = folder.path().join(number.to_string());
        std::fs::write(&path, disk)?;
        let disk = InputArtifact::local(&path, None)?;
        disks.push(corpus::written(|out| VmdkStream::new().of("raw")?.join(&[disk], out))?);
    }
    Ok(disks)
}

/// The reader of a VMDK of one file, whose bytes are read from the start and from the end.
fn sparse(input: &[u8]) -> Outcome {
    of(SparseDisk::new(Cursor::new(input)), |mut disk| {
        let size = disk.summary().size;
        let mut buffer = vec![0; 1 << 16];
        for start in [0, size / 2, size.saturating_sub(1 << 17)] {
            let mut left = 1_u64 << 20;
            if disk.seek(SeekFrom::Start(start)).is_err() {
                return Ok(true);
            }
            while left > 0 {
                match disk.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => left = left.saturating_sub(count as u64),
                    // What is damaged is an error of a read.
                    Err(_) => return Ok(true),
                }
            }
        }
        Ok(false)
    })
}

fn descriptors() -> Vec<Vec<u8>> {
    let flat = "# Disk DescriptorFile\nversion=1\nCID=6962d561\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n\
                # Extent description\nRW 8 FLAT \"a.raw\" 0\nRW 16 FLAT \"b.raw\" 8\n\n# The Disk Data Base\n#DDB\n\n\
                ddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"1\"\nddb.adapterType = \"ide\"\n";
    let split = "# Disk DescriptorFile\r\nversion=3\r\nCID=ffFFffFE\r\nparentCID=ffffffff\r\n\
                 createType=\"twoGbMaxExtentFlat\"\r\nRW  8  FLAT  \"layers/a.raw\"  16\r\n";
    [flat, split].map(|text| text.as_bytes().to_vec()).to_vec()
}

/// A descriptor that is read is written as what it says, and leads to no file outside of its folder.
fn vmdk(input: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(input);
    of(Descriptor::parse(&text), |descriptor| {
        let written = descriptor.to_string();
        let again = Descriptor::parse(&written).map_err(|e| format!("what was written is refused: {e:?}"))?;
        if again.extents() != descriptor.extents() || again.cid() != descriptor.cid() {
            return Err(format!("it is written as another: {written}"));
        }
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        for name in ["a.raw", "b.raw"] {
            let file = File::create(folder.path().join(name)).and_then(|file| file.set_len(1 << 20));
            file.map_err(|e| e.to_string())?;
        }
        let outside = |path: &str| path.split('/').any(|part| part == "..") || path.starts_with('/');
        match FlatDisk::new(&descriptor, folder.path()) {
            Ok(_) if descriptor.extents().iter().any(|extent| outside(extent.path())) => {
                Err(format!("it leads out of its folder: {written}"))
            }
            // A file that is not there is one of this machine.
            Ok(_) | Err(_) => Ok(false),
        }
    })
}
