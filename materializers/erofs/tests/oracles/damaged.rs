//! Damaged images: what the kernel shows of one is what the reader shows, or one of the two refuses it.

use std::fs::{self, File};

use plyfold_conformance::oracle::{Mount, Verdict};
use plyfold_conformance::tree::{ContentText, TreeLine, lines, mounted};
use plyfold_erofs::{Options, Reader};

use crate::common::{compressed, flat, image, rich_layer, varied_layer};
use crate::compressed::by;

/// Images of each sample.
const ROUNDS: usize = 40;

pub(crate) fn a_damaged_image_is_the_same_to_the_kernel() -> Verdict {
    let samples = [
        image(rich_layer(), Options::default())?,
        flat(&[rich_layer()], Options::default())?,
        flat(&[varied_layer()], Options::default().with_block_size(512)?)?,
        compressed(&[varied_layer()], by("lz4", 4096))?,
        compressed(&[varied_layer()], by("lz4", 65_536))?,
    ];
    // A linear congruential generator: the same damage every time.
    let mut state = 3_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let folder = tempfile::tempdir()?;
    let (mut same, mut refused) = (0, [0, 0]);
    for (number, sample) in samples.iter().enumerate() {
        let sound = fs::read(sample)?;
        let block = 1 << sound[1024 + 12];
        let metadata = block * u32::from_le_bytes(sound[1024 + 40..1024 + 44].try_into()?) as usize;
        for round in 0..ROUNDS {
            let mut bytes = sound.clone();
            for _ in 0..=random(2) {
                let at = match round % 4 {
                    0 => metadata + random(2048.min(bytes.len() - metadata)),
                    1 => metadata + random(bytes.len() - metadata) / 32 * 32 + random(32),
                    _ => metadata + random(bytes.len() - metadata),
                };
                bytes[at] = [0, 0xff, 1, 0x80, bytes[at] ^ 1, bytes[at].wrapping_add(1)][random(6)];
            }
            // The checksum is of the superblock and what is in its block.
            let end = if block == 4096 { 4096 } else { 1024 + 512 };
            bytes[1028..1032].fill(0);
            let sum = !crc32c::crc32c(&bytes[1024..end]);
            bytes[1028..1032].copy_from_slice(&sum.to_le_bytes());
            let path = folder.path().join(format!("{number}-{round}"));
            fs::write(&path, &bytes)?;
            // The kernel would read a file of any size that the reader refuses.
            let ours = by_reader(&path);
            let kernels = ours.as_ref().and_then(|_| by_kernel(&path));
            match (ours, kernels) {
                (Some(ours), Some(kernels)) => {
                    let different = ours.iter().zip(&kernels).find(|(ours, kernels)| ours != kernels);
                    let text =
                        different.map(|(ours, kernels)| format!("{ours}\n  to the kernel\n  {kernels}"));
                    assert_eq!(text, None, "image {number}, round {round}");
                    assert_eq!(ours.len(), kernels.len(), "image {number}, round {round}: number of names");
                    same += 1;
                }
                (ours, _) => refused[usize::from(ours.is_some())] += 1,
            }
            fs::remove_file(path)?;
        }
    }
    assert!(same > samples.len() * ROUNDS / 8, "{same} are the same; refused {refused:?}");
    Ok(())
}

/// The numbers of links apart, which an image says twice.
fn comparable(mut lines: Vec<TreeLine>) -> Vec<TreeLine> {
    for line in &mut lines {
        line.links = 0;
    }
    lines
}

fn by_reader(path: &std::path::Path) -> Option<Vec<TreeLine>> {
    let mut reader = Reader::new(File::open(path).ok()?).ok()?;
    let tree = reader.tree().ok()?;
    let read = lines(&tree, |content, size| {
        if size > 1 << 24 {
            return Err(plyfold_core::Error::limit("a file of that size is not read here"));
        }
        ContentText::read(size, |offset, buffer| reader.read(content, size, offset, buffer))
    });
    read.ok().map(comparable)
}

fn by_kernel(path: &std::path::Path) -> Option<Vec<TreeLine>> {
    let mount = Mount::new("erofs", path, "loop,ro").ok()?;
    mounted(mount.path()).ok().map(comparable)
}
