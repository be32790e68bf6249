//! A Docker daemon without containerd's image store: what it loads of ours and runs, and what it gives back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plyfold_archive::{Daemon, DaemonConfig, DaemonFault, TarImage};
use plyfold_conformance::fixtures::Memory;
use plyfold_conformance::oracle::{Captured, Failure, Run, Verdict};
use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_conformance::{Fixture as _, FixtureImage};
use plyfold_core::blocking::blocking;
use plyfold_core::edit::ConfigChange;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::save::{ArchiveForm, Contents, SaveImage, SaveOptions};
use plyfold_core::{
    CopyOptions, Digest, Error, ImageRegistry, ImageRegistryExt as _, ImageSource as _, ImageSourceExt as _,
    Opened, Platform, Reference, copy, reference,
};
use tempfile::TempDir;

use super::block;

const NAME: &str = "registry.example/org/app:1.2";

/// A daemon with a storage and a socket of its own, and no network. It ends with this.
struct Dockerd {
    child: Child,
    folder: TempDir,
}

impl Dockerd {
    fn start() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let log = at("log");
        let child = Command::new("sh")
            .args(["-c", r#"PATH=$PATH:/usr/sbin:/sbin exec dockerd "$@""#, "dockerd"])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args(["--host", &format!("unix://{}", at("docker.sock")), "--storage-driver=vfs"])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut started = Self { child, folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !started.docker(["version"]).output()?.status.success() {
            if started.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(Failure::new(format!("it does not start: {}", fs::read_to_string(&log)?)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(started)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Its client.
    fn docker<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Run {
        let host = format!("unix://{}", self.socket().display());
        Run::new("docker").env("HOME", self.folder.path()).args(["--host", &host]).args(arguments)
    }

    fn said<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String, Failure> {
        let Captured { stdout, .. } = self.docker(arguments).success()?;
        Ok(stdout.trim().to_owned())
    }

    fn id(&self, name: &str) -> Result<String, Failure> {
        self.said(["image", "inspect", "--format", "{{.Id}}", name])
    }

    fn backend(&self) -> Result<Daemon, Error> {
        Daemon::new(&DaemonConfig { socket: Some(self.socket()), ..DaemonConfig::default() })
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let asked = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        let deadline = Instant::now() + Duration::from_secs(30);
        while asked == Some(Ok(())) && Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A root file system of one static program, which says so when it runs; and an image of it.
fn program(folder: &Path) -> Result<(TarImage, Reference), Failure> {
    let (code, binary, tar) = (folder.join("said.c"), folder.join("said"), folder.join("rootfs.tar.gz"));
    fs::write(
        &code,
        "#include <stdio.h>\nint main(int n, char **of) { printf(\"ran %s\\n\", of[n - 1]); return 0; }\n",
    )?;
    Run::new("cc").args(["-static", "-o"]).arg(&binary).arg(&code).success()?;
    let layer = LayerBuilder::new().dir("bin", 0o755).file("bin/said", 0o755, &fs::read(&binary)?).finish();
    fs::write(&tar, samples::gzip(&[&layer]))?;
    let change = ConfigChange {
        entrypoint: Some(vec!["/bin/said".to_owned()]),
        cmd: Some(vec!["nothing".to_owned()]),
        ..ConfigChange::default()
    };
    let name = reference::parse(NAME)?;
    Ok((TarImage::new(tar, &Platform::host(), change)?.named(name.clone()), name))
}

async fn stored(sample: &Sample) -> Box<dyn ImageRegistry> {
    Memory.open(&[FixtureImage::new(NAME, sample)]).await.registry.clone()
}

/// The ID of an image that came from this machine's platform.
fn id_of(sample: &Sample) -> Digest {
    let far = |image: &&samples::SampleImage| {
        let offered: Option<Platform> = image.platform.parse().ok();
        offered.and_then(|offered| Platform::host().distance(&offered)).unwrap_or(u8::MAX)
    };
    let nearest = sample.images.iter().min_by_key(far);
    nearest.expect("a sample has an image").config.digest().clone()
}

async fn written(registry: Box<dyn ImageRegistry>, path: &Path, form: ArchiveForm) -> Result<(), Error> {
    let image = SaveImage::new(registry, reference::parse(NAME)?);
    let platforms = if form == ArchiveForm::Docker { vec![Platform::host()] } else { Vec::new() };
    let options = SaveOptions { form, platforms, ..SaveOptions::default() };
    let contents = Contents::of(vec![image], &options).await?;
    let path = path.to_owned();
    blocking(move |stop| {
        let mut file = File::create(path).map_err(|e| Error::io("making a file", e))?;
        contents.write(&mut file, stop)
    })
    .await
}

pub(crate) fn docker_loads_and_runs_what_is_saved() -> Verdict {
    let daemon = Dockerd::start()?;
    let folder = TempDir::new()?;
    let path = folder.path().join("saved.tar");
    let load = ["load", "--quiet", "--input"];
    for form in [ArchiveForm::Oci, ArchiveForm::Docker] {
        for sample in [samples::image(), samples::docker_image(), samples::uncompressed(), samples::index()] {
            block(async { written(stored(&sample).await, &path, form).await })??;
            daemon.docker(load).arg(&path).success()?;
            assert_eq!(daemon.id(NAME)?, id_of(&sample).as_ref(), "{} as {form:?}", sample.name);
        }
        let (image, _) = program(folder.path())?;
        block(written(Box::new(image), &path, form))??;
        daemon.docker(load).arg(&path).success()?;
        let run = ["run", "--rm", "--network", "none", NAME];
        assert_eq!(daemon.said(run)?, "ran nothing", "{form:?}");
        assert_eq!(daemon.said(run.into_iter().chain(["a b"]))?, "ran a b", "{form:?}");
    }
    Ok(())
}

pub(crate) fn a_docker_daemon_takes_and_gives_images() -> Verdict {
    let daemon = Dockerd::start()?;
    let folder = TempDir::new()?;
    let backend = daemon.backend()?;
    let name = reference::parse(NAME)?;
    for sample in [samples::image(), samples::index(), samples::docker_image(), samples::uncompressed()] {
        block(async {
            copy(&*stored(&sample).await, &name, &backend, &name, &CopyOptions::default()).await
        })??;
        assert_eq!(daemon.id(NAME)?, id_of(&sample).as_ref(), "{}", sample.name);
        let config = block(config_of(&backend, &name))??;
        assert_eq!(*config.descriptor().digest(), id_of(&sample), "{}", sample.name);
    }
    // This daemon reads no zstd.
    let path = folder.path().join("other.tar.zst");
    let layer = LayerBuilder::new().file("other", 0o644, b"a layer that the daemon does not have").finish();
    fs::write(&path, samples::zstd(&[&layer]))?;
    let image = TarImage::new(path, &Platform::host(), ConfigChange::default())?.named(name.clone());
    let refused = block(copy(&image, &name, &backend, &name, &CopyOptions::default()))?;
    let refused = refused.expect_err("Docker 20.10 has no zstd");
    assert!(matches!(refused.detail(), Some(DaemonFault::Zstd(_))), "{refused}");
    let backend = daemon.backend()?;
    let (image, _) = program(folder.path())?;
    block(copy(&image, &name, &backend, &name, &CopyOptions::default()))??;
    assert_eq!(daemon.said(["run", "--rm", "--network", "none", NAME, "here"])?, "ran here");
    // What Docker itself has made, with its layers, by a name and without one.
    let tar = folder.path().join("plain.tar");
    fs::write(&tar, LayerBuilder::new().file("f", 0o644, b"content").finish())?;
    let tar = tar.display().to_string();
    let import = daemon.said(["import", "--change", "ENV A=1", &tar, "local/made:1"])?;
    let nameless = daemon.said(["import", "--change", "ENV A=2", &tar])?;
    let made = reference::parse("local/made:1")?;
    for (backend, id) in
        [(daemon.backend()?, &import), (daemon.backend()?.of_image(&nameless.parse()?), &nameless)]
    {
        let opened = Opened { registry: Box::new(backend), reference: None };
        let named = if *id == import { made.clone() } else { block(opened.reference())?? };
        let config = block(config_of(&opened.registry, &named))??;
        assert_eq!(config.descriptor().digest().as_ref(), *id);
    }
    let all = Opened { registry: Box::new(daemon.backend()?), reference: None };
    assert_eq!(block(all.references())??, [made, name]);
    Ok(())
}

/// The configuration of the image for this machine, whose layers are what it says.
async fn config_of(
    from: &(impl ImageRegistry + Clone),
    name: &Reference,
) -> Result<plyfold_core::RawConfig, Error> {
    let memory = MemoryRegistry::new("out");
    copy(from, name, &memory, name, &CopyOptions::default()).await?;
    let image = memory.image(name, &Platform::host()).await?;
    for index in 0..image.raw().image()?.layers().len() {
        let mut layer = image.layer_tar(index).await?;
        blocking(move |_| layer.finish().map(drop)).await?;
    }
    image.config().await
}
