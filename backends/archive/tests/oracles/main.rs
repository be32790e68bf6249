//! Archives that skopeo and podman write, read by us, and archives by us, read by others.

use std::path::Path;

use plyfold_archive::Archive;
use plyfold_conformance::oracle::{Failure, Need, Run, Verdict};
use plyfold_conformance::oracle_tests;
use plyfold_conformance::samples::{self, Sample};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Backends, CacheProviderExt as _, Digest, ImageSource as _, ImageSourceExt as _, Opened, Options,
    PullOptions, pull,
};
use tempfile::TempDir;

mod dockerd;
mod pushed;
mod saved;

use dockerd::{a_docker_daemon_takes_and_gives_images, docker_loads_and_runs_what_is_saved};
use pushed::{
    crane_finds_no_fault_in_what_is_pushed, podman_loads_what_is_pushed, skopeo_reads_what_is_pushed,
    umoci_unpacks_what_is_pushed,
};
use saved::{
    crane_finds_no_fault_in_what_is_saved, podman_loads_what_is_saved, skopeo_copies_a_saved_index,
    skopeo_reads_what_is_saved, umoci_unpacks_what_is_saved,
};

oracle_tests! {
    skopeo_writes_an_oci_archive needs [Need::SKOPEO];
    skopeo_writes_a_docker_archive needs [Need::SKOPEO, Need::Tool { name: "gzip", package: "gzip" }];
    skopeo_writes_several_names needs [Need::SKOPEO];
    podman_saves_both_forms needs [PODMAN, Need::SKOPEO];
    skopeo_reads_what_is_saved needs [Need::SKOPEO];
    skopeo_copies_a_saved_index needs [Need::SKOPEO];
    podman_loads_what_is_saved needs [PODMAN];
    umoci_unpacks_what_is_saved needs [Need::UMOCI, Need::GNU_TAR];
    crane_finds_no_fault_in_what_is_saved needs [Need::CRANE];
    skopeo_reads_what_is_pushed needs [Need::SKOPEO];
    podman_loads_what_is_pushed needs [PODMAN];
    umoci_unpacks_what_is_pushed needs [Need::UMOCI, Need::GNU_TAR];
    crane_finds_no_fault_in_what_is_pushed needs [Need::CRANE];
    docker_loads_and_runs_what_is_saved needs [Need::DOCKER, Need::DOCKERD, Need::Mounts, Need::CC];
    a_docker_daemon_takes_and_gives_images needs [Need::DOCKER, Need::DOCKERD, Need::Mounts, Need::CC];
}

const PODMAN: Need = Need::Tool { name: "podman", package: "podman" };
const FULL: &str = "registry.example/library/app:1.2";

fn block<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work))
}

/// A layout with the sample, made without any code of ours that is judged here.
fn source(folder: &Path, sample: &Sample) -> Result<String, Failure> {
    let path = folder.join("source");
    samples::write_layout(&path, &[(FULL.to_owned(), sample)])?;
    Ok(format!("oci:{}:{FULL}", path.display()))
}

async fn open(uri: &str) -> plyfold_core::Result<Opened> {
    // Test binaries keep link-time entries only of crates that they mention.
    let _ = Archive::new("", plyfold_archive::Config::default());
    Backends::linked()?.open(uri, &Options::default()).await
}

/// Pulls the only image of an archive into memory, and reads its layers, which must be the sample's; its id.
fn pulled(uri: &str, sample: &Sample) -> Result<Digest, Failure> {
    let image = sample.image_for("linux/amd64");
    block(async {
        let opened = open(uri).await?;
        let reference = opened.reference().await?;
        let cache = MemoryCache::new()?;
        let options = PullOptions { platform: "linux/amd64".parse()?, ..PullOptions::default() };
        pull(&*opened.registry, &reference, &cache, &options).await?;
        let source = cache.new_source(&reference, &options.platform).await?;
        let config = source.config().await?;
        let diff_ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        assert_eq!(config.diff_ids()?, diff_ids, "{uri}");
        for index in 0..source.raw().image()?.layers().len() {
            let mut layer = source.layer_tar(index).await?;
            let whole = tokio::task::spawn_blocking(move || layer.finish()).await;
            whole.map_err(|e| Failure::new(format!("a thread broke: {e}")))??;
        }
        Ok(config.descriptor().digest().clone())
    })?
}

/// As [`pulled`], and the image's id must be the sample's too.
fn same(uri: &str, sample: &Sample) -> Verdict {
    assert_eq!(
        pulled(uri, sample)?,
        *sample.image_for("linux/amd64").config.digest(),
        "{uri}: the image's id"
    );
    Ok(())
}

fn skopeo(from: &str, to: &str) -> Verdict {
    Run::new("skopeo").args(["copy", "--quiet", from, to]).success()?;
    Ok(())
}

fn skopeo_writes_an_oci_archive() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let from = source(folder.path(), &sample)?;
    for name in ["", ":v1", ":ghcr.io/o/app:2"] {
        let file = folder.path().join("image.tar");
        let uri = format!("oci-archive:{}{name}", file.display());
        skopeo(&from, &uri)?;
        same(&uri, &sample)?;
        same(&format!("oci-archive:{}", file.display()), &sample)?;
        std::fs::remove_file(file)?;
    }
    Ok(())
}

fn skopeo_writes_a_docker_archive() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let from = source(folder.path(), &sample)?;
    for name in ["", ":app:1", ":ghcr.io/o/app:2"] {
        let file = folder.path().join("image.tar");
        let uri = format!("docker-archive:{}{name}", file.display());
        skopeo(&from, &uri)?;
        same(&uri, &sample)?;
        let compressed = folder.path().join("image.tar.gz");
        Run::new("gzip").args(["--keep", "--force"]).arg(&file).success()?;
        same(&format!("docker-archive:{}{name}", compressed.display()), &sample)?;
        std::fs::remove_file(file)?;
    }
    Ok(())
}

fn skopeo_writes_several_names() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let from = source(folder.path(), &sample)?;
    let file = folder.path().join("image.tar");
    let uri = format!("docker-archive:{}", file.display());
    let more = ["--additional-tag", "app:2", "--additional-tag", "app:3"];
    let to = format!("{uri}:app:1");
    Run::new("skopeo").args(["copy", "--quiet"]).args(more).args([&from, &to]).success()?;
    let names = block(async { open(&uri).await?.references().await })??;
    let names: Vec<_> = names.iter().map(plyfold_core::Reference::whole).collect();
    assert_eq!(names, ["app:1", "app:2", "app:3"].map(|name| format!("docker.io/library/{name}")));
    Ok(())
}

fn podman_saves_both_forms() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let from = source(folder.path(), &sample)?;
    let [root, run] = ["root", "run"].map(|name| folder.path().join(name).display().to_string());
    let podman = || Run::new("podman").args(["--root", &root, "--runroot", &run, "--storage-driver", "vfs"]);
    let loaded = folder.path().join("loaded.tar");
    skopeo(&from, &format!("docker-archive:{}:ghcr.io/o/app:2", loaded.display()))?;
    podman().args(["load", "--quiet", "--input"]).arg(&loaded).success()?;
    for form in ["docker-archive", "oci-archive"] {
        let file = folder.path().join(format!("{form}.tar"));
        podman()
            .args(["save", "--quiet", "--format", form, "--output"])
            .arg(&file)
            .arg("ghcr.io/o/app:2")
            .success()?;
        // Its oci-archive has a config of its own making.
        pulled(&format!("{form}:{}:ghcr.io/o/app:2", file.display()), &sample)?;
    }
    Ok(())
}
