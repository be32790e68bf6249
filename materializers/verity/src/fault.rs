//! What is wrong with a hash tree, or with what is to get one.

plyfold_core::fault! {
    /// What is wrong with a hash tree, or with what is to get one.
    pub enum VerityFault;
    Algorithm(String) => (Unsupported, "the hash tree is made by {0:?}", "sha256 is what is supported"),
    BlockSize(u32) => (Config, "blocks of a hash tree cannot have {0} bytes", "choose 512, 1024, 2048 or 4096"),
    Covered(u64, u64) => (Corrupt, "the hash tree is of {0} bytes, and the file has {1}",
        "all of a file is verified, or it is not"),
    DataBlock(u64, u64) => (Corrupt, "data block {0}, at byte {1}, does not match the hash tree"),
    Empty => (Config, "an empty file has no hash tree"),
    Ended(u64, u64) => (Corrupt, "the file ends within the {0} bytes at byte {1}"),
    HashBlock(usize, u64, u64) =>
        (Corrupt, "block {1} of level {0} of the hash tree, at byte {2}, is damaged"),
    HashType(u32) => (Unsupported, "the hash tree is of type {0}", "type 1 is what is supported"),
    LargeBlocks(u32) => (Unsupported, "the hash tree has blocks of {0} bytes", "at most 4096 is supported"),
    NilUuid => (Config, "the UUID of a hash tree cannot be all zeros"),
    NoSuperblock(u64) => (Corrupt, "there is no superblock of dm-verity at byte {0}"),
    Padding(u64) => (Corrupt, "byte {0}, which pads the data or the superblock, is not zero"),
    Root(String, String) => (Corrupt, "the root hash is {1}, and not {0}",
        "the data or the hash tree is another one, or damaged"),
    RootHash(String) => (Config, "{0:?} is not a root hash", "a root hash has 64 hexadecimal digits"),
    Salt(usize) => (Config, "a salt of {0} bytes", "a salt has at most 256 bytes"),
    SaltDigits(String) => (Config, "{0:?} is not a salt", "write pairs of hexadecimal digits, or - for no salt"),
    Size(u64, u32) => (Config, "a file of {0} bytes is not made of {1}-byte blocks",
        "choose smaller data blocks, or fill the file up with zeros, as `truncate -s %512 FILE` does it for 512 bytes: what is \
         behind the last complete block would not be verified"),
    Superblock(&'static str) => (Corrupt, "the superblock of the hash tree is damaged: {0}"),
    TooLarge(u64, u32) => (Limit, "a hash tree of {0} blocks of {1} bytes ends beyond what a file holds"),
    UuidText(String) => (Config, "{0:?} is not a UUID"),
    Version(u32) => (Unsupported, "the hash tree has version {0}", "version 1 is what is supported"),
}
