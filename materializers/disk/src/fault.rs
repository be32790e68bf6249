//! What is wrong with files that are to become a disk.

plyfold_core::fault! {
    /// What is wrong with files that are to become a disk.
    pub enum DiskFault;
    Beyond(u32) => (Corrupt, "partition {0} is not within the part of the disk that partitions have"),
    Compressed(&'static str) => (Config, "{0} cannot refer to compressed files",
        "the format erofs makes one disk with compressed files"),
    Devices(usize, usize) => (Config, "a merged image of {0} layers is given with {1} layers"),
    Empty => (Config, "a disk is made of a merged image and its layers, and no file is given"),
    Entries(u32, u32) => (Limit, "a partition table of {0} entries of {1} bytes: at most 1,024 of 128 bytes are read"),
    LayerSize(u64, u64) => (Config, "the layer has {0} bytes, the merged image knows it with {1}",
        "make the merged image of these layers"),
    MergedSize(u64, u64) => (Corrupt, "the merged image has {0} bytes instead of {1}"),
    NotMerged => (Config, "the first file of the disk is no merged EROFS image"),
    Overlap => (Corrupt, "two layers of the merged image overlap"),
    NoTree => (Config, "a file has no hash tree behind its data",
        "make the merged image and its layers with hash trees, and hand over what their materializers have told"),
    Partitions(usize, usize) => (Limit, "{0} partitions are more than Linux finds on a disk: {1}",
        "the formats erofs, raw and vmdk take more layers"),
    Sectors(u64) => (Config, "a file of {0} bytes cannot be a partition: it is not made of sectors of 512 bytes"),
    Shared(u32, u32) => (Corrupt, "partitions {0} and {1} overlap"),
    Short(u64, u64) => (Corrupt, "the partition table is of a disk of {0} bytes, and there are {1}",
        "the rest of the disk is cut off, or in other files that a VMDK descriptor names"),
    Size => (Limit, "the disk is larger than 2^62 bytes"),
    Table => (Corrupt, "the partition table is damaged",
        "another one is at the end of the disk, from which sgdisk restores it"),
    Unprotected => (Corrupt, "the disk has a partition table and no protective MBR: Linux finds no partitions on it",
        "sgdisk writes such an MBR"),
}
