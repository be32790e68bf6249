//! Whether what two programs have written is the same.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use plyfold_core::digest;
use serde_json::Value;

use super::bench::Bench;
use super::program::Program;
use crate::result::Result;

/// Images are the same tree: by plyfold's own reader in names, kinds, sizes, modes and owners, and by fsck.erofs in the content
/// of their files.
pub(crate) fn images(bench: &Bench, ours: &Path, theirs: &[&Path]) -> Result<String> {
    for other in theirs {
        listings(bench, ours, other)
            .map_err(|error| format!("{} beside {}: {error}", ours.display(), other.display()))?;
    }
    let own = format!("the images list the same {} entries", entries(bench, ours)?);
    let fsck = match bench.peers.find("fsck.erofs") {
        Ok(fsck) => fsck,
        Err(reason) => return Ok(format!("Checked: {own}; their content was not compared, since {reason}.")),
    };
    let mut contents = BTreeSet::new();
    for image in [&[ours], theirs].concat() {
        let folder = bench.at("extracted");
        Program::new(&fsck.path).out_as("--extract=", &folder).arg("--no-preserve").arg(image).run()?;
        contents.insert(content(&folder)?);
        fs::remove_dir_all(folder)?;
    }
    match contents.len() {
        1 => Ok(format!("Checked: {own}, and fsck.erofs finds the same content in them.")),
        _ => Err("fsck.erofs finds other content in the images".into()),
    }
}

/// How many entries an image lists.
pub(crate) fn entries(bench: &Bench, image: &Path) -> Result<usize> {
    Ok(listing(bench, image)?.0)
}

/// The same, of two that list the same.
pub(crate) fn listings(bench: &Bench, one: &Path, other: &Path) -> Result<usize> {
    let (one, other) = (listing(bench, one)?, listing(bench, other)?);
    if one == other {
        Ok(one.0)
    } else {
        Err(format!("{} entries, and {}, or other ones", one.0, other.0).into())
    }
}

/// How many entries an image has, and the sum of what identifies each.
fn listing(bench: &Bench, image: &Path) -> Result<(usize, u128)> {
    let listed = Program::new(&bench.plyfold.path).args(["ls", "-R", "--json"]).arg(image).output()?;
    let mut sum = (0, 0);
    for line in listed.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{")) {
        let entry: Value = serde_json::from_slice(line.strip_suffix(b",").unwrap_or(line))?;
        // Of ext4 alone.
        if entry["path"] == "lost+found" {
            continue;
        }
        // How large a directory is depends on the writer.
        let size = if entry["type"] == "directory" { &Value::Null } else { &entry["size"] };
        let known =
            ["path", "type", "mode", "uid", "gid", "target"].map(|key| entry[key].to_string()).join(" ");
        add(&mut sum, format!("{known} {size}").as_bytes());
    }
    Ok(sum)
}

/// The same of the files of a folder, by their content.
fn content(folder: &Path) -> Result<(usize, u128)> {
    let (mut open, mut sum) = (vec![folder.to_owned()], (0, 0));
    while let Some(folder_here) = open.pop() {
        for entry in fs::read_dir(folder_here)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(folder)?.display().to_string();
                add(&mut sum, format!("{name} {}", file_digest(&path)?).as_bytes());
            }
        }
    }
    Ok(sum)
}

/// Order does not matter: a sum of digests.
fn add(sum: &mut (usize, u128), bytes: &[u8]) {
    let digest = digest::sha256(bytes);
    sum.0 += 1;
    sum.1 = sum.1.wrapping_add(u128::from_str_radix(&digest.digest()[..32], 16).unwrap_or_default());
}

/// The digest of a file.
pub(crate) fn file_digest(path: &Path) -> Result<String> {
    let mut hasher = digest::Hasher::sha256();
    hasher.read_all(File::open(path)?)?;
    Ok(hasher.finish().to_string())
}

/// The digests that name files of a folder, or members of a tar.
pub(crate) fn digests(path: &Path) -> Result<BTreeSet<String>> {
    let mut names = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path.join("blobs/sha256"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
    } else {
        for entry in tar::Archive::new(BufReader::new(File::open(path)?)).entries()? {
            names.push(entry?.path()?.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    let hex = |name: &String| {
        name.get(..64).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit())).map(str::to_owned)
    };
    Ok(names.iter().filter_map(hex).collect())
}

/// All blobs of the first are in the others, which may have other documents.
pub(crate) fn blobs(wanted: &BTreeSet<String>, found: &[&Path]) -> Result<String> {
    for path in found {
        let missing = wanted.difference(&digests(path)?).count();
        if missing > 0 || wanted.is_empty() {
            return Err(format!("{} lacks {missing} of {} blobs", path.display(), wanted.len()).into());
        }
    }
    Ok(format!("Checked: each has the same {} blobs.", wanted.len()))
}

/// Flat tars have the same members, by name, kind and size.
pub(crate) fn tars(ours: &Path, theirs: &Path) -> Result<String> {
    let [ours, theirs] = [members(ours)?, members(theirs)?];
    match ours.symmetric_difference(&theirs).next() {
        None => {
            Ok(format!("Checked: both have the same {} members, of the same kinds and sizes.", ours.len()))
        }
        Some((name, ..)) => Err(format!("the tars differ, such as in {name:?}").into()),
    }
}

fn members(tar: &Path) -> Result<BTreeSet<(String, bool, u64)>> {
    let mut members = BTreeSet::new();
    for entry in tar::Archive::new(BufReader::new(File::open(tar)?)).entries()? {
        let entry = entry?;
        let name = entry.path()?.display().to_string();
        let name = name.trim_start_matches("./").trim_matches('/').to_owned();
        if !name.is_empty() && name != "." {
            members.insert((name, entry.header().entry_type().is_dir(), entry.size()));
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_content_and_other_blobs_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("a", "same"), ("b", "same"), ("c", "other")] {
            fs::create_dir_all(at(name).join("sub/blobs/sha256")).unwrap();
            fs::write(at(name).join("sub/file"), text).unwrap();
            fs::write(at(name).join("sub/blobs/sha256").join(digest::sha256(text.as_bytes()).digest()), text)
                .unwrap();
        }
        assert_eq!(content(&at("a")).unwrap(), content(&at("b")).unwrap());
        assert_ne!(content(&at("a")).unwrap(), content(&at("c")).unwrap());
        let wanted = digests(&at("a/sub")).unwrap();
        assert!(blobs(&wanted, &[&at("b/sub")]).is_ok() && blobs(&wanted, &[&at("c/sub")]).is_err());
        assert!(blobs(&BTreeSet::new(), &[&at("b/sub")]).is_err());
    }
}
