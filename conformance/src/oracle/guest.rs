//! A virtual machine that mounts what a test has made.

use std::borrow::Cow;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfold_core::{Error, ErrorKind, Result};

use super::need::{assert_declared, find, guest_folder};
use super::run::Run;
use super::verdict::Failure;

/// What the kernel of `.ci/guest` does not have built in, in an order in which it loads. ext4 and partitions are built in.
const MODULES: [&str; 14] = [
    "lib/libcrc32c",
    "fs/erofs/erofs",
    "fs/overlayfs/overlay",
    "drivers/block/virtio_blk",
    "drivers/block/loop",
    "drivers/md/dm-mod",
    "drivers/md/dm-bufio",
    "lib/reed_solomon/reed_solomon",
    "drivers/md/dm-verity",
    "drivers/nvdimm/libnvdimm",
    "drivers/nvdimm/nd_btt",
    "drivers/nvdimm/nd_pmem",
    "drivers/nvdimm/nd_virtio",
    "drivers/nvdimm/virtio_pmem",
];

/// Folders of the guest. The printed lines for guests make those that they mount at.
const FOLDERS: [&str; 4] = ["bin", "dev", "proc", "sys"];

/// The first process of the guest. It ends the machine whatever its script does.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module || echo \"insmod $module: $?\"; done
echo 'guest: begins'
sh -e /script </dev/null 2>&1
status=$?
[ $status = 0 ] || dmesg | tail -n 20
echo \"guest: exit status $status\"
poweroff -f
";

/// How much of a console is shown when a guest fails, in bytes.
const TAIL: usize = 4000;

/// A virtual machine with Linux 6.12 that runs one shell script and ends, for tests that need [`Need::Guest`].
///
/// The script is run by busybox's `sh -e` as root, with busybox's commands, in an initramfs with nothing else. Nothing is
/// mounted but `/proc`, `/sys` and `/dev`. What it leaves mounted is not unmounted: a disk that is judged afterwards has to
/// be unmounted by the script.
///
/// [`Need::Guest`]: super::Need::Guest
#[derive(Debug)]
pub struct Guest {
    script: String,
    devices: String,
    programs: Vec<&'static str>,
    limit: Duration,
}

impl Guest {
    /// A guest that runs `script`, without devices.
    pub fn new(script: impl Into<String>) -> Self {
        let limit = Duration::from_secs(240);
        Self { script: script.into(), devices: String::new(), programs: Vec::new(), limit }
    }

    /// Gives it a program of this machine, which the test needs, with the libraries that `ldd` names
    /// ([`Need::LDD`](super::Need::LDD)).
    #[must_use]
    pub fn program(mut self, name: &'static str) -> Self {
        self.programs.push(name);
        self
    }

    /// Adds arguments of QEMU as they are written for a shell, such as a printed line.
    #[must_use]
    pub fn devices(mut self, line: &str) -> Self {
        self.devices.extend([" ", line]);
        self
    }

    /// Sets how long it may take from the start of QEMU to its end (4 minutes: a machine that emulates has much to do).
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The folder that a guest is made of: `qemu-system-x86_64`, `vmlinuz`, and a static `busybox`.
    pub fn folder() -> PathBuf {
        guest_folder()
    }

    /// The static busybox that guests have, which runs in any root file system.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) when it cannot be read.
    pub fn busybox() -> Result<Vec<u8>> {
        read(&guest_folder().join("busybox"))
    }

    /// Boots it, and returns what its script has said once the machine is off.
    ///
    /// # Errors
    /// The script has failed, or the machine was not off by the limit: with the end of its console.
    pub fn run(self) -> std::result::Result<String, Failure> {
        let (folder, place) = (guest_folder(), tempfile::tempdir()?);
        let (initrd, console) = (place.path().join("initrd"), place.path().join("console"));
        fs::File::create(&initrd)?.write_all(&self.initramfs(&folder)?)?;
        // The words of a printed line are a shell's.
        let shell = Run::new("sh").arg("-c").arg(format!("exec \"$@\" {}", self.devices)).arg("sh");
        let ended = shell
            .arg(folder.join("qemu-system-x86_64"))
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-m", "256,slots=1,maxmem=4G", "-serial"])
            .arg(format!("file:{}", console.display()))
            .arg("-kernel")
            .arg(folder.join("vmlinuz"))
            .arg("-initrd")
            .arg(&initrd)
            // Linux gives up where a timer that is emulated on a busy machine is late, unless it knows the machine as KVM.
            .args(["-append", "console=ttyS0 panic=-1 quiet no_timer_check"])
            .limit(self.limit)
            .output();
        let console = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).replace('\r', "");
        let failed = |why: &str| Failure::new(format!("{why}; its console ends with:\n{}", tail(&console)));
        let ended = match ended {
            Ok(ended) if ended.status.success() => ended,
            Ok(ended) => return Err(failed(&ended.to_string())),
            Err(e) if *e.kind() == ErrorKind::Timeout => {
                return Err(failed(&format!("the guest was not off after {:?}", self.limit)));
            }
            Err(e) => return Err(e.into()),
        };
        let said = console.split_once("guest: begins\n").map_or("", |(_, said)| said);
        match said.split_once("guest: exit status 0\n") {
            Some((said, _)) => Ok(said.to_owned()),
            None => Err(failed(&format!("the script of the guest has failed: {ended}"))),
        }
    }

    /// What the guest has before its script mounts anything, as a cpio archive.
    fn initramfs(&self, folder: &Path) -> std::result::Result<Vec<u8>, Failure> {
        let mut archive = Archive::default();
        for name in FOLDERS {
            archive.add(name, 0o040_755, b"");
        }
        archive.add("bin/busybox", 0o100_755, &Self::busybox()?);
        archive.add("bin/sh", 0o120_777, b"busybox");
        archive.add("modules", 0o040_755, b"");
        for (index, module) in MODULES.iter().enumerate() {
            let path = folder.join("modules/kernel").join(format!("{module}.ko.xz"));
            let name = module.rsplit('/').next().unwrap_or(module);
            // The order of names is that of loading.
            archive.add(&format!("modules/{index:02}-{name}.ko.xz"), 0o100_644, &read(&path)?);
        }
        for path in self
            .programs
            .iter()
            .map(|name| with_libraries(name))
            .collect::<std::result::Result<Vec<_>, _>>()?
            .concat()
        {
            archive.add_with_folders(&path)?;
        }
        archive.add("init", 0o100_755, INIT.as_bytes());
        archive.add("script", 0o100_644, self.script.as_bytes());
        Ok(archive.finish())
    }
}

/// Where a program and its libraries are.
fn with_libraries(program: &str) -> std::result::Result<Vec<PathBuf>, Failure> {
    assert_declared(program);
    let missing = || Error::not_found("a program for the guest").with_context("program", program);
    let path = find(program).ok_or_else(missing)?;
    let said = Run::new("ldd").arg(&path).success()?.stdout;
    let libraries = said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(std::iter::once(path).chain(libraries).collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path)
        .map_err(|e| Error::io("reading a file of the guest", e).with_context("path", path.display()))
}

/// The end of a console.
fn tail(console: &str) -> Cow<'_, str> {
    let start = console.len().saturating_sub(TAIL);
    String::from_utf8_lossy(&console.as_bytes()[start..])
}

/// A cpio archive in the form that the kernel unpacks (`newc`, `Documentation/driver-api/early-userspace/buffer-format.rst`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    count: usize,
}

impl Archive {
    /// Adds an entry; the content of a symbolic link is its target.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        // Number, mode, user, group, links, time, size, four device numbers, length of the name, checksum.
        let fields = [self.count, mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Adds a file where this machine has it; one that is there already is replaced by itself.
    fn add_with_folders(&mut self, path: &Path) -> Result<()> {
        let name = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_string_lossy().into_owned();
        let folders: Vec<&Path> = path.ancestors().skip(1).collect();
        for folder in folders.into_iter().rev().filter(|folder| folder.parent().is_some()) {
            self.add(&name(folder), 0o040_755, b"");
        }
        self.add(&name(path), 0o100_755, &read(path)?);
        Ok(())
    }

    /// Fills up to a multiple of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        self.bytes
    }
}

/// The files that a guest is made of.
pub(super) fn parts(folder: &Path) -> [PathBuf; 4] {
    ["qemu-system-x86_64", "vmlinuz", "busybox", "modules"].map(|name| folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_aligned_entries_and_an_end() {
        let mut archive = Archive::default();
        archive.add("init", 0o100_755, b"12345");
        let bytes = archive.finish();
        // 110 bytes of numbers, the name with its NUL, and padding; then the content and padding.
        assert_eq!((&bytes[110..115], &bytes[116..121]), (&b"init\0"[..], &b"12345"[..]));
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!((&bytes[234..245], bytes.len() % 4), (&b"TRAILER!!!\0"[..], 0));
    }
}
