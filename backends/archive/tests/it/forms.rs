//! The same image through both forms has one identity where it can.

use plyfold_core::{ErrorKind, ImageRegistryExt, ImageSourceExt, Opened, reference};

use crate::build::{OnDisk, Tar, config, config_name, layer, manifest};

/// `docker save` and `podman save` arrange the same image differently: folders or flat names, any order.
#[tokio::test]
async fn the_arrangement_of_an_archive_does_not_change_the_image() {
    let platform = "linux/amd64".parse().unwrap();
    let image = reference::parse("example.com/app:1").unwrap();
    let text = |layer: &str| manifest(&["example.com/app:1"], layer);
    let folders = Tar::new()
        .file("abc/VERSION", "1.0")
        .file("abc/layer.tar", layer())
        .file(&config_name(), config())
        .file("manifest.json", text("abc/layer.tar"));
    let flat = Tar::new()
        .file("./manifest.json", text("x.tar"))
        .file(&config_name(), config())
        .file("x.tar", layer());
    let mut digests = Vec::new();
    for tar in [folders, flat] {
        let disk = OnDisk::new(&tar.bytes());
        let source = disk.archive().image(&image, &platform).await.unwrap();
        digests.push(source.descriptor().clone());
    }
    assert_eq!(digests[0], digests[1]);
}

/// Docker 25.0 lists what has no tag in `manifest.json` alone, and its list of nothing is null.
#[tokio::test]
async fn an_image_that_the_index_does_not_list_is_read_from_the_other_list() {
    let image = manifest(&[], "blobs/sha256/x").replace("[]", "null");
    let index =
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}"#;
    let layout =
        |tar: Tar| tar.file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).file("index.json", index);
    let docker = Tar::new().file("blobs/sha256/x", layer()).file(&config_name(), config());
    let disk = OnDisk::new(&layout(docker.file("manifest.json", image)).bytes());
    let opened = Opened { registry: Box::new(disk.archive()), reference: None };
    let name = opened.reference().await.unwrap();
    assert_eq!((name.registry(), name.tag()), ("localhost", Some("latest")));
    disk.archive().image(&name, &"linux/amd64".parse().unwrap()).await.unwrap();

    let empty = OnDisk::new(&layout(Tar::new()).bytes());
    let opened = Opened { registry: Box::new(empty.archive()), reference: None };
    let error = opened.reference().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    assert!(error.hint().is_some_and(|hint| hint.contains("@sha256:")), "{error:?}");
}
