//! The same image through both forms has one identity where it can.

use plyfold_core::{ImageRegistryExt, ImageSourceExt, reference};

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
