//! Hash trees that are behind their images in a cache, as files of their own.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::work::MadeFile;
use crate::HashTree;
use crate::artifact::{ArtifactHandle, Made};
use crate::hash_tree::TreePlace;
use crate::materializer::Role;

/// The images without the trees behind them, then the trees: of each the bytes of `veritysetup`'s own file, as nothing in a
/// tree depends on where it is.
pub(super) fn separate(files: Vec<MadeFile>) -> Vec<MadeFile> {
    let mut trees = Vec::new();
    let mut images: Vec<MadeFile> = files
        .into_iter()
        .map(|file| match tree_behind(&file) {
            Some(tree) => {
                let (image, tree) = parts(file, &tree);
                trees.push(tree);
                image
            }
            None => file,
        })
        .collect();
    images.append(&mut trees);
    images
}

fn tree_behind(file: &MadeFile) -> Option<HashTree> {
    let tree = file.artifact.made().hash_tree.as_ref().filter(|_| file.role == Role::Image)?;
    let is_behind = tree.place == TreePlace::Append
        && tree.data_size() <= tree.hash_offset
        && tree.hash_offset < file.artifact.size();
    is_behind.then(|| tree.clone())
}

fn parts(file: MadeFile, tree: &HashTree) -> (MadeFile, MadeFile) {
    let whole = &file.artifact;
    let made = whole.made().clone().with_hash_tree(tree.clone().at(TreePlace::Separate, 0));
    let part = |from: u64, size: u64| -> Box<dyn ArtifactHandle> {
        Box::new(ArtifactPart { whole: whole.clone(), from, size, made: made.clone() })
    };
    let (image, hashes) =
        (part(0, tree.data_size()), part(tree.hash_offset, whole.size() - tree.hash_offset));
    let stem = file.name.rsplit_once('.').map_or(&*file.name, |(stem, _)| stem);
    let tree =
        MadeFile { name: format!("{stem}.verity"), role: Role::HashTree, artifact: hashes, ..file.clone() };
    (MadeFile { artifact: image, ..file }, tree)
}

/// A run of bytes of a finished file.
#[derive(Clone, Debug)]
struct ArtifactPart {
    whole: Box<dyn ArtifactHandle>,
    from: u64,
    size: u64,
    made: Made,
}

impl ArtifactHandle for ArtifactPart {
    fn size(&self) -> u64 {
        self.size
    }

    fn made(&self) -> &Made {
        &self.made
    }

    fn path(&self) -> Option<&Path> {
        None
    }

    fn part_of(&self) -> Option<(&Path, u64)> {
        Some((self.whole.path()?, self.from))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        self.whole.read_at(self.from.saturating_add(offset), &mut buffer[..wanted])
    }

    fn read_range(&self, range: Range<u64>, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let place = |offset: u64| self.from.saturating_add(offset.min(self.size));
        self.whole.read_range(place(range.start)..place(range.end), each)?;
        if range.end > self.size { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, SeekFrom};

    use super::*;
    use crate::artifact::{ArtifactReader, LocalArtifact};
    use crate::format::Format;

    /// An image of two blocks, with a tree behind it that says so.
    fn file(folder: &Path, tree: HashTree) -> MadeFile {
        let path = folder.join("artifact");
        std::fs::write(&path, [[1; 4096], [2; 4096], [3; 4096]].concat()).unwrap();
        let made = Made::default().with_hash_tree(tree);
        MadeFile {
            name: "layer-00.erofs".to_owned(),
            role: Role::Image,
            writable: false,
            format: Format {
                name: "layers",
                version: 1,
                options: "verity-append".into(),
                extension: "erofs",
            },
            artifact: Box::new(LocalArtifact::new(path, 3 * 4096, made)),
            diff_id: None,
            cached: true,
        }
    }

    fn tree(blocks: u64) -> HashTree {
        HashTree::new(format!("sha256:{}", "ab".repeat(32)).parse().unwrap(), blocks)
    }

    #[test]
    fn an_image_and_the_tree_behind_it_are_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let files = separate(vec![file(folder.path(), tree(2)), file(folder.path(), tree(1))]);
        let names = ["layer-00.erofs", "layer-00.erofs", "layer-00.verity", "layer-00.verity"];
        assert_eq!(files.iter().map(|file| &*file.name).collect::<Vec<_>>(), names);
        let roles = [Role::Image, Role::Image, Role::HashTree, Role::HashTree];
        assert_eq!(files.iter().map(|file| file.role).collect::<Vec<_>>(), roles);
        for (part, first) in [(&files[0], 1), (&files[2], 3)] {
            let told = part.artifact.made().hash_tree.as_ref().unwrap();
            assert_eq!((told.place, told.hash_offset, told.data_blocks), (TreePlace::Separate, 0, 2));
            assert_eq!(part.artifact.path(), None, "what is at a path is the whole file");
            let (mut reader, mut bytes) = (ArtifactReader::open(&*part.artifact).unwrap(), Vec::new());
            reader.read_to_end(&mut bytes).unwrap();
            let mut copy = tempfile::tempfile().unwrap();
            reader.seek(SeekFrom::Start(5)).unwrap();
            reader.copy_to(&mut copy).unwrap();
            let (mut copied, size) = (Vec::new(), part.artifact.size() as usize);
            copy.rewind().unwrap();
            copy.read_to_end(&mut copied).unwrap();
            assert_eq!(
                (bytes.len(), bytes[0], bytes[size - 1] - bytes[0]),
                (size, first, u8::from(first == 1))
            );
            assert!(copied == bytes[5..], "a copy of the rest is another one");
        }
    }

    /// What is behind the data has to be in the file, and a tree in a file of its own stays there.
    #[test]
    fn what_is_no_tree_behind_its_data_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let beside = tree(2).at(TreePlace::Separate, 0);
        for tree in [beside, tree(3), tree(u64::MAX), tree(2).at(TreePlace::Append, 4096)] {
            let files = separate(vec![file(folder.path(), tree)]);
            assert_eq!((files.len(), files[0].artifact.size()), (1, 3 * 4096));
        }
        let role = Role::HashTree;
        assert_eq!(separate(vec![MadeFile { role, ..file(folder.path(), tree(2)) }]).len(), 1);
    }
}
