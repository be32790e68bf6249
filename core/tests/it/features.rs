//! Images that need a feature of the operating system: those of EROFS layers, and others.

use plyfold_core::layout_index::LayoutIndex;
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Digest, ErrorKind, ImageRegistry as _, ImageRegistryExt, ImageSourceExt, MediaType, Reference, Result,
    digest,
};
use serde_json::{Value, json};

use crate::fixture::{descriptor, layer, name, put_document};

/// An image for linux/amd64 with one layer of this name, whose config names these features; its entry in an index.
fn put(registry: &MemoryRegistry, image: &Reference, content: &str, features: &[&str]) -> Value {
    let tar = layer(content, 10);
    let mut config = json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": { "type": "layers", "diff_ids": [digest::sha256(&tar).to_string()] },
    });
    if !features.is_empty() {
        config["os.features"] = json!(features);
    }
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(),
        "config": descriptor(MediaType::ImageConfig.as_ref(), &config),
        "layers": [descriptor(MediaType::ImageLayer.as_ref(), &tar)],
    });
    registry.insert_blob(image, digest::sha256(&config), config);
    registry.insert_blob(image, digest::sha256(&tar), tar);
    put_document(registry, image, MediaType::ImageManifest, &manifest);
    let mut entry = descriptor(MediaType::ImageManifest.as_ref(), manifest.to_string().as_bytes());
    entry["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    if !features.is_empty() {
        entry["platform"]["os.features"] = json!(features);
    }
    entry
}

fn index(registry: &MemoryRegistry, image: &Reference, children: &[Value]) -> Value {
    let index =
        json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.as_ref(), "manifests": children });
    put_document(registry, image, MediaType::ImageIndex, &index);
    descriptor(MediaType::ImageIndex.as_ref(), index.to_string().as_bytes())
}

async fn chosen(registry: &MemoryRegistry, image: &Reference, platform: &str) -> Result<Digest> {
    let source = registry.image(image, &platform.parse()?).await?;
    Ok(source.descriptor().digest().clone())
}

fn digest_of(entry: &Value) -> Digest {
    entry["digest"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn erofs_layers_are_chosen_where_they_are_asked_for_or_there_is_nothing_else() {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let [plain, native, other] = [("plain", &[][..]), ("native", &["erofs"]), ("other", &["win32k"])]
        .map(|(content, features)| put(&registry, &image, content, features));
    for children in [[&plain, &native, &other], [&other, &native, &plain]] {
        index(&registry, &image, &children.map(Clone::clone));
        for (platform, wanted) in [
            ("linux/amd64", &plain),
            ("linux(+erofs)/amd64", &native),
            ("linux(+erofs+x)/amd64", &native),
            ("linux(+x)/amd64", &plain),
            ("linux(+win32k)/amd64", &other),
            ("linux/amd64/v3", &plain),
        ] {
            assert_eq!(chosen(&registry, &image, platform).await.unwrap(), digest_of(wanted), "{platform}");
        }
    }
    index(&registry, &image, &[other.clone(), native.clone()]);
    assert_eq!(chosen(&registry, &image, "linux/amd64").await.unwrap(), digest_of(&native));
    assert_eq!(chosen(&registry, &image, "linux(+win32k)/amd64").await.unwrap(), digest_of(&other));
    let error = chosen(&registry, &image, "linux/arm64").await.unwrap_err();
    let available = vec!["linux(+erofs)/amd64".to_owned(), "linux(+win32k)/amd64".to_owned()];
    assert_eq!(*error.kind(), ErrorKind::PlatformNotFound { available });
    index(&registry, &image, std::slice::from_ref(&other));
    let error = chosen(&registry, &image, "linux/amd64").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PlatformNotFound { .. }), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("linux(+win32k)/amd64")), "{error:?}");
}

#[tokio::test]
async fn a_plain_image_anywhere_in_an_index_comes_before_erofs_layers() {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let native = put(&registry, &image, "native", &["erofs"]);
    let plain = put(&registry, &image, "plain", &[]);
    let mut silent = native.clone();
    silent.as_object_mut().unwrap().remove("platform");
    let first = index(&registry, &image, &[silent, native.clone()]);
    let second = index(&registry, &image, std::slice::from_ref(&plain));
    index(&registry, &image, &[first, second]);
    assert_eq!(chosen(&registry, &image, "linux/amd64").await.unwrap(), digest_of(&plain));
    assert_eq!(chosen(&registry, &image, "linux(+erofs)/amd64").await.unwrap(), digest_of(&native));
}

#[tokio::test]
async fn a_single_image_is_the_one_that_is_named() {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    for features in [&["erofs"][..], &["x", "y"]] {
        let entry = put(&registry, &image, "single", features);
        for platform in ["linux/amd64", "linux(+erofs)/amd64"] {
            assert_eq!(chosen(&registry, &image, platform).await.unwrap(), digest_of(&entry), "{features:?}");
        }
        let source = registry.image(&image, &"linux/amd64".parse().unwrap()).await.unwrap();
        let platform = source.config().await.unwrap().platform().unwrap();
        assert_eq!(platform.features(), features);
    }
}

#[tokio::test]
async fn features_keep_their_name_in_the_index_of_a_layout() {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let native = put(&registry, &image, "native", &["erofs"]);
    index(&registry, &image, &[native]);
    let raw = registry.manifest(&image).await.unwrap();
    let child = raw.references().remove(0);
    assert_eq!(child.platform().as_ref().unwrap().os_features(), &Some(vec!["erofs".to_owned()]));
    let mut layout = LayoutIndex::new("/srv/base".as_ref());
    layout.set(&image, &child, false);
    let written: Value = serde_json::from_slice(&layout.to_bytes()).unwrap();
    let platform = json!({ "architecture": "amd64", "os": "linux", "os.features": ["erofs"] });
    assert_eq!(written["manifests"][0]["platform"], platform, "{written}");
}
