//! A root file system of three layers with one of everything.

use super::image::of_layers;
use super::layer::LayerBuilder;
use super::sample::Sample;

/// What [`rootfs`] contains once its layers are stacked, one line for each name: path, mode, owner, time, links,
/// kind and content, extended attributes.
pub const ROOTFS_TREE: &str = include_str!("rootfs.txt");

/// Every kind of file, extended attributes, capabilities, sparse and huge files, odd names, owners and times;
/// then an upper layer of replacements and hard links, and one of whiteouts.
pub fn rootfs() -> Sample {
    of_layers("rootfs", &[bottom().finish(), middle().finish(), top().finish()])
}

/// A layer with a sparse file of more than 4 GiB.
pub fn huge_file() -> Vec<u8> {
    let size = (1 << 32) + 8192;
    LayerBuilder::new()
        .sparse_file("huge", 0o600, size, &[(4096, b"in the hole"), (size - 6, b"at end")])
        .finish()
}

fn bottom() -> LayerBuilder {
    // cap_net_raw+ep, as setcap writes it to ping (VFS_CAP_REVISION_2).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let pattern: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let layer = root()
        .dir("bin", 0o755)
        .xattr("security.capability", capability)
        .file("bin/ping", 0o755, b"ping\n")
        .file("bin/su", 0o4755, b"su\n")
        .hard_link("bin/sudo", "bin/su")
        .symlink("bin/sh", "busybox")
        .dir("dev", 0o755)
        .char_device("dev/null", 0o666, 1, 3)
        .block_device("dev/large", 0o660, 259, 300_000)
        .fifo("dev/initctl", 0o600)
        .xattr("user.note", "on a directory")
        .dir("data", 0o2775)
        .file("data/empty", 0o644, b"")
        .file("data/large", 0o644, &pattern)
        .file("data/block", 0o644, &pattern[..4096])
        .sparse_file(
            "data/sparse",
            0o600,
            (1 << 26) + 8192,
            &[(4096, b"in the hole"), ((1 << 26) + 8186, b"at end")],
        )
        .sparse_file("data/hole", 0o600, 1 << 20, &[]);
    names(layer)
}

/// Overlayfs takes the root's metadata from the top layer: every layer says the same.
fn root() -> LayerBuilder {
    LayerBuilder::new().mtime("1700000000.000000001").dir("./", 0o755)
}

fn names(layer: LayerBuilder) -> LayerBuilder {
    let deep = format!("names/{}", "p".repeat(120));
    layer
        .dir("names", 0o755)
        .file(format!("names/{}", "n".repeat(255)), 0o644, b"long")
        .dir(&deep, 0o755)
        .file(format!("{deep}/{}", "q".repeat(120)), 0o644, b"deep")
        .file(b"names/caf\xe9", 0o644, b"latin")
        .file("names/caf\u{e9}", 0o644, b"unicode")
        .file("names/!first", 0o644, b"sorts before the dot")
        .file("names/with space", 0o644, b"space")
        .dir("owners", 0o755)
        .owner(3_000_000, 4_000_000_000)
        .file("owners/large", 0o640, b"ids beyond 2^21")
        .mtime("1234567890.123456789")
        .file("owners/nanoseconds", 0o640, b"time")
        .mtime("-1.5")
        .file("owners/past", 0o640, b"before 1970")
        .dir("gone", 0o755)
        .file("gone/file", 0o644, b"gone")
        .dir("opaque", 0o755)
        .file("opaque/old", 0o644, b"hidden")
        .dir("replaced", 0o755)
        .file("replaced/file", 0o644, b"hidden")
        .file("tofile", 0o644, b"becomes a directory")
        .file("linked", 0o644, b"keeps its content")
        .hard_link("link", "linked")
}

fn middle() -> LayerBuilder {
    root()
        .file("replaced", 0o644, b"was a directory")
        .dir("tofile", 0o711)
        .file("tofile/inside", 0o644, b"new")
        .file("linked", 0o600, b"overwritten")
        .file("implied/parent/file", 0o644, b"no entries above")
        .dir("opaque", 0o750)
        .file("opaque/before", 0o644, b"stays")
        .opaque("opaque")
        .file("opaque/after", 0o644, b"stays")
}

fn top() -> LayerBuilder {
    root()
        .whiteout("gone")
        .dir("gone", 0o700)
        .file("gone/again", 0o644, b"back")
        .dir("bin", 0o755)
        .whiteout("bin/sh")
        .whiteout("data/block")
        .xattr("user.note", "changed")
        .dir("data", 0o755)
}
