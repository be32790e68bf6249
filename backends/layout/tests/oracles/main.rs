//! Layouts and directories of one image as skopeo and umoci see them, and the store on disks that refuse, in processes that die and through power
//! cuts.

mod directory;
mod durability;
mod interop;

use std::fs;
use std::path::Path;

use plyfold_conformance::oracle::{Failure, Mount, Need, Run, Verdict};
use plyfold_conformance::oracle_tests;
use plyfold_conformance::samples::{self, Sample};
use plyfold_core::layout_index::image_in;
use plyfold_core::{
    Blob, BlobRange, CacheProvider, CacheProviderExt as _, Descriptor, Error, ErrorKind, ImageRegistry as _,
    ImageRegistryExt as _, ImageSource as _, NameChange, Opened, PullOptions, digest, pull, reference,
};
use plyfold_layout::{Config, Layout, Store};
use tempfile::TempDir;

use directory::{directories_by_skopeo_are_read, podman_pulls_our_directories, skopeo_reads_our_directories};
use durability::Stores;
use interop::{
    a_layout_as_docker_saves_it_is_a_store, a_layout_by_oras_is_a_store, a_layout_by_skopeo_is_a_store,
    a_layout_by_umoci_is_a_store, crane_reads_the_store, layouts_by_crane_are_stores, oras_reads_the_store,
    podman_reads_the_store_and_its_layout_is_one, umoci_reads_the_store,
};

oracle_tests! {
    durability Stores;
    skopeo_writes_what_we_read needs [Need::SKOPEO];
    skopeo_reads_the_store needs [Need::SKOPEO];
    skopeo_reads_what_a_copy_made needs [Need::SKOPEO];
    directories_by_skopeo_are_read needs [Need::SKOPEO];
    skopeo_reads_our_directories needs [Need::SKOPEO];
    podman_pulls_our_directories needs [Need::PODMAN];
    umoci_writes_what_we_read needs [Need::UMOCI];
    umoci_reads_what_a_copy_made needs [Need::UMOCI];
    a_layout_as_docker_saves_it_is_a_store needs [Need::GNU_TAR];
    a_layout_by_skopeo_is_a_store needs [Need::SKOPEO];
    a_layout_by_umoci_is_a_store needs [Need::UMOCI];
    umoci_reads_the_store needs [Need::UMOCI];
    podman_reads_the_store_and_its_layout_is_one needs [Need::PODMAN];
    layouts_by_crane_are_stores needs [Need::CRANE];
    crane_reads_the_store needs [Need::CRANE];
    a_layout_by_oras_is_a_store needs [Need::ORAS];
    oras_reads_the_store needs [Need::ORAS];
    a_store_that_cannot_be_written_is_read needs [Need::Mounts];
}

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

/// Every blob of the amd64 image that a layout has under a name, read to its verified end.
async fn read_all(layout: &Layout, name: &str, place: &Path) -> Result<(), Error> {
    let image = layout.image(&image_in(place, name)?, &"linux/amd64".parse()?).await?;
    for blob in image.raw().references() {
        let mut blob = image.blob(&blob, BlobRange::FULL).await?;
        while blob.chunk().await?.is_some() {}
    }
    Ok(())
}

fn skopeo_writes_what_we_read() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let (from, path) = (source(folder.path(), &sample)?, folder.path().join("written"));
    for name in ["", ":v1", ":ghcr.io/o/app:2"] {
        let target = format!("oci:{}{name}", path.display());
        Run::new("skopeo").args(["copy", "--quiet", "--preserve-digests", &from, &target]).success()?;
        let chosen = name.strip_prefix(':').unwrap_or("latest");
        let layout = Layout::new(&path, Config::default());
        let raw = block(layout.manifest(&image_in(&path, chosen)?))??;
        assert_eq!(raw.digest(), sample.top.digest(), "{target}");
        block(read_all(&layout, chosen, &path))??;
        fs::remove_dir_all(&path)?;
    }
    Ok(())
}

/// A store with the sample, pulled.
fn store(path: &Path, sample: &Sample) -> Result<Store, Failure> {
    let origin = path.with_extension("origin");
    samples::write_layout(&origin, &[(FULL.to_owned(), sample)])?;
    let store = Store::open(path)?;
    let options = PullOptions { platform: "linux/amd64".parse()?, ..PullOptions::default() };
    let layout = Layout::new(origin, Config::default());
    block(pull(&layout, &reference::parse(FULL)?, &store, &options))??;
    Ok(store)
}

fn skopeo_reads_the_store() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    let store = store(&folder.path().join("store"), &sample)?;
    let name = format!("oci:{}:{FULL}", store.path().display());
    let raw = Run::new("skopeo").args(["inspect", "--raw", &name]).success()?;
    assert_eq!(raw.stdout.as_bytes(), &sample.top_bytes()[..]);
    let target = format!("oci:{}:copy", folder.path().join("copy").display());
    Run::new("skopeo").args(["copy", "--quiet", "--preserve-digests", &name, &target]).success()?;
    // It writes into the store too, and what was there stays.
    let beside = format!("oci:{}:beside", store.path().display());
    Run::new("skopeo").args(["copy", "--quiet", "--preserve-digests", &name, &beside]).success()?;
    let names = block(store.list())??;
    let names: Vec<_> = names.into_iter().map(|(name, _)| name.whole()).collect();
    assert_eq!(names, ["localhost/store:beside", FULL]);
    Ok(())
}

fn skopeo_reads_what_a_copy_made() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::index());
    source(folder.path(), &sample)?;
    let path = folder.path().join("copy");
    let (from, to) =
        (Layout::new(folder.path().join("source"), Config::default()), Layout::new(&path, Config::default()));
    let (image, target) = (reference::parse(FULL)?, image_in(&path, "v1")?);
    block(plyfold_core::copy(&from, &image, &to, &target, &plyfold_core::CopyOptions::default()))??;
    let raw =
        Run::new("skopeo").args(["inspect", "--raw", &format!("oci:{}:v1", path.display())]).success()?;
    assert_eq!(raw.stdout.as_bytes(), &sample.top_bytes()[..]);
    let all = format!("oci:{}:all", folder.path().join("all").display());
    let copy = ["copy", "--quiet", "--all", "--preserve-digests"];
    Run::new("skopeo").args(copy).arg(format!("oci:{}:v1", path.display())).arg(all).success()?;
    Ok(())
}

fn umoci_writes_what_we_read() -> Verdict {
    let folder = TempDir::new()?;
    let path = folder.path().join("umoci");
    Run::new("umoci").args(["init", "--layout"]).arg(&path).success()?;
    Run::new("umoci").args(["new", "--image", &format!("{}:fresh", path.display())]).success()?;
    let opened = Opened { registry: Box::new(Layout::new(&path, Config::default())), reference: None };
    let names = block(opened.references())??;
    assert_eq!(names, [image_in(&path, "fresh")?]);
    block(opened.registry.manifest(&names[0]))??;
    Ok(())
}

fn umoci_reads_what_a_copy_made() -> Verdict {
    let (folder, sample) = (TempDir::new()?, samples::image());
    source(folder.path(), &sample)?;
    let path = folder.path().join("copy");
    let (from, to) =
        (Layout::new(folder.path().join("source"), Config::default()), Layout::new(&path, Config::default()));
    let (image, target) = (reference::parse(FULL)?, image_in(&path, "v1")?);
    block(plyfold_core::copy(&from, &image, &to, &target, &plyfold_core::CopyOptions::default()))??;
    let listed = Run::new("umoci").args(["list", "--layout"]).arg(&path).success()?;
    assert_eq!(listed.stdout.trim(), "v1");
    let image = format!("{}:v1", path.display());
    Run::new("umoci").args(["stat", "--image", &image]).success()?;
    // Its own collection keeps the image, and our folders do not confuse it.
    Run::new("umoci").args(["gc", "--layout"]).arg(&path).success()?;
    block(read_all(&to, "v1", &path))??;
    Ok(())
}

fn content(size: usize) -> Result<(Descriptor, Blob), Failure> {
    let bytes = vec![7; size];
    let blob = Descriptor::new("application/octet-stream".into(), size as u64, digest::sha256(&bytes));
    Ok((blob.clone(), Blob::from_bytes(&blob, BlobRange::FULL, &bytes.into())?))
}

fn a_store_that_cannot_be_written_is_read() -> Verdict {
    let disk = Mount::new("tmpfs", "none", "size=16m")?;
    let sample = samples::image();
    let path = disk.path().join("store");
    drop(store(&path, &sample)?);
    Run::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).success()?;
    let store = Store::open(&path)?;
    let name = reference::parse(FULL)?;
    assert!(block(store.image_in_cache(&name, &"linux/amd64".parse()?))??);
    let set = NameChange::Set(reference::parse("other")?, sample.top.clone());
    let refused = block(store.update(&[set]))?.expect_err("the disk is read-only");
    assert_eq!(*refused.kind(), ErrorKind::Io, "{refused}");
    let refused = block(async { store.put(content(10)?.1).await.map_err(Failure::from) })?;
    assert!(refused.is_err());
    // It counts no free blocks, and is not full: a pull says what is the matter.
    assert_eq!(block(store.free())??, None);
    let origin = plyfold_core::memory::MemoryRegistry::new("origin");
    let other = samples::custom_fields();
    for blob in other.blobs.iter().filter(|blob| !blob.is_manifest()) {
        origin.insert_blob(&name, blob.descriptor.digest().clone(), blob.bytes.clone());
    }
    let top = &other.top;
    origin.insert_manifest(&name, top.media_type().clone(), top.digest(), other.top_bytes().clone());
    let options = PullOptions { platform: "linux/amd64".parse()?, force: true, ..PullOptions::default() };
    let refused = block(pull(&origin, &name, &store, &options))?.expect_err("the disk is read-only");
    let source =
        std::error::Error::source(&refused).and_then(|source| source.downcast_ref::<std::io::Error>());
    let kind = source.map(std::io::Error::kind);
    assert_eq!(kind, Some(std::io::ErrorKind::ReadOnlyFilesystem), "{refused}");
    // A damaged `oci-layout` is kept: a user without write permission cannot repair it.
    let remount = |how: &str| Run::new("mount").args(["-o", how]).arg(disk.path()).success();
    remount("remount,rw")?;
    fs::write(path.join("oci-layout"), "")?;
    remount("remount,ro")?;
    assert_eq!(*Store::open(&path).expect_err("it is damaged").kind(), ErrorKind::Corrupt);
    remount("remount,rw")?;
    Store::open(&path)?;
    Ok(())
}
