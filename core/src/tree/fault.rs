//! What is wrong with the files of a layer or of an image.

use crate::Size;
use crate::layer::ImagePath;

crate::fault! {
    /// What is wrong with the tree of a layer, or with the one that layers make together.
    pub enum TreeFault;
    Changed => (Corrupt, "a file was written to while content was read from it",
        "run it again when nothing else writes to the file"),
    Files(u64) => (Limit, "more than {0} files"),
    HardLink(String, ImagePath, &'static str) => (Corrupt, "{0} is a hard link to {1}, which {2}"),
    HiddenTarget(ImagePath, ImagePath) => (Corrupt, "{0} is a hard link to {1}, which its layer hides",
        "the link stands behind a whiteout of its target, or what replaces it"),
    Links(ImagePath, usize) => (Corrupt, "{0} leads through more than {1} symbolic links"),
    LinkToDirectory(ImagePath) => (Corrupt, "{0} is a hard link to a directory"),
    LinkToWhiteout(ImagePath, ImagePath) => (Corrupt, "{0} is a hard link to the whiteout {1}"),
    Malformed(&'static str) => (Corrupt, "{0}"),
    Metadata(Size) => (
        Limit,
        "extended attributes, links, whiteouts, sparse files' runs and directories without an entry \
         take more than {0} of memory"
    ),
    Names(Size) => (Limit, "more than {0} of names"),
    NamesFull(usize, usize) => (Limit, "{0} names of {1} bytes"),
    Offset(u64) => (Limit, "content that lies {0} bytes behind the start of a file, or further"),
    Order(ImagePath, &'static str) => (Unsupported, "{0}: a layer {1}, so that the order of its entries decides",
        "layers are kept without the order of their entries; build the image again, without the link"),
    PathLong(ImagePath, usize) => (Limit, "{0} leads to a path of more than {1} bytes"),
    TooManyNames => (Limit, "more names than 32 bits can count"),
}
