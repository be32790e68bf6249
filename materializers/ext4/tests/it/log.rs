//! Journals that have to be replayed: a file of an image becomes its journal.

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;
/// Blocks of the smallest journal.
pub(crate) const LEAST: usize = 1024;
/// What the file is filled with that becomes the journal.
pub(crate) const FILLED: u8 = b'J';

/// What the journal is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    /// The version of checksums: 0 for none, 2 or 3.
    pub(crate) checksums: u32,
    /// Blocks have numbers of 64 bits.
    pub(crate) is_wide: bool,
    /// A commit block may be there before the blocks in front of it.
    pub(crate) is_async: bool,
    /// The block that the log begins at, and the number of the first transaction.
    pub(crate) start: usize,
    pub(crate) sequence: u32,
}

/// A part of the log.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A block of the file system, and its new content.
    Write(u64, Vec<u8>),
    Revoke(Vec<u64>),
    /// A block of revocations that says that so many of its bytes are used.
    Revoked(u32),
    /// The end of a transaction, at a time in seconds.
    Commit(u64),
}

/// Writes the log into the file `journal` of an image, of whole blocks of [`FILLED`], and makes it the journal. Where it is.
pub(crate) fn journal(image: &mut [u8], form: Form, log: &[Step]) -> std::ops::Range<usize> {
    let is_filled = |block: &[u8]| block.iter().all(|byte| *byte == FILLED);
    let first = image.chunks(BLOCK).position(is_filled).expect("it is in the image") * BLOCK;
    let count = image[first..].chunks(BLOCK).take_while(|block| is_filled(block)).count();
    let inode = number(image).to_le_bytes();
    let area = first..first + count * BLOCK;
    image[area.clone()].fill(0);
    Writer { form, bytes: &mut image[area.clone()], next: form.start, sequence: form.sequence }.write(log);
    image[1024 + 0x5c] |= 0x4; // has_journal
    image[1024 + 0x60] |= 0x4; // needs_recovery
    image[1024 + 0xe0..][..4].copy_from_slice(&inode); // s_journal_inum
    sum(&mut image[1024..2048]);
    area
}

/// The number of the inode of the file `journal`.
fn number(image: &[u8]) -> u32 {
    let name = image.windows(7).position(|name| name == b"journal").expect("the name is there");
    u32::from_le_bytes(image[name - 8..name - 4].try_into().expect("four bytes"))
}

/// The inode of the journal, of an image without checksums from now on.
pub(crate) fn inode(image: &mut [u8]) -> &mut [u8] {
    image[1024 + 0x65] &= !4;
    let table = u32::from_le_bytes(image[BLOCK + 8..BLOCK + 12].try_into().expect("four bytes")) as usize;
    let at = table * BLOCK + (number(image) as usize - 1) * 256;
    &mut image[at..at + 256]
}

/// Makes the checksum of a superblock right.
pub(crate) fn sum(superblock: &mut [u8]) {
    let sum = !crc32c::crc32c(&superblock[..0x3fc]);
    superblock[0x3fc..].copy_from_slice(&sum.to_le_bytes());
}

struct Writer<'a> {
    form: Form,
    bytes: &'a mut [u8],
    next: usize,
    sequence: u32,
}

impl Writer<'_> {
    fn write(mut self, log: &[Step]) {
        let incompat = u32::from(self.form.is_wide) * 2 + u32::from(self.form.is_async) * 4;
        let sums = [0, 0, 0x8, 0x10][self.form.checksums as usize];
        let mut block = header(4, 0);
        for (at, value) in [
            (0x0c, BLOCK),
            (0x10, self.bytes.len() / BLOCK),
            (0x14, 1),
            (0x18, self.sequence as usize),
            (0x1c, self.form.start),
            (0x28, (incompat | sums) as usize),
            (0x40, 1),
        ] {
            put(&mut block, at, &(value as u32).to_be_bytes());
        }
        if self.form.checksums > 0 {
            block[0x50] = 4;
            let sum = !crc32c::crc32c(&block[..1024]);
            put(&mut block, 0xfc, &sum.to_be_bytes());
        }
        self.bytes[..BLOCK].copy_from_slice(&block);
        for step in log {
            match step {
                Step::Write(number, content) => self.data(*number, content),
                Step::Revoke(blocks) => self.revoke(blocks),
                Step::Revoked(bytes) => {
                    let mut block = header(5, self.sequence);
                    put(&mut block, 12, &bytes.to_be_bytes());
                    self.put(block, Some(BLOCK - 4));
                }
                Step::Commit(time) => {
                    let mut block = header(2, self.sequence);
                    put(&mut block, 0x30, &time.to_be_bytes());
                    self.put(block, Some(0x10));
                    self.sequence = self.sequence.wrapping_add(1);
                }
            }
        }
    }

    fn data(&mut self, number: u64, content: &[u8]) {
        let mut content = content.to_vec();
        let mut flags = 2 | 8; // SAME_UUID LAST_TAG
        if content.starts_with(&MAGIC.to_be_bytes()) {
            flags |= 1;
            content[..4].fill(0);
        }
        let sum = sum_of(&[&self.sequence.to_be_bytes(), &content]);
        let mut block = header(1, self.sequence);
        put(&mut block, 12, &(number as u32).to_be_bytes());
        match self.form.checksums {
            2 => put(&mut block, 16, &(sum as u16).to_be_bytes()),
            3 => put(&mut block, 24, &sum.to_be_bytes()),
            _ => {}
        }
        put(&mut block, 18, &u16::to_be_bytes(flags));
        if self.form.is_wide {
            put(&mut block, 20, &((number >> 32) as u32).to_be_bytes());
        }
        self.put(block, Some(BLOCK - 4));
        self.put(content, None);
    }

    fn revoke(&mut self, blocks: &[u64]) {
        let width = if self.form.is_wide { 8 } else { 4 };
        for some in blocks.chunks((BLOCK - 20) / width) {
            let mut block = header(5, self.sequence);
            put(&mut block, 12, &((16 + some.len() * width) as u32).to_be_bytes());
            for (at, number) in some.iter().enumerate() {
                put(&mut block, 16 + at * width, &number.to_be_bytes()[8 - width..]);
            }
            self.put(block, Some(BLOCK - 4));
        }
    }

    /// Puts a block behind those that are there, with its checksum.
    fn put(&mut self, mut block: Vec<u8>, sum_at: Option<usize>) {
        if let Some(at) = sum_at.filter(|_| self.form.checksums > 0) {
            let sum = sum_of(&[&block]);
            put(&mut block, at, &sum.to_be_bytes());
        }
        self.bytes[self.next * BLOCK..][..BLOCK].copy_from_slice(&block);
        self.next = if self.next + 1 == self.bytes.len() / BLOCK { 1 } else { self.next + 1 };
    }
}

/// The UUID of the journal is zeros.
fn sum_of(parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(crc32c::crc32c(&[0; 16]), |sum, part| crc32c::crc32c_append(sum, part))
}

const MAGIC: u32 = 0xc03b_3998;

fn header(kind: u32, sequence: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    for (at, value) in [MAGIC, kind, sequence].into_iter().enumerate() {
        put(&mut block, 4 * at, &value.to_be_bytes());
    }
    block
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}
