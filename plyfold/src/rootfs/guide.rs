//! What to do with the files: mount them here, or boot a virtual machine from them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use plyfold_core::{Advice, Error, ErrorKind, Result};

use super::disks::Disks;
use crate::shell::{c_string, quoted};

/// What mount(2) takes of options, less room for what mount(8) adds: it cuts off what does not fit into a page, without
/// an error.
const OPTIONS: usize = 4000;
/// The layers that overlayfs takes (`OVL_MAX_STACK`).
const LOWERS: usize = 500;
/// The width that lists are wrapped to.
const WIDTH: usize = 96;

impl Disks {
    /// Shell commands that mount the root file system at `/mnt/rootfs`, for root on Linux, with util-linux.
    ///
    /// A merged image needs Linux 5.16, layers, a flat image and an upper 5.4. Every layer gets a loop device of its own, which goes
    /// away with its mount, so that one layer can be in many mounts. Mount points other than the root itself are in
    /// `/mnt/rootfs.parts`. What fails ends the script: it never goes on with a part of the layers.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for more layers than the kernel takes, with a hint at the form
    /// that it does take, and for formats without EROFS images.
    pub fn mount_script(&self) -> Result<String> {
        if !self.is_stackable() {
            let format = self.files.first().map_or("", |file| file.format.as_str());
            let message = format!("no command is known that mounts {format}");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mut script = String::from("M=/mnt/rootfs\n(set -e\n");
        // The other way in, fsconfig(2), takes 256 bytes of an option, and libmount prefers it.
        script.push_str("export LIBMOUNT_FORCE_MOUNT2=always\n");
        script.push_str("mkdir -p \"$M\"; M=$(cd \"$M\" && pwd)\n");
        script.push_str("P=$M.parts L= N=0 O=; trap '[ -z \"$L\" ] || losetup -d $L' EXIT\n");
        let lower = match (&self.flat, &self.merged) {
            (Some(flat), _) => self.mount_flat(flat, &mut script),
            (None, Some(merged)) => self.mount_merged(merged, &mut script)?,
            (None, None) => self.mount_layers(&mut script)?,
        };
        self.mount_overlay(lower, &mut script);
        script.push_str(")\n");
        Ok(script)
    }

    /// Mounts the one image of all layers, and says what its place is called in `$P`.
    fn mount_flat(&self, flat: &Path, script: &mut String) -> &'static str {
        let place = self.lower_place();
        let flat = quoted(&absolute(flat));
        let _ = writeln!(script, "mkdir -p \"{place}\"; V=$(losetup -r -f --show {flat}); L=$V");
        let _ = writeln!(script, "mount -t erofs -o ro \"$V\" \"{place}\"");
        "lower"
    }

    /// Where an image of all layers is mounted.
    fn lower_place(&self) -> &'static str {
        if self.upper.is_some() { "$P/lower" } else { "$M" }
    }

    /// Mounts the merged image, and says what its place is called in `$P`.
    fn mount_merged(&self, merged: &Path, script: &mut String) -> Result<&'static str> {
        // Symbolic links make names short enough: `ro`, then `,device=NUMBER` each.
        let options = self.layers.iter().enumerate().map(|(index, _)| format!(",device={index}").len());
        if options.sum::<usize>() + "ro".len() > OPTIONS {
            return Err(too_many(
                self.layers.len(),
                "mount(2) has no room for the names of so many devices",
                "make one disk of them by {}, and boot a virtual machine from it",
                &["vmdk"],
            ));
        }
        let place = self.lower_place();
        let _ = writeln!(script, "mkdir -p \"$P/devices\" \"{place}\"; cd \"$P/devices\"");
        for_each(script, &self.layers);
        script.push_str("  ln -sfn \"$V\" \"$N\"; O=$O,device=$N; N=$((N+1))\n");
        script.push_str("done\n");
        let _ = writeln!(script, "V=$(losetup -r -f --show {}); L=\"$L $V\"", quoted(&absolute(merged)));
        let _ = writeln!(script, "mount -t erofs -o \"ro$O\" \"$V\" \"{place}\"; rm -r \"$P/devices\"");
        Ok("lower")
    }

    /// Mounts each layer, and says what their places are called in `$P`, the topmost first.
    fn mount_layers(&self, script: &mut String) -> Result<&'static str> {
        if self.layers.len() > LOWERS {
            return Err(too_many(
                self.layers.len(),
                &format!("overlayfs takes {LOWERS}"),
                "{} shows them as one image, {} as one disk",
                &["erofs-merged", "vmdk"],
            ));
        }
        let single = self.layers.len() == 1 && self.upper.is_none();
        for_each(script, &self.layers);
        if single {
            script.push_str("  mount -t erofs -o ro \"$V\" \"$M\"\n");
        } else {
            script.push_str("  mkdir -p \"$P/$N\"; mount -t erofs -o ro \"$V\" \"$P/$N\"\n");
            script.push_str("  O=$N${O:+:$O}; N=$((N+1))\n");
        }
        script.push_str("done\n");
        Ok("$O")
    }

    /// Joins what is mounted in `$P`. Names there are relative and have no character that overlayfs reads as its own.
    fn mount_overlay(&self, lower: &str, script: &mut String) {
        if let Some(upper) = &self.upper {
            // Use `-o loop`, which reuses a loop device: two devices of one disk would have two page caches and corrupt
            // it.
            let upper = quoted(&absolute(upper));
            let _ = writeln!(script, "mkdir -p \"$P/upper\"; mount -t ext4 -o loop {upper} \"$P/upper\"");
            script.push_str("cd \"$P\"; mount -t overlay overlay \\\n");
            let _ =
                writeln!(script, "  -o \"lowerdir={lower},upperdir=upper/upper,workdir=upper/work\" \"$M\"");
        } else if self.merged.is_none() && self.layers.len() > 1 {
            let _ = writeln!(script, "cd \"$P\"; mount -t overlay overlay -o \"ro,lowerdir={lower}\" \"$M\"");
        }
    }

    /// How virtual machines take the disks (`qemu`, `libkrun`), and what their `guest` then mounts: a name and a line for
    /// each. `None` unless one disk holds the whole root file system: a VMDK, whose guest needs Linux 6.4, or a flat EROFS
    /// image, whose guest needs what [`kernel`](Self::kernel) says.
    ///
    /// The line for qemu is for a shell, that for libkrun is C.
    pub fn boot_lines(&self) -> Option<Vec<(&'static str, String)>> {
        let (disk, format) = match (&self.vmdk, &self.flat) {
            (Some(vmdk), _) => (vmdk, "vmdk"),
            (None, flat) => (flat.as_ref()?, "raw"),
        };
        let disk = absolute(disk);
        let mut qemu = format!("-drive file={},format={format},if=virtio,readonly=on", option(&disk));
        let mut krun = format!(
            "krun_add_disk2(ctx, \"rootfs\", {}, KRUN_DISK_FORMAT_{}, true);",
            c_string(&disk),
            format.to_ascii_uppercase()
        );
        let mut guest = "mount -t erofs -o ro /dev/vda /lower".to_owned();
        if let Some(upper) = self.upper.as_deref().map(absolute) {
            let _ = write!(qemu, " -drive file={},format=raw,if=virtio", option(&upper));
            let _ = write!(
                krun,
                " krun_add_disk2(ctx, \"upper\", {}, KRUN_DISK_FORMAT_RAW, false);",
                c_string(&upper)
            );
            guest.push_str(" && mount -t ext4 /dev/vdb /upper && mount -t overlay overlay -o ");
            guest.push_str("lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work /root");
        }
        Some(vec![("qemu", qemu), ("libkrun", krun), ("guest", guest)])
    }
}

fn too_many(layers: usize, why: &str, words: &'static str, formats: &[&'static str]) -> Error {
    let message = format!("no command mounts {layers} layers here: {why}");
    let advice = Advice::ChooseFormat { words, formats: formats.to_vec() };
    Error::new(ErrorKind::Unsupported, message).with_advice(advice)
}

/// The head of a loop over files: `$D/$F` is the file, `$V` its loop device. The folder is written once, or in every name when they have
/// several.
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

/// The path as it is from any folder: a command is often run from another one, as another user. An absolute path also
/// never begins like a protocol of qemu's, `NAME:…`.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| Path::new(".").join(path))
}

/// A path as a value within qemu's `-drive`, where a comma is doubled, and for a shell.
fn option(path: &Path) -> String {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let bytes = path.as_os_str().as_bytes();
    let doubled = bytes.iter().flat_map(|&byte| std::iter::repeat_n(byte, 1 + usize::from(byte == b',')));
    quoted(Path::new(&std::ffi::OsString::from_vec(doubled.collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(layers: usize, merged: bool, upper: bool) -> Disks {
        let place = Path::new("/my disks/it's");
        Disks {
            layers: (0..layers).map(|index| place.join(format!("layer-{index:02}.erofs"))).collect(),
            merged: merged.then(|| place.join("merged.erofs")),
            vmdk: merged.then(|| place.join("a,b.vmdk")),
            upper: upper.then(|| place.join("upper.ext4")),
            ..Disks::default()
        }
    }

    #[test]
    fn paths_are_quoted_and_absolute() {
        let script = disks(1, false, false).mount_script().unwrap();
        assert!(script.contains(r"D='/my disks/it'\''s'"), "{script}");
        let lines = disks(1, true, false).boot_lines().unwrap();
        assert!(lines[0].1.contains(r"file='/my disks/it'\''s/a,,b.vmdk',format=vmdk"), "{lines:?}");
        let relative = Disks { vmdk: Some("json:{}/a.vmdk".into()), ..Disks::default() };
        let here = std::env::current_dir().unwrap();
        let line = &relative.boot_lines().unwrap()[0].1;
        assert!(line.starts_with(&format!("-drive file='{}/json:", here.display())), "{line}");
        assert_eq!(disks(1, false, true).boot_lines(), None);
    }

    #[test]
    fn a_flat_image_is_one_raw_disk() {
        let (flat, upper) = (Some("/d/rootfs.erofs".into()), Some("/d/upper.ext4".into()));
        let alone = Disks { flat, ..Disks::default() };
        let script = alone.mount_script().unwrap();
        let mount = "mkdir -p \"$M\"; V=$(losetup -r -f --show /d/rootfs.erofs); L=$V\nmount -t erofs -o ro \"$V\" \"$M\"\n)";
        assert!(script.contains(mount), "{script}");
        assert!(!script.contains("overlay"), "{script}");
        let lines = alone.boot_lines().unwrap();
        assert_eq!(lines[0].1, "-drive file=/d/rootfs.erofs,format=raw,if=virtio,readonly=on");
        assert_eq!(
            lines[1].1,
            r#"krun_add_disk2(ctx, "rootfs", "/d/rootfs.erofs", KRUN_DISK_FORMAT_RAW, true);"#
        );
        let stacked = Disks { upper, ..alone };
        let script = stacked.mount_script().unwrap();
        assert!(script.contains("lowerdir=lower,upperdir=upper/upper"), "{script}");
        assert!(stacked.boot_lines().unwrap()[2].1.contains("lowerdir=/lower,upperdir=/upper/upper"));
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
        for (layers, merged, hint) in
            [(501, false, "erofs-merged"), (1000, true, "vmdk"), (380, true, "vmdk")]
        {
            let error = disks(layers, merged, true).mount_script().unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Unsupported);
            assert!(error.hint().is_some_and(|said| said.contains(hint)), "{error:?}");
        }
        for (layers, merged) in [(500, false), (370, true)] {
            assert!(disks(layers, merged, true).mount_script().is_ok());
        }
    }
}
