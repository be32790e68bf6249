//! Images whose config names no platform: the word of the index counts, else this host's, on every way alike.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use plyfold::atomic_file::FileOptions;
use plyfold::memory::MemoryCache;
use plyfold::{
    Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CachedNames, Collect, Collected, Descriptor,
    Digest, ErrorKind, Images, Ingest, Lease, LoadOptions, NameChange, Page, Platform, Platforms,
    PullOptions, PullPolicy, Reference, Result, Rootfs, Usage, Verified, Verify, digest, reference,
};
use plyfold_conformance::samples::LayerBuilder;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Where the platform is named.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Named {
    InIndex,
    InLayout,
    Nowhere,
}

/// A layout with one image `latest`, whose config has these fields beside its layers.
fn layout(folder: &Path, config: &Value, platform: &Value, named: Named) -> PathBuf {
    let blobs = folder.join("image/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, content: &[u8]| {
        let digest = digest::sha256(content);
        fs::write(blobs.join(digest.digest()), content).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
    };
    let layer = LayerBuilder::new().file("a", 0o644, b"1").finish();
    let mut config = config.clone();
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [digest::sha256(&layer)] });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
        "layers": [put("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let mut entry = put(MANIFEST, manifest.to_string().as_bytes());
    if named != Named::Nowhere {
        entry["platform"] = platform.clone();
    }
    if named == Named::InIndex {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        entry = put(INDEX, index.to_string().as_bytes());
    }
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    let root = folder.join("image");
    fs::write(root.join("index.json"), index.to_string()).unwrap();
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    root
}

/// The layout as a tar.
fn archive(layout: &Path) -> PathBuf {
    let path = layout.with_file_name("image.tar");
    let mut tar = LayerBuilder::new();
    let mut folders = vec![layout.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let at = entry.unwrap().path();
            if at.is_dir() {
                folders.push(at);
            } else {
                let name = at.strip_prefix(layout).unwrap().to_str().unwrap().to_owned();
                tar = tar.file(name, 0o644, &fs::read(&at).unwrap());
            }
        }
    }
    fs::write(&path, tar.finish()).unwrap();
    path
}

/// A cache that waits for no disk: some 2,000 files are written, and syncing each takes minutes where others write, too.
#[derive(Clone, Debug)]
struct Unsynced(MemoryCache);

plyfold_core::forward_cache! {
    Unsynced, |cache| cache.0;
    async stat(digest: &Digest) -> Result<Option<u64>>;
    async is_away(digest: &Digest) -> Result<bool>;
    async open(blob: &Descriptor, range: BlobRange) -> Result<Blob>;
    async ingest(blob: &Descriptor) -> Result<Ingest>;
    async partial(digest: &Digest) -> Result<u64>;
    async quarantine(digest: &Digest) -> Result<()>;
    async find_descriptor(name: &Reference) -> Result<Option<Descriptor>>;
    async list() -> Result<Vec<(Reference, Descriptor)>>;
    async update(changes: &[NameChange]) -> Result<()>;
    async artifact(key: &ArtifactKey) -> Result<Artifact>;
    async find_artifact(key: &ArtifactKey) -> Result<Option<Box<dyn ArtifactHandle>>>;
    async lease(content: &[Digest]) -> Result<Lease>;
    async single_flight(work: &str) -> Result<Lease>;
    async free() -> Result<Option<u64>>;
    async pins() -> Result<Vec<Reference>>;
    async usage() -> Result<Usage>;
    async collect(policy: &Collect) -> Result<Collected>;
    async verify(what: &Verify) -> Result<Verified>;
    async list_page(page: &Page) -> Result<CachedNames>;
    async settle() -> ();
    sync scratch() -> Option<PathBuf>;
    sync is_read_only() -> bool;
    {
        /// So that no image is copied into a layout, which would be synced. It is not looked into here.
        fn layout(&self) -> Option<&Path> {
            Some(Path::new("/nonexistent/layout"))
        }
    }
}

impl fmt::Display for Unsynced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One way: whether the image is found for the platform, with all that is done with it afterwards.
async fn verdict(uri: &str, by_load: bool, wanted: &Platform) -> Option<ErrorKind> {
    let folder = tempfile::tempdir().unwrap();
    let images = Images::with_cache(Unsynced(MemoryCache::new().unwrap())).unwrap();
    let options = |policy| PullOptions { platform: wanted.clone(), policy, ..PullOptions::default() };
    let pulled = if by_load {
        let load = LoadOptions { platforms: Platforms::One(wanted.clone()), ..LoadOptions::default() };
        images.load(uri, load).await.map(|mut all| all.remove(0).image.unwrap())
    } else {
        images.pull(uri, options(PullPolicy::Always)).await
    };
    let image = match pulled {
        Ok(image) => image,
        Err(e) => return Some(e.kind().clone()),
    };
    // What was fetched is found, by name and by digest, and made into disks.
    let manifest = reference::by_digest(&image.reference, &image.manifest);
    let root = reference::by_digest(&image.reference, &image.digest);
    for name in [&image.reference, &manifest, &root] {
        assert!(images.is_cached(name, wanted).await.unwrap(), "{uri}: {name}");
        assert!(found(&images, name, wanted).await, "{uri}: {name}");
    }
    for (place, rootfs) in [Rootfs::erofs_layers(), Rootfs::erofs_merged()].into_iter().enumerate() {
        let out = folder.path().join(place.to_string());
        let rootfs = rootfs.files(FileOptions { sync: false, ..FileOptions::default() });
        images.materialize(&image, &rootfs, &out).await.unwrap_or_else(|e| panic!("{uri}: {e:?}"));
    }
    None
}

async fn found(images: &Images, name: &Reference, wanted: &Platform) -> bool {
    use plyfold::CacheProviderExt as _;
    images.cache().new_source(name, wanted).await.is_ok()
}

#[tokio::test]
async fn one_verdict_on_every_way() {
    let host = Platform::host();
    let host = Platform::new(host.os(), host.architecture(), None);
    let foreign: Platform = "linux/riscv64".parse().unwrap();
    let windows: Platform = "windows/amd64".parse().unwrap();
    let configs = [
        json!({}),
        json!({ "os": "", "architecture": "" }),
        json!({ "os": null, "architecture": null, "variant": null }),
        json!({ "os": "linux" }),
        json!({ "os": "linux", "architecture": "" }),
    ];
    for config in &configs {
        for named in [Named::InIndex, Named::InLayout, Named::Nowhere] {
            for (told, wanted, fits) in [
                (&host, &host, true),
                (&foreign, &foreign, named != Named::Nowhere),
                (&foreign, &host, named == Named::Nowhere),
                (&host, &windows, false),
            ] {
                let platform = json!({ "os": told.os(), "architecture": told.architecture() });
                let folder = tempfile::tempdir().unwrap();
                let layout = layout(folder.path(), config, &platform, named);
                let (oci, tar) = (format!("oci:{}", layout.display()), archive(&layout));
                let tar = format!("oci-archive:{}", tar.display());
                for (uri, by_load) in [(&oci, false), (&oci, true), (&tar, false), (&tar, true)] {
                    let verdict = verdict(uri, by_load, wanted).await;
                    let what =
                        format!("{config}, {named:?} told {told}, wanted {wanted}, {uri}: {verdict:?}");
                    match verdict {
                        None => assert!(fits, "{what}"),
                        Some(ErrorKind::PlatformNotFound { .. }) => assert!(!fits, "{what}"),
                        Some(_) => panic!("{what}"),
                    }
                }
            }
        }
    }
}

/// Where an index and a config disagree, the index has chosen, and what follows does not ask again.
#[tokio::test]
async fn an_index_outweighs_the_config_that_it_leads_to() {
    let wanted: Platform = "linux/riscv64".parse().unwrap();
    let config = json!({ "os": "linux", "architecture": "s390x" });
    let platform = json!({ "os": "linux", "architecture": "riscv64" });
    let folder = tempfile::tempdir().unwrap();
    let layout = layout(folder.path(), &config, &platform, Named::InIndex);
    for uri in [format!("oci:{}", layout.display()), format!("oci-archive:{}", archive(&layout).display())] {
        for by_load in [false, true] {
            assert_eq!(verdict(&uri, by_load, &wanted).await, None, "{uri}");
        }
    }
}
