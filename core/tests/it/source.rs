//! From a reference to the one manifest for a platform.

use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    ErrorKind, ImageRegistryExt, ImageSource as _, ImageSourceExt, MediaType, Platform, RawManifest, digest,
};
use serde_json::{Value, json};

use crate::fixture::{AMD64, layer, name, put_document, put_image};

fn child(digest: &str, size: usize, platform: Option<Value>) -> Value {
    let mut child =
        json!({ "mediaType": MediaType::ImageManifest.to_string(), "digest": digest, "size": size });
    if let Some(platform) = platform {
        child["platform"] = platform;
    }
    child
}

fn index(children: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.to_string(), "manifests": children })
}

#[tokio::test]
async fn a_child_without_a_platform_is_decided_by_its_config() {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let mut children = Vec::new();
    for arch in ["arm64", "amd64"] {
        let (digest, _) = put_image(&registry, &image, ("linux", arch), &[layer(arch, 10)]);
        let size = registry.fetch_raw(&image).await.unwrap().bytes().len();
        children.push(child(digest.as_ref(), size, None));
    }
    put_document(&registry, &image, MediaType::ImageIndex, &index(&children));
    let source = registry.image(&image, &AMD64.parse().unwrap()).await.unwrap();
    assert_eq!(source.descriptor().digest().as_ref(), children[1]["digest"]);
    assert_eq!(source.indexes().len(), 1);
    let missing = registry.image(&image, &"linux/s390x".parse().unwrap()).await.unwrap_err();
    let available = vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()];
    assert_eq!(*missing.kind(), ErrorKind::PlatformNotFound { available });
}

#[tokio::test]
async fn nesting_is_bounded() {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let platform: Platform = AMD64.parse().unwrap();
    put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 10)]);
    for depth in 1..=6 {
        let inner = registry.fetch_raw(&image).await.unwrap();
        let mut entry = child(inner.digest().as_ref(), inner.bytes().len(), None);
        entry["mediaType"] = json!(inner.descriptor().media_type().to_string());
        put_document(&registry, &image, MediaType::ImageIndex, &index(&[entry]));
        let outcome = registry.image(&image, &platform).await;
        match depth {
            1..=4 => assert_eq!(outcome.unwrap().indexes().len(), depth),
            _ => assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Limit),
        }
    }
}

#[tokio::test]
async fn a_single_image_for_another_platform_is_refused_with_its_own() {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    put_image(&registry, &image, ("linux", "arm64"), &[layer("a", 10)]);
    let error = registry.image(&image, &AMD64.parse().unwrap()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PlatformNotFound { available: vec!["linux/arm64".to_owned()] });
    assert!(error.hint().is_some());
}

/// Rows 1 to 7, 14, 15, 18, 24, 25, 71 and 75 of the catalogue of bad inputs, as far as documents go.
#[test]
fn documents_with_faults_are_refused_by_kind() {
    let zeros = "0".repeat(64);
    let good = format!("sha256:{zeros}");
    let config = json!({ "mediaType": MediaType::ImageConfig.to_string(), "digest": good, "size": 2 });
    let manifest = |layers: Value| json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let with_digest = |digest: &str| manifest(json!([{ "mediaType": "a/b", "digest": digest, "size": 1 }]));
    let cases = [
        (
            json!({ "schemaVersion": 2, "config": config, "layers": [], "manifests": [] }),
            Some(ErrorKind::Ambiguous),
        ),
        (json!({ "schemaVersion": 2, "config": config, "Layers": [] }), Some(ErrorKind::Ambiguous)),
        (json!({ "schemaVersion": 2, "config": config, "manifests": [] }), Some(ErrorKind::Ambiguous)),
        (json!({ "schemaVersion": 1, "name": "x" }), Some(ErrorKind::Unsupported)),
        (json!({ "schemaVersion": 2 }), Some(ErrorKind::Corrupt)),
        (json!({ "errors": [] }), Some(ErrorKind::Corrupt)),
        (with_digest("sha256:../../../outside.tar"), Some(ErrorKind::Corrupt)),
        (with_digest(&format!("sha256:{}", "A".repeat(64))), Some(ErrorKind::Corrupt)),
        (with_digest(&format!("sha256:{}", "a".repeat(63))), Some(ErrorKind::Corrupt)),
        (with_digest(&format!("sha256:{}\n", "a".repeat(63))), Some(ErrorKind::Corrupt)),
        (with_digest("%2e%2e"), Some(ErrorKind::Corrupt)),
        (with_digest(&format!("sha512:{}", "a".repeat(128))), None),
        (with_digest("md5:d41d8cd98f00b204e9800998ecf8427e"), None),
        (manifest(json!(vec![config.clone(); 1025])), Some(ErrorKind::Limit)),
        (manifest(json!([])), None),
    ];
    for (document, kind) in cases {
        let outcome = RawManifest::new(document.to_string(), None).err().map(|e| e.kind().clone());
        let text = document.to_string();
        assert_eq!(outcome, kind, "{}", &text[..text.len().min(200)]);
    }
    let huge = format!("{}{}", manifest(json!([])), " ".repeat(5 << 20));
    assert_eq!(*RawManifest::new(huge, None).unwrap_err().kind(), ErrorKind::Limit);
    let as_index = RawManifest::new(manifest(json!([])).to_string(), Some(&MediaType::ImageIndex));
    assert_eq!(*as_index.unwrap_err().kind(), ErrorKind::Corrupt);
    let md5 = digest::parse("md5:d41d8cd98f00b204e9800998ecf8427e").unwrap_err();
    assert_eq!(*md5.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_config_must_have_one_diff_id_for_each_layer() {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let content = layer("a", 10);
    for count in [0, 1, 2] {
        let diff_ids = vec![digest::sha256(&content).to_string(); count];
        let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "config": crate::fixture::descriptor(MediaType::ImageConfig.as_ref(), &config),
            "layers": [crate::fixture::descriptor(MediaType::ImageLayer.as_ref(), &content)],
        });
        registry.insert_blob(&image, digest::sha256(&config), config);
        put_document(&registry, &image, MediaType::ImageManifest, &manifest);
        let outcome = registry.fetch_config(&image, &AMD64.parse().unwrap()).await;
        match count {
            1 => assert_eq!(outcome.unwrap().diff_ids().unwrap().len(), 1),
            _ => assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Corrupt),
        }
    }
    assert!(registry.image(&image, &AMD64.parse().unwrap()).await.is_err());
}
