//! Digests of data whose size is not known yet, and so neither is the place of the digests.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use plyfold_core::{Error, Result, Sink};

/// What is kept in memory, in bytes: the digests of 1 GiB.
const MEMORY: usize = 8 << 20;

/// The lowest level of a tree: in memory, or in a temporary file.
#[derive(Default)]
pub(crate) struct LeafSpool {
    memory: Vec<u8>,
    file: Option<File>,
    size: u64,
}

impl LeafSpool {
    /// The bytes that it has.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds digests behind the others.
    pub(crate) fn push(&mut self, leaves: &[u8], out: &mut dyn Sink) -> Result<()> {
        if self.file.is_none() && self.memory.len() + leaves.len() > MEMORY {
            let file = out.scratch()?;
            file.write_all_at(&self.memory, 0).map_err(failed)?;
            (self.file, self.memory) = (Some(file), Vec::new());
        }
        match &self.file {
            Some(file) => file.write_all_at(leaves, self.size).map_err(failed)?,
            None => self.memory.extend_from_slice(leaves),
        }
        self.size += leaves.len() as u64;
        Ok(())
    }

    /// Writes others in their place: there are at least so many.
    pub(crate) fn replace(&mut self, leaves: &[u8], at: u64) -> Result<()> {
        if let Some(file) = &self.file {
            return file.write_all_at(leaves, at).map_err(failed);
        }
        let at = at as usize;
        self.memory[at..at + leaves.len()].copy_from_slice(leaves);
        Ok(())
    }

    /// Reads some: there are at least so many.
    pub(crate) fn read(&self, leaves: &mut [u8], at: u64) -> Result<()> {
        if let Some(file) = &self.file {
            return file.read_exact_at(leaves, at).map_err(failed);
        }
        let at = at as usize;
        leaves.copy_from_slice(&self.memory[at..at + leaves.len()]);
        Ok(())
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("keeping digests in a temporary file", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_same_in_memory_and_in_a_file() {
        let mut out = tempfile::tempfile().unwrap();
        let mut spool = LeafSpool::default();
        let piece: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
        for number in 0..20_u8 {
            spool.push(&piece, &mut out).unwrap();
            spool.replace(&[number], u64::from(number) << 20).unwrap();
            let mut found = [0; 2];
            for before in 0..=number {
                spool.read(&mut found, u64::from(before) << 20).unwrap();
                assert_eq!(found, [before, 1]);
            }
        }
        assert!(spool.file.is_some() && spool.memory.is_empty());
        assert_eq!(spool.size(), 20 << 20);
    }
}
