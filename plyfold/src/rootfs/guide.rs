//! What to do with the files: mount them here, or boot a virtual machine from them.

use std::fmt::Write as _;
use std::path::Path;

use super::Disks;

impl Disks {
    /// Shell commands that mount the root file system at `/mnt/rootfs`, for root on Linux.
    ///
    /// A merged image needs Linux 5.16, layers and an upper 5.4.
    pub fn mount_script(&self) -> String {
        let mut script = String::from("M=/mnt/rootfs\n");
        let lower = match &self.merged {
            Some(merged) => self.mount_merged(merged, &mut script),
            None => self.mount_layers(&mut script),
        };
        if let Some(upper) = &self.upper {
            let upper = quoted(upper);
            let _ = writeln!(script, "mkdir -p $M $M.upper");
            let _ = writeln!(script, "mount -t ext4 -o loop {upper} $M.upper");
            let _ = writeln!(
                script,
                "mount -t overlay overlay -o lowerdir={lower},upperdir=$M.upper/upper,workdir=$M.upper/work $M"
            );
        } else if self.merged.is_none() && self.layers.len() > 1 {
            let _ = writeln!(script, "mkdir -p $M\nmount -t overlay overlay -o ro,lowerdir={lower} $M");
        }
        script
    }

    /// Mounts the merged image, and says where.
    fn mount_merged(&self, merged: &Path, script: &mut String) -> String {
        let lower = if self.upper.is_some() { "$M.lower" } else { "$M" };
        let _ = writeln!(script, "mkdir -p {lower}");
        let _ = write!(script, "mount -t erofs -o ro");
        for layer in &self.layers {
            let _ = write!(script, ",device=$(losetup -r -f --show {})", quoted(layer));
        }
        let _ = writeln!(script, " $(losetup -r -f --show {}) {lower}", quoted(merged));
        lower.to_owned()
    }

    /// Mounts each layer, and says where, the topmost first.
    fn mount_layers(&self, script: &mut String) -> String {
        let single = self.layers.len() == 1 && self.upper.is_none();
        let place = |index| if single { "$M".to_owned() } else { format!("$M.layers/{index}") };
        for (index, layer) in self.layers.iter().enumerate() {
            let place = place(index);
            let _ = writeln!(script, "mkdir -p {place}\nmount -t erofs -o loop,ro {} {place}", quoted(layer));
        }
        (0..self.layers.len()).rev().map(place).collect::<Vec<_>>().join(":")
    }

    /// How virtual machines take the disks (`qemu`, `libkrun`), and what their `guest` then mounts, which needs Linux
    /// 6.4: a name and a line for each. `None` without a VMDK.
    pub fn boot_lines(&self) -> Option<Vec<(&'static str, String)>> {
        let vmdk = self.vmdk.as_ref()?;
        let mut qemu = format!("-drive file={},format=vmdk,if=virtio,readonly=on", option(vmdk));
        let mut krun = format!(
            "krun_add_disk2(ctx, \"rootfs\", {:?}, KRUN_DISK_FORMAT_VMDK, true);",
            vmdk.to_string_lossy()
        );
        let mut guest = "mount -t erofs -o ro /dev/vda /lower".to_owned();
        if let Some(upper) = &self.upper {
            let _ = write!(qemu, " -drive file={},format=raw,if=virtio", option(upper));
            let _ = write!(
                krun,
                " krun_add_disk2(ctx, \"upper\", {:?}, KRUN_DISK_FORMAT_RAW, false);",
                upper.to_string_lossy()
            );
            guest.push_str(" && mount -t ext4 /dev/vdb /upper && mount -t overlay overlay -o ");
            guest.push_str("lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work /root");
        }
        Some(vec![("qemu", qemu), ("libkrun", krun), ("guest", guest)])
    }
}

/// A path as a value within qemu's `-drive`, where a comma is doubled, and for a shell.
fn option(path: &Path) -> String {
    quoted(Path::new(&path.to_string_lossy().replace(',', ",,")))
}

/// A path for a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(layers: &[&str], merged: bool, upper: bool) -> Disks {
        Disks {
            layers: layers.iter().map(Into::into).collect(),
            merged: merged.then(|| "merged.erofs".into()),
            vmdk: merged.then(|| "my disks/a,b.vmdk".into()),
            upper: upper.then(|| "upper.ext4".into()),
        }
    }

    #[test]
    fn paths_are_quoted() {
        let script = disks(&["it's.erofs"], false, false).mount_script();
        assert!(script.contains(r"'it'\''s.erofs' $M"), "{script}");
        let lines = disks(&["a"], true, false).boot_lines().unwrap();
        assert!(lines[0].1.contains("file='my disks/a,,b.vmdk',format=vmdk"), "{lines:?}");
    }

    #[test]
    fn the_topmost_layer_comes_first() {
        let script = disks(&["a", "b"], false, false).mount_script();
        assert!(script.ends_with("-o ro,lowerdir=$M.layers/1:$M.layers/0 $M\n"), "{script}");
        assert_eq!(disks(&["a"], false, true).boot_lines(), None);
    }
}
