//! Layouts of other tools as stores, and the store in the hands of other tools.

use std::fs;
use std::path::{Path, PathBuf};

use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples;
use plyfold_conformance::server::FaultServer;
use plyfold_core::layout_index::image_in;
use plyfold_core::{
    CacheProvider as _, CacheProviderExt as _, NameChange, Platform, PullOptions, PullPolicy, Verify, pull,
};
use plyfold_erofs::ErofsLayer;
use plyfold_layout::Store;
use serde_json::Value;
use tempfile::TempDir;

use crate::{FULL, block, source, store};

/// The name that is given to an image of such a layout.
const ADDED: &str = "registry.example/added:1";
/// What is beside the layout's own files stays as it is, whatever plyfold does in it.
const FOREIGN: [&str; 3] = ["NOTES", "blobs/sha256/notes", "folder/file"];

/// Judges a layout of another tool: as a store it is listed, found, verified, and its image for this
/// machine becomes block devices without a network; what plyfold does not know in it stays.
fn is_a_store(path: &Path, tag: &str, platform: &str) -> Verdict {
    let (platform, name): (Platform, _) = (platform.parse()?, image_in(path, tag)?);
    for file in FOREIGN {
        fs::create_dir_all(path.join(file).parent().unwrap_or(path))?;
        fs::write(path.join(file), "theirs")?;
    }
    mark(path)?;
    let before = fields(path)?;
    let store = Store::open(path)?;
    let listed = block(store.list())??;
    assert!(listed.iter().any(|(listed, _)| *listed == name), "{name} is not in {listed:?}");
    let found = block(store.find_descriptor(&name))??;
    assert!(found.is_some(), "{name} is not found");
    let options = PullOptions {
        materializer: Some(Box::new(ErofsLayer::default())),
        platform,
        policy: PullPolicy::Never,
        ..PullOptions::default()
    };
    let pulled = block(pull(&store.as_registry(), &name, &store, &options))??;
    assert!(pulled.layers.iter().all(|layer| layer.artifact.is_some()), "{:?}", pulled.layers);
    let added = plyfold_core::reference::parse(ADDED)?;
    block(store.update(&[NameChange::Set(added, pulled.descriptor.clone())]))??;
    let verified = block(store.verify(&Verify { repair: true, ..Verify::default() }))??;
    assert_eq!(verified.damage, [], "{}", path.display());
    assert_eq!(fields(path)?, before);
    for file in FOREIGN {
        assert_eq!(fs::read(path.join(file))?, b"theirs", "{file}");
    }
    Ok(())
}

/// Gives `index.json`, its first entry and `oci-layout` an unknown field.
fn mark(path: &Path) -> Verdict {
    for file in ["index.json", "oci-layout"] {
        let path = path.join(file);
        let mut document: Value = serde_json::from_slice(&fs::read(&path)?)?;
        document["x-theirs"] = serde_json::json!({ "b": [1.5], "a": null });
        if let Some(first) = document["manifests"].get_mut(0) {
            first["x-theirs"] = "kept".into();
        }
        fs::write(&path, serde_json::to_vec(&document)?)?;
    }
    Ok(())
}

/// Everything that `index.json` and `oci-layout` say, apart from the name that is added here.
fn fields(path: &Path) -> Result<Vec<String>, Failure> {
    let mut fields = Vec::new();
    for file in ["index.json", "oci-layout"] {
        let mut document: Value = serde_json::from_slice(&fs::read(path.join(file))?)?;
        let mut entries = document["manifests"].take();
        fields.push(document.to_string());
        for entry in entries.as_array_mut().into_iter().flatten() {
            // The only image is called so, and beside another it is written down.
            if entry["annotations"] == serde_json::json!({ "org.opencontainers.image.ref.name": "latest" }) {
                entry["annotations"].take();
            }
            fields.push(entry.to_string().replace(r#""annotations":null,"#, ""));
        }
    }
    fields.retain(|field| !field.contains(ADDED));
    fields.sort();
    Ok(fields)
}

pub(crate) fn a_layout_by_skopeo_is_a_store() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let (from, path) = (source(folder.path(), &sample)?, folder.path().join("written"));
    Run::new("skopeo").args(["copy", "--quiet", &from, &format!("oci:{}:v1", path.display())]).success()?;
    is_a_store(&path, "v1", "linux/amd64")
}

pub(crate) fn a_layout_by_umoci_is_a_store() -> Verdict {
    let folder = TempDir::new()?;
    let path = folder.path().join("umoci");
    let image = format!("{}:fresh", path.display());
    fs::write(folder.path().join("file"), "content")?;
    Run::new("umoci").args(["init", "--layout"]).arg(&path).success()?;
    assert_eq!(block(Store::open(&path)?.list())??, [], "its list of nothing is null");
    Run::new("umoci").args(["new", "--image", &image]).success()?;
    let insert = Run::new("umoci").args(["insert", "--image", &image]).arg(folder.path().join("file"));
    insert.arg("/etc/file").success()?;
    is_a_store(&path, "fresh", &Platform::host().to_string())
}

/// podman with a storage of its own.
fn podman(folder: &Path) -> Run {
    let storage = |name: &str| folder.join(name).display().to_string();
    let (root, run) = (storage("podman"), storage("podman-run"));
    Run::new("podman").args(["--root", &root, "--runroot", &run, "--storage-driver", "vfs"])
}

pub(crate) fn podman_reads_the_store_and_its_layout_is_one() -> Verdict {
    // It makes a name out of the path, in which it takes no capital letter.
    let prefix = format!("plyfold-podman-{}", std::process::id());
    let (folder, sample) =
        (tempfile::Builder::new().prefix(&prefix).rand_bytes(0).tempdir()?, samples::image());
    let store = store(&folder.path().join("store"), &sample)?;
    let pulled =
        podman(folder.path()).args(["pull", "--quiet"]).arg(format!("oci:{}:{FULL}", store.path().display()));
    let id = pulled.success()?.stdout;
    assert_eq!(id.trim(), sample.images[0].config.digest().digest());
    let path = folder.path().join("saved");
    let save = podman(folder.path()).args(["save", "--quiet", "--format", "oci-dir", "-o"]).arg(&path);
    save.arg(id.trim()).success()?;
    is_a_store(&path, "latest", "linux/amd64")
}

/// The registry that tools fetch from.
fn origin() -> Result<(FaultServer, String), Failure> {
    let server = FaultServer::start()?;
    server.put("org/app", "1", &samples::index());
    let image = format!("{}/org/app:1", server.host());
    Ok((server, image))
}

pub(crate) fn layouts_by_crane_are_stores() -> Verdict {
    let (folder, (_server, image)) = (TempDir::new()?, origin()?);
    for (name, platform) in [("one", &["--platform", "linux/amd64"][..]), ("all", &[])] {
        let path = folder.path().join(name);
        Run::new("crane")
            .args(["pull", "--format", "oci", "--annotate-ref"])
            .args(platform)
            .arg(&image)
            .arg(&path)
            .success()?;
        let index: Value = serde_json::from_slice(&fs::read(path.join("index.json"))?)?;
        let said = &index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
        is_a_store(&path, said.as_str().unwrap_or("latest"), "linux/amd64")?;
        // Without a name it is the latest.
        let path = folder.path().join(format!("{name}-nameless"));
        Run::new("crane")
            .args(["pull", "--format", "oci"])
            .args(platform)
            .arg(&image)
            .arg(&path)
            .success()?;
        is_a_store(&path, "latest", "linux/amd64")?;
    }
    Ok(())
}

pub(crate) fn crane_reads_the_store() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let (store, server) = (store(&folder.path().join("store"), &sample)?, FaultServer::start()?);
    let target = format!("{}/org/pushed:1", server.host());
    Run::new("crane").args(["push", "--index"]).arg(store.path()).arg(&target).success()?;
    for blob in &sample.blobs {
        let pushed = server.content("org/pushed", blob.descriptor.digest());
        assert_eq!(pushed.as_ref(), Some(&blob.bytes), "{}", blob.descriptor.digest());
    }
    Ok(())
}

pub(crate) fn a_layout_by_oras_is_a_store() -> Verdict {
    let (folder, (_server, image)) = (TempDir::new()?, origin()?);
    let path = folder.path().join("oras");
    let copy = Run::new("oras").args(["copy", "--from-plain-http", "--to-oci-layout"]).arg(image);
    copy.arg(format!("{}:v1", path.display())).success()?;
    is_a_store(&path, "v1", "linux/amd64")
}

pub(crate) fn oras_reads_the_store() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let store = store(&folder.path().join("store"), &sample)?;
    let tags = Run::new("oras").args(["repo", "tags", "--oci-layout"]).arg(store.path()).success()?;
    assert_eq!(tags.stdout.trim(), FULL);
    let target: PathBuf = folder.path().join("copy");
    let copy = Run::new("oras").args(["copy", "--from-oci-layout", "--to-oci-layout"]);
    let from = format!("{}@{}", store.path().display(), sample.top.digest());
    copy.arg(from).arg(format!("{}:v1", target.display())).success()?;
    is_a_store(&target, "v1", "linux/amd64")
}

pub(crate) fn umoci_reads_the_store() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let store = store(&folder.path().join("store"), &sample)?;
    let listed = Run::new("umoci").args(["list", "--layout"]).arg(store.path()).success()?;
    assert_eq!(listed.stdout.trim(), FULL);
    let image = format!("{}:{FULL}", store.path().display());
    let bundle = folder.path().join("bundle");
    Run::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).success()?;
    assert!(fs::read_dir(bundle.join("rootfs"))?.next().is_some());
    Ok(())
}

pub(crate) fn a_layout_as_docker_saves_it_is_a_store() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let (archive, path) = (folder.path().join("saved.tar"), folder.path().join("docker"));
    fs::write(&archive, samples::hybrid_archive(&[(FULL.to_owned(), &sample)]))?;
    fs::create_dir(&path)?;
    Run::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&path).success()?;
    is_a_store(&path, FULL, "linux/amd64")?;
    assert!(path.join("manifest.json").exists());
    Ok(())
}
