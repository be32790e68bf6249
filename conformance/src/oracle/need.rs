//! What an oracle test needs, and where its programs are.

use std::cell::Cell;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Something that a machine may or may not have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Need {
    /// A Debian root to make a real image of, in the folder that the variable `PLYFOLD_BARE` names. `.ci/bare` makes it.
    DebianRoot,
    /// A file system that the kernel can mount.
    FileSystem(&'static str),
    /// What a [`Guest`](super::Guest) is made of: QEMU, Linux 6.12 and busybox in the folder that the variable
    /// `PLYFOLD_GUEST` names. `.ci/guest` makes it.
    Guest,
    /// The right to mount: root, and no container that forbids it. Brings `mount`, `umount`, `losetup` and `partx`.
    Mounts,
    /// A program that Debian's stable release does not have, has in an older version, or only with much else. It is used
    /// where it is installed (`.ci/peers` gets some), and is never required: a test does not fetch programs.
    Peer(&'static str),
    /// A program.
    Tool {
        /// Its name in `PATH`.
        name: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// strace, and the right to trace a child.
    Tracing,
}

/// Programs that a check runs without declaring them: POSIX has them, so every machine with a shell does.
pub(super) const ALWAYS: &[&str] = &["chmod", "chown", "cp", "sh"];

thread_local! {
    /// The needs of the check that runs on this thread.
    static DECLARED: Cell<Option<&'static [Need]>> = const { Cell::new(None) };
}

/// Runs `check` as one that may use what `needs` declare, and nothing else.
pub(super) fn with_needs<T>(needs: &'static [Need], check: impl FnOnce() -> T) -> T {
    DECLARED.set(Some(needs));
    check()
}

/// Panics when the check that runs on this thread uses a program that its needs do not declare.
pub(super) fn assert_declared(program: &str) {
    let Some(needs) = DECLARED.get() else { return };
    let declared = || needs.iter().any(|need| need.programs().contains(&program));
    assert!(
        program.contains('/') || ALWAYS.contains(&program) || declared(),
        "the test runs {program}, which its needs do not declare"
    );
}

impl Need {
    /// The C compiler, which makes programs that need no library.
    pub const CC: Self = Self::Tool { name: "cc", package: "gcc" };
    /// The signer of images.
    pub const COSIGN: Self = Self::Peer("cosign");
    /// The registry client of go-containerregistry.
    pub const CRANE: Self = Self::Peer("crane");
    /// The client for artifacts in registries.
    pub const ORAS: Self = Self::Peer("oras");
    /// The reader of ext4 without a mount.
    pub const DEBUGFS: Self = Self::Tool { name: "debugfs", package: "e2fsprogs" };
    /// The client of a Docker daemon.
    pub const DOCKER: Self = Self::Tool { name: "docker", package: "docker.io" };
    /// The Docker daemon. It needs the right to mount as well.
    pub const DOCKERD: Self = Self::Tool { name: "dockerd", package: "docker.io" };
    /// ext4's checker.
    pub const E2FSCK: Self = Self::Tool { name: "e2fsck", package: "e2fsprogs" };
    /// EROFS' checker.
    pub const FSCK_EROFS: Self = Self::Tool { name: "fsck.erofs", package: "erofs-utils" };
    /// EROFS in the kernel.
    pub const KERNEL_EROFS: Self = Self::FileSystem("erofs");
    /// overlayfs in the kernel.
    pub const KERNEL_OVERLAY: Self = Self::FileSystem("overlay");
    /// The unpacker of tars, GNU's.
    pub const GNU_TAR: Self = Self::Tool { name: "tar", package: "tar" };
    /// The lister of the libraries that a program needs.
    pub const LDD: Self = Self::Tool { name: "ldd", package: "libc-bin" };
    /// ext4's maker.
    pub const MKFS_EXT4: Self = Self::Tool { name: "mkfs.ext4", package: "e2fsprogs" };
    /// XFS' maker.
    pub const MKFS_XFS: Self = Self::Tool { name: "mkfs.xfs", package: "xfsprogs" };
    /// The container engine; it brings a runtime and a network with it.
    pub const PODMAN: Self = Self::Peer("podman");
    /// The reader of VMDK and other disk images.
    pub const QEMU_IMG: Self = Self::Tool { name: "qemu-img", package: "qemu-utils" };
    /// The checker of partition tables of util-linux.
    pub const SFDISK: Self = Self::Tool { name: "sfdisk", package: "fdisk" };
    /// The checker of GUID partition tables.
    pub const SGDISK: Self = Self::Tool { name: "sgdisk", package: "gdisk" };
    /// The registry and layout client.
    pub const SKOPEO: Self = Self::Tool { name: "skopeo", package: "skopeo" };
    /// The unpacker of OCI images.
    pub const UMOCI: Self = Self::Tool { name: "umoci", package: "umoci" };
    /// The maker and verifier of hash trees of dm-verity.
    pub const VERITYSETUP: Self = Self::Tool { name: "veritysetup", package: "cryptsetup-bin" };
    /// The program that shuts down a file system, XFS and others, as a power cut does.
    pub const XFS_IO: Self = Self::Tool { name: "xfs_io", package: "xfsprogs" };

    /// The programs that a test with this need may run.
    fn programs(&self) -> &[&'static str] {
        match self {
            Self::FileSystem(_) => &["modprobe"],
            Self::DebianRoot | Self::Guest => &[],
            Self::Mounts => &["losetup", "mount", "partx", "umount"],
            Self::Peer(name) | Self::Tool { name, .. } => std::slice::from_ref(name),
            Self::Tracing => &["strace"],
        }
    }

    /// Whether it may be demanded that the need is met, by `PLYFOLD_ORACLES=require`.
    pub fn is_required(&self) -> bool {
        !matches!(self, Self::Peer(_))
    }
}

/// Where a program is, in [`path`].
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    env::split_paths(&path()).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// `PATH`, and the folders of administrators' programs, which the `PATH` of a user lacks.
pub(super) fn path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// The folder of [`Need::DebianRoot`]: `target/bare` below the current folder when no variable names another.
pub fn debian_root() -> PathBuf {
    env::var_os("PLYFOLD_BARE").unwrap_or_else(|| "target/bare".into()).into()
}

/// Where the files of guests are: `target/guest` below the current folder when nothing names another.
pub(super) fn guest_folder() -> PathBuf {
    env::var_os("PLYFOLD_GUEST").unwrap_or_else(|| "target/guest".into()).into()
}
