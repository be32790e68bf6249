//! The printed lines, followed to the end: QEMU takes the disks, and a guest mounts them, runs a program of the image
//! and writes.

use std::fs::Permissions;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfold::materializers::erofs::ErofsFlat;
use plyfold::materializers::ext4::Ext4Rootfs;
use plyfold::materializers::vmdk::VmdkStream;
use plyfold::{Disks, InputArtifact, Materializer, Materializers, Options, Role, Rootfs};
use plyfold_conformance::oracle::{Captured, Failure, Guest, Run, Verdict};
use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_conformance::tree::TreeLine;
use plyfold_conformance::{DiskFixture, MaterializerFixture, rules};

use super::Work;

pub(crate) fn a_guest_boots_from_a_vmdk() -> Verdict {
    boots(&Rootfs::vmdk().upper(UPPER))
}

/// A printed line may be used later, when the descriptor is another one: QEMU opens no disk that it names as its parent.
pub(crate) fn a_guest_boots_from_a_vmdk_without_its_parent() -> Verdict {
    let work = Work::new();
    let disks = work.with_shell(&Rootfs::vmdk());
    let path = disks.vmdk.as_ref().ok_or_else(|| Failure::new("no VMDK"))?;
    let text = std::fs::read_to_string(path)?.replace("parentCID=ffffffff", "parentCID=00000001");
    std::fs::remove_file(path)?;
    std::fs::write(path, text + "parentFileNameHint=\"missing.vmdk\"\n")?;
    let script = format!("{}\n{}", line(&disks, "guest")?, look("/lower"));
    assert_eq!(guest(script, &disks).devices(&line(&disks, "qemu")?).run()?, SAID);
    Ok(())
}

pub(crate) fn a_guest_boots_from_a_raw_disk() -> Verdict {
    boots(&Rootfs::raw().upper(UPPER))
}

pub(crate) fn a_guest_boots_from_partitions() -> Verdict {
    boots(&Rootfs::gpt().upper(UPPER))
}

/// The partitions are the files of the layers, which are not copied.
pub(crate) fn a_guest_boots_from_partitions_of_a_vmdk() -> Verdict {
    boots(&Rootfs::vmdk_gpt().upper(UPPER))
}

/// Compressed, of the whole and with partitions.
pub(crate) fn a_guest_boots_from_a_vmdk_in_one_file() -> Verdict {
    for of in ["raw", "gpt"] {
        boots(&Rootfs::vmdk_stream(VmdkStream::new().of(of)?))?;
    }
    Ok(())
}

pub(crate) fn a_guest_boots_from_a_flat_image() -> Verdict {
    boots(&Rootfs::erofs_flat().upper(UPPER))
}

/// The guest writes to the disk itself.
pub(crate) fn a_guest_boots_from_an_ext4_disk() -> Verdict {
    boots(&Rootfs::ext4(Ext4Rootfs::new().size(UPPER)?))
}

pub(crate) fn a_guest_boots_from_a_disk_that_it_cannot_write() -> Verdict {
    boots(&Rootfs::erofs_flat())
}

/// Memory of the host is the guest's disk: nothing is copied, and the kernel maps it as it is.
pub(crate) fn a_guest_boots_from_persistent_memory() -> Verdict {
    let work = Work::new();
    let disks = work.with_shell(&Rootfs::raw());
    let path = disks.raw.ok_or_else(|| Failure::new("no raw disk"))?;
    let size = std::fs::metadata(&path)?.len();
    let link = work.dir.path().join("pmem");
    std::os::unix::fs::symlink(&path, &link)?;
    let devices = format!(
        "-object memory-backend-file,id=m,share=on,readonly=on,mem-path={},size={size} -device virtio-pmem-pci,memdev=m",
        link.display()
    );
    // The driver goes on when its module is loaded.
    let ready = "until head -c 4096 /dev/pmem0 >/dev/null 2>&1; do sleep 0.1; done";
    let script = format!(
        "{ready}\nmkdir /lower; mount -t erofs -o ro,dax=always /dev/pmem0 /lower\n\
         grep -q '/lower .*dax=always' /proc/mounts\n{}",
        look("/lower")
    );
    let said = Guest::new(script).devices(&devices).run()?;
    assert_eq!(said, SAID);
    Ok(())
}

/// The kernel of the guest verifies each block: what was changed on the disk is an error, not other content.
pub(crate) fn a_guest_verifies_what_it_reads() -> Verdict {
    let formats = Materializers::linked()?;
    for (format, verity) in [
        ("erofs", "verity=append"),
        ("raw", "verity=beside"),
        ("gpt", "verity=partition"),
        ("ext4", "verity=append"),
        ("vmdk", "verity=append"),
        ("vmdk-gpt", "verity=append"),
    ] {
        let rootfs = Rootfs::named(format, &Options::parse([verity])?, &formats)?.verified(true);
        let work = Work::new();
        let disks = work.with_shell(&rootfs);
        let images = disks.files.iter().filter(|file| file.role == Role::Image);
        let changed = images.map(|file| {
            let content = std::fs::read(&file.path)?;
            Ok(content.windows(7).position(|window| window == b"100000\n").map(|at| (&file.path, at)))
        });
        let changed: std::io::Result<Vec<_>> = changed.collect();
        let (disk, changed) = changed?
            .into_iter()
            .flatten()
            .next()
            .ok_or_else(|| Failure::new(format!("no file of {format} has the content as it is")))?;
        let file = std::fs::File::options().write(true).open(disk)?;
        file.write_all_at(b"9", changed as u64)?;
        let root = if format == "ext4" { "/root" } else { "/lower" };
        let script = format!(
            "{}\nchroot {root} /bin/hello\n[ ! -e {root}/gone ]\n! cat {root}/numbers >/read\n! grep -q 900000 /read\n\
             dmesg | grep -q 'verity: .* is corrupted'\n",
            line(&disks, "guest")?
        );
        let said = guest(script, &disks).devices(&line(&disks, "qemu")?).run()?;
        assert_eq!(said.lines().next(), SAID.lines().next(), "{format} {verity}: {said}");
    }
    Ok(())
}

/// The line for a guest's kernel makes one disk of the partitions, verified or not, which EROFS mounts without names of
/// devices. `dmsetup` reads it as the kernel does: distributions have device-mapper as a module.
pub(crate) fn a_guest_joins_partitions_as_its_kernel_would() -> Verdict {
    let formats = Materializers::linked()?;
    for (format, options) in [("gpt", &[][..]), ("vmdk-gpt", &[]), ("gpt", &["verity=append"])] {
        let rootfs = Rootfs::named(format, &Options::parse(options.iter().copied())?, &formats)?;
        let work = Work::new();
        let disks = work.with_shell(&rootfs);
        let line_of_kernel = line(&disks, "kernel")?;
        let parts = line_of_kernel.split_once("dm-mod.create=\"").and_then(|(_, rest)| rest.split_once('"'));
        let (devices, root) = parts.ok_or_else(|| Failure::new(line_of_kernel.clone()))?;
        let root = root
            .trim_start()
            .strip_prefix("root=")
            .and_then(|rest| rest.strip_suffix(" rootfstype=erofs ro"));
        let root = root.ok_or_else(|| Failure::new(line_of_kernel.clone()))?;
        let script = format!(
            "dmsetup create --noudevsync --concise '{devices}'\nmkdir /lower; mount -t erofs -o ro {root} /lower\n{}",
            look("/lower")
        );
        let guest = Guest::new(script).program("dmsetup");
        let said = guest.devices(&line(&disks, "qemu")?).run()?;
        assert_eq!(said, SAID, "{format} {options:?}");
    }
    Ok(())
}

/// A guest with what the printed line for it needs.
fn guest(script: String, disks: &Disks) -> Guest {
    let guest = Guest::new(script);
    let has_trees = disks.verified().next().is_some() || !disks.verified_partitions().is_empty();
    if has_trees { guest.program("veritysetup") } else { guest }
}

/// With an initramfs that the command makes, and by the image's own command.
pub(crate) fn a_guest_boots_by_the_command() -> Verdict {
    for format in ["vmdk", "erofs"] {
        let work = Work::new();
        let console = work.booted(&work.shell_image(), format, &[])?;
        assert!(console.contains("hello from the top layer\n/ 0 /bin\n"), "{console}");
        assert!(console.contains("200000 /numbers\n"), "{console}");
        assert!(console.contains("the command has ended with exit status 7\n"), "{console}");
        let upper = work.dir.path().join("out/upper.ext4");
        Run::new("e2fsck").arg("-fn").arg(&upper).success()?;
        let found = Run::new("debugfs").args(["-R", "cat /upper/made"]).arg(&upper).success()?;
        assert_eq!(found.stdout, "by the command\n");
    }
    Ok(())
}

/// The initramfs of the command opens disks by their hash trees: what was changed cannot be read.
pub(crate) fn a_guest_that_the_command_boots_verifies_what_it_reads() -> Verdict {
    for (format, verity, extension) in
        [("erofs", "verity=append", "erofs"), ("gpt", "verity=partition", "gpt")]
    {
        let work = Work::new();
        let image = work.shell_image();
        let options = ["-m", verity, "--verity", "require"];
        let console = work.booted(&image, format, &options)?;
        assert!(console.contains("hello from the top layer\n/ 0 /bin\n"), "{console}");
        assert!(console.contains("200000 /numbers\n"), "{console}");
        let artifact = work.artifact(extension)?;
        let (found, content) = (artifact.metadata()?, std::fs::read(&artifact)?);
        let changed = content.windows(7).position(|window| window == b"100000\n");
        let changed = changed.ok_or_else(|| Failure::new("the disk does not have the file as it is"))?;
        // The store does not see such a change.
        std::fs::set_permissions(&artifact, Permissions::from_mode(0o644))?;
        let file = std::fs::File::options().write(true).open(&artifact)?;
        file.write_all_at(b"9", changed as u64)?;
        file.set_modified(found.modified()?)?;
        std::fs::set_permissions(&artifact, found.permissions())?;
        let console = work.booted(&image, format, &options)?;
        assert!(console.contains("hello from the top layer\n/ 0 /bin\n"), "{console}");
        assert!(console.contains("data block") && console.contains("is corrupted"), "{format}: {console}");
        assert!(!console.contains("200000 /numbers"), "{format}: {console}");
    }
    Ok(())
}

const UPPER: u64 = 64 << 20;

/// What the image's program says.
const SAID: &str = "hello from the top layer\n";

/// Lines of the image's largest file: its blocks and its tail are in the layers.
const NUMBERS: u32 = 200_000;

/// Sees that a guest boots from the image in this form as the printed lines say, and that what it writes is on the disk.
fn boots(rootfs: &Rootfs) -> Verdict {
    let work = Work::new();
    let disks = work.with_shell(rootfs);
    let written = written(&disks);
    let root = if written.is_some() { "/root" } else { "/lower" };
    let rest = match &written {
        Some(_) => write(root),
        None => format!("! touch {root}/etc/new 2>/dev/null\n"),
    };
    let script = format!("{}\n{}{rest}", line(&disks, "guest")?, look(root));
    let said = guest(script, &disks).devices(&line(&disks, "qemu")?).run()?;
    assert_eq!(said, SAID);
    match written {
        Some((disk, folder)) => judge(&work, &disk, folder),
        None => Ok(()),
    }
}

/// The disk that a guest writes to, and the folder of it that has what is written to the root.
fn written(disks: &Disks) -> Option<(PathBuf, &'static str)> {
    let written = disks.upper.as_ref().map(|disk| (disk, "/upper"));
    written.or(disks.ext4.as_ref().map(|disk| (disk, ""))).map(|(disk, folder)| (disk.clone(), folder))
}

/// Runs a program of the image, and looks at what a whiteout has removed and at a large file.
fn look(root: &str) -> String {
    format!(
        "chroot {root} /bin/hello\n\
         [ ! -e {root}/gone ]\n\
         seq {NUMBERS} | cmp - {root}/numbers\n"
    )
}

/// Adds files, by a program of the image too, replaces one and removes one; then all is unmounted.
fn write(root: &str) -> String {
    format!(
        "chroot {root} /bin/sh -c 'seq {NUMBERS} >/etc/new; echo changed >/etc/motd'\n\
         echo first line >{root}/made; rm {root}/numbers\n\
         umount {root}; for place in /upper /lower; do ! grep -q \" $place \" /proc/mounts || umount $place; done\n"
    )
}

/// Sees that a disk is clean and holds what [`write`] wrote.
fn judge(work: &Work, disk: &Path, folder: &str) -> Verdict {
    Run::new("e2fsck").arg("-fn").arg(disk).success()?;
    let debugfs = |command: &str| Run::new("debugfs").args(["-R", command]).arg(disk).success();
    for (name, content) in [("etc/motd", "changed\n"), ("made", "first line\n")] {
        let found = debugfs(&format!("cat {folder}/{name}"))?.stdout;
        assert_eq!(found, content, "{name}");
    }
    let dumped = work.dir.path().join("dumped");
    debugfs(&format!("dump {folder}/etc/new {}", dumped.display()))?;
    let numbers = (1..=NUMBERS).fold(String::new(), |text, number| text + &number.to_string() + "\n");
    assert!(std::fs::read_to_string(dumped)? == numbers, "the file that the guest wrote is another");
    Ok(())
}

fn line(disks: &Disks, name: &str) -> Result<String, Failure> {
    let lines = disks.boot_lines().unwrap_or_default();
    let found = lines.into_iter().find(|(of, _)| *of == name);
    found.map(|(_, line)| line).ok_or_else(|| Failure::new(format!("no line for {name}")))
}

impl Work {
    /// An image with a shell, as disks in a folder whose name shells and QEMU read in their own way.
    fn with_shell(&self, rootfs: &Rootfs) -> Disks {
        self.make(&self.shell_image(), rootfs, &self.dir.path().join("it's a,b"))
    }

    /// What a machine has said that the command boots from an image in this form, with an upper; its exit code is that of
    /// the image's command.
    fn booted(&self, image: &str, format: &str, options: &[&str]) -> Result<String, Failure> {
        let options = [&["--as", format], options].concat();
        let ended = self.machine(image, &options, &Guest::folder().join("vmlinuz"))?;
        assert_eq!(ended.status.code(), Some(7), "{ended}");
        Ok(ended.stdout.replace('\r', ""))
    }

    /// How a machine has ended that the command boots from an image, with an upper.
    pub(crate) fn machine(&self, image: &str, options: &[&str], kernel: &Path) -> Result<Captured, Failure> {
        let path = |name: &str| self.dir.path().join(name);
        // An upper that was written to is kept otherwise.
        let _ = std::fs::remove_dir_all(path("out"));
        let run = Run::new(env!("CARGO_BIN_EXE_plyfold")).args(["materialize", image]);
        let run = run.args(["--platform", "linux/amd64", "--upper", "64M"]).args(options);
        let run = run.arg("--out").arg(path("out")).arg("--store").arg(path("store"));
        let run = run.arg("--boot").arg("--kernel").arg(kernel);
        let run = run.args(["--", "-m", "256"]).env("PATH", Guest::folder());
        Ok(run.limit(Duration::from_secs(240)).output()?)
    }

    /// The one artifact of the store with this extension.
    fn artifact(&self, extension: &str) -> Result<PathBuf, Failure> {
        let (mut folders, mut found) = (vec![self.dir.path().join("store/artifacts")], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|found| found == extension) {
                    found.push(path);
                }
            }
        }
        match &found[..] {
            [artifact] => Ok(artifact.clone()),
            _ => Err(Failure::new(format!("not one artifact: {found:?}"))),
        }
    }

    /// An image of three layers with a shell.
    fn shell_image(&self) -> String {
        self.image_with(
            "hello\necho $PWD $(busybox id -u) $PATH\nbusybox wc -l /numbers\necho by the command >/made\nexit 7\n",
        )
    }

    /// The same, whose command is this script.
    pub(crate) fn image_with(&self, script: &str) -> String {
        let numbers = (1..=NUMBERS).fold(String::new(), |text, number| text + &number.to_string() + "\n");
        let hello = b"#!/bin/sh\necho hello from $(cat /etc/motd)\n";
        // The command of the samples' configuration.
        let tool = format!("#!/bin/sh\n{script}");
        let bottom = LayerBuilder::new()
            .dir("bin", 0o755)
            .file("bin/busybox", 0o755, &Guest::busybox().unwrap())
            .symlink("bin/sh", "busybox")
            .symlink("bin/cat", "busybox")
            .symlink("bin/seq", "busybox")
            .file("bin/hello", 0o755, hello)
            .file("bin/tool", 0o755, tool.as_bytes())
            .file("etc/motd", 0o644, b"the bottom layer\n")
            .file("gone", 0o644, b"")
            .finish();
        let middle = LayerBuilder::new().file("numbers", 0o644, numbers.as_bytes()).finish();
        let top = LayerBuilder::new().file("etc/motd", 0o644, b"the top layer\n").whiteout("gone").finish();
        let image = samples::of_layers("guest", &[bottom, middle, top]);
        let origin = self.dir.path().join("origin");
        samples::write_layout(&origin, &[("a.example/guest:1".to_owned(), &image)]).unwrap();
        format!("oci:{}", origin.display())
    }
}

/// Rule M 157, on one image of the whole and on a disk that is written to.
pub(crate) fn a_guest_runs_a_command_of_the_image() -> Verdict {
    let rule = rules::disk().find(|rule| rule.name == "guest_boots");
    let rule = rule.ok_or_else(|| Failure::new("no rule about guests"))?;
    rule.judge(&Booted(Box::new(ErofsFlat::default()), "erofs"));
    rule.judge(&Booted(Box::new(Ext4Rootfs::new()), "ext4"));
    Ok(())
}

/// A disk that a guest mounts as this file system, and nothing else reads.
struct Booted(Box<dyn Materializer>, &'static str);

impl MaterializerFixture for Booted {
    fn materializer(&self) -> Box<dyn Materializer> {
        self.0.clone()
    }

    fn tree(&self, _: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        unreachable!("a guest looks into it")
    }

    fn check(&self, _: &Path, _: &[InputArtifact]) {
        unreachable!("the rule asks for no check")
    }
}

impl DiskFixture for Booted {
    fn program(&self) -> Option<Vec<u8>> {
        Guest::busybox().ok()
    }

    fn boot(&self, file: &Path, _: &[InputArtifact], command: &[&str]) -> String {
        let script = format!(
            "mkdir /lower; mount -t {} -o ro /dev/vda /lower\nchroot /lower {}\n",
            self.1,
            command.join(" ")
        );
        let drive = format!("-drive file={},format=raw,if=virtio", file.display());
        Guest::new(script).devices(&drive).run().expect("the guest runs the command")
    }
}
