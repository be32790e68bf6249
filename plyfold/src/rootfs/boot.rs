//! How virtual machines take the files.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::disks::Disks;
use super::verified::{VerifiedFile, mount_partitions, open_line};
use crate::shell::{absolute, c_string, json_string, quoted};

/// The name of the drive that has nothing but the hash tree.
const TREE: &str = "verity";
/// The longest text that the kernel takes for one parameter, in bytes (`param_set_charp`).
const LONGEST: usize = 1024;
/// The name of the drive that is written to.
const UPPER: &str = "upper";

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
    /// How virtual machines take the disks (`qemu`, `cloud-hypervisor`, `firecracker`, `crosvm`, `libkrun`), and what
    /// their `guest` then mounts: a name and a line for each that takes the form. Without an upper, and with a hash tree or
    /// with partitions, also what a `kernel` needs on its command line to mount the verified device, or the partitions
    /// together, as its root. `None` unless one disk holds the whole root file system. The guest needs
    /// [`kernel`](Self::kernel), and Linux 6.4 where the `kernel` joins partitions.
    ///
    /// Those for qemu, Cloud Hypervisor (from version 51.1; a VMDK from the version after 53) and crosvm are options for a
    /// shell. That for Firecracker is a file for its `--config-file`, in JSON, in which `vmlinux` and, unless the disk
    /// is the root of the guest by itself or as a verified device, `initrd` are files of yours. That for libkrun is C.
    pub fn boot_lines(&self) -> Option<Vec<(&'static str, String)>> {
        let drives = self.machine_drives()?;
        let joined = |line: fn(&Drive) -> String| drives.iter().map(line).collect::<Vec<_>>().join(" ");
        let kernel = self.kernel_line(&drives);
        let root = kernel.as_deref().filter(|_| !self.has_partitions());
        let mut lines = vec![("qemu", joined(qemu))];
        // Of a VMDK in one file only QEMU reads the compressed form; the others take no path that is not text.
        if self.stream.is_none() && drives.iter().all(|drive| drive.path.to_str().is_some()) {
            lines.push(("cloud-hypervisor", format!("--disk {}", joined(cloud_hypervisor))));
            if drives.iter().all(|drive| !drive.is_vmdk) {
                lines.push(("firecracker", firecracker(&drives, root)));
                lines.push(("crosvm", joined(crosvm)));
            }
        }
        if self.stream.is_none() {
            lines.push(("libkrun", joined(libkrun)));
        }
        lines.push(("guest", self.guest(&drives, true)));
        lines.extend(kernel.map(|line| ("kernel", line)));
        Some(lines)
    }

    /// What a kernel needs on its command line to make its root of the disk, without an initramfs.
    fn kernel_line(&self, drives: &[Drive]) -> Option<String> {
        let whole = self.whole().filter(|_| self.upper.is_none())?;
        let devices = if self.has_partitions() {
            self.joined_partitions(device(0))?
        } else {
            let table = self.verified_at(whole)?.tree.table(device(0), device_of(drives, TREE));
            vec![format!("rootfs,,,ro,{table}")]
        };
        let (last, create) = (devices.len() - 1, devices.join(";"));
        let fs = self.root_type();
        let line = format!("dm-mod.create=\"{create}\" root=/dev/dm-{last} rootfstype={fs} ro");
        (create.len() <= LONGEST).then_some(line)
    }

    /// Values of QEMU's option `-drive`.
    #[cfg(feature = "command")]
    pub(crate) fn drives(&self) -> Option<Vec<OsString>> {
        let value = |drive: &Drive| {
            let mut value = OsString::from("file=");
            value.push(node(drive));
            value.push(qemu_rest(drive));
            value
        };
        Some(self.machine_drives()?.iter().map(value).collect())
    }

    /// The disk that holds the whole root file system.
    fn whole(&self) -> Option<&PathBuf> {
        let disks = [&self.vmdk, &self.stream, &self.flat, &self.raw, &self.gpt, &self.ext4];
        disks.into_iter().flatten().next()
    }

    fn machine_drives(&self) -> Option<Vec<Drive>> {
        let disk = self.whole()?;
        let (path, is_vmdk) = (absolute(disk), self.vmdk.is_some() || self.stream.is_some());
        let verified = self.verified_at(disk);
        let is_root = self.upper.is_none() && !self.has_partitions() && verified.is_none();
        let is_read_only = self.ext4.as_ref() != Some(disk) || !self.is_root_written();
        let mut drives = vec![Drive { name: "rootfs", path, is_vmdk, is_read_only, is_root }];
        if let Some(tree) = verified.filter(|verified| verified.tree_file != *disk) {
            let path = absolute(tree.tree_file);
            drives.push(Drive { name: TREE, path, is_vmdk: false, is_read_only: true, is_root: false });
        }
        if let Some(path) = self.upper.as_deref().map(absolute) {
            drives.push(Drive { name: UPPER, path, is_vmdk: false, is_read_only: false, is_root: false });
        }
        Some(drives)
    }

    /// Where a guest mounts the one disk.
    fn root_place(&self) -> &'static str {
        if self.ext4.is_some() { "/root" } else { "/lower" }
    }

    /// The file system of the one disk.
    fn root_type(&self) -> &'static str {
        if self.ext4.is_some() { "ext4" } else { "erofs" }
    }

    /// Where the `guest` mounts the root file system.
    #[cfg(feature = "command")]
    pub(crate) fn guest_root(&self) -> &'static str {
        if self.upper.is_some() { "/root" } else { self.root_place() }
    }

    /// Commands for the shell of the guest: the files are mounted by their hash trees, where they have such, or as they are.
    #[cfg(feature = "command")]
    pub(crate) fn guest_commands(&self, is_verified: bool) -> Option<String> {
        Some(self.guest(&self.machine_drives()?, is_verified))
    }

    fn guest(&self, drives: &[Drive], is_verified: bool) -> String {
        if self.is_root_written() {
            return "mkdir -p /root && mount -t ext4 /dev/vda /root".to_owned();
        }
        let (fs, place) = (self.root_type(), self.root_place());
        let verified = self.whole().and_then(|disk| self.verified_at(disk)).filter(|_| is_verified);
        let partitions = Some(self.verified_partitions()).filter(|found| is_verified && !found.is_empty());
        let folders = if self.upper.is_some() { "/lower /upper /root" } else { place };
        let mount = if let Some(partitions) = partitions {
            mount_partitions(partitions, device(0), "/lower")
        } else if self.has_partitions() {
            let count = self.image_partitions();
            let last = count.map(|count| format!(" && [ $N -le {count} ]")).unwrap_or_default();
            // Short names: all options together have the room of a page.
            format!(
                "(cd /dev; N=2 O=; while [ -b vda$N ]{last}; do O=$O,device=vda$N; N=$((N+1)); done; \
                mount -t erofs -o ro$O vda1 /lower)"
            )
        } else if let Some(VerifiedFile { tree, .. }) = verified {
            let open = open_line(tree, device(0), "rootfs", device_of(drives, TREE));
            format!("{open} && mount -t {fs} -o ro /dev/mapper/rootfs {place}")
        } else {
            format!("mount -t {fs} -o ro /dev/vda {place}")
        };
        let mut guest = format!("mkdir -p {folders} && {mount}");
        if self.upper.is_some() {
            let upper = device_of(drives, UPPER);
            let _ = write!(guest, " && mount -t ext4 {upper} /upper && mount -t overlay overlay -o ");
            guest.push_str("lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work /root");
        }
        guest
    }
}

/// What a guest calls one of its drives.
fn device(number: usize) -> &'static str {
    ["/dev/vda", "/dev/vdb", "/dev/vdc"].get(number).copied().unwrap_or("/dev/vdd")
}

/// What it calls the drive of this name, or its first one.
fn device_of(drives: &[Drive], name: &str) -> &'static str {
    device(drives.iter().position(|drive| drive.name == name).unwrap_or(0))
}

fn qemu(drive: &Drive) -> String {
    format!("-drive file={}{}", quoted(&node(drive)), qemu_rest(drive))
}

/// The file as QEMU opens it by itself: a VMDK without a disk below, whatever it says by then. A comma within a value of QEMU's
/// is doubled.
fn node(drive: &Drive) -> PathBuf {
    let path = drive.path.to_str().filter(|_| drive.is_vmdk).map(json_string);
    let node = path.map(|path| format!(r#"json:{{"file.filename":{path},"backing":null}}"#));
    doubled(node.as_ref().map_or(&drive.path, Path::new), b',')
}

fn qemu_rest(drive: &Drive) -> String {
    let format = if drive.is_vmdk { "vmdk" } else { "raw" };
    // JSON has no word for a path that is no text. QEMU warns of this one, which it takes, too.
    let no_backing = if drive.is_vmdk && drive.path.to_str().is_none() { ",backing=" } else { "" };
    let read_only = if drive.is_read_only { ",readonly=on" } else { "" };
    format!("{no_backing},format={format},if=virtio{read_only}")
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
    let image_type = if drive.is_vmdk { "vmdk" } else { "raw" };
    format!("path={}{read_only},image_type={image_type}", quoted(Path::new(&path)))
}

/// A configuration with what it has to have: the kernel, and the disks. Firecracker adds the kernel's parameters for a drive
/// that is the root; those for a verified device (`root`) are given.
fn firecracker(drives: &[Drive], root: Option<&str>) -> String {
    let has_root = root.is_some() || drives.iter().any(|drive| drive.is_root);
    let parameters = ["console=ttyS0 reboot=k panic=1"].into_iter().chain(root).collect::<Vec<_>>().join(" ");
    let parameters = json_string(&parameters);
    let initrd = if has_root { "" } else { r#", "initrd_path": "initrd""# };
    let drive = |drive: &Drive| {
        let Drive { name, path, is_read_only, is_root, .. } = drive;
        let path = json_string(&path.to_string_lossy());
        format!(
            r#"{{"drive_id": "{name}", "path_on_host": {path}, "is_root_device": {is_root}, "is_read_only": {is_read_only}}}"#
        )
    };
    let drives: Vec<String> = drives.iter().map(drive).collect();
    format!(
        r#"{{"boot-source": {{"kernel_image_path": "vmlinux"{initrd}, "boot_args": {parameters}}}, "drives": [{}]}}"#,
        drives.join(", ")
    )
}

/// A value in double quotes has commas and brackets, and its own quotes and backslashes behind a backslash.
fn crosvm(drive: &Drive) -> String {
    let bytes = drive.path.as_os_str().as_bytes();
    let path = if bytes.iter().any(|byte| b"\"',[]".contains(byte)) {
        let escaped = bytes.iter().flat_map(|&byte| {
            let escape = b"\"\\".contains(&byte).then_some(b'\\');
            escape.into_iter().chain([byte])
        });
        OsString::from_vec(b"\"".iter().copied().chain(escaped).chain(*b"\"").collect())
    } else {
        drive.path.clone().into_os_string()
    };
    let read_only = if drive.is_read_only { ",ro" } else { "" };
    let root = if drive.is_root { ",root" } else { "" };
    format!("--block path={}{read_only}{root}", quoted(Path::new(&path)))
}

fn libkrun(drive: &Drive) -> String {
    let (name, path, read_only) = (drive.name, c_string(&drive.path), drive.is_read_only);
    let format = if drive.is_vmdk { "VMDK" } else { "RAW" };
    format!("krun_add_disk2(ctx, \"{name}\", {path}, KRUN_DISK_FORMAT_{format}, {read_only});")
}

/// A path with each of these bytes twice.
fn doubled(path: &Path, byte: u8) -> PathBuf {
    let bytes = path.as_os_str().as_bytes().iter();
    let doubled = bytes.flat_map(|&found| std::iter::repeat_n(found, 1 + usize::from(found == byte)));
    OsString::from_vec(doubled.collect()).into()
}

#[cfg(test)]
mod tests {
    use plyfold_core::{HashTree, HashedPartition, PartitionRange, Role, TreePlace};

    use super::*;
    use crate::rootfs::disks::Disk;

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
        let all = ["qemu", "cloud-hypervisor", "firecracker", "crosvm", "libkrun", "guest"];
        let path = |name: &str| Some(PathBuf::from(name));
        assert_eq!(names(&Disks { flat: path("/a.erofs"), ..Disks::default() }), all);
        assert_eq!(names(&Disks { raw: path("/a.raw"), ..Disks::default() }), all);
        assert_eq!(names(&Disks { gpt: path("/a.gpt"), ..Disks::default() }), all);
        let flat = ["qemu", "cloud-hypervisor", "libkrun", "guest"];
        assert_eq!(names(&Disks { vmdk: path("/a.vmdk"), ..Disks::default() }), flat);
        let stream = Disks { stream: path("/a.vmdk"), ..Disks::default() };
        assert_eq!(names(&stream), ["qemu", "guest"]);
        let safe = r#"-drive file='json:{"file.filename":"/a.vmdk",,"backing":null}',format=vmdk,if=virtio,readonly=on"#;
        assert_eq!(line(&stream, "qemu"), safe);
        let some = ["qemu", "libkrun", "guest"];
        let no_text = OsString::from_vec(b"/\xff.raw".to_vec()).into();
        assert_eq!(names(&Disks { raw: Some(no_text), ..Disks::default() }), some);
        assert_eq!(Disks { upper: path("/upper.ext4"), ..Disks::default() }.boot_lines(), None);
    }

    #[test]
    #[cfg(feature = "command")]
    fn a_vmdk_has_no_disk_below_and_only_what_is_for_that_is_written_to() {
        let path = |name: &str| Some(PathBuf::from(name));
        let json = r#"file=json:{"file.filename":"/a,,b/r.vmdk",,"backing":null}"#;
        let vmdk = format!("{json},format=vmdk,if=virtio,readonly=on");
        for disks in [
            Disks { vmdk: path("/a,b/r.vmdk"), ..Disks::default() },
            Disks { stream: path("/a,b/r.vmdk"), ..Disks::default() },
            // Also beside one that guests write to.
            Disks { vmdk: path("/a,b/r.vmdk"), ext4: path("/r.ext4"), ..Disks::default() },
        ] {
            assert_eq!(disks.drives().unwrap(), [OsString::from(&vmdk)]);
        }
        let ext4 = Disks { ext4: path("/r.ext4"), ..Disks::default() };
        assert_eq!(ext4.drives().unwrap(), ["file=/r.ext4,format=raw,if=virtio"]);
    }

    /// A disk with a hash tree behind it, or in a file of its own.
    fn verified(place: TreePlace, upper: bool) -> Disks {
        let root = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let at = if place == TreePlace::Append { 8192 } else { 0 };
        let file = |name: &str, role, hash_tree| {
            let path = format!("/d/{name}").into();
            Disk { hash_tree, ..Disk::plain(path, role, "raw", 0) }
        };
        let image = file("rootfs.raw", Role::Image, Some(HashTree::new(root, 2).at(place, at)));
        let tree = (place == TreePlace::Separate).then(|| file("rootfs.verity", Role::HashTree, None));
        let raw = Some(image.path.clone());
        let upper = upper.then(|| PathBuf::from("/d/upper.ext4"));
        Disks { files: std::iter::once(image).chain(tree).collect(), raw, upper, ..Disks::default() }
    }

    #[test]
    fn a_guest_opens_the_verified_device() {
        let root = "ab".repeat(32);
        let append = verified(TreePlace::Append, false);
        let open = format!("veritysetup open /dev/vda rootfs /dev/vda {root} --hash-offset=8192");
        assert_eq!(
            line(&append, "guest"),
            format!("mkdir -p /lower && {open} && mount -t erofs -o ro /dev/mapper/rootfs /lower")
        );
        let salt = "00".repeat(32);
        let table = format!("0 16 verity 1 /dev/vda /dev/vda 4096 4096 2 3 sha256 {root} {salt}");
        let kernel = format!("dm-mod.create=\"rootfs,,,ro,{table}\" root=/dev/dm-0 rootfstype=erofs ro");
        assert_eq!(line(&append, "kernel"), kernel);
        // The kernel's root is not the drive.
        let machine: serde_json::Value = serde_json::from_str(&line(&append, "firecracker")).unwrap();
        assert_eq!(machine["drives"][0]["is_root_device"], false);
        assert_eq!(machine["boot-source"].get("initrd_path"), None);
        let parameters = machine["boot-source"]["boot_args"].as_str().unwrap();
        assert_eq!(parameters.strip_prefix("console=ttyS0 reboot=k panic=1 "), Some(kernel.as_str()));
        let beside = verified(TreePlace::Separate, true);
        let guest = line(&beside, "guest");
        assert!(
            guest.starts_with(&format!(
                "mkdir -p /lower /upper /root && veritysetup open /dev/vda rootfs /dev/vdb {root} && mount"
            )),
            "{guest}"
        );
        assert!(guest.contains("mount -t ext4 /dev/vdc /upper"), "{guest}");
        let qemu = "-drive file=/d/rootfs.raw,format=raw,if=virtio,readonly=on \
            -drive file=/d/rootfs.verity,format=raw,if=virtio,readonly=on \
            -drive file=/d/upper.ext4,format=raw,if=virtio";
        assert_eq!(line(&beside, "qemu"), qemu);
        assert!(!lines(&beside).iter().any(|(name, _)| *name == "kernel"));
        let found: Vec<_> = beside.verified().map(|found| (found.device(), found.open_line())).collect();
        let open = format!("veritysetup open /d/rootfs.raw rootfs /d/rootfs.verity {root}");
        assert_eq!(found, [("rootfs".to_owned(), Some(open))]);
    }

    #[test]
    fn a_vmdk_with_partitions_is_mounted_by_them() {
        let disks = Disks {
            vmdk: Some("/d/rootfs.vmdk".into()),
            partitions: Some("/d/partitions.gpt".into()),
            ..Disks::default()
        };
        let safe = r#"'json:{"file.filename":"/d/rootfs.vmdk",,"backing":null}'"#;
        let found = line(&disks, "qemu");
        assert_eq!(found, format!("-drive file={safe},format=vmdk,if=virtio,readonly=on"));
        let gpt = Disks { gpt: Some("/d/rootfs.gpt".into()), ..Disks::default() };
        assert_eq!(line(&disks, "guest"), line(&gpt, "guest"));
        assert!(line(&disks, "guest").contains("device=vda$N"), "{}", line(&disks, "guest"));
        // The kernel of a guest joins what the files are, where their sizes are known, and not below an upper.
        let files = [("merged", 8192), ("layer-00", 4096), ("layer-01", 12288)];
        let files =
            files.map(|(name, size)| Disk::plain(format!("/d/{name}").into(), Role::Image, name, size));
        let [merged, layers @ ..] = files.each_ref().map(|file| file.path.clone());
        let (merged, layers) = (Some(merged), layers.to_vec());
        let joined = Disks { files: files.to_vec(), merged, layers, ..disks };
        let tables = "0 16 linear /dev/vda1 0,16 8 linear /dev/vda2 0,24 24 linear /dev/vda3 0";
        let kernel = format!("dm-mod.create=\"rootfs,,,ro,{tables}\" root=/dev/dm-0 rootfstype=erofs ro");
        assert_eq!(line(&joined, "kernel"), kernel);
        let upper = Disks { upper: Some("/d/upper.ext4".into()), ..joined };
        assert!(!lines(&upper).iter().any(|(name, _)| *name == "kernel"));
    }

    #[test]
    fn a_guest_opens_verified_partitions() {
        let root = "ab".repeat(32);
        let disk = |holders: [u32; 2]| {
            let partition = |image: u32, holder: u32| {
                let tree = HashTree::new(format!("sha256:{root}").parse().unwrap(), 2);
                let is_behind = image == holder;
                let tree = if is_behind { tree } else { tree.at(TreePlace::Separate, 0) };
                let range = |number: u32| PartitionRange::new(number, u64::from(number) << 20, 8192);
                HashedPartition::new("merged", range(image), range(holder), tree)
            };
            let path = PathBuf::from("/d/rootfs.gpt");
            let partitions = vec![partition(1, holders[0]), partition(2, holders[1])];
            let file = Disk { partitions, ..Disk::plain(path.clone(), Role::Image, "gpt", 1 << 20) };
            Disks { files: vec![file], gpt: Some(path), ..Disks::default() }
        };
        let mount = "(cd /dev/mapper; mount -t erofs -o ro,device=p2 p1 /lower)";
        let apart = disk([3, 4]);
        let open = |data: u32, holder: u32| {
            format!("veritysetup open /dev/vda{data} p{data} /dev/vda{holder} {root}")
        };
        let guest = format!("mkdir -p /lower && {} && {} && {mount}", open(1, 3), open(2, 4));
        assert_eq!(line(&apart, "guest"), guest);
        // Without the trees their partitions are passed over.
        let unverified = apart.guest_commands(false).unwrap();
        assert!(unverified.contains("while [ -b vda$N ] && [ $N -le 2 ]; do"), "{unverified}");
        let script = apart.mount_script().unwrap();
        assert!(script.contains("p$((N+2))\" ] && [ $((N+2)) -le 2 ]; do"), "{script}");
        let behind = disk([1, 2]);
        let at = "--hash-offset=8192";
        let expected = format!("mkdir -p /lower && {} {at} && {} {at} && {mount}", open(1, 1), open(2, 2));
        assert_eq!(line(&behind, "guest"), expected);
        assert!(!behind.guest_commands(false).unwrap().contains("-le"));
        // Each is opened, then all of them are joined.
        let salt = "00".repeat(32);
        let table = |image: u32, holder: u32, start: u32| {
            format!(
                "p{image},,,ro,0 16 verity 1 /dev/vda{image} /dev/vda{holder} 4096 4096 2 {start} sha256 {root} {salt}"
            )
        };
        let joined = "rootfs,,,ro,0 16 linear /dev/dm-0 0,16 16 linear /dev/dm-1 0";
        let kernel = format!(
            "dm-mod.create=\"{};{};{joined}\" root=/dev/dm-2 rootfstype=erofs ro",
            table(1, 3, 1),
            table(2, 4, 1)
        );
        assert_eq!(line(&apart, "kernel"), kernel);
        assert!(line(&behind, "kernel").contains(&table(2, 2, 3)));
        // The text would be cut off.
        let mut many = apart;
        let two = many.files[0].partitions.clone();
        many.files[0].partitions = [&two[..], &two, &two].concat();
        assert!(!lines(&many).iter().any(|(name, _)| *name == "kernel"));
    }

    #[test]
    fn an_ext4_disk_is_written_to() {
        let disks = Disks { ext4: Some("/d/rootfs.ext4".into()), ..Disks::default() };
        assert_eq!(line(&disks, "qemu"), "-drive file=/d/rootfs.ext4,format=raw,if=virtio");
        assert_eq!(line(&disks, "guest"), "mkdir -p /root && mount -t ext4 /dev/vda /root");
        let firecracker = line(&disks, "firecracker");
        assert!(firecracker.contains(r#""is_root_device": true, "is_read_only": false"#), "{firecracker}");
        let script = disks.mount_script().unwrap();
        assert!(script.ends_with("mount -t ext4 -o loop /d/rootfs.ext4 \"$M\"\n"), "{script}");
        assert!(disks.is_mountable() && !disks.is_stackable());
    }

    #[test]
    fn an_ext4_disk_with_a_hash_tree_is_not_written_to() {
        let mut disks = verified(TreePlace::Append, false);
        (disks.ext4, disks.raw) = (disks.raw, None);
        assert!(line(&disks, "qemu").ends_with(",format=raw,if=virtio,readonly=on"));
        let open =
            format!("veritysetup open /dev/vda rootfs /dev/vda {} --hash-offset=8192", "ab".repeat(32));
        let guest = format!("mkdir -p /root && {open} && mount -t ext4 -o ro /dev/mapper/rootfs /root");
        assert_eq!(line(&disks, "guest"), guest);
        assert!(line(&disks, "kernel").ends_with(" root=/dev/dm-0 rootfstype=ext4 ro"));
        assert!(line(&disks, "firecracker").contains(r#""is_root_device": false, "is_read_only": true"#));
        let script = disks.mount_script().unwrap();
        assert!(script.contains("mount -t ext4 -o loop,ro /d/rootfs.raw"), "{script}");
    }

    #[test]
    fn paths_are_quoted_and_absolute() {
        let disks = Disks { vmdk: Some("/my disks/it's/a,b.vmdk".into()), ..Disks::default() };
        let found = line(&disks, "qemu");
        let path = r"/my disks/it'\''s/a,,b.vmdk";
        let file = format!(r#"file='json:{{"file.filename":"{path}",,"backing":null}}',format=vmdk"#);
        assert!(found.contains(&file), "{found}");
        let relative = Disks { vmdk: Some("json:{}/a.vmdk".into()), ..Disks::default() };
        let here = std::env::current_dir().unwrap();
        let found = line(&relative, "qemu");
        let start = format!(r#"-drive file='json:{{"file.filename":"{}/json:{{}}/"#, here.display());
        assert!(found.starts_with(&start), "{found}");
        let no_text = OsString::from_vec(b"/\xff.vmdk".to_vec()).into();
        let found = line(&Disks { vmdk: Some(no_text), ..Disks::default() }, "qemu");
        assert!(found.ends_with(",backing=,format=vmdk,if=virtio,readonly=on"), "{found}");
        let disks = Disks { raw: Some("/a,\"b\"/c.raw".into()), ..Disks::default() };
        let found = line(&disks, "cloud-hypervisor");
        assert_eq!(found, r#"--disk path='"/a,""b""/c.raw"',readonly=on,image_type=raw"#);
        let disks = Disks { raw: Some("/c.raw".into()), upper: Some("/u.ext4".into()), ..Disks::default() };
        let found = line(&disks, "cloud-hypervisor");
        assert_eq!(found, "--disk path=/c.raw,readonly=on,image_type=raw path=/u.ext4,image_type=raw");
    }

    #[test]
    fn cloud_hypervisor_is_told_what_a_vmdk_is() {
        let vmdk = Some("/a.vmdk".into());
        let found = line(&Disks { vmdk, ..Disks::default() }, "cloud-hypervisor");
        assert_eq!(found, "--disk path=/a.vmdk,readonly=on,image_type=vmdk");
    }

    /// By the grammar of crosvm's options (`serde_keyvalue`, `any_string`).
    #[test]
    fn crosvm_reads_the_paths() {
        let read = |text: &str| {
            let Some(rest) = text.strip_prefix('"') else {
                let end = text.find([',', '"', '\'', '[', ']']).unwrap_or(text.len());
                return (text[..end].to_owned(), text[end..].to_owned());
            };
            let (mut value, mut chars) = (String::new(), rest.chars());
            loop {
                match chars.next().unwrap() {
                    '"' => return (value, chars.collect::<String>()),
                    '\\' => value.push(chars.next().filter(|c| "\"\\".contains(*c)).unwrap()),
                    c => value.push(c),
                }
            }
        };
        for path in ["/a b/c.raw", "/a=b", "/a,b", "/it's", "/[x]", "/\"a\\b\"", "/a\\b"] {
            let disks = Disks { raw: Some(path.into()), ..Disks::default() };
            let script = format!("printf '%s\\0' {}", line(&disks, "crosvm"));
            let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            let words = String::from_utf8(said.stdout).unwrap();
            let value =
                words.strip_prefix("--block\0path=").and_then(|rest| rest.strip_suffix('\0')).unwrap();
            assert_eq!(read(value), (path.to_owned(), ",ro,root".to_owned()), "{words:?}");
        }
        let upper = Disks { raw: Some("/a".into()), upper: Some("/u".into()), ..Disks::default() };
        assert_eq!(line(&upper, "crosvm"), "--block path=/a,ro --block path=/u");
    }

    /// Properties of Firecracker's API and their types; its description of them (`firecracker.yaml`) names those that
    /// are required first.
    const BOOT_SOURCE: (&[&str], &[&str]) =
        (&["kernel_image_path"], &["boot_args", "initrd_path", "kernel_image_path"]);
    const DRIVE: (&[&str], &[&str]) = (
        &["drive_id", "is_root_device"],
        &[
            "cache_type",
            "drive_id",
            "io_engine",
            "is_read_only",
            "is_root_device",
            "partuuid",
            "path_on_host",
            "rate_limiter",
            "socket",
        ],
    );

    #[test]
    fn the_line_for_firecracker_is_a_configuration() {
        for (upper, is_root) in [(None, true), (Some("/\"u\".ext4".into()), false)] {
            let disks = Disks { raw: Some("/\\ \n.raw".into()), upper, ..Disks::default() };
            let value: serde_json::Value = serde_json::from_str(&line(&disks, "firecracker")).unwrap();
            let names =
                |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&value), ["boot-source", "drives"]);
            let parts = value["drives"].as_array().unwrap().iter().map(|drive| (drive, DRIVE));
            for (part, (required, known)) in parts.chain([(&value["boot-source"], BOOT_SOURCE)]) {
                let names = names(part);
                assert!(names.iter().all(|name| known.contains(&name.as_str())), "{part}");
                assert!(required.iter().all(|name| names.contains(&(*name).to_owned())), "{part}");
                for (name, value) in part.as_object().unwrap() {
                    assert!(
                        if name.starts_with("is_") { value.is_boolean() } else { value.is_string() },
                        "{part}"
                    );
                }
            }
            assert_eq!(value["boot-source"].get("initrd_path").is_some(), !is_root);
            let drive = &value["drives"][0];
            assert_eq!(drive["path_on_host"], "/\\ \n.raw");
            assert_eq!((&drive["is_root_device"], &drive["is_read_only"]), (&is_root.into(), &true.into()));
            let second = value["drives"].get(1).map(|drive| drive["path_on_host"].clone());
            assert_eq!(second, (!is_root).then(|| "/\"u\".ext4".into()));
        }
    }
}
