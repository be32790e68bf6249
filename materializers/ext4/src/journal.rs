//! The journal of a file system that was not unmounted (`journal.rst`): where in it the blocks are that have not reached their
//! places on the disk. Only transactions with a commit block count, as in the recovery by Linux and e2fsck.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek};

use plyfold_core::Result;

use crate::fault::Ext4Fault;
use crate::fields::{
    COMMIT_BLOCK, DESCRIPTOR_BLOCK, H_BLOCKTYPE, H_BYTES, H_COMMIT_SEC, H_MAGIC, H_SEQUENCE, HAS_JOURNAL,
    JOURNAL_MAGIC, R_COUNT, R_RECORDS, REVOKE_BLOCK, S_FEATURE_COMPAT, S_IFREG, S_JOURNAL_DEV,
    S_JOURNAL_INUM, T_BLOCKNR, T_ESCAPE, T_FLAGS, T_LAST_TAG, T_SAME_UUID,
};
use crate::format::{be16, be32, be64, le16, le32};
use crate::journal_form::{Form, damaged};
use crate::journal_runs::Runs;
use crate::reader::FileSystem;
use crate::summary::{SUPERBLOCK_BYTES, Summary};

/// The most blocks of a log, and the most that one transaction revokes: a log of 2 GiB with blocks of 4 KiB. The places of so
/// many take about 40 MiB of memory.
const MOST: u64 = 1 << 19;
/// The most bytes of a log, and the most that all of its transactions revoke, a block that is revoked again included.
const BYTES: u64 = 2 << 30;
const REVOKED: u64 = 1 << 23;
/// What a block of fast commits begins with (`EXT4_FC_TAG_HEAD`), and where the transaction is that it follows.
const FAST_HEAD: u16 = 9;
const FAST_TRANSACTION: usize = 8;

/// The blocks of the file system that are newer in the journal.
pub(crate) type Places = BTreeMap<u64, Place>;

/// Where a block is in the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) block: u64,
    /// Its first four bytes are the journal's magic, and zeros in the journal.
    pub(crate) is_escaped: bool,
    /// Its checksum is right, and that of each one that was to be written there before.
    is_sound: bool,
}

/// The blocks that replaying the journal would write.
pub(crate) fn places<R: Read + Seek>(
    files: &mut FileSystem<R>,
    superblock: &[u8; SUPERBLOCK_BYTES],
    summary: &Summary,
) -> Result<Places> {
    if le32(superblock, S_FEATURE_COMPAT) & HAS_JOURNAL == 0 {
        return Err(damaged("is not there, and has to be replayed"));
    }
    let number = le32(superblock, S_JOURNAL_INUM);
    if number == 0 {
        return Err(Ext4Fault::Unknown("a journal on another device".to_owned()).into());
    }
    if le32(superblock, S_JOURNAL_DEV) != 0 {
        return Err(damaged("is a file, and on another device"));
    }
    let inode = files.inode(number)?;
    if !inode.is(S_IFREG) {
        return Err(damaged("is no file"));
    }
    let mut bytes = vec![0; files.block_size as usize];
    let runs = Runs::of(files, &inode)?;
    files.read(runs.place(0)?, &mut bytes)?;
    let form = Form::parse(&bytes, inode.size / files.block_size)?;
    if form.start == 0 {
        return Ok(Places::new());
    }
    let (next, sequence) = (form.start, form.sequence);
    let places = Log { next, sequence, files, runs, form, taken: 0, revoked: 0, bytes }.places()?;
    let end = summary.size / u64::from(summary.block_size);
    // In the order of blocks: the last one is the farthest.
    if places.last_key_value().is_some_and(|(block, _)| *block >= end) {
        return Err(damaged("has blocks beyond the end of the file system"));
    }
    match places.iter().find(|(_, place)| !place.is_sound) {
        Some((block, _)) => Err(damaged(&format!("has block {block} with a wrong checksum"))),
        None => Ok(places),
    }
}

/// The blocks from where the oldest transaction begins.
struct Log<'a, R> {
    files: &'a mut FileSystem<R>,
    runs: Runs,
    form: Form,
    /// The next block, by its number in the journal.
    next: u64,
    /// The number of the next transaction.
    sequence: u32,
    /// Blocks that were taken.
    taken: u64,
    /// Records of blocks that are revoked.
    revoked: u64,
    /// A block of data.
    bytes: Vec<u8>,
}

/// What a transaction changes.
struct Transaction {
    writes: Vec<(u64, Place)>,
    /// Blocks that were freed: what was written to them before, or is in this transaction, does not count.
    revoked: BTreeSet<u64>,
    /// The checksum of version 1, of all blocks so far.
    sum: u32,
    is_damaged: bool,
    /// A block of revocations says that it is longer than it is.
    is_too_long: bool,
}

impl Transaction {
    fn new() -> Self {
        Self { writes: Vec::new(), revoked: BTreeSet::new(), sum: !0, is_damaged: false, is_too_long: false }
    }

    fn apply(self, places: &mut Places) {
        for block in &self.revoked {
            places.remove(block);
        }
        for (block, mut place) in self.writes {
            if self.revoked.contains(&block) {
                continue;
            }
            // Linux verifies also what a later transaction writes again.
            place.is_sound &= places.get(&block).is_none_or(|before| before.is_sound);
            places.insert(block, place);
        }
    }
}

impl<R: Read + Seek> Log<'_, R> {
    fn places(mut self) -> Result<Places> {
        let (mut places, mut transaction) = (Places::new(), Transaction::new());
        let mut block = vec![0; self.bytes.len()];
        let mut latest = 0;
        while let Some(place) = self.take()? {
            self.files.read(place, &mut block)?;
            if be32(&block, H_MAGIC) != JOURNAL_MAGIC || be32(&block, H_SEQUENCE) != self.sequence {
                break;
            }
            match be32(&block, H_BLOCKTYPE) {
                DESCRIPTOR_BLOCK if self.describe(&block, &mut transaction)? => {}
                REVOKE_BLOCK => self.revoke(&block, &mut transaction)?,
                COMMIT_BLOCK => {
                    let time = be64(&block, H_COMMIT_SEC);
                    let is_whole = self.form.is_committed(&block, transaction.sum);
                    if transaction.is_damaged || !is_whole {
                        // What an older use of the journal left may look like the next transaction.
                        if time < latest || (self.form.is_async && !transaction.is_damaged) {
                            break;
                        }
                        return Err(damaged(&format!("has a damaged transaction {}", self.sequence)));
                    }
                    if transaction.is_too_long {
                        let what = "has blocks of revocations that are too long, in transaction";
                        return Err(damaged(&format!("{what} {}", self.sequence)));
                    }
                    std::mem::replace(&mut transaction, Transaction::new()).apply(&mut places);
                    (latest, self.sequence) = (time, self.sequence.wrapping_add(1));
                }
                _ => break,
            }
        }
        self.check_fast_commits(&mut block)?;
        Ok(places)
    }

    /// Takes the next block of the log: its place on the disk, until all are taken.
    fn take(&mut self) -> Result<Option<u64>> {
        if self.taken == self.form.end - self.form.first {
            return Ok(None);
        }
        let most = MOST.min(BYTES / self.files.block_size);
        if self.taken == most {
            return Err(Ext4Fault::Log(most).into());
        }
        let block = self.runs.place(self.next)?;
        self.taken += 1;
        self.next += 1;
        if self.next == self.form.end {
            self.next = self.form.first;
        }
        Ok(Some(block))
    }

    /// A descriptor block and the blocks of data behind it; false where the log is too short for them.
    fn describe(&mut self, block: &[u8], transaction: &mut Transaction) -> Result<bool> {
        transaction.is_damaged |= !self.form.is_sound(block);
        transaction.sum = self.form.summed(transaction.sum, block);
        let (size, end) = (self.form.tag_bytes(), block.len() - self.form.tail_bytes());
        let mut at = H_BYTES;
        while at + size <= end {
            let Some(place) = self.take()? else { return Ok(false) };
            let tag = &block[at..at + size];
            let (low, high) = T_BLOCKNR;
            let high = if self.form.is_wide { be32(tag, high) } else { 0 };
            let flags = be16(tag, T_FLAGS);
            let mut is_sound = true;
            if self.form.has_checksums() {
                self.files.read(place, &mut self.bytes)?;
                transaction.sum = self.form.summed(transaction.sum, &self.bytes);
                is_sound = self.form.is_tag_right(tag, self.sequence, &self.bytes);
            }
            let written = Place { block: place, is_escaped: flags & T_ESCAPE != 0, is_sound };
            transaction.writes.push((u64::from(high) << 32 | u64::from(be32(tag, low)), written));
            // A UUID follows.
            at += size + if flags & T_SAME_UUID == 0 { 16 } else { 0 };
            if flags & T_LAST_TAG != 0 {
                break;
            }
        }
        Ok(true)
    }

    fn revoke(&mut self, block: &[u8], transaction: &mut Transaction) -> Result<()> {
        let end = be32(block, R_COUNT) as usize;
        let is_sound = self.form.is_sound(block);
        let is_too_long = end > block.len() - self.form.tail_bytes();
        transaction.is_damaged |= !is_sound;
        transaction.is_too_long |= is_too_long;
        if !is_sound || is_too_long {
            return Ok(());
        }
        let records = block.get(R_RECORDS..end).unwrap_or_default();
        let records = records.chunks_exact(if self.form.is_wide { 8 } else { 4 });
        let number = |record| if self.form.is_wide { be64(record, 0) } else { be32(record, 0).into() };
        self.revoked += records.len() as u64;
        if self.revoked > REVOKED {
            return Err(Ext4Fault::Log(REVOKED).into());
        }
        transaction.revoked.extend(records.map(number));
        if transaction.revoked.len() as u64 > MOST {
            return Err(Ext4Fault::Log(MOST).into());
        }
        Ok(())
    }

    /// Fast commits are in blocks of their own behind the log, those that count behind its last transaction.
    fn check_fast_commits(&mut self, block: &mut [u8]) -> Result<()> {
        let Some(first) = self.form.fast_commits else { return Ok(()) };
        self.files.read(self.runs.place(first)?, block)?;
        if le16(block, 0) == FAST_HEAD && le32(block, FAST_TRANSACTION) == self.sequence {
            return Err(Ext4Fault::FastCommits.into());
        }
        Ok(())
    }
}
