//! How virtual machines take the files.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::disks::Disks;
use super::guide::absolute;
use crate::shell::{c_string, json_string, quoted};

/// A disk as a monitor takes it.
struct Drive {
    /// Its name in the monitor.
    name: &'static str,
    path: PathBuf,
    is_vmdk: bool,
    is_read_only: bool,
    /// Whether a kernel can mount it as its root, without an initramfs.
    is_root: bool,
}

impl Disks {
    /// How virtual machines take the disks (`qemu`, `cloud-hypervisor`, `firecracker`, `libkrun`), and what their `guest`
    /// then mounts: a name and a line for each that takes the form. `None` unless one disk holds the whole root file
    /// system. The guest needs [`kernel`](Self::kernel).
    ///
    /// The lines for qemu and Cloud Hypervisor (from version 51.1) are for a shell, that for Firecracker is JSON, that
    /// for libkrun is C.
    pub fn boot_lines(&self) -> Option<Vec<(&'static str, String)>> {
        let disk = [&self.vmdk, &self.flat, &self.raw, &self.gpt, &self.ext4].into_iter().flatten().next()?;
        let (path, is_vmdk) = (absolute(disk), self.vmdk.is_some());
        let is_root = self.upper.is_none() && self.gpt.is_none();
        let is_read_only = self.ext4.is_none();
        let mut drives = vec![Drive { name: "rootfs", path, is_vmdk, is_read_only, is_root }];
        if let Some(path) = self.upper.as_deref().map(absolute) {
            drives.push(Drive { name: "upper", path, is_vmdk: false, is_read_only: false, is_root: false });
        }
        let joined = |line: fn(&Drive) -> String, by| drives.iter().map(line).collect::<Vec<_>>().join(by);
        let mut lines = vec![("qemu", joined(qemu, " "))];
        // These take no VMDK of several files, and no path that is not text.
        if !is_vmdk && drives.iter().all(|drive| drive.path.to_str().is_some()) {
            lines.push(("cloud-hypervisor", format!("--disk {}", joined(cloud_hypervisor, " "))));
            lines.push(("firecracker", format!("\"drives\": [{}]", joined(firecracker, ", "))));
        }
        lines.push(("libkrun", joined(libkrun, " ")));
        lines.push(("guest", self.guest()));
        Some(lines)
    }

    /// Commands for the shell of the guest.
    fn guest(&self) -> String {
        if self.ext4.is_some() {
            return "mount -t ext4 /dev/vda /root".to_owned();
        }
        let mut guest = match &self.gpt {
            // Short names: all options together have the room of a page.
            Some(_) => "(cd /dev; N=2 O=; while [ -b vda$N ]; do O=$O,device=vda$N; N=$((N+1)); done; \
                mount -t erofs -o ro$O vda1 /lower)"
                .to_owned(),
            None => "mount -t erofs -o ro /dev/vda /lower".to_owned(),
        };
        if self.upper.is_some() {
            guest.push_str(" && mount -t ext4 /dev/vdb /upper && mount -t overlay overlay -o ");
            guest.push_str("lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work /root");
        }
        guest
    }
}

fn qemu(drive: &Drive) -> String {
    let format = if drive.is_vmdk { "vmdk" } else { "raw" };
    let read_only = if drive.is_read_only { ",readonly=on" } else { "" };
    format!("-drive file={},format={format},if=virtio{read_only}", option(&drive.path))
}

/// The type is said: a monitor that looks for it would find what the guest has written there.
fn cloud_hypervisor(drive: &Drive) -> String {
    let read_only = if drive.is_read_only { ",readonly=on" } else { "" };
    // A value in quotes has commas and brackets, and its own quotes doubled.
    let path = &drive.path;
    let is_plain = !path.as_os_str().as_bytes().iter().any(|byte| b"\",[]".contains(byte));
    let path = match doubled(path, b'"').into_os_string() {
        path if is_plain => path,
        path => [OsStr::new("\""), &path, OsStr::new("\"")].into_iter().collect(),
    };
    format!("path={}{read_only},image_type=raw", quoted(Path::new(&path)))
}

fn firecracker(drive: &Drive) -> String {
    let Drive { name, path, is_read_only, is_root, .. } = drive;
    let path = json_string(&path.to_string_lossy());
    format!(
        r#"{{"drive_id": "{name}", "path_on_host": {path}, "is_root_device": {is_root}, "is_read_only": {is_read_only}}}"#
    )
}

fn libkrun(drive: &Drive) -> String {
    let (name, path, read_only) = (drive.name, c_string(&drive.path), drive.is_read_only);
    let format = if drive.is_vmdk { "VMDK" } else { "RAW" };
    format!("krun_add_disk2(ctx, \"{name}\", {path}, KRUN_DISK_FORMAT_{format}, {read_only});")
}

/// A path as a value within qemu's `-drive`, where a comma is doubled, and for a shell.
fn option(path: &Path) -> String {
    quoted(&doubled(path, b','))
}

/// A path with each of these bytes twice.
fn doubled(path: &Path, byte: u8) -> PathBuf {
    let bytes = path.as_os_str().as_bytes().iter();
    let doubled = bytes.flat_map(|&found| std::iter::repeat_n(found, 1 + usize::from(found == byte)));
    OsString::from_vec(doubled.collect()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(disks: &Disks) -> Vec<(&'static str, String)> {
        disks.boot_lines().unwrap()
    }

    fn line(disks: &Disks, name: &str) -> String {
        let lines = lines(disks).into_iter().find(|(of, _)| *of == name);
        lines.map(|(_, line)| line).unwrap()
    }

    #[test]
    fn each_monitor_gets_the_forms_that_it_takes() {
        let names = |disks: &Disks| lines(disks).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let all = ["qemu", "cloud-hypervisor", "firecracker", "libkrun", "guest"];
        let path = |name: &str| Some(PathBuf::from(name));
        assert_eq!(names(&Disks { flat: path("/a.erofs"), ..Disks::default() }), all);
        assert_eq!(names(&Disks { raw: path("/a.raw"), ..Disks::default() }), all);
        assert_eq!(names(&Disks { gpt: path("/a.gpt"), ..Disks::default() }), all);
        let some = ["qemu", "libkrun", "guest"];
        assert_eq!(names(&Disks { vmdk: path("/a.vmdk"), ..Disks::default() }), some);
        let no_text = OsString::from_vec(b"/\xff.raw".to_vec()).into();
        assert_eq!(names(&Disks { raw: Some(no_text), ..Disks::default() }), some);
        assert_eq!(Disks { upper: path("/upper.ext4"), ..Disks::default() }.boot_lines(), None);
    }

    #[test]
    fn an_ext4_disk_is_written_to() {
        let disks = Disks { ext4: Some("/d/rootfs.ext4".into()), ..Disks::default() };
        assert_eq!(line(&disks, "qemu"), "-drive file=/d/rootfs.ext4,format=raw,if=virtio");
        assert_eq!(line(&disks, "guest"), "mount -t ext4 /dev/vda /root");
        let firecracker = line(&disks, "firecracker");
        assert!(firecracker.contains(r#""is_root_device": true, "is_read_only": false"#), "{firecracker}");
        let script = disks.mount_script().unwrap();
        assert!(script.ends_with("mount -t ext4 -o loop /d/rootfs.ext4 \"$M\"\n"), "{script}");
        assert!(disks.is_mountable() && !disks.is_stackable());
    }

    #[test]
    fn paths_are_quoted_and_absolute() {
        let disks = Disks { vmdk: Some("/my disks/it's/a,b.vmdk".into()), ..Disks::default() };
        let found = line(&disks, "qemu");
        assert!(found.contains(r"file='/my disks/it'\''s/a,,b.vmdk',format=vmdk"), "{found}");
        let relative = Disks { vmdk: Some("json:{}/a.vmdk".into()), ..Disks::default() };
        let here = std::env::current_dir().unwrap();
        let found = line(&relative, "qemu");
        assert!(found.starts_with(&format!("-drive file='{}/json:", here.display())), "{found}");
        let disks = Disks { raw: Some("/a,\"b\"/c.raw".into()), ..Disks::default() };
        let found = line(&disks, "cloud-hypervisor");
        assert_eq!(found, r#"--disk path='"/a,""b""/c.raw"',readonly=on,image_type=raw"#);
        let disks = Disks { raw: Some("/c.raw".into()), upper: Some("/u.ext4".into()), ..Disks::default() };
        let found = line(&disks, "cloud-hypervisor");
        assert_eq!(found, "--disk path=/c.raw,readonly=on,image_type=raw path=/u.ext4,image_type=raw");
    }

    #[test]
    fn the_lines_for_firecracker_are_json() {
        for (upper, is_root) in [(None, true), (Some("/\"u\".ext4".into()), false)] {
            let disks = Disks { raw: Some("/\\ \n.raw".into()), upper, ..Disks::default() };
            let text = format!("{{{}}}", line(&disks, "firecracker"));
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let drive = &value["drives"][0];
            assert_eq!(drive["path_on_host"], "/\\ \n.raw");
            assert_eq!((&drive["is_root_device"], &drive["is_read_only"]), (&is_root.into(), &true.into()));
            let second = value["drives"].get(1).map(|drive| drive["path_on_host"].clone());
            assert_eq!(second, (!is_root).then(|| "/\"u\".ext4".into()));
        }
    }
}
