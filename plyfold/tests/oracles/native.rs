//! Images whose layers were made by mkfs.erofs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use plyfold::materializers::erofs::Summary;
use plyfold::{Disks, Images, PullOptions, Rootfs};
use plyfold_conformance::oracle::{Aspect, Failure, Mount, Run, Verdict};
use plyfold_conformance::samples::{self, Sample, write_layout};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

use super::Work;

const PLATFORM: &str = "linux(+erofs)/amd64";

/// Two folders as overlayfs stacks them, with what the upper one removes.
fn folders(at: &Path) -> Result<[std::path::PathBuf; 2], Failure> {
    let [lower, upper] = ["lower", "upper"].map(|name| at.join(name));
    for folder in ["etc", "old", "only-below"] {
        fs::create_dir_all(lower.join(folder))?;
    }
    fs::write(lower.join("etc/os-release"), "NAME=sample\n")?;
    fs::write(lower.join("etc/gone"), "gone")?;
    fs::hard_link(lower.join("etc/os-release"), lower.join("only-below/linked"))?;
    fs::write(lower.join("old/below"), "below")?;
    fs::write(lower.join("text"), "the words of a file, again and again. ".repeat(40_000))?;
    symlink("etc/os-release", lower.join("release"))?;
    setxattr(lower.join("text"), "user.note", b"value", XattrFlags::empty()).map_err(std::io::Error::from)?;
    for folder in ["etc", "old"] {
        fs::create_dir_all(upper.join(folder))?;
    }
    let mode = Mode::from_raw_mode(0);
    mknodat(CWD, upper.join("etc/gone"), FileType::CharacterDevice, mode, makedev(0, 0))
        .map_err(std::io::Error::from)?;
    fs::write(upper.join("etc/new"), "new ".repeat(3000))?;
    fs::write(upper.join("old/above"), "above")?;
    for (folder, name, value) in
        [("old", "trusted.overlay.opaque", &b"y"[..]), ("etc", "trusted.overlay.origin", b"")]
    {
        setxattr(upper.join(folder), name, value, XattrFlags::empty()).map_err(std::io::Error::from)?;
    }
    Ok([lower, upper])
}

/// The image of these layers in a layout at `at`, pulled into the store of the work.
async fn pulled(
    work: &Work,
    at: &Path,
    sample: &Sample,
    rootfs: &Rootfs,
    out: &str,
) -> plyfold::Result<Disks> {
    // Names of the store are kept where they are there.
    let name = format!("a.example/{}:1", at.file_name().unwrap_or_default().display());
    write_layout(at, &[(name.clone(), sample)]).map_err(|e| plyfold::Error::io("writing a layout", e))?;
    let images = Images::open(work.dir.path().join("store")).await?;
    let options = PullOptions { platform: PLATFORM.parse()?, ..PullOptions::default() };
    let image = images.pull(&format!("oci:{}:{name}", at.display()), options).await?;
    images.materialize(&image, rootfs, &work.dir.path().join(out)).await
}

/// They are mounted as they were made, and show what overlayfs shows of the folders that they were made of; so does every
/// image that is made of them.
pub(crate) fn layers_of_mkfs_are_used_as_they_are() -> Verdict {
    let work = Work::new();
    let dir = work.dir.path();
    let [lower, upper] = folders(dir)?;
    let expected = Mount::overlay(&[&upper, &lower], None)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let plain = ["-Enoinline_data"];
    for (case, arguments) in [
        ("merged", [&plain[..], &plain]),
        ("inline", [&[][..], &[]]),
        ("compressed", [&["-zlz4hc"][..], &["-zlz4", "-Eztailpacking"]]),
    ] {
        let mut images = Vec::new();
        for (folder, arguments) in [&lower, &upper].into_iter().zip(arguments) {
            let image = dir.join(format!("{case}-{}.erofs", images.len()));
            Run::new("mkfs.erofs").args(arguments).args([&image, folder]).success()?;
            images.push(fs::read(image)?);
        }
        let sample = samples::native_layers(&[], &images);
        let layout = dir.join(format!("{case}-layout"));
        let make = |rootfs: Rootfs, form: &str| {
            runtime.block_on(pulled(&work, &layout, &sample, &rootfs, &format!("{case}-{form}")))
        };
        let overlay = [Aspect::Links, Aspect::HardLinks];
        let layers = make(Rootfs::erofs_layers(), "layers")?;
        for (path, image) in layers.layers.iter().zip(&images) {
            assert!(fs::read(path)? == *image, "{case}");
            Run::new("fsck.erofs").arg(path).success()?;
        }
        work.shows(&layers, expected.path(), &overlay)?;
        work.shows(&make(Rootfs::erofs_layers().upper(64 << 20), "upper")?, expected.path(), &overlay)?;
        work.shows(&make(Rootfs::erofs_flat(), "flat")?, expected.path(), &overlay)?;
        let merged = make(Rootfs::erofs_merged(), "merged");
        if case == "merged" {
            work.shows(&merged?, expected.path(), &overlay)?;
        } else {
            let kinds = [plyfold::ErrorKind::Config, plyfold::ErrorKind::Unsupported];
            assert!(kinds.contains(merged.unwrap_err().kind()), "{case}");
            let summary = Summary::read(fs::File::open(&layers.layers[0])?)?;
            assert!(summary.block_size == 4096, "{summary:?}");
        }
    }
    expected.unmount()
}

/// Copies of others keep the layers, their types and the platform.
pub(crate) fn skopeo_copies_native_layers() -> Verdict {
    let work = Work::new();
    let sample = samples::native_layers(&[], &[vec![1; 5000], vec![2; 9000]]);
    let [layout, copied] = ["layout", "copied"].map(|name| work.dir.path().join(name));
    write_layout(&layout, &[("a.example/app:1".to_owned(), &sample)])?;
    let (from, to) =
        (format!("oci:{}:a.example/app:1", layout.display()), format!("oci:{}:1", copied.display()));
    Run::new("skopeo").args(["copy", "--all", &from, &to]).success()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let image = runtime.block_on(async {
        let images = Images::open(work.dir.path().join("store")).await?;
        images.pull(&to, PullOptions { platform: PLATFORM.parse()?, ..PullOptions::default() }).await
    })?;
    let native = sample.image_for(PLATFORM);
    assert_eq!((&image.digest, &image.manifest), (sample.top.digest(), native.manifest.digest()));
    let program = env!("CARGO_BIN_EXE_plyfold");
    let (from, to) = (to, format!("oci:{}:1", work.dir.path().join("again").display()));
    Run::new(program).args(["copy", &from, &to]).success()?;
    let shown = Run::new("skopeo").args(["inspect", "--raw", &to]).success()?;
    assert_eq!(shown.stdout.as_bytes(), sample.top_bytes());
    Ok(())
}
