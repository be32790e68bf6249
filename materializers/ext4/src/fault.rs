//! What is wrong with what is to become an ext4 disk.

use plyfold_core::Size;

plyfold_core::fault! {
    /// What is wrong with what is to become an ext4 disk.
    pub enum Ext4Fault;
    Acl(String) => (Corrupt, "{0} is not a POSIX ACL"),
    Attribute(String) => (Unsupported, "ext4 cannot store the attribute {0}"),
    AttributeBytes(usize, usize) => (Limit, "{0} bytes of extended attributes do not fit into ext4's {1}"),
    AttributeName(String) => (Limit, "the attribute name {0} is longer than 255 bytes"),
    Blocks(u64) => (Config, "a disk of {0} bytes is not made of 4096-byte blocks"),
    Damaged(&'static str) => (Corrupt, "{0} of the ext4 file system does not match", "`e2fsck -f` finds out what is wrong with it"),
    DeviceNumber(u32, u32) => (Limit, "the device number {0}:{1} is beyond Linux's 4095:1048575"),
    Features(u32, u32, u32) => (Unsupported, "an ext4 file system with the features {0:#x}, {1:#x} and {2:#x}, which is none of plyfold's",
        "resize2fs changes the size of others"),
    File(u64) => (Limit, "a file of {0} bytes: ext4 holds 17592186040320 at most"),
    Inodes => (Limit, "the image has more files than ext4 has inodes"),
    Journal(u64) => (Config, "an ext4 journal cannot have {0} bytes", "choose whole blocks of 4096 bytes, from 4 MiB to 32 GiB"),
    Label(String) => (Config, "an ext4 label cannot be {0:?}", "a label has at most 16 bytes and no NUL"),
    Layers(usize) => (Config, "an upper disk is empty, it cannot hold {0} layers",
        "layers go under the upper, as EROFS images"),
    Links(u32) => (Limit, "a file of {0} names: ext4 holds 65000 at most"),
    Names(usize) => (Limit, "a directory of {0} names is too large for ext4"),
    NoFileSystem => (Corrupt, "there is no ext4 file system"),
    NotClean => (Config, "the ext4 file system was not unmounted, or has errors", "unmount it, then `e2fsck -f` it"),
    Planned(u64) => (Internal, "the files take more than the {0} blocks that were planned"),
    Replay => (Config, "the journal of the ext4 file system has to be replayed: it is mounted, or was not unmounted",
        "unmount it, or mount and unmount it, or `e2fsck -f` it"),
    RootfsSize(Size) => (Config, "an ext4 disk cannot have {0}", "the largest has 16 TiB"),
    Shape => (Unsupported, "an ext4 file system of other blocks, inodes or groups than plyfold's", "resize2fs changes the size of others"),
    Short(u64) => (Corrupt, "the content of a file of {0} bytes is not complete"),
    Size(Size) => (Config, "an ext4 disk cannot have {0}", "choose a size from 64 MiB to 16 TiB"),
    Smaller(String, String) => (Unsupported, "the ext4 file system has {0}, which is more than {1}", "resize2fs makes one smaller"),
    Tail => (Config, "there is something behind the end of the ext4 file system, where it would grow", "copy the file without it first"),
    Target(usize) => (Limit, "a symbolic link of {0} bytes: ext4 holds 1 to 4095"),
    TooLarge => (Limit, "the image does not fit into an ext4 disk of 16 TiB"),
    TooSmall(Size) => (Config, "the image does not fit into an ext4 disk of {0}"),
}
