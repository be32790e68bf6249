//! What runs in the virtual machine first: busybox, which mounts the disks and runs the image's command.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use crate::shell::word;
use crate::snapshot::Process;
use crate::{Disks, Error, Result};
use rustix::fs::{MemfdFlags, memfd_create};

use super::cpio::{Archive, LONGEST, content};
use super::kernel;
use super::linked::LinkedProgram;
use super::outcome::report::{BEGUN, STATUS, UNMOUNTED};

/// The number of the serial line on which it reports. The lines behind the console's are the user's.
pub(super) const REPORT: u8 = 3;

/// Until the disks are there. Modules are in no order: one that needs another is tried again.
const HEAD: &str = "#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for pass in 1 2 3 4; do
  for module in /modules/*; do
    [ -f \"$module\" ] && insmod \"$module\" 2>/dev/null && rm \"$module\"
  done
done
";

/// What is mounted in the root file system, where it has a place for it.
const MOUNTS: &str = "  for place in proc sys dev; do
    [ -d $R/$place ] && mount -o bind /$place $R/$place
  done
  [ -d $R/tmp ] && [ ! -w $R/tmp ] && mount -t tmpfs tmpfs $R/tmp
  cp /bin/busybox /dev/busybox
";

/// Starts a command in a folder of the root file system; `$0` is that root, `$1` the folder. chroot(1) starts in the root, and the
/// image may have no shell. A busybox takes the name that it is called by for that of a program in it, unless the name begins
/// with its own. Without `/dev` it has no place there; then a link in the folder's path leads out of the root.
const ENTER: &str = "[ -d $0/dev ] && exec /bin/chroot $0 /dev/busybox sh -c \"cd \\\"\\$0\\\" && exec \\\"\\$@\\\"\" \"$@\"; \
                     root=$0 folder=$1; shift; exec /bin/nsenter -r$root -w\"$root$folder\" \"$@\"";

/// When the command has ended: nothing of it goes on, or writes to the line of the report.
const KILL: &str = "cd /
kill -9 -1";

/// In the end: the disks are complete.
const TAIL: &str = "sync
for place in tmp dev sys proc; do umount $R/$place 2>/dev/null; done
umount $R
umount /upper /lower 2>/dev/null
poweroff -f
";

/// An initramfs in memory, for as long as this is here.
pub(super) struct Initramfs(File);

impl Initramfs {
    /// The name that a process which inherits it has for it.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// The program that the kernel starts. With `is_verified` it opens the devices by their hash trees, where they have such.
pub(super) fn init(disks: &Disks, process: &Process, is_verified: bool) -> String {
    let root = disks.guest_root();
    let mount = disks.guest_commands(is_verified).unwrap_or_default();
    let mut init = format!("{HEAD}R={root}\nif {mount}; then\n{MOUNTS}");
    // A line of its own, whatever the command has left there.
    let report =
        |words: &str| format!("{{ printf '\\n%s\\n' \"{words}\" >/dev/ttyS{REPORT}; }} 2>/dev/null\n");
    init.push_str(&report(BEGUN));
    let _ = writeln!(init, "  setsid cttyhack env -i -- {}\n  S=$?", words_of(process));
    init.push_str("  echo \"the command has ended with exit status $S\"\n");
    let _ = writeln!(init, "  T=\"{STATUS}$S\"");
    init.push_str("else\n  dmesg | tail -n 20; echo 'the disks cannot be mounted'\n");
    let _ = writeln!(init, "  T={UNMOUNTED}\nfi\n{KILL}");
    init.push_str(&report("$T"));
    init + TAIL
}

/// Whether env(1) takes an entry of the environment for one, behind `--`: another one would be the program that it starts.
pub(super) fn is_variable(entry: &str) -> bool {
    entry.split_once('=').is_some_and(|(name, _)| !name.is_empty()) && !entry.contains('\0')
}

/// The image's command in its environment and its folder.
fn words_of(process: &Process) -> String {
    let Process { args, env, cwd, .. } = process.clone();
    let (mut command, mut environment) = (args, env);
    environment.retain(|entry| is_variable(entry));
    for (name, value) in
        [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root")]
    {
        if !environment.iter().any(|entry| entry.split('=').next() == Some(name)) {
            environment.push(format!("{name}={value}"));
        }
    }
    environment.extend(std::env::var("TERM").ok().map(|terminal| format!("TERM={terminal}")));
    if command.is_empty() {
        command.push("/bin/sh".to_owned());
    }
    let words = |of: &[String]| of.iter().map(|text| word(text)).collect::<Vec<_>>().join(" ");
    let folder = Some(cwd).filter(|folder| !folder.is_empty() && folder != "/");
    let environment = words(&environment);
    match folder {
        Some(folder) => {
            let folder = word(&folder);
            format!("{environment} /bin/sh -c {} $R {folder} {}", word(ENTER), words(&command))
        }
        None => format!("{environment} /bin/chroot $R {}", words(&command)),
    }
}

/// Packs it, with one more program, and the modules that the kernel has in this folder.
pub(super) fn make(
    init: &str,
    busybox: &Path,
    program: Option<&LinkedProgram>,
    modules: Option<&Path>,
) -> Result<Initramfs> {
    let mut archive = Archive::default();
    for name in ["bin", "dev", "lower", "modules", "proc", "root", "sys", "upper"] {
        archive.directory(name);
    }
    archive.program("bin/busybox", &content(busybox)?);
    if let Some(program) = program {
        program.add_to(&mut archive)?;
    }
    for (index, module) in modules.map(kernel::needed).transpose()?.unwrap_or_default().iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let (name, bytes) = match name.strip_suffix(".zst") {
            // busybox unpacks the other compressions that kernels have.
            Some(plain) => (plain, unpacked(module)?),
            None => (&*name, content(module)?),
        };
        archive.program(&format!("modules/{index:02}-{name}"), &bytes);
    }
    archive.program("init", init.as_bytes());
    let failed = |e| Error::io("writing an initramfs into memory", e);
    // QEMU inherits it.
    let memory = memfd_create("plyfold-initramfs", MemfdFlags::empty()).map_err(|e| failed(e.into()))?;
    let mut file = File::from(memory);
    file.write_all(&archive.finish()).map_err(failed)?;
    Ok(Initramfs(file))
}

fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        zstd::Decoder::new(File::open(path)?)?.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| {
        Error::io("unpacking a module for the initramfs", e).with_context("path", path.display())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn strings(of: &[&str]) -> Vec<String> {
        of.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_shell_reads_the_command_of_the_image() {
        let mut process = Process::default();
        process.env = strings(&["PATH=/a b", "X=it's $HOME"]);
        process.args = strings(&["/bin/odd name", "-c", "two\nlines"]);
        process.cwd = "/work dir".to_owned();
        let process = words_of(&process);
        let said =
            Command::new("sh").args(["-c", &format!("R=/root; printf '%s\\0' {process}")]).output().unwrap();
        let words = String::from_utf8(said.stdout).unwrap();
        let words: Vec<&str> = words.split('\0').filter(|word| !word.starts_with("TERM=")).collect();
        let first = ["PATH=/a b", "X=it's $HOME", "HOME=/root", "/bin/sh", "-c", ENTER, "/root"];
        assert_eq!(words[..7], first);
        assert_eq!(words[words.len() - 5..], ["/work dir", "/bin/odd name", "-c", "two\nlines", ""]);
    }

    #[test]
    fn what_is_no_variable_is_no_program() {
        let mut process = Process::default();
        process.env =
            strings(&["NOEQ", "/bin/busybox", "-u", "-", "=x", "", "PATH", "A\0=b", "-u=1", "B=c=d"]);
        process.args = strings(&["/bin/app"]);
        let words = words_of(&process);
        assert!(words.starts_with("-u=1 B=c=d PATH=/usr/local/sbin:"), "{words}");
        let ran = |words: &str| {
            let ran = Command::new("sh").args(["-c", &format!("env -i -- {words} env")]).output();
            String::from_utf8(ran.unwrap().stdout).unwrap()
        };
        assert_eq!(
            ran("-u=1 B=c=d PATH=/bin:/usr/bin").lines().take(2).collect::<Vec<_>>(),
            ["-u=1", "B=c=d"]
        );
        assert!(init(&disks(), &process, true).contains("env -i -- -u=1"));
    }

    fn disks() -> Disks {
        Disks { flat: Some("/a.erofs".into()), ..Disks::default() }
    }

    #[test]
    fn an_image_without_a_command_gets_a_shell() {
        let process = words_of(&Process::default());
        assert!(process.ends_with("/bin/chroot $R /bin/sh"), "{process}");
        assert!(process.starts_with("PATH=/usr/local/sbin:"), "{process}");
    }

    #[test]
    fn the_first_process_is_a_script_that_shells_can_read() {
        for upper in [None, Some("/u.ext4".into())] {
            let disks = Disks { flat: Some("/a.erofs".into()), upper, ..Disks::default() };
            let script = init(&disks, &Process::default(), true);
            let read = Command::new("sh").args(["-n", "-c", &script]).output().unwrap();
            assert!(read.status.success(), "{script}\n{}", String::from_utf8_lossy(&read.stderr));
        }
    }

    #[test]
    fn modules_packed_by_zstd_are_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel/erofs.ko.zst");
        fs::create_dir(folder.path().join("kernel")).unwrap();
        fs::write(&path, zstd::encode_all(&b"a module"[..], 1).unwrap()).unwrap();
        fs::write(folder.path().join("busybox"), "busybox").unwrap();
        let made = make("#!", &folder.path().join("busybox"), None, Some(folder.path())).unwrap();
        let bytes = fs::read(made.path()).unwrap();
        let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(holds(b"modules/00-erofs.ko\0") && holds(b"a module") && !holds(b".zst"));
    }
}
