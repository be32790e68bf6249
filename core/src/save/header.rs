//! Headers of members, for an archive that grows: what [`Contents`](super::Contents) writes is complete from the start.

use crate::Result;
use crate::tar_out::TarOut;

/// What stands before the content of a member: a ustar header of a file that belongs to root and has no time, and PAX records
/// for a long name and for more than 8 GiB. The content is filled up to a multiple of 512 bytes, and 1,024 zeros end an archive.
///
/// # Errors
/// None for what fits into memory.
pub fn file_header(name: &str, size: u64) -> Result<Vec<u8>> {
    header(|tar| tar.member(name, size))
}

/// The member of a folder, whose name is given without a slash at its end.
///
/// # Errors
/// As [`file_header`].
pub fn folder_header(name: &str) -> Result<Vec<u8>> {
    header(|tar| tar.folder(name))
}

/// The member of a link to another one: a hard link, whose target is a member's name, or a symbolic one.
///
/// # Errors
/// As [`file_header`].
pub fn link_header(name: &str, target: &str, is_hard: bool) -> Result<Vec<u8>> {
    header(|tar| tar.link(name, target, is_hard))
}

fn header(write: impl FnOnce(&mut TarOut<&mut Vec<u8>>) -> Result<()>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(&mut TarOut::new(&mut bytes))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_all_kinds_are_read_back() {
        let long = "n".repeat(150);
        let mut tar = [
            folder_header("blobs").unwrap(),
            file_header("blobs/a", 0).unwrap(),
            link_header("soft", &long, false).unwrap(),
            link_header(&long, "blobs/a", true).unwrap(),
        ]
        .concat();
        tar.extend([0; 1024]);
        let read: Vec<_> = tar::Archive::new(&tar[..])
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let target = entry.link_name_bytes().map(|target| text(&target));
                (text(&entry.path_bytes()), target, entry.header().entry_type())
            })
            .collect();
        let file =
            |name: &str, target: Option<&str>, kind| (name.to_owned(), target.map(str::to_owned), kind);
        assert_eq!(
            read,
            [
                file("blobs/", None, tar::EntryType::Directory),
                file("blobs/a", None, tar::EntryType::Regular),
                file("soft", Some(&long), tar::EntryType::Symlink),
                file(&long, Some("blobs/a"), tar::EntryType::Link),
            ]
        );
    }
}
