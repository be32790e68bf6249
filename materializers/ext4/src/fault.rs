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
    Label(String) => (Config, "an ext4 label cannot be {0:?}", "a label has at most 16 bytes and no NUL"),
    Layers(usize) => (Config, "an upper disk is empty, it cannot hold {0} layers",
        "layers go under the upper, as EROFS images"),
    Size(Size) => (Config, "an ext4 disk cannot have {0}", "choose a size from 64 MiB to 16 TiB"),
}
