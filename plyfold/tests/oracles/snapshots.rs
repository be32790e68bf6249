//! Snapshots, as kernels, checkers and the tools of registries see them.

use std::fs;
use std::path::Path;

use plyfold::atomic_file::FileOptions;
use plyfold::{Disks, Rootfs, snapshot};
use plyfold_conformance::oracle::{Failure, PowerDisk, Run, Verdict, difference};

use super::Work;
use super::guide::Mounted;
use super::registry::DockerRegistry;

const PROGRAM: &str = env!("CARGO_BIN_EXE_plyfold");

/// The restored disks are the saved ones to the kernel, `e2fsck` and `qemu-img`, after a guest has written to them.
pub(crate) fn a_loaded_snapshot_is_what_was_saved() -> Verdict {
    let work = Work::new();
    for rootfs in [
        Rootfs::vmdk().upper(64 << 20),
        Rootfs::gpt().upper(64 << 20),
        Rootfs::erofs_layers().upper(64 << 20),
        Rootfs::erofs_flat().upper(64 << 20),
    ] {
        let place = tempfile::TempDir::new_in(work.dir.path())?.keep();
        let [folder, saved, loaded] = ["vm", "saved", "loaded"].map(|name| place.join(name));
        let vm = work.disks_at(&rootfs, &folder);
        written(&work, &vm)?;
        let loaded = block_on(async {
            snapshot::save(&folder, &saved, FileOptions::default()).await?;
            snapshot::load(&saved, &loaded, FileOptions::default()).await
        })?
        .1;
        let (old, new) = (upper(&vm)?, upper(&loaded)?);
        Run::new("e2fsck").arg("-fn").arg(new).success()?;
        Run::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw"]).args([old, new]).success()?;
        if let (Some(old), Some(new)) = (&vm.vmdk, &loaded.vmdk) {
            Run::new("qemu-img").args(["compare", "-f", "vmdk", "-F", "vmdk"]).args([old, new]).success()?;
        }
        let [old, new] = [Mounted::new(&work, &vm, "sh")?, Mounted::new(&work, &loaded, "sh")?];
        let found = difference(&old.root, &new.root, &[])?;
        assert_eq!(found.map(|found| format!("{found:?}")), None, "{}", new.script);
        assert_eq!(fs::read_to_string(new.root.join("etc/later"))?, "and later\n");
        assert!(!new.root.join("bin/hi").exists());
        old.unmount();
        new.unmount();
    }
    Ok(())
}

/// Mounts disks, and writes to them as a guest does; more in a second mount, so that the journal has been used.
fn written(work: &Work, disks: &Disks) -> Verdict {
    let mounted = Mounted::new(work, disks, "sh")?;
    fs::write(mounted.root.join("etc/motd"), "another day\n")?;
    fs::write(mounted.root.join("big"), vec![7; 3 << 20])?;
    fs::remove_file(mounted.root.join("bin/hi"))?;
    mounted.unmount();
    let mounted = Mounted::new(work, disks, "sh")?;
    fs::write(mounted.root.join("etc/later"), "and later\n")?;
    mounted.unmount();
    Ok(())
}

fn upper(disks: &Disks) -> Result<&Path, Failure> {
    disks.upper.as_deref().ok_or_else(|| Failure::new("there is no upper"))
}

fn block_on<T>(work: impl Future<Output = plyfold::Result<T>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(work)?)
}

/// The same bytes on file systems that share blocks, that do not, and that have no disk.
pub(crate) fn snapshots_are_the_same_on_every_file_system() -> Verdict {
    let work = Work::new();
    let vm = work.dir.path().join("vm");
    let disks = work.disks_at(&Rootfs::vmdk().upper(256 << 20), &vm);
    written(&work, &disks)?;
    let here = work.dir.path().join("here");
    Run::new(PROGRAM).args(["snapshot", "save"]).arg(&vm).arg("--out").arg(&here).success()?;
    let document = fs::read(here.join("snapshot.json"))?;
    for file_system in ["ext4", "xfs"] {
        let disk = PowerDisk::new(file_system, 1 << 30)?;
        let mounted = disk.mount()?;
        let at = |name: &str| mounted.path().join(name);
        for (from, to) in [(&here, at("vm-1")), (&at("saved"), at("vm-2"))] {
            Run::new(PROGRAM).args(["snapshot", "load"]).arg(from).arg("--out").arg(&to).success()?;
            for file in &disks.files {
                let name = file.path.file_name().unwrap_or_default();
                assert!(
                    fs::read(&file.path)? == fs::read(to.join(name))?,
                    "{} on {file_system}",
                    name.display()
                );
            }
            let saved = at("saved");
            if !saved.exists() {
                Run::new(PROGRAM).args(["snapshot", "save"]).arg(&to).arg("--out").arg(&saved).success()?;
                assert!(fs::read(saved.join("snapshot.json"))? == document, "{file_system}");
            }
        }
        mounted.unmount()?;
    }
    Ok(())
}

/// skopeo copies the artifact between a layout and a registry, and what it has copied is loaded.
pub(crate) fn skopeo_carries_a_snapshot() -> Verdict {
    let work = Work::new();
    let vm = work.dir.path().join("vm");
    let disks = work.disks_at(&Rootfs::gpt().upper(64 << 20), &vm);
    let registry = DockerRegistry::start("", "")?;
    let plyfold = |arguments: &[&str]| {
        let store = work.dir.path().join("store");
        Run::new(PROGRAM).args(arguments).args(["-o", "plain-http=127.0.0.1"]).arg("--store").arg(store)
    };
    let pushed = format!("registry:{}/vm/state:1", registry.host());
    let said =
        plyfold(&["snapshot", "save", vm.to_str().unwrap_or_default(), &pushed, "--json"]).success()?;
    let saved: serde_json::Value = serde_json::from_str(&said.stdout)?;
    let remote = format!("docker://{}/vm/state", registry.host());
    let layout = format!("oci:{}:copied", work.dir.path().join("layout").display());
    let skopeo = Run::new("skopeo").args(["copy", "--preserve-digests", "--src-tls-verify=false"]);
    skopeo.arg(format!("{remote}:1")).arg(&layout).success()?;
    let skopeo = Run::new("skopeo").args(["copy", "--preserve-digests", "--dest-tls-verify=false"]);
    skopeo.arg(&layout).arg(format!("{remote}:2")).success()?;
    let raw = Run::new("skopeo").args(["inspect", "--raw", "--tls-verify=false"]).arg(format!("{remote}:2"));
    let digest = plyfold::digest::sha256(raw.success()?.stdout.as_bytes());
    assert_eq!(saved["digest"], digest.as_ref());
    for (number, from) in [layout, format!("{}/vm/state:2", registry.host())].iter().enumerate() {
        let store = work.dir.path().join(format!("store-{number}"));
        let out = work.dir.path().join(format!("loaded-{number}"));
        let load =
            Run::new(PROGRAM).args(["snapshot", "load", from, "-o", "plain-http=127.0.0.1", "--store"]);
        let load =
            if number == 0 { Run::new(PROGRAM).args(["snapshot", "load", from, "--store"]) } else { load };
        load.arg(store).arg("--out").arg(&out).success()?;
        for file in &disks.files {
            let name = file.path.file_name().unwrap_or_default();
            assert!(fs::read(&file.path)? == fs::read(out.join(name))?, "{} from {from}", name.display());
        }
    }
    Ok(())
}
