//! The place of a blob that has come in part, with other members behind it. It is a hole in the file but for that part, and for its
//! last bytes, which content reaches when the blob is complete: they say how many of the first are there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const MARK: [u8; 24] = *b"plyfold: part of a blob\n";
/// Bytes of the note: the mark, and a number.
pub(super) const NOTE: u64 = MARK.len() as u64 + 8;

/// Notes how many bytes are there of a blob of `wanted` bytes, at least [`NOTE`], whose content begins at `start`.
pub(super) fn note(file: &File, (start, wanted): (u64, u64), there: u64) -> io::Result<()> {
    let note = [&MARK[..], &there.to_le_bytes()].concat();
    file.write_all_at(&note, start + wanted.saturating_sub(NOTE))
}

/// What was noted; `None` for a blob that is complete.
pub(super) fn noted(file: &File, (start, wanted): (u64, u64)) -> io::Result<Option<u64>> {
    let Some(room) = wanted.checked_sub(NOTE) else { return Ok(None) };
    let mut note = [0; NOTE as usize];
    match file.read_exact_at(&mut note, start + room) {
        // Content may end anywhere in it, and look like a note.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let there = note.strip_prefix(&MARK).and_then(|there| there.try_into().ok()).map(u64::from_le_bytes);
    Ok(there.filter(|there| *there <= room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_is_cut_off_is_none() {
        let file = tempfile::tempfile().unwrap();
        let place = (512, 1000);
        assert_eq!(noted(&file, place).unwrap(), None);
        note(&file, place, 300).unwrap();
        assert_eq!(noted(&file, place).unwrap(), Some(300));
        for length in [512, 512 + 1000 - NOTE + 24, 512 + 999] {
            file.set_len(length).unwrap();
            assert_eq!(noted(&file, place).unwrap(), None, "{length}");
        }
    }
}
