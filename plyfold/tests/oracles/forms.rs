//! One image, one tree: every form and the flattened tar show what umoci unpacks.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use plyfold::atomic_file::FileOptions;
use plyfold::{Disks, FlatOptions, Images, Materializers, Options, PullOptions, PulledImage, Rootfs};
use plyfold_conformance::oracle::{Failure, LoopDevice, Mount, Run, Verdict, debian_root};
use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_conformance::tree::{TreeLine, is_implied, mounted};
use tempfile::TempDir;

/// How a set is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Look {
    /// One disk, by a loop device.
    Disk,
    /// Its layers, stacked by overlayfs.
    Layers,
    /// A merged image, with its layers as devices.
    Merged,
    /// Partitions: a merged image, then its layers.
    Partitions,
    /// The disk that qemu-img makes of a VMDK.
    Vmdk,
    /// The same, with partitions.
    VmdkPartitions,
}

/// Every form: its format, options, and how it is looked at.
const FORMS: &[(&str, &[&str], Look)] = &[
    ("erofs-layers", &[], Look::Layers),
    ("erofs-layers", &["block-size=512"], Look::Layers),
    ("erofs-layers", &["compress=lz4"], Look::Layers),
    ("erofs-layers", &["verity=append"], Look::Layers),
    ("erofs-layers", &["verity=beside"], Look::Layers),
    ("erofs-tar", &[], Look::Layers),
    ("erofs-merged", &[], Look::Merged),
    ("erofs", &[], Look::Disk),
    ("erofs", &["block-size=512"], Look::Disk),
    ("erofs", &["compress=lz4"], Look::Disk),
    ("erofs", &["compress=zstd", "cluster=64K"], Look::Disk),
    ("raw", &[], Look::Disk),
    ("raw", &["verity=append"], Look::Disk),
    ("gpt", &[], Look::Partitions),
    ("vmdk", &[], Look::Vmdk),
    ("vmdk", &["verity=append"], Look::Vmdk),
    ("vmdk-gpt", &[], Look::VmdkPartitions),
    ("vmdk-stream", &["of=raw"], Look::Vmdk),
    ("ext4", &["size=1G"], Look::Disk),
    ("ext4", &["verity=append"], Look::Disk),
];

pub(crate) fn every_form_of_every_sample_shows_one_tree() -> Verdict {
    let mut seen = BTreeSet::new();
    for sample in samples::whole().into_iter().chain([samples::rootfs(), huge(), marks()]) {
        for image in &sample.images {
            let layers: Vec<_> = image.layers.iter().map(|layer| layer.tar.to_vec()).collect();
            let names: Vec<_> = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
            // Of the same layers, once.
            if !layers.is_empty() && seen.insert(names) {
                all_equal(&samples::of_layers("sample", &layers))
                    .map_err(|e| Failure::new(format!("{}: {e:?}", sample.name)))?;
            }
        }
    }
    assert!(seen.len() > 4, "{} samples", seen.len());
    Ok(())
}

/// A part of a Debian root, small files above it, and a layer of whiteouts, opaque directories and links across layers.
pub(crate) fn every_form_of_a_real_image_shows_one_tree() -> Verdict {
    let tar = tempfile::NamedTempFile::new()?;
    let mut parts = vec!["etc".into(), "usr/sbin".into(), "var/lib/dpkg".into()];
    let mut programs: Vec<_> = fs::read_dir(debian_root().join("usr/bin"))?
        .map(|entry| Ok(Path::new("usr/bin").join(entry?.file_name())))
        .collect::<Result<_, Failure>>()?;
    programs.sort();
    // A quarter of them are enough to take some seconds.
    parts.extend(programs.into_iter().filter(|path| path.as_path() < Path::new("usr/bin/e")));
    let pack =
        Run::new("tar").args(["--create", "--format=posix", "--xattrs", "--sparse", "--numeric-owner"]);
    pack.arg("-f").arg(tar.path()).arg("-C").arg(debian_root()).args(parts).success()?;
    // umoci gives a directory the time at which it has made another in it that no entry made.
    let folders = LayerBuilder::new().dir("./", 0o755).dir("srv", 0o755);
    let folders = (0..40).fold(folders, |layer, number| layer.dir(format!("srv/{number}"), 0o755));
    let small = (0..3_000_usize).fold(folders, |layer, number| {
        let content = format!("{number}\n").repeat(number % 700);
        layer.file(format!("srv/{}/{number}", number % 40), 0o644, content.as_bytes())
    });
    let top = LayerBuilder::new()
        .dir("./", 0o755)
        .whiteout("srv/1/41")
        .whiteout("srv/2")
        .dir("srv/3", 0o750)
        .opaque("srv/3")
        .file("srv/3/new", 0o644, b"alone")
        .whiteout("etc/motd")
        .hard_link("srv/bash", "usr/bin/bash")
        .hard_link("srv/passwd", "etc/passwd")
        .hard_link("srv/another", "srv/4/4")
        .file("usr/bin/ls", 0o755, b"replaced")
        .symlink("etc/hostname", "motd");
    all_equal(&samples::of_layers("real", &[fs::read(tar.path())?, small.finish(), top.finish()]))
}

fn huge() -> Sample {
    samples::of_layers("huge", &[samples::huge_file()])
}

/// A directory that becomes a link, and links to what a lower layer has.
fn marks() -> Sample {
    let below = LayerBuilder::new()
        .dir("./", 0o755)
        .dir("a", 0o755)
        .file("a/f", 0o644, b"below")
        .dir("b", 0o711)
        .file("b/g", 0o600, b"linked")
        .char_device("b/device", 0o666, 4095, 255)
        .dir("c", 0o755)
        .file("c/h", 0o644, b"hidden");
    let above = LayerBuilder::new()
        .dir("./", 0o755)
        .whiteout("a/f")
        .symlink("a", "/b")
        .opaque("c")
        .file("c/i", 0o644, b"above")
        .hard_link("link", "b/g")
        .hard_link("again", "link");
    samples::of_layers("marks", &[below.finish(), above.finish()])
}

/// Makes every form of an image, and compares what each shows with what umoci unpacks.
fn all_equal(sample: &Sample) -> Verdict {
    let folder = tempfile::tempdir()?;
    let layout = folder.path().join("layout");
    samples::write_layout(&layout, &[("1".to_owned(), sample)])?;
    let bundle = folder.path().join("bundle");
    Run::new("umoci")
        .args(["unpack", "--image", &format!("{}:1", layout.display())])
        .arg(&bundle)
        .success()?;
    let expected = unpacked(&bundle.join("rootfs"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let store = runtime.block_on(Images::open(folder.path().join("store")))?;
    let options = PullOptions { platform: "linux/amd64".parse()?, ..PullOptions::default() };
    let image = runtime.block_on(store.pull(&format!("oci:{}:1", layout.display()), options))?;
    // Of the blobs, and below of the files that are made of them.
    let tar = runtime.block_on(exported(&store, &image, &expected))?;
    let formats = Materializers::linked()?;
    for (format, options, look) in FORMS {
        let of = Options::parse(options.iter().copied())?;
        let rootfs = Rootfs::named(format, &of, &formats)?;
        let out = folder.path().join("out");
        let disks = runtime.block_on(store.materialize(&image, &rootfs, &out))?;
        let found = shown(*look, &disks, folder.path())?;
        let compared = match look {
            Look::Layers => equal_overlaid(&found, &expected, &disks),
            _ => equal(&found, &expected),
        };
        compared.map_err(|text| Failure::new(format!("{format} {options:?}: {text}")))?;
        fs::remove_dir_all(&out)?;
    }
    assert!(tar == runtime.block_on(exported(&store, &image, &expected))?, "two tars of one image");
    Ok(())
}

/// The image as one tar, which GNU tar unpacks to what umoci unpacks.
async fn exported(store: &Images, image: &PulledImage, expected: &[TreeLine]) -> Result<Vec<u8>, Failure> {
    let folder = TempDir::new()?;
    let (tar, root) = (folder.path().join("rootfs.tar"), folder.path().join("root"));
    store.export_to(image, &FlatOptions::default(), &tar, FileOptions::default()).await?;
    fs::create_dir(&root)?;
    let options = ["--numeric-owner", "--same-permissions", "--xattrs", "--xattrs-include=*", "-x", "-f"];
    Run::new("tar").args(options).arg(&tar).arg("-C").arg(&root).success()?;
    equal(&unpacked(&root)?, expected).map_err(|text| Failure::new(format!("the flattened tar: {text}")))?;
    Ok(fs::read(&tar)?)
}

/// What umoci has unpacked, with the numbers of links that a file system counts by itself.
fn unpacked(root: &Path) -> Result<Vec<TreeLine>, Failure> {
    let mut lines = mounted(root)?;
    let mut below: HashMap<String, u32> = HashMap::new();
    for line in lines.iter().filter(|line| line.what == "dir" && line.path != "/") {
        let parent = line.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        *below.entry(if parent.is_empty() { "/" } else { parent }.to_owned()).or_default() += 1;
    }
    for line in lines.iter_mut().filter(|line| line.what == "dir") {
        line.links = 2 + below.get(&line.path).copied().unwrap_or_default();
    }
    Ok(lines)
}

fn shown(look: Look, disks: &Disks, scratch: &Path) -> Result<Vec<TreeLine>, Failure> {
    match look {
        Look::Disk if disks.ext4.is_some() => {
            let mount = Mount::new("ext4", only(disks)?, "loop,ro")?;
            let mut lines = mounted(mount.path())?;
            // The one directory that is e2fsck's.
            lines.retain(|line| line.path != "/lost+found");
            lines[0].links -= 1;
            Ok(lines)
        }
        Look::Disk => looked_at(&Mount::new("erofs", only(disks)?, "loop,ro")?),
        Look::Layers => {
            let (empty, copies) = (TempDir::new()?, TempDir::new()?);
            let mut inodes = BTreeSet::new();
            let mounts = disks.layers.iter().enumerate().map(|(number, layer)| {
                if inodes.insert(fs::metadata(layer)?.ino()) {
                    return Mount::new("erofs", layer, "loop,ro");
                }
                // Overlayfs takes no file system twice, and a layer that is repeated is one file of two names.
                let copy = copies.path().join(number.to_string());
                fs::copy(layer, &copy)?;
                Mount::new("erofs", &copy, "loop,ro")
            });
            let mounts = mounts.collect::<Result<Vec<_>, Failure>>()?;
            // A single lower without an upper is no overlay to the kernel.
            let lowers: Vec<_> = mounts.iter().rev().map(Mount::path).chain([empty.path()]).collect();
            let lowers: Vec<_> = lowers.iter().map(|lower| lower.display().to_string()).collect();
            let options = format!("ro,metacopy=on,redirect_dir=follow,lowerdir={}", lowers.join(":"));
            looked_at(&Mount::new("overlay", "overlay", &options)?)
        }
        Look::Merged => {
            let devices = disks.layers.iter().map(|layer| LoopDevice::new(layer));
            let devices = devices.collect::<Result<Vec<_>, _>>()?;
            let merged = disks.merged.as_ref().ok_or_else(|| Failure::new("no merged image"))?;
            looked_at(&Mount::new(
                "erofs",
                merged,
                &with_devices("loop,ro", devices.iter().map(|d| d.path().to_owned())),
            )?)
        }
        Look::Partitions => partitions(only(disks)?),
        Look::Vmdk | Look::VmdkPartitions => {
            let raw = scratch.join("converted");
            let vmdk =
                disks.paths().find(|path| path.extension().is_some_and(|extension| extension == "vmdk"));
            let vmdk = vmdk.ok_or_else(|| Failure::new("no VMDK"))?;
            let convert = Run::new("qemu-img").args(["convert", "-f", "vmdk", "-O", "raw"]);
            convert.arg(vmdk).arg(&raw).success()?;
            let found = match look {
                Look::VmdkPartitions => partitions(&raw),
                _ => looked_at(&Mount::new("erofs", &raw, "loop,ro")?),
            };
            fs::remove_file(raw)?;
            found
        }
    }
}

fn partitions(disk: &Path) -> Result<Vec<TreeLine>, Failure> {
    let device = LoopDevice::with_partitions(disk)?;
    let layers = (2..).map(|number| device.partition(number)).take_while(|path| path.exists());
    looked_at(&Mount::new("erofs", device.partition(1), &with_devices("ro", layers))?)
}

fn only(disks: &Disks) -> Result<&Path, Failure> {
    match disks.files.as_slice() {
        [file] => Ok(&file.path),
        files => Err(Failure::new(format!("{} files", files.len()))),
    }
}

fn with_devices(options: &str, devices: impl Iterator<Item = PathBuf>) -> String {
    devices.fold(options.to_owned(), |options, device| options + ",device=" + &device.display().to_string())
}

fn looked_at(mount: &Mount) -> Result<Vec<TreeLine>, Failure> {
    Ok(mounted(mount.path())?)
}

/// Compares what overlayfs shows: it counts names of its own, and shows as another file what is a link across layers. What
/// it shows otherwise is what the set has told.
fn equal_overlaid(found: &[TreeLine], expected: &[TreeLine], disks: &Disks) -> Result<(), String> {
    let told = &disks.overlay_differences;
    let paths: BTreeSet<String> = told.examples.iter().map(|told| told.path.to_string()).collect();
    if paths.len() as u64 != told.count {
        return Err(format!("{} differences are told", told.count));
    }
    let comparable = |lines: &[TreeLine]| -> Vec<TreeLine> {
        let kinds: HashMap<_, _> = lines.iter().map(|line| (&line.path, &line.what)).collect();
        let lines = lines.iter().filter(|line| !paths.contains(&line.path));
        let comparable = lines.map(|line| {
            let first = line.what.strip_prefix("= ").map(str::to_owned);
            let what = first.map_or(&line.what, |first| kinds[&first]).clone();
            TreeLine { what, links: 0, ..line.clone() }
        });
        comparable.collect()
    };
    equal(&comparable(found), &comparable(expected))
}

/// Compares two trees entry by entry: names, kinds, modes, owners, times, devices, attributes, content, and which names
/// are one file and how many it has.
fn equal(found: &[TreeLine], expected: &[TreeLine]) -> Result<(), String> {
    let mut differences = String::new();
    let compared = found.iter().zip(expected).filter(|(found, expected)| {
        // What no entry made has the time of the unpacking.
        let at_its_time = TreeLine { mtime: found.mtime, ..(*expected).clone() };
        found != expected && !(is_implied(found) && found.what == "dir" && **found == at_its_time)
    });
    for (found, expected) in compared.take(5) {
        let _ = write!(differences, "\n  {found}\n  where umoci has\n  {expected}");
    }
    if found.len() != expected.len() {
        let _ = write!(differences, "\n  {} names, and umoci has {}", found.len(), expected.len());
    }
    if differences.is_empty() { Ok(()) } else { Err(differences) }
}
