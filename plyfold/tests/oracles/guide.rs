//! The commands that are printed, run as they are: on odd paths, with many layers, many times at once.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfold::{Disks, Images, PullOptions, Rootfs};
use plyfold_conformance::oracle::{Aspect, Failure, Run, Verdict, difference};
use plyfold_conformance::samples::{self, LayerBuilder};
use tempfile::TempDir;

use super::{Unmount, Work};

/// Folders that shells, mount(8), overlayfs and qemu read in their own way.
const ODD: [&[u8]; 7] = [
    b"it's $HOME `id` \"a\"",
    b"nbd:unix,lowerdir=x:y",
    b"a\\:b,c\\,d=e",
    b"-o remount",
    b"two\nlines \x1b[7m",
    b"not \xff text",
    "l\u{e4}nge-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789-0123456789".as_bytes(),
];

pub(crate) fn every_form_mounts_from_odd_paths() -> Verdict {
    let work = Work::new();
    let forms = [
        (Rootfs::erofs_layers(), &[Aspect::Mtime][..]),
        (Rootfs::erofs_layers().upper(64 << 20), &[]),
        (Rootfs::erofs_merged(), &[]),
        (Rootfs::vmdk().upper(64 << 20), &[]),
        (Rootfs::erofs_flat(), &[]),
        (Rootfs::erofs_flat().upper(64 << 20), &[]),
        (Rootfs::raw(), &[]),
        (Rootfs::gpt(), &[]),
        (Rootfs::gpt().upper(64 << 20), &[]),
        (Rootfs::vmdk_gpt().upper(64 << 20), &[]),
    ];
    for (index, odd) in ODD.iter().enumerate() {
        let (rootfs, ignored) = &forms[index % forms.len()];
        let out = work.dir.path().join(OsStr::from_bytes(odd)).join("vm");
        let disks = work.disks_at(rootfs, &out);
        let overlay: &[Aspect] = &[Aspect::DirectoryLinks];
        let mounted = Mounted::new(&work, &disks, "sh")?;
        let found = difference(&work.reference(), &mounted.root, &[overlay, ignored].concat())?;
        assert_eq!(found.map(|found| format!("{found:?}")), None, "{}", mounted.script);
        mounted.unmount();
        disks.paths().try_for_each(is_detached)?;
    }
    Ok(())
}

pub(crate) fn qemu_finds_the_disks_at_odd_paths() -> Verdict {
    let work = Work::new();
    let forms = [
        (Rootfs::vmdk(), "vmdk"),
        (Rootfs::erofs_flat(), "raw"),
        (Rootfs::raw(), "raw"),
        (Rootfs::gpt(), "raw"),
        (Rootfs::vmdk_gpt(), "vmdk"),
    ];
    for odd in ODD {
        let out = work.dir.path().join(OsStr::from_bytes(odd));
        for (form, format) in &forms {
            qemu_finds(odd, format, &work.disks_at(&form.clone().upper(64 << 20), &out))?;
        }
    }
    Ok(())
}

fn qemu_finds(odd: &[u8], format: &str, disks: &Disks) -> Verdict {
    let line = disks.boot_lines().unwrap().remove(0).1;
    // The words that a shell makes of it. A line feed in a path is shown by its number.
    let words = Run::new("sh").args(["-c", &format!("printf '%s\\0' {line}")]).success()?.stdout;
    let drives: Vec<&str> = words.split('\0').filter(|word| word.starts_with("file=")).collect();
    assert_eq!(drives.len(), 2, "{words:?}");
    if std::str::from_utf8(odd).is_err() {
        // What a program has said is text here.
        return Ok(());
    }
    for (drive, format) in drives.iter().zip([format, "raw"]) {
        let value = drive.strip_prefix("file=").and_then(|rest| rest.split_once(",format="));
        let (value, rest) = value.ok_or_else(|| Failure::new(format!("no format: {drive}")))?;
        assert!(rest.starts_with(format), "{drive}");
        // qemu's own reader of options: a comma is doubled, and a name of a file is no protocol, but for `json:`.
        if format == "raw" {
            let options = format!("driver=raw,file.driver=file,file.filename={value}");
            Run::new("qemu-img").args(["info", "--image-opts", &options]).success()?;
        } else {
            assert!(value.starts_with("json:"), "{value}");
        }
        let name = value.replace(",,", ",");
        let seen = Run::new("qemu-img").args(["info", "-f", format, "--", &name]).success()?;
        assert!(seen.stdout.contains(&format!("file format: {format}")), "{}", seen.stdout);
    }
    Ok(())
}

pub(crate) fn two_hundred_and_forty_layers_mount_whole() -> Verdict {
    let work = Work::new();
    let layer = |index: usize| {
        let number = index.to_string();
        let builder = LayerBuilder::new().file(format!("f{index:03}"), 0o644, number.as_bytes());
        builder.file("last", 0o644, number.as_bytes()).finish()
    };
    let image = samples::of_layers("many", &(0..240).map(layer).collect::<Vec<_>>());
    let origin = work.dir.path().join("origin");
    samples::write_layout(&origin, &[("a.example/many:1".to_owned(), &image)])?;
    let uri = format!("oci:{}", origin.display());
    // With a path that is long by itself.
    let place = work.dir.path().join("n".repeat(200)).join("m".repeat(200));
    for (index, rootfs) in [
        Rootfs::erofs_layers(),
        Rootfs::erofs_layers().upper(64 << 20),
        Rootfs::erofs_merged(),
        Rootfs::erofs_merged().upper(64 << 20),
        Rootfs::gpt(),
    ]
    .iter()
    .enumerate()
    {
        let disks = work.make(&uri, rootfs, &place.join(index.to_string()));
        let mounted = Mounted::new(&work, &disks, "sh")?;
        let names = fs::read_dir(&mounted.root)?.count();
        assert_eq!((names, fs::read_to_string(mounted.root.join("last"))?.as_str()), (241, "239"));
        mounted.unmount();
        is_detached(disks.layers.last().unwrap_or(&disks.files[0].path))?;
    }
    Ok(())
}

pub(crate) fn one_layer_is_in_many_mounts() -> Verdict {
    let work = Work::new();
    let forms = [Rootfs::erofs_layers(), Rootfs::erofs_merged(), Rootfs::erofs_layers().upper(64 << 20)];
    let (mut mounts, mut layers) = (Vec::new(), Vec::new());
    for (round, rootfs) in forms.iter().chain(&forms).enumerate() {
        let disks = work.disks_at(rootfs, &work.dir.path().join(format!("vm{round}")));
        mounts.push(Mounted::new(&work, &disks, "bash")?);
        layers.extend(disks.layers);
    }
    for mounted in &mounts {
        assert_eq!(fs::read_to_string(mounted.root.join("etc/motd"))?, "welcome to a block device\n");
    }
    mounts.into_iter().for_each(Mounted::unmount);
    layers.iter().try_for_each(|layer| is_detached(layer))
}

/// Whatever fails, the root shows the whole file system or nothing: also in a shell that goes on after an error.
pub(crate) fn a_script_that_fails_shows_nothing() -> Verdict {
    let work = Work::new();
    let forms = [
        (Rootfs::erofs_layers(), "layer-01.erofs"),
        (Rootfs::erofs_merged().upper(64 << 20), "layer-01.erofs"),
        (Rootfs::erofs_layers().upper(64 << 20), "upper.ext4"),
        (Rootfs::erofs_flat().upper(64 << 20), "upper.ext4"),
        (Rootfs::gpt().upper(64 << 20), "upper.ext4"),
    ];
    for (rootfs, missing) in forms {
        let disks = work.disks(&rootfs);
        let missing = disks.paths().find(|path| path.ends_with(missing)).unwrap();
        fs::remove_file(missing)?;
        let (root, script, mut guard) = scripted(&work, &disks)?;
        let said = Run::new("sh").args(["-c", &format!("{script}\necho went on $?")]).output()?;
        assert!(said.stdout.contains("went on") && !said.stdout.contains("went on 0"), "{said}");
        assert_eq!(fs::read_dir(&root)?.count(), 0, "{said}");
        // What was mounted by then is unmounted, and no loop device outlives its mount.
        assert_eq!(mounts_below(&guard.place)?, [""; 0], "{said}");
        let left: Vec<_> = fs::read_dir(&guard.place)?.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [root.file_name().unwrap()], "{said}");
        guard.files.clear();
        is_detached(&disks.files[0].path)?;
    }
    Ok(())
}

/// The places below a folder where something is mounted.
fn mounts_below(place: &Path) -> Result<Vec<String>, Failure> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(places.filter(|mounted| Path::new(mounted).starts_with(place)).map(str::to_owned).collect())
}

/// Sees that no loop device is left of a file, of whatever name.
fn is_detached(file: &Path) -> Verdict {
    let mut left = String::new();
    // The kernel may take a moment after the last mount has gone.
    for _ in 0..40 {
        left = Run::new("losetup").args(["-n", "-O", "NAME", "-j"]).arg(file).success()?.stdout;
        if left.is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(Failure::new(format!("{} is attached to {left}", file.display())))
}

/// A root file system that the script has mounted.
pub(crate) struct Mounted {
    pub(crate) root: PathBuf,
    pub(crate) script: String,
    unmount: String,
    guard: Unmount,
}

impl Mounted {
    pub(crate) fn new(work: &Work, disks: &Disks, shell: &str) -> Result<Self, Failure> {
        let (root, script, guard) = scripted(work, disks)?;
        Run::new(shell).args(["-euc", &script]).success()?;
        let unmount = at(&disks.unmount_script(), &root);
        Ok(Self { root, script, unmount, guard })
    }

    /// Ends all of its mounts as it is printed; the loop devices go by themselves.
    pub(crate) fn unmount(mut self) {
        Run::new("sh").args(["-euc", &self.unmount]).success().unwrap();
        assert_eq!(mounts_below(&self.guard.place).unwrap(), [""; 0], "{}", self.unmount);
        assert!(!Path::new(&format!("{}.parts", self.root.display())).exists(), "{}", self.unmount);
        self.guard.files.clear();
    }
}

/// The script for a root in a folder of its own, whose path is odd itself.
fn scripted(work: &Work, disks: &Disks) -> Result<(PathBuf, String, Unmount), Failure> {
    let place = TempDir::new_in(work.dir.path())?.keep();
    let root = place.join("a root, of:mine");
    let script = at(&disks.mount_script()?, &root);
    let guard = Unmount { place, files: disks.paths().map(Path::to_owned).collect() };
    Ok((root, script, guard))
}

/// A printed script for this root.
fn at(script: &str, root: &Path) -> String {
    script.replace("/mnt/rootfs", &format!("'{}'", root.display()))
}

impl Work {
    /// The sample image as disks in this folder.
    pub(crate) fn disks_at(&self, rootfs: &Rootfs, out: &Path) -> Disks {
        self.make(super::sample_uri().to_str().unwrap(), rootfs, out)
    }

    pub(crate) fn make(&self, image: &str, rootfs: &Rootfs, out: &Path) -> Disks {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let images = Images::open(self.dir.path().join("store")).await.unwrap();
            let platform = "linux/amd64".parse().unwrap();
            let options = PullOptions { platform, ..PullOptions::default() };
            let image = images.pull(image, options).await.unwrap();
            images.materialize(&image, rootfs, out).await.unwrap()
        })
    }
}
