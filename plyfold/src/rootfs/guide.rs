//! How to mount the files here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use plyfold_core::{Advice, Error, ErrorKind, HashedPartition, Result};

use super::disks::Disks;
use super::options::{FLAT, VMDK};
use super::verified::VerifiedFile;
use crate::shell::{absolute, quoted};

/// What mount(2) takes of options, less room for what mount(8) adds: it cuts off what does not fit into a page, without
/// an error.
const OPTIONS: usize = 4000;
/// The layers that overlayfs takes (`OVL_MAX_STACK`).
const LOWERS: usize = 500;
/// The width that lists are wrapped to.
const WIDTH: usize = 96;

/// Runs at the end of the script, `DETACH` being [`LOOPS`] or [`VERIFIED`]. After a failure it unmounts in `$P` what `$U` names,
/// the last first. Devices are detached with their mounts, and folders that are empty then are removed.
const TRAP: &str = "trap 'S=$?; cd /; [ $S = 0 ] || for F in $U; do umount \"$P/$F\" || :; done
DETACH; rm -rf \"$P/devices\"
[ $S = 0 ] || rmdir \"$P\"/* 2>/dev/null || :; rmdir \"$P\" 2>/dev/null || :' EXIT
";
/// Detaches loop devices.
const LOOPS: &str = "[ -z \"$L\" ] || losetup -d $L";
/// Closes verified devices, and then a loop device with partitions.
const VERIFIED: &str =
    "for F in $L; do veritysetup close --deferred $F >/dev/null; done; [ -z \"$B\" ] || losetup -d $B";
/// Opens a verified device by a name that no other has: one layer can be in many mounts. The arguments are the data, its
/// hash tree, the root hash, and where in the second the tree begins.
const OPEN: &str = "o() { F=plyfold-$(cat /proc/sys/kernel/random/uuid)
  veritysetup open \"$1\" $F \"$2\" $3 --hash-offset=$4; L=\"$L $F\" V=/dev/mapper/$F; }
";

impl Disks {
    /// Shell commands that mount the root file system at `/mnt/rootfs`, for root on Linux, with util-linux.
    ///
    /// Layers, a flat image and an upper need Linux 5.4, a merged image and partitions 5.16, a raw disk 6.4. Every layer gets
    /// a loop device of its own, which is detached with its mount, so that one layer can be in many mounts. Mount points
    /// other than the root itself are in `/mnt/rootfs.parts`. A step that fails ends the script, which then unmounts what it
    /// has mounted: it never goes on with a part of the layers.
    ///
    /// # Errors
    /// [`Limit`](crate::ErrorKind::Limit) for more layers than the kernel takes, with a hint at the form that it does take;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for other formats than EROFS images and ext4 disks.
    pub fn mount_script(&self) -> Result<String> {
        self.script(false)
    }

    /// As [`mount_script`](Self::mount_script), with each device opened by its hash tree (dm-verity), for root with
    /// veritysetup, too: what is not what the root hashes are of is an I/O error. `None` where an image that would be mounted
    /// has no tree. It is unmounted in the same way; the verified devices go with their mounts.
    pub fn verified_mount_script(&self) -> Option<String> {
        let single = [&self.flat, &self.raw, &self.merged].into_iter().flatten();
        let is_verified = match &self.gpt {
            Some(_) => !self.verified_partitions().is_empty(),
            None => single.chain(&self.layers).all(|image| self.verified_at(image).is_some()),
        };
        if !is_verified || !self.is_stackable() {
            return None;
        }
        self.script(true).ok()
    }

    fn script(&self, is_verified: bool) -> Result<String> {
        if let Some(disk) = &self.ext4 {
            // Use `-o loop`, which reuses a loop device: two devices of one disk would have two page caches.
            let disk = quoted(&absolute(disk));
            // One with a hash tree may be a link to the file in the store.
            let options = if self.is_root_written() { "loop" } else { "loop,ro" };
            return Ok(format!(
                "M=/mnt/rootfs\nmkdir -p \"$M\" && mount -t ext4 -o {options} {disk} \"$M\"\n"
            ));
        }
        if !self.is_stackable() {
            let format = self.files.first().map_or("", |file| file.format.as_str());
            let message = format!("no command is known that mounts {format}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mut script = String::from("M=/mnt/rootfs\n(set -e\n");
        // The other way in, fsconfig(2), takes 256 bytes of an option, and libmount prefers it.
        script.push_str("export LIBMOUNT_FORCE_MOUNT2=always\n");
        script.push_str("mkdir -p \"$M\"; M=$(cd \"$M\" && pwd)\n");
        script.push_str(if is_verified {
            "P=$M.parts B= L= N=0 O= U=\n"
        } else {
            "P=$M.parts L= N=0 O= U=\n"
        });
        script.push_str(&TRAP.replace("DETACH", if is_verified { VERIFIED } else { LOOPS }));
        script.push_str(if is_verified { OPEN } else { "" });
        let lower = match self {
            Self { flat: Some(image), .. } | Self { raw: Some(image), .. } => {
                self.mount_image(image, is_verified, &mut script)
            }
            Self { merged: Some(merged), .. } => self.mount_merged(merged, is_verified, &mut script)?,
            Self { gpt: Some(gpt), .. } if is_verified => self.mount_verified_gpt(gpt, &mut script),
            Self { gpt: Some(gpt), .. } => self.mount_gpt(gpt, &mut script),
            _ => self.mount_layers(is_verified, &mut script)?,
        };
        self.mount_overlay(lower, &mut script);
        script.push_str(")\n");
        Ok(script)
    }

    /// Shell commands that unmount what [`mount_script`](Self::mount_script) has mounted, also its loop devices.
    pub fn unmount_script(&self) -> String {
        let has_parts = self.ext4.is_none() && (self.upper.is_some() || self.are_layers_stacked());
        let parts = if has_parts { " \"$M.parts\"/* && rmdir \"$M.parts\"/* \"$M.parts\"" } else { "" };
        format!("M=/mnt/rootfs\numount \"$M\"{parts}\n")
    }

    /// Whether several layers are mounted, each by itself, for an overlay.
    fn are_layers_stacked(&self) -> bool {
        let one_image = [&self.flat, &self.raw, &self.gpt, &self.merged];
        one_image.into_iter().all(Option::is_none) && self.layers.len() > 1
    }

    /// Mounts a file as it is, and says what its place is called in `$P`.
    fn mount_image(&self, image: &Path, is_verified: bool, script: &mut String) -> &'static str {
        let (attach, place) = (self.attach(image, is_verified), self.lower_place());
        let _ = writeln!(script, "mkdir -p \"{place}\"; {attach}");
        self.mount_lower("\"$V\"", "ro", script);
        "lower"
    }

    /// Makes a device of a file, whose name is `$V` then.
    fn attach(&self, image: &Path, is_verified: bool) -> String {
        let file = |path: &Path| quoted(&absolute(path));
        match self.verified_at(image).filter(|_| is_verified) {
            Some(VerifiedFile { tree, tree_file, .. }) => {
                format!("o {} {} {} {}", file(image), file(tree_file), tree.root_hash(), tree.hash_offset)
            }
            None => format!("V=$(losetup -r -f --show {}); L=\"$L $V\"", file(image)),
        }
    }

    /// Mounts an image of all layers in its place.
    fn mount_lower(&self, device: &str, options: &str, script: &mut String) {
        let place = self.lower_place();
        // Nothing that can fail follows the mount of a root.
        let mounted = if self.upper.is_some() { "; U=lower" } else { "" };
        let _ = writeln!(script, "mount -t erofs -o {options} {device} \"{place}\"{mounted}");
    }

    /// Where an image of all layers is mounted.
    fn lower_place(&self) -> &'static str {
        if self.upper.is_some() { "$P/lower" } else { "$M" }
    }

    /// Mounts the merged image, and says what its place is called in `$P`.
    fn mount_merged(&self, merged: &Path, is_verified: bool, script: &mut String) -> Result<&'static str> {
        // Symbolic links make names short enough: `ro`, then `,device=NUMBER` each.
        let options = self.layers.iter().enumerate().map(|(index, _)| format!(",device={index}").len());
        if options.sum::<usize>() + "ro".len() > OPTIONS {
            return Err(too_many(self.layers.len(), "mount(2) has no room for the names of so many devices"));
        }
        let place = self.lower_place();
        let _ = writeln!(script, "mkdir -p \"$P/devices\" \"{place}\"; cd \"$P/devices\"");
        self.for_each_layer(is_verified, script);
        script.push_str("  ln -sfn \"$V\" \"$N\"; O=$O,device=$N; N=$((N+1))\n");
        script.push_str("done\n");
        let _ = writeln!(script, "{}", self.attach(merged, is_verified));
        self.mount_lower("\"$V\"", "\"ro$O\"", script);
        Ok("lower")
    }

    /// Mounts the first partition with the others as its devices. Not every kernel finds partitions by itself.
    fn mount_gpt(&self, gpt: &Path, script: &mut String) -> &'static str {
        let (gpt, place) = (quoted(&absolute(gpt)), self.lower_place());
        let _ = writeln!(script, "mkdir -p \"$P/devices\" \"{place}\"; cd \"$P/devices\"");
        let _ = writeln!(script, "V=$(losetup -r -f -P --show {gpt}); L=$V");
        script.push_str("[ -b \"${V}p1\" ] || partx -a \"$V\"\n");
        script.push_str("while [ -b \"${V}p$((N+2))\" ]");
        // Behind these there are hash trees.
        script.extend(self.image_partitions().map(|count| format!(" && [ $((N+2)) -le {count} ]")));
        script.push_str("; do\n");
        script.push_str("  ln -sfn \"${V}p$((N+2))\" \"$N\"; O=$O,device=$N; N=$((N+1))\n");
        script.push_str("done\n");
        self.mount_lower("\"${V}p1\"", "\"ro$O\"", script);
        "lower"
    }

    /// The same, each partition opened by its tree.
    fn mount_verified_gpt(&self, gpt: &Path, script: &mut String) -> &'static str {
        let (gpt, place) = (quoted(&absolute(gpt)), self.lower_place());
        let _ = writeln!(script, "mkdir -p \"$P/devices\" \"{place}\"; cd \"$P/devices\"");
        let _ = writeln!(script, "B=$(losetup -r -f -P --show {gpt})");
        script.push_str("[ -b \"${B}p1\" ] || partx -a \"$B\"\nset --");
        for HashedPartition { image, holder, tree, .. } in self.verified_partitions() {
            let (root, offset) = (tree.root_hash(), tree.hash_offset);
            let _ = write!(script, " \\\n  {} {} {root} {offset}", image.number, holder.number);
        }
        script.push_str("\nwhile [ $# != 0 ]; do\n  o \"${B}p$1\" \"${B}p$2\" $3 $4; shift 4\n");
        script.push_str("  ln -sfn \"$V\" \"$N\"; [ $N = 0 ] || O=$O,device=$N; N=$((N+1))\n");
        script.push_str("done\n");
        self.mount_lower("0", "\"ro$O\"", script);
        "lower"
    }

    /// Mounts each layer, and says what their places are called in `$P`, the topmost first.
    fn mount_layers(&self, is_verified: bool, script: &mut String) -> Result<&'static str> {
        if self.layers.len() > LOWERS {
            return Err(too_many(self.layers.len(), &format!("overlayfs takes {LOWERS}")));
        }
        let single = self.layers.len() == 1 && self.upper.is_none();
        self.for_each_layer(is_verified, script);
        if single {
            script.push_str("  mount -t erofs -o ro \"$V\" \"$M\"\n");
        } else {
            script.push_str("  mkdir -p \"$P/$N\"; mount -t erofs -o ro \"$V\" \"$P/$N\"\n");
            script.push_str("  U=\"$N $U\" O=$N${O:+:$O}; N=$((N+1))\n");
        }
        script.push_str("done\n");
        Ok("$O")
    }

    /// The head of a loop over the layers: `$V` is the device of one.
    fn for_each_layer(&self, is_verified: bool, script: &mut String) {
        if !is_verified {
            return for_each(script, &self.layers);
        }
        script.push_str("set --");
        for VerifiedFile { disk, tree, tree_file, .. } in
            self.layers.iter().filter_map(|layer| self.verified_at(layer))
        {
            let [data, holder] = [&disk.path, tree_file].map(|path| quoted(&absolute(path)));
            let (root, offset) = (tree.root_hash(), tree.hash_offset);
            let _ = write!(script, " \\\n  {data} {holder} \\\n  {root} {offset}");
        }
        script.push_str("\nwhile [ $# != 0 ]; do\n  o \"$1\" \"$2\" $3 $4; shift 4\n");
    }

    /// Joins what is mounted in `$P`. Names there are relative and have no character that overlayfs reads as its own.
    fn mount_overlay(&self, lower: &str, script: &mut String) {
        if let Some(upper) = &self.upper {
            // Use `-o loop`, which reuses a loop device: two devices of one disk would have two page caches and corrupt
            // it.
            let upper = quoted(&absolute(upper));
            let _ = writeln!(script, "mkdir -p \"$P/upper\"; mount -t ext4 -o loop {upper} \"$P/upper\"");
            script.push_str("U=\"upper $U\"\n");
            script.push_str("cd \"$P\"; mount -t overlay overlay \\\n");
            let _ =
                writeln!(script, "  -o \"lowerdir={lower},upperdir=upper/upper,workdir=upper/work\" \"$M\"");
        } else if self.are_layers_stacked() {
            let _ = writeln!(script, "cd \"$P\"; mount -t overlay overlay -o \"ro,lowerdir={lower}\" \"$M\"");
        }
    }
}

fn too_many(layers: usize, why: &str) -> Error {
    let message = format!("no command mounts {layers} layers here: {why}");
    let words = "{} makes one image of them, {} one disk of their images for a virtual machine";
    let advice = Advice::ChooseFormat { words, formats: vec![FLAT, VMDK] };
    Error::limit(message).with_advice(advice)
}

/// The head of a loop over files: `$D/$F` is the file, `$V` its loop device. The folder is written once, or in every name
/// when they have several.
fn for_each(script: &mut String, files: &[PathBuf]) {
    let files: Vec<PathBuf> = files.iter().map(|file| absolute(file)).collect();
    let folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new("/"));
    let _ = writeln!(script, "D={}", quoted(folder));
    let mut line = String::from("for F in");
    for file in &files {
        let name = file.strip_prefix(folder).unwrap_or(file);
        let name = quoted(name);
        if line.len() + 1 + name.len() > WIDTH {
            let _ = writeln!(script, "{line} \\");
            line = String::from("  ");
        }
        line.push(' ');
        line.push_str(&name);
    }
    let _ = writeln!(script, "{line}; do\n  V=$(losetup -r -f --show \"$D/$F\"); L=\"$L $V\"");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(layers: usize, merged: bool, upper: bool) -> Disks {
        let place = Path::new("/my disks/it's");
        Disks {
            layers: (0..layers).map(|index| place.join(format!("layer-{index:02}.erofs"))).collect(),
            merged: merged.then(|| place.join("merged.erofs")),
            upper: upper.then(|| place.join("upper.ext4")),
            ..Disks::default()
        }
    }

    #[test]
    fn paths_are_quoted_and_absolute() {
        let script = disks(1, false, false).mount_script().unwrap();
        assert!(script.contains(r"D='/my disks/it'\''s'"), "{script}");
    }

    #[test]
    fn a_flat_image_is_one_raw_disk() {
        let (flat, upper) = (Some("/d/rootfs.erofs".into()), Some("/d/upper.ext4".into()));
        let alone = Disks { flat, ..Disks::default() };
        let script = alone.mount_script().unwrap();
        let mount = "mkdir -p \"$M\"; V=$(losetup -r -f --show /d/rootfs.erofs); L=\"$L $V\"\nmount -t erofs -o ro \"$V\" \"$M\"\n)";
        assert!(alone.unmount_script().ends_with("umount \"$M\"\n"));
        assert!(script.contains(mount), "{script}");
        assert!(!script.contains("overlay"), "{script}");
        let lines = alone.boot_lines().unwrap();
        let line = |name: &str| lines.iter().find(|(of, _)| *of == name).map(|(_, line)| line.as_str());
        assert_eq!(line("qemu"), Some("-drive file=/d/rootfs.erofs,format=raw,if=virtio,readonly=on"));
        let krun = r#"krun_add_disk2(ctx, "rootfs", "/d/rootfs.erofs", KRUN_DISK_FORMAT_RAW, true);"#;
        assert_eq!(line("libkrun"), Some(krun));
        assert!(line("firecracker").is_some_and(|line| line.contains("\"is_root_device\": true")));
        let stacked = Disks { upper, ..alone };
        let script = stacked.mount_script().unwrap();
        assert!(script.contains("lowerdir=lower,upperdir=upper/upper"), "{script}");
        assert!(
            stacked.boot_lines().unwrap().last().unwrap().1.contains("lowerdir=/lower,upperdir=/upper/upper")
        );
    }

    #[test]
    fn verified_layers_are_opened_by_their_trees() {
        use plyfold_core::{HashTree, Role, TreePlace};

        use crate::rootfs::disks::Disk;

        let mut disks = disks(2, true, true);
        assert_eq!(disks.verified_mount_script(), None);
        let root = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse().unwrap();
        for (layer, digit) in disks.layers.iter().chain(&disks.merged).zip(["a", "b", "c"]) {
            let tree = HashTree::new(root(digit), 2).at(TreePlace::Append, 8192);
            let file = Disk::plain(layer.clone(), Role::Image, "erofs-layers", 1);
            disks.files.push(Disk { hash_tree: Some(tree), ..file });
        }
        let script = disks.verified_mount_script().unwrap();
        assert!(script.lines().all(|line| !line.is_empty() && line.len() < 150), "{script}");
        let merged = format!(
            "o '/my disks/it'\\''s/merged.erofs' '/my disks/it'\\''s/merged.erofs' {} 8192\n",
            "c".repeat(64)
        );
        assert!(script.contains(&merged) && !script.contains("losetup -r"), "{script}");
        assert!(script.contains(&format!("  {} 8192 \\\n", "a".repeat(64))), "{script}");
        // One image without a tree would be read as it is.
        let file = disks.files.pop().unwrap();
        assert_eq!(disks.verified_mount_script(), None);
        disks.files.push(file);
        disks.merged = None;
        assert!(disks.verified_mount_script().unwrap().contains("lowerdir=$O,upperdir"));
    }

    #[test]
    fn a_script_has_no_empty_line_and_one_for_each_layer_at_most() {
        for layers in [1, 2, 240] {
            let script = disks(layers, true, true).mount_script().unwrap();
            assert!(script.lines().all(|line| !line.is_empty() && line.len() < 120), "{script}");
        }
    }

    #[test]
    fn what_cannot_be_mounted_names_another_form() {
        for (layers, merged) in [(501, false), (1000, true), (380, true)] {
            let error = disks(layers, merged, true).mount_script().unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Limit);
            let hint = error.hint().unwrap();
            assert!(hint.starts_with("the format erofs makes one image of them, the format vmdk"), "{hint}");
        }
        for (layers, merged) in [(500, false), (370, true)] {
            assert!(disks(layers, merged, true).mount_script().is_ok());
        }
    }
}
