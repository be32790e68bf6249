//! What can be wrong with a snapshot.

crate::fault! {
    /// What is wrong with a snapshot.
    pub enum SnapshotFault;
    Altered(String) => (Corrupt, "the file {0} of the snapshot was altered",
        "take another copy of the snapshot"),
    Base(String) => (Unsupported, "the empty disk that {0} was made from cannot be made again",
        "load the snapshot by the version of plyfold that has saved it"),
    Changed(String) => (Corrupt, "{0} was changed while it was read",
        "end the virtual machine, or pause it until the snapshot is saved"),
    Delta(String) => (Corrupt, "invalid delta: {0}"),
    ForeignDisk(String, String) => (Corrupt, "{0} is not a VMDK as plyfold writes it, and a virtual machine would read other files by it: {1}",
        "make the disks again by `materialize`"),
    Foreign(String) => (Unsupported, "not a snapshot: its type is {0}"),
    /// Another program or the kernel has the disk open.
    InUse(String) => (Config, "{0}",
        "end the virtual machine and unmount the disk first, or save it live: as a power cut would leave it"),
    Invalid(String) => (Corrupt, "invalid snapshot: {0}"),
    Long(String) => (Limit, "{0}"),
    Missing(String) => (NotFound, "the snapshot lacks the file {0}",
        "take another copy of the snapshot"),
    Modified(String) => (Corrupt, "{0} was changed since it was made of the image",
        "make the disks again by `materialize` in another directory, and take the file from there"),
    NoRecord => (NotFound, "nothing says which image the disks in this directory are of",
        "make them by `materialize`, which writes it beside them"),
    /// The disk, its bytes, and those of its file system.
    Short(String, u64, u64) => (Corrupt, "{0} was cut off: it has {1} bytes, and its file system {2}",
        "take another copy of the disk, or make the disks again by `materialize`"),
    Version(u64) => (Unsupported, "version {0} of snapshots is not supported", "plyfold reads version 1"),
}

/// The error of a document of another form than it should have.
#[expect(clippy::needless_pass_by_value, reason = "made for `map_err`")]
pub(super) fn invalid(why: impl ToString) -> crate::Error {
    let why = why.to_string();
    // Serde hands on as text what a part of the document was refused for.
    let own = why.strip_prefix("invalid snapshot: ").unwrap_or(&why);
    SnapshotFault::Invalid(own.to_owned()).into()
}
