//! Deltas: a disk as the blocks that another disk does not have.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `plyfold delta 1` and a line feed |
//! | 8 | the size of the disk in bytes |
//! | 4, 4 | the bytes of a block, 4096, and the blocks of a chunk, 256 |
//! | for each chunk with a difference, in order: | |
//! | 8 | its number |
//! | 32 | a bit for each block that is stored, the first block in the lowest bit of the first byte |
//! | 32 | a bit for each block that is zeros now, and was not |
//! | 4096 each | the stored blocks, in order; the last one of the disk may be shorter |
//! | 8 | 2⁶⁴−1: the end |
//!
//! Numbers are little-endian. A disk has one delta of another disk, so its delta against zeros names its content: the
//! digest of that costs a read of the data, however large the holes are. Chunks that come in order cannot overlap, and
//! memory is one chunk, whatever a delta declares.

use std::io::{self, ErrorKind, Read, Write};

use super::SnapshotFault;
use crate::digest::Hasher;
use crate::{Digest, Error, Result, is_zero};

/// Bytes of a block.
pub const BLOCK: usize = 4096;
/// Bytes of a chunk.
pub const CHUNK: usize = BLOCKS * BLOCK;

const BLOCKS: usize = 256;
const MAGIC: &[u8; 16] = b"plyfold delta 1\n";
const END: u64 = u64::MAX;

type Bits = [u8; BLOCKS / 8];

/// A disk that is read.
pub trait Disk {
    /// Its size in bytes.
    ///
    /// # Errors
    /// What the medium reports.
    fn size(&self) -> io::Result<u64>;

    /// Reads all of `buffer` from `offset` on.
    ///
    /// # Errors
    /// What the medium reports; [`UnexpectedEof`](ErrorKind::UnexpectedEof) beyond the end.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Where the next data is, at `offset` or behind it: what is between is a hole, which reads as zeros. `None` when
    /// nothing but a hole follows. What is not known to be a hole is data.
    ///
    /// # Errors
    /// What the medium reports.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

/// What takes the changes of a delta.
pub trait Target {
    /// Writes bytes.
    ///
    /// # Errors
    /// What the medium reports.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes bytes zero, as a hole where the medium can.
    ///
    /// # Errors
    /// What the medium reports.
    fn clear(&mut self, offset: u64, length: u64) -> io::Result<()>;
}

/// Writes the delta of a disk against another one, or against zeros, and yields the digest that
/// [the disk itself](digest_of) has.
///
/// # Errors
/// Those of both disks and of `out`.
pub fn write(disk: &dyn Disk, base: Option<&dyn Disk>, out: &mut dyn Write) -> io::Result<Digest> {
    let size = disk.size()?;
    let mut own = Encoder::new(HashingSink(Hasher::sha256()), size)?;
    let mut delta = Encoder::new(out, size)?;
    each_chunk(disk, base, size, |number, now, before| {
        delta.chunk(number, now, before)?;
        own.chunk(number, now, &[])
    })?;
    delta.finish()?;
    Ok(own.finish()?.0.finish())
}

/// The digest of a disk: that of its delta against zeros.
///
/// # Errors
/// Those of the disk.
pub fn digest_of(disk: &dyn Disk) -> io::Result<Digest> {
    let size = disk.size()?;
    let mut own = Encoder::new(HashingSink(Hasher::sha256()), size)?;
    each_chunk(disk, None, size, |number, now, _| own.chunk(number, now, &[]))?;
    Ok(own.finish()?.0.finish())
}

/// Calls `each` for the chunks in which one of the disks has data: the number, and the bytes of both. Those of the base
/// end early where it is smaller.
fn each_chunk(
    disk: &dyn Disk,
    base: Option<&dyn Disk>,
    size: u64,
    mut each: impl FnMut(u64, &[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let based = base.map_or(Ok(0), Disk::size)?.min(size);
    let (mut now, mut before) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < size {
        let of_disk = disk.next_data(at)?;
        let of_base = base.filter(|_| at < based).map_or(Ok(None), |base| base.next_data(at))?;
        let next = of_disk.into_iter().chain(of_base.filter(|next| *next < based)).min();
        let Some(next) = next.filter(|next| *next < size) else { return Ok(()) };
        // A medium may say a place before the one that was asked for.
        at = at.max(next) / CHUNK as u64 * CHUNK as u64;
        let now = &mut now[..length(size - at)];
        let before = &mut before[..length(based.saturating_sub(at))];
        disk.read_exact_at(now, at)?;
        if let Some(base) = base.filter(|_| !before.is_empty()) {
            base.read_exact_at(before, at)?;
        }
        each(at / CHUNK as u64, now, before)?;
        at += CHUNK as u64;
    }
    Ok(())
}

/// The bytes of a chunk of which so many are left.
fn length(left: u64) -> usize {
    usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)
}

struct HashingSink(Hasher);

impl Write for HashingSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Encoder<W>(W);

impl<W: Write> Encoder<W> {
    fn new(mut out: W, size: u64) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&size.to_le_bytes())?;
        out.write_all(&(BLOCK as u32).to_le_bytes())?;
        out.write_all(&(BLOCKS as u32).to_le_bytes())?;
        Ok(Self(out))
    }

    /// Adds a chunk if it differs. What `before` lacks is zeros.
    fn chunk(&mut self, number: u64, now: &[u8], before: &[u8]) -> io::Result<()> {
        let (mut stored, mut cleared): (Bits, Bits) = ([0; _], [0; _]);
        let mut blocks = Vec::new();
        for (index, block) in now.chunks(BLOCK).enumerate() {
            let start = (index * BLOCK).min(before.len());
            let (old, beyond) = block.split_at(block.len().min(before.len() - start));
            if old == &before[start..start + old.len()] && is_zero(beyond) {
                continue;
            }
            let bit = 1 << (index % 8);
            if is_zero(block) {
                cleared[index / 8] |= bit;
            } else {
                stored[index / 8] |= bit;
                blocks.push(block);
            }
        }
        if stored == [0; _] && cleared == [0; _] {
            return Ok(());
        }
        self.0.write_all(&number.to_le_bytes())?;
        self.0.write_all(&stored)?;
        self.0.write_all(&cleared)?;
        blocks.into_iter().try_for_each(|block| self.0.write_all(block))
    }

    fn finish(mut self) -> io::Result<W> {
        self.0.write_all(&END.to_le_bytes())?;
        self.0.flush()?;
        Ok(self.0)
    }
}

/// Applies the delta that a reader yields, of a disk of `size` bytes, and reads it to its end.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) for what is no delta of a disk of this size; those of the reader and of the
/// target.
pub fn apply(mut delta: impl Read, size: u64, target: &mut dyn Target) -> Result<()> {
    let mut head = [0; MAGIC.len() + 16];
    read(&mut delta, &mut head)?;
    let mut expected = Encoder::new(Vec::new(), size)?.0;
    if head[..] != expected[..] {
        expected[16..24].copy_from_slice(&head[16..24]);
        let is_other_size = head[..] == expected[..];
        return Err(wrong(if is_other_size {
            "it is of a disk of another size"
        } else {
            "it begins otherwise"
        }));
    }
    let mut chunk = vec![0; CHUNK];
    let mut least = 0;
    loop {
        let number = u64::from_le_bytes(array(&mut delta)?);
        if number == END {
            break;
        }
        let offset = number.checked_mul(CHUNK as u64).filter(|offset| *offset < size);
        let Some(offset) = offset.filter(|_| number >= least) else {
            return Err(wrong(&format!("chunk {number} is out of order, or beyond the end of the disk")));
        };
        least = number + 1;
        let (stored, cleared): (Bits, Bits) = (array(&mut delta)?, array(&mut delta)?);
        Chunk { offset, length: length(size - offset), stored, cleared }
            .apply(&mut delta, &mut chunk, target)?;
    }
    match delta.read(&mut [0]).map_err(reading)? {
        0 => Ok(()),
        _ => Err(wrong("it goes on behind its end")),
    }
}

/// A chunk that differs.
struct Chunk {
    offset: u64,
    length: usize,
    stored: Bits,
    cleared: Bits,
}

impl Chunk {
    fn apply(&self, delta: &mut impl Read, buffer: &mut [u8], target: &mut dyn Target) -> Result<()> {
        let has = |bits: &Bits, index: usize| bits[index / 8] & 1 << (index % 8) != 0;
        let blocks = self.length.div_ceil(BLOCK);
        let is_beyond = (blocks..BLOCKS).any(|index| has(&self.stored, index) || has(&self.cleared, index));
        let is_both = self.stored.iter().zip(&self.cleared).any(|(stored, cleared)| stored & cleared != 0);
        if is_beyond || is_both || (self.stored == [0; _] && self.cleared == [0; _]) {
            let number = self.offset / CHUNK as u64;
            return Err(wrong(&format!(
                "chunk {number} has no blocks, blocks twice, or blocks beyond the end"
            )));
        }
        let kind = |index: &usize| (has(&self.stored, *index), has(&self.cleared, *index));
        let indexes: Vec<usize> = (0..blocks).collect();
        for run in indexes.chunk_by(|one, next| kind(one) == kind(next)) {
            let start = run[0] * BLOCK;
            let length = (run.len() * BLOCK).min(self.length - start);
            let offset = self.offset + start as u64;
            let written = |e| Error::io("writing the disk", e);
            match kind(&run[0]) {
                (true, _) => {
                    read(delta, &mut buffer[..length])?;
                    target.write_at(&buffer[..length], offset).map_err(written)?;
                }
                (_, true) => target.clear(offset, length as u64).map_err(written)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn array<const N: usize>(delta: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    read(delta, &mut bytes)?;
    Ok(bytes)
}

fn read(delta: &mut impl Read, bytes: &mut [u8]) -> Result<()> {
    delta.read_exact(bytes).map_err(|e| match e.kind() {
        ErrorKind::UnexpectedEof => wrong("it ends early"),
        _ => reading(e),
    })
}

fn reading(e: io::Error) -> Error {
    Error::io("reading a delta", e)
}

fn wrong(why: &str) -> Error {
    SnapshotFault::Delta(why.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A disk in memory whose holes are known by the block, but for those that are `unknown`.
    struct Memory {
        bytes: Vec<u8>,
        unknown: bool,
    }

    impl Disk for Memory {
        fn size(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let at = offset as usize;
            buffer.copy_from_slice(self.bytes.get(at..at + buffer.len()).ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
            if self.unknown {
                return Ok(Some(offset));
            }
            let from = offset as usize;
            let data = self.bytes[from..].iter().position(|byte| *byte != 0);
            Ok(data.map(|ahead| ((from + ahead) / BLOCK * BLOCK).max(from) as u64))
        }
    }

    impl Target for Vec<u8> {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn clear(&mut self, offset: u64, length: u64) -> io::Result<()> {
            self[offset as usize..][..length as usize].fill(0);
            Ok(())
        }
    }

    fn disk(size: usize, blocks: &[(usize, u8)]) -> Vec<u8> {
        let mut bytes = vec![0; size];
        for (block, value) in blocks {
            let start = block % size.div_ceil(BLOCK) * BLOCK;
            let end = (start + BLOCK).min(size);
            bytes[start..end].fill(*value);
        }
        bytes
    }

    fn kind_of(delta: &[u8], size: u64) -> String {
        let error = apply(delta, size, &mut vec![0; size as usize]).unwrap_err();
        assert_eq!(*error.kind(), crate::ErrorKind::Corrupt, "{error}");
        error.message().to_owned()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_disk_comes_back_from_its_delta(
            size in 1..3 * CHUNK,
            old_size in 1..3 * CHUNK,
            before in prop::collection::vec((0..800_usize, 0..3_u8), 0..40),
            after in prop::collection::vec((0..800_usize, 0..3_u8), 0..40),
        ) {
            let old = disk(old_size, &before);
            let new = disk(size, &[before, after].concat());
            let mut deltas = Vec::new();
            for unknown in [false, true] {
                let (base, now) = (Memory { bytes: old.clone(), unknown }, Memory { bytes: new.clone(), unknown });
                let mut delta = Vec::new();
                let digest = write(&now, Some(&base), &mut delta).unwrap();
                prop_assert_eq!(&digest, &digest_of(&now).unwrap());
                let mut own = Vec::new();
                write(&now, None, &mut own).unwrap();
                prop_assert_eq!(digest, crate::digest::sha256(&own));
                let mut restored = old.clone();
                restored.resize(size, 0);
                apply(&*delta, size as u64, &mut restored).unwrap();
                prop_assert!(restored == new);
                deltas.push(delta);
            }
            // What is known of holes changes no byte.
            prop_assert!(deltas[0] == deltas[1]);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0..400_usize) {
            let new = Memory { bytes: disk(CHUNK + 5000, &[(1, 1), (256, 2)]), unknown: false };
            let mut delta = Vec::new();
            write(&new, None, &mut delta).unwrap();
            let at = at.min(delta.len());
            bytes.truncate(delta.len() - at);
            delta[at..at + bytes.len()].copy_from_slice(&bytes);
            let _ = apply(&*delta, new.bytes.len() as u64, &mut vec![0; new.bytes.len()]);
        }
    }

    #[test]
    fn what_does_not_change_takes_no_room() {
        let old = Memory { bytes: disk(2 * CHUNK, &[(3, 1), (300, 1)]), unknown: false };
        let new = Memory { bytes: disk(2 * CHUNK, &[(3, 1), (301, 1)]), unknown: false };
        let mut delta = Vec::new();
        write(&new, Some(&old), &mut delta).unwrap();
        // Head, one chunk with one block stored and one cleared, end.
        assert_eq!(delta.len(), 32 + 72 + BLOCK + 8);
        assert_eq!((delta[32], delta[40 + 5], delta[72 + 5]), (1, 1 << 5, 1 << 4));
    }

    #[test]
    fn what_is_no_delta_is_refused() {
        let size = (CHUNK + BLOCK) as u64;
        let new = Memory { bytes: disk(size as usize, &[(0, 1), (256, 2)]), unknown: false };
        let mut good = Vec::new();
        write(&new, None, &mut good).unwrap();
        let first = 32;
        let second = first + 72 + BLOCK;
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            kind_of(&bytes, size)
        };
        for end in [0, 31, 40, 80, 200, good.len() - 1] {
            assert!(kind_of(&good[..end], size).contains("ends early"), "{end}");
        }
        assert!(kind_of(&[&*good, b"x"].concat(), size).contains("behind its end"));
        assert!(kind_of(&good, size - 1).contains("another size"));
        assert!(changed(0, b'x').contains("begins otherwise"));
        // Chunks that are twice, in another order, or beyond the end.
        assert!(changed(second, 0).contains("out of order"));
        assert!(changed(first, 2).contains("out of order"));
        assert!(changed(first + 7, 0x80).contains("beyond the end"));
        // A block that is stored and cleared, one beyond the end, and none.
        assert!(changed(first + 40, 1).contains("blocks twice"));
        assert!(changed(second + 8, 2).contains("beyond the end"));
        assert!(changed(first + 8, 0).contains("no blocks"));
    }
}
