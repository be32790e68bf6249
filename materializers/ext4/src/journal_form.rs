//! What the superblock of a journal says (`journal.rst`, "Super Block"), and the checksums that it asks for.

use crc::{CRC_32_MPEG_2, Crc};
use plyfold_core::{Error, Result};

use crate::fault::Ext4Fault;
use crate::fields::{
    H_BLOCKTYPE, H_CHKSUM, H_CHKSUM_TYPE, H_MAGIC, J_64BIT, J_ASYNC_COMMIT, J_BLOCKSIZE, J_BYTES, J_CHECKSUM,
    J_CHECKSUM_TYPE, J_COMPAT_CHECKSUM, J_CRC32C, J_CSUM_V2, J_CSUM_V3, J_FAST_COMMIT, J_FEATURE_COMPAT,
    J_FEATURE_INCOMPAT, J_FEATURE_RO_COMPAT, J_FIRST, J_MAXLEN, J_NUM_FC_BLKS, J_REVOKE, J_SEQUENCE, J_START,
    J_UUID, JOURNAL_MAGIC, SUPERBLOCK_V1, SUPERBLOCK_V2, T_CHECKSUM_16, T_CHECKSUM_32,
};
use crate::format::{Checksum, be16, be32};

const KNOWN: u32 = J_REVOKE | J_64BIT | J_ASYNC_COMMIT | J_CSUM_V2 | J_CSUM_V3 | J_FAST_COMMIT;
/// The blocks of the smallest journal, its superblock included.
const LEAST: u64 = 1024;
/// The blocks of fast commits where the superblock has no number of them (`JBD2_DEFAULT_FAST_COMMIT_BLOCKS`).
const FAST_BLOCKS: u64 = 256;
/// What a commit block has in `h_chksum_type` and `h_chksum_size` with a checksum of version 1.
const CRC32: [u8; 2] = [1, 4];

/// The checksum of a transaction: that of Linux's `crc32_be`.
const CRC32_BE: Crc<u32> = Crc::<u32>::new(&CRC_32_MPEG_2);

/// What the blocks of a journal look like, and where its log is.
pub(crate) struct Form {
    /// The first block of the log, and the one behind its last.
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// Where the oldest transaction begins, 0 for none, and its number.
    pub(crate) start: u64,
    pub(crate) sequence: u32,
    /// Blocks have numbers of 64 bits.
    pub(crate) is_wide: bool,
    /// A commit block may be there before the blocks in front of it.
    pub(crate) is_async: bool,
    /// The first block of fast commits.
    pub(crate) fast_commits: Option<u64>,
    sums: Sums,
}

#[derive(Clone, Copy)]
enum Sums {
    None,
    /// Version 1: in the commit block, of all others.
    Transaction,
    /// Version 2 and 3: each block has its own.
    Blocks {
        seed: Checksum,
        is_third: bool,
    },
}

impl Form {
    /// Of the first block of a journal of so many.
    pub(crate) fn parse(block: &[u8], blocks: u64) -> Result<Self> {
        let number = |at| be32(block, at);
        let version = number(H_BLOCKTYPE);
        if number(H_MAGIC) != JOURNAL_MAGIC || ![SUPERBLOCK_V1, SUPERBLOCK_V2].contains(&version) {
            return Err(damaged("has no superblock"));
        }
        // Those of version 1 have no features.
        let features = [J_FEATURE_COMPAT, J_FEATURE_INCOMPAT, J_FEATURE_RO_COMPAT];
        let [compat, incompat, ro_compat] =
            features.map(|at| if version == SUPERBLOCK_V2 { number(at) } else { 0 });
        if incompat & !KNOWN != 0 || ro_compat != 0 {
            let unknown = format!("the features {:#x} and {ro_compat:#x} of its journal", incompat & !KNOWN);
            return Err(Ext4Fault::Unknown(unknown).into());
        }
        let [first, mut end, start] = [J_FIRST, J_MAXLEN, J_START].map(|at| u64::from(number(at)));
        let mut fast_commits = None;
        if incompat & J_FAST_COMMIT != 0 {
            let all = Some(u64::from(number(J_NUM_FC_BLKS))).filter(|all| *all > 0).unwrap_or(FAST_BLOCKS);
            // The first of its blocks is not used.
            fast_commits = end.checked_sub(all).map(|end| end + 1).filter(|first| *first < end);
            end = end.saturating_sub(all);
        }
        // `JBD2_MIN_JOURNAL_BLOCKS`, without those of fast commits.
        if end < LEAST {
            return Err(damaged("is too short"));
        }
        let is_possible = first > 0 && (start == 0 || (first..end).contains(&start));
        if number(J_BLOCKSIZE) as usize != block.len() || u64::from(number(J_MAXLEN)) > blocks || !is_possible
        {
            return Err(damaged("has no possible size"));
        }
        Ok(Self {
            first,
            end,
            start,
            sequence: number(J_SEQUENCE),
            is_wide: incompat & J_64BIT != 0,
            is_async: incompat & J_ASYNC_COMMIT != 0,
            fast_commits,
            sums: Sums::parse(block, compat, incompat)?,
        })
    }

    /// Bytes of a tag, without the UUID that may follow.
    pub(crate) fn tag_bytes(&self) -> usize {
        let narrow = match self.sums {
            Sums::Blocks { is_third: true, .. } => return 16,
            Sums::Blocks { .. } => 10,
            _ => 8,
        };
        narrow + if self.is_wide { 4 } else { 0 }
    }

    /// Bytes at the end of a descriptor or revocation block that are for its checksum.
    pub(crate) fn tail_bytes(&self) -> usize {
        if matches!(self.sums, Sums::Blocks { .. }) { 4 } else { 0 }
    }

    pub(crate) fn has_checksums(&self) -> bool {
        !matches!(self.sums, Sums::None)
    }

    /// Whether a descriptor or revocation block has its checksum.
    pub(crate) fn is_sound(&self, block: &[u8]) -> bool {
        let Sums::Blocks { seed, .. } = self.sums else { return true };
        let (covered, tail) = block.split_at(block.len() - 4);
        seed.over(&[covered, &[0; 4]]) == be32(tail, 0)
    }

    /// The checksum of a transaction that goes on with a block.
    pub(crate) fn summed(&self, sum: u32, block: &[u8]) -> u32 {
        if !matches!(self.sums, Sums::Transaction) {
            return sum;
        }
        let mut digest = CRC32_BE.digest_with_initial(sum);
        digest.update(block);
        digest.finalize()
    }

    /// Whether a block of data has the checksum that its tag says.
    pub(crate) fn is_tag_right(&self, tag: &[u8], sequence: u32, data: &[u8]) -> bool {
        let Sums::Blocks { seed, is_third } = self.sums else { return true };
        let sum = seed.over(&[&sequence.to_be_bytes(), data]);
        if is_third { be32(tag, T_CHECKSUM_32) == sum } else { be16(tag, T_CHECKSUM_16) == sum as u16 }
    }

    /// Whether a commit block has its checksum, and that of its transaction.
    pub(crate) fn is_committed(&self, block: &[u8], sum: u32) -> bool {
        let known = be32(block, H_CHKSUM);
        match self.sums {
            Sums::None => true,
            Sums::Transaction => {
                let kind = &block[H_CHKSUM_TYPE..H_CHKSUM_TYPE + 2];
                (kind == CRC32 && known == sum) || (kind == [0, 0] && known == 0)
            }
            Sums::Blocks { seed, .. } => {
                let (before, behind) = (&block[..H_CHKSUM], &block[H_CHKSUM + 4..]);
                seed.over(&[before, &[0; 4], behind]) == known
            }
        }
    }
}

impl Sums {
    fn parse(block: &[u8], compat: u32, incompat: u32) -> Result<Self> {
        let is_third = match (compat & J_COMPAT_CHECKSUM, incompat & (J_CSUM_V2 | J_CSUM_V3)) {
            (0, 0) => return Ok(Self::None),
            (_, 0) => return Ok(Self::Transaction),
            (0, J_CSUM_V2) => false,
            (0, J_CSUM_V3) => true,
            _ => return Err(damaged("has checksums of more than one version")),
        };
        let (before, behind) = (&block[..J_CHECKSUM], &block[J_CHECKSUM + 4..J_BYTES]);
        let sum = Checksum::from_seed(!0).over(&[before, &[0; 4], behind]);
        if block[J_CHECKSUM_TYPE] != J_CRC32C || be32(block, J_CHECKSUM) != sum {
            return Err(damaged("has a superblock with a wrong checksum"));
        }
        let seed = Checksum::from_seed(!0).behind(&[&block[J_UUID..J_UUID + 16]]);
        Ok(Self::Blocks { seed, is_third })
    }
}

/// The journal is damaged.
pub(crate) fn damaged(what: &str) -> Error {
    Ext4Fault::Unreadable(format!("its journal {what}")).into()
}
