//! What is wrong with a layer: its compression, its tar, a value in it.

use crate::Size;

crate::fault! {
    /// What is wrong with the stream of a layer, before the tar in it is looked at.
    pub enum LayerFault;
    Cancelled => (Cancelled, "the layer is no longer wanted"),
    Compressed(&'static str) => (Unsupported, "the layer is compressed by {0}; layers are plain, gzip or zstd"),
    Erofs => (Unsupported, "the layer is an EROFS image, and is read as a tar",
        "in a manifest such layers have the media type application/vnd.erofs.layer.v1"),
    Form(String) => (Unsupported, "no crate that reads layers of type {0} is linked into this program",
        "build it with the feature `erofs`, or choose an image of tars"),
    GzipIndex(&'static str) => (Corrupt, "the index of the layer's gzip data is wrong: {0}"),
    Large(Size) => (Limit, "the layer has more than {0} uncompressed"),
    Malformed(&'static str) => (Corrupt, "{0}"),
    NoTar(&'static str) => (Unsupported, "the layer is an image of the form {0}, and no tar",
        "choose a format that is made of files, such as erofs, or erofs-layers, which keeps the image as it is"),
    NoMemory => (Limit, "no memory for a zstd decoder"),
    Ratio(Size, Size, u64) => (Limit, "{0} of the layer became {1}, more than {2} bytes for each"),
    Suffix(String, String) => (Unsupported, "layers of type {0} are plain, gzip or zstd, and not {1}"),
    Thread => (Internal, "a thread that reads the layer panicked"),
    ZstdBroken(&'static str) => (Corrupt, "the zstd data is broken: {0}"),
    ZstdWindow(u64) => (Limit, "a zstd frame needs a window of more than {0} MiB"),
}

crate::fault! {
    /// What is wrong with a tar, or with one of its entries.
    pub enum TarFault;
    Checksum(i128, i128) => (Corrupt, "tar header checksum is {0}, its bytes add up to {1}",
        "the layer is not a tar, or an earlier header has a wrong size"),
    Component(usize, usize) => (Limit, "a path component of {0} bytes, the limit is {1}"),
    Device(u32, u32) => (Corrupt, "device number {0}:{1} is out of range"),
    Entries(u64) => (Limit, "more than {0} entries"),
    Extension(u64, Size) => (Limit, "an extended header of {0} bytes, the limit is {1}"),
    Field(String) => (Corrupt, "tar header field {0}"),
    FileSize(String) => (Limit, "a file of {0}"),
    GlobalField(String) => (Corrupt, "a global extended header sets {0} for all files"),
    GlobalSize(Size) => (Limit, "global extended headers give all files more than {0} of attributes"),
    Leaves(String) => (Corrupt, "path {0} leaves the root directory"),
    LinkLong(usize, usize) => (Limit, "a link target of {0} bytes, the limit is {1}"),
    Malformed(&'static str) => (Corrupt, "{0}"),
    PathLong(usize, usize) => (Limit, "a path of {0} bytes, the limit is {1}"),
    PathNul(String) => (Corrupt, "path {0} has a NUL byte"),
    Record(String, String) => (Corrupt, "extended header record {0} is {1:?}"),
    RecordForm(String) => (Corrupt, "an extended header's record is malformed: {0:?}"),
    Sparse(String) => (Corrupt, "a sparse file {0}"),
    SparseBlocks(usize) => (Limit, "a sparse file's map of more than {0} blocks"),
    SparseFormat => (Unsupported, "a GNU sparse format later than 1.0"),
    SparseMore(usize) => (Limit, "a sparse file of more than {0} runs"),
    SparseRuns(u64, usize) => (Limit, "a sparse file of {0} runs, the limit is {1}"),
    SparseSize(String) => (Limit, "a sparse file of {0}"),
    Truncated(&'static str) => (Corrupt, "the tar ends within {0}"),
    Two(&'static str) => (Ambiguous, "an entry has two {0}", "its GNU and its PAX extension disagree"),
    Type(char) => (Unsupported, "tar entries of type {0:?} belong to no layer"),
    UnderWhiteout(String) => (Corrupt, "{0} stands below a whiteout",
        "the OCI image spec keeps names with .wh. for whiteouts: make the layer again"),
    WhiteoutOfNothing(String) => (Corrupt, "{0} is a whiteout of no name"),
    XattrLong(String, usize, usize) => (Limit, "{0} has {1} bytes, the limit is {2}"),
    XattrName(String) => (Corrupt, "extended attribute name {0:?}"),
    XattrNameLong(usize) => (Limit, "an extended attribute's name of {0} bytes is longer than Linux' 255"),
}

impl LayerFault {
    /// Gzip data that no program writes, or whose checksum is another one.
    pub(super) const GZIP_BROKEN: Self = Self::Malformed("the gzip data is broken");
    /// A decoder that has input and room, and does nothing.
    pub(super) const STUCK: Self = Self::Malformed("the decoder made no progress");
    /// Bytes behind the last member or frame that are not one.
    pub(super) const TRAILING: Self = Self::Malformed("trailing data after the end of the compressed layer");
}
