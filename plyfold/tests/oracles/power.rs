//! What is written outside of a store, through power cuts.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plyfold_conformance::oracle::{Aspect, Failure, PowerDisk, Run, Verdict, difference};
use tempfile::TempDir;

use super::{sample_uri, tar_of_sample};

/// How many power cuts each file system gets; a few when it is not set.
const ROUNDS: &str = "PLYFOLD_POWER_CUTS";
const FEW: u32 = 4;

pub(crate) fn a_set_is_whole_after_a_power_cut_on_ext4() -> Verdict {
    sets("ext4", false)
}

pub(crate) fn a_set_is_whole_after_a_power_cut_on_xfs() -> Verdict {
    sets("xfs", false)
}

/// What shows that these tests can fail.
pub(crate) fn a_set_that_nobody_waits_for_is_lost() -> Verdict {
    for file_system in ["ext4", "xfs"] {
        match sets(file_system, true) {
            Err(lost) if format!("{lost:?}").contains("is not whole") => {}
            Err(other) => return Err(other),
            Ok(()) => return Err(Failure::new(format!("nothing is lost on {file_system}"))),
        }
    }
    Ok(())
}

/// Cuts the power right after `materialize` has reported a success.
fn sets(file_system: &'static str, careless: bool) -> Verdict {
    let rounds = env::var(ROUNDS).ok().map_or(Ok(FEW), |text| text.parse::<u32>())?;
    let scene = Scene::new()?;
    let disk = PowerDisk::new(file_system, 1 << 30)?;
    let mounted = disk.mount()?;
    scene.pull(&mounted.path().join("store"))?;
    mounted.unmount()?;
    for round in 1..=rounds {
        let mounted = disk.mount()?;
        // Links or clones of what is on that disk, and copies of what is on another one.
        let store = if round % 2 == 0 { mounted.path().join("store") } else { scene.path("store") };
        // A new folder in new folders, and one with an older set.
        let name = if round % 4 < 2 { format!("{round}/new/out") } else { "out".to_owned() };
        let form = if round % 3 == 0 { "erofs-layers" } else { "vmdk" };
        let make = scene.materialize(&store, form).arg(mounted.path().join(&name));
        let make = if careless { make.arg("--no-sync") } else { make };
        make.success()?;
        PowerDisk::cut(&mounted)?;
        mounted.unmount()?;
        let mounted = disk.mount()?;
        let found = differs(&scene.path(form), &mounted.path().join(&name))?;
        if let Some(found) = found {
            return Err(Failure::new(format!(
                "round {round} on {file_system}: {name} is not whole: {found}"
            )));
        }
        mounted.unmount()?;
    }
    writeln!(std::io::stderr(), "{file_system}: {rounds} power cuts after a success, {rounds} whole sets")?;
    Ok(())
}

/// Cuts the power anywhere while one set takes the place of another.
pub(crate) fn a_set_is_old_or_new_after_a_power_cut() -> Verdict {
    let rounds = env::var(ROUNDS).ok().map_or(Ok(FEW), |text| text.parse::<u32>())?;
    let scene = Scene::new()?;
    for file_system in ["ext4", "xfs"] {
        let disk = PowerDisk::new(file_system, 1 << 30)?;
        let mounted = disk.mount()?;
        let out = mounted.path().join("out");
        let start = Instant::now();
        scene.materialize(&scene.path("store"), "erofs-layers").arg(&out).success()?;
        let whole = start.elapsed();
        mounted.unmount()?;
        let (mut old, mut seen) = ("erofs-layers", [0, 0]);
        for round in 1..=rounds {
            let new = if old == "vmdk" { "erofs-layers" } else { "vmdk" };
            let mounted = disk.mount()?;
            let out = mounted.path().join("out");
            let mut worker = scene.spawn(new, &out)?;
            std::thread::sleep(whole.mul_f64(f64::from(round) / f64::from(rounds)));
            // A later success does not count: while XFS stops, an fsync of what is lost may succeed.
            let reported = worker.has_succeeded()?;
            PowerDisk::cut(&mounted)?;
            worker.finish()?;
            mounted.unmount()?;
            let mounted = disk.mount()?;
            let out = mounted.path().join("out");
            let is = |form: &str| Ok::<_, Failure>(differs(&scene.path(form), &out)?.is_none());
            let (is_old, is_new) = (is(old)?, is(new)?);
            if !is_new && (!is_old || reported) {
                let found = differs(&scene.path(old), &out)?;
                return Err(Failure::new(format!(
                    "round {round} on {file_system}: neither whole nor as before: {found:?}"
                )));
            }
            seen[usize::from(is_new)] += 1;
            old = if is_new { new } else { old };
            // What was cut off can be done again, and then nothing is left of it.
            scene.materialize(&scene.path("store"), old).arg(&out).success()?;
            let left: Vec<_> =
                fs::read_dir(mounted.path())?.map(|entry| entry.map(|e| e.file_name())).collect();
            assert_eq!(left.len(), if file_system == "ext4" { 2 } else { 1 }, "{left:?}");
            mounted.unmount()?;
        }
        writeln!(
            std::io::stderr(),
            "{file_system}: {rounds} power cuts, {} old sets, {} new ones",
            seen[0],
            seen[1]
        )?;
    }
    Ok(())
}

pub(crate) fn single_files_are_whole_after_a_power_cut() -> Verdict {
    let scene = Scene::new()?;
    let tar = scene.path("layer.tar");
    tar_of_sample(&tar)?;
    let tar = tar.display().to_string();
    let verbs: [&[&str]; 4] = [
        &["layer", &tar, "--out"],
        &["disk", "--size", "64M", "--out"],
        &["export", "localhost/sample", "--platform", "linux/amd64", "--out"],
        &["save", "localhost/sample", "--platform", "linux/amd64", "--out"],
    ];
    for file_system in ["ext4", "xfs"] {
        let disk = PowerDisk::new(file_system, 1 << 30)?;
        for (round, verb) in verbs.iter().chain(&verbs).enumerate() {
            let mounted = disk.mount()?;
            // Another file at first, then one in its place.
            let (name, expected) = (verb[0], scene.path(&format!("expected.{round}")));
            scene.plyfold(&scene.path("store")).args(*verb).arg(&expected).success()?;
            let make = scene.plyfold(&scene.path("store")).args(*verb);
            make.arg(mounted.path().join(name)).success()?;
            PowerDisk::cut(&mounted)?;
            mounted.unmount()?;
            let mounted = disk.mount()?;
            let is_whole = fs::read(mounted.path().join(name))
                .is_ok_and(|found| fs::read(&expected).is_ok_and(|wanted| found == wanted));
            assert!(is_whole, "round {round} on {file_system}: the file of {verb:?} is not whole");
            mounted.unmount()?;
        }
        hash_trees_are_whole(&scene, &disk, Path::new(&tar))?;
        archives_have_the_names_that_were_set(&scene, &disk)?;
    }
    Ok(())
}

/// An archive that gets an image, and one more: after each, it is what it is on a disk that has power.
fn archives_have_the_names_that_were_set(scene: &Scene, disk: &PowerDisk) -> Verdict {
    let expected = tempfile::tempdir()?;
    for tag in ["1", "2"] {
        let mounted = disk.mount()?;
        for folder in [expected.path(), mounted.path()] {
            let target = format!("oci-archive:{}:app:{tag}", folder.join("pushed.tar").display());
            let push = scene.plyfold(&scene.path("store")).args(["push", "localhost/sample", &target]);
            push.args(["--platform", "linux/amd64"]).success()?;
        }
        PowerDisk::cut(&mounted)?;
        mounted.unmount()?;
        let mounted = disk.mount()?;
        let wanted = fs::read(expected.path().join("pushed.tar"))?;
        let is_whole = fs::read(mounted.path().join("pushed.tar")).is_ok_and(|found| found == wanted);
        assert!(is_whole, "the archive has not what was pushed as {tag}");
        mounted.unmount()?;
    }
    Ok(())
}

/// A tree in a file of its own, and one behind the data in a file that is replaced.
fn hash_trees_are_whole(scene: &Scene, disk: &PowerDisk, tar: &Path) -> Verdict {
    let verity = |data: &Path| {
        let run = scene.plyfold(&scene.path("store")).arg("verity").arg(data).arg("--data-block-size=512");
        run.args(["--hash-block-size=512", "--json"])
    };
    let mounted = disk.mount()?;
    let (data, tree) = (mounted.path().join("data"), mounted.path().join("tree"));
    fs::copy(tar, &data)?;
    verity(&data).arg("--hash-tree").arg(&tree).success()?;
    let made = verity(&data).arg("--append").success()?.stdout;
    PowerDisk::cut(&mounted)?;
    mounted.unmount()?;
    let mounted = disk.mount()?;
    let made: serde_json::Value = serde_json::from_str(&made)?;
    let root = made["hash_tree"]["root_hash"].as_str().ok_or_else(|| Failure::new(&made))?;
    let (data, tree) = (mounted.path().join("data"), mounted.path().join("tree"));
    verity(&data).arg("--append").args(["--check", root]).success()?;
    verity(tar).arg("--hash-tree").arg(&tree).args(["--check", root]).success()?;
    mounted.unmount()?;
    Ok(())
}

/// Where two sets differ, apart from what depends on the file system.
fn differs(expected: &Path, out: &Path) -> Result<Option<String>, Failure> {
    if !out.is_dir() {
        return Ok(Some("there is no folder".to_owned()));
    }
    let ignored = [Aspect::DirectoryLinks, Aspect::HardLinks, Aspect::Links, Aspect::Mtime];
    Ok(difference(expected, out, &ignored)?.map(|found| found.to_string()))
}

/// A store with the sample on a disk that has power, and what is made of it there.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Result<Self, Failure> {
        let scene = Self { dir: tempfile::tempdir()? };
        scene.pull(&scene.path("store"))?;
        for form in ["erofs-layers", "vmdk"] {
            scene.materialize(&scene.path("store"), form).arg(scene.path(form)).success()?;
        }
        Ok(scene)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plyfold(&self, store: &Path) -> Run {
        Run::new(env!("CARGO_BIN_EXE_plyfold")).env("HOME", self.dir.path()).arg("--store").arg(store)
    }

    fn pull(&self, store: &Path) -> Verdict {
        self.plyfold(store).args(["pull", "--platform", "linux/amd64"]).arg(sample_uri()).success()?;
        Ok(())
    }

    /// The program, but for the folder to write to.
    fn materialize(&self, store: &Path, form: &str) -> Run {
        self.plyfold(store).args(materialize(form))
    }

    fn spawn(&self, form: &str, out: &Path) -> Result<Worker, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfold"));
        command.env("HOME", self.dir.path()).arg("--store").arg(self.path("store")).args(materialize(form));
        command.arg(out).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Worker(command.spawn()?))
    }
}

/// Layers have hash trees, and so files beside them, also in the store.
fn materialize(form: &str) -> Vec<&str> {
    let trees: &[&str] = if form == "erofs-layers" { &["-m", "verity=append"] } else { &[] };
    let platform = "linux/amd64";
    let line = ["materialize", "localhost/sample", "--platform", platform, "--as", form, "--upper", "64M"];
    [&line[..], trees, &["--out"]].concat()
}

/// The program at work.
struct Worker(Child);

impl Worker {
    /// Whether it has reported a success by now.
    fn has_succeeded(&mut self) -> Result<bool, Failure> {
        Ok(self.0.try_wait()?.is_some_and(|status| status.success()))
    }

    /// Waits until it has ended.
    fn finish(mut self) -> Verdict {
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if self.0.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(Failure::new("it does not end"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
