//! Images out of the tar of a root file system, and through directories of one image.

use std::fs;

use plyfold::{Backends, ImageRegistry as _, ImageSourceExt as _, Options, layer};
use plyfold_conformance::samples::{self, LayerBuilder};

use super::baseline;
use super::run::Place;

fn tar() -> Vec<u8> {
    LayerBuilder::new().dir("etc", 0o755).file("etc/os-release", 0o644, b"ID=root\n").finish()
}

#[test]
fn runs_are_as_they_were() {
    let place = Place::new();
    fs::write(place.path("rootfs.tar"), tar()).unwrap();
    fs::write(place.path("rootfs.tar.gz"), samples::gzip(&[&tar()])).unwrap();
    fs::write(place.path("none.tar"), "no tar at all").unwrap();
    let with =
        "-o platform=linux/amd64 -o entrypoint=[\"/bin/app\"] -o cmd=-v -o env=A=1 -o env=B=2 -o user=1000";
    let text = [
        place.run("inspect {}/rootfs.tar"),
        place.run(&format!("inspect tar:{{}}/rootfs.tar {with} --json")),
        place.run("tags tar:{}/rootfs.tar"),
        place.run("tags tar:{}/rootfs.tar:base:1"),
        place.run("inspect tar:{}/none.tar"),
        place.run("inspect tar:{}/missing.tar"),
        place.run("inspect tar:{}/rootfs.tar -o env=A"),
        place.run("inspect tar:{}/rootfs.tar -o workdir=srv"),
        place.run(&format!("pull tar:{{}}/rootfs.tar.gz:base:1 {with} -q")),
        place.run("cat base:1 etc/os-release"),
        place.run("list"),
        place.run("materialize tar:{}/rootfs.tar -o platform=linux/amd64 --platform linux/amd64 --as erofs --out {}/disk -q"),
        place.run("cat {}/disk/rootfs.erofs etc/os-release"),
        place.run("export tar:{}/rootfs.tar -o platform=linux/amd64 --platform linux/amd64 --out {}/flat.tar -q"),
        place.run(&format!("copy tar:{{}}/rootfs.tar dir:{{}}/image {with} -q")),
        place.run("inspect dir:{}/image"),
        place.run("tags dir:{}/image"),
        place.run("copy dir:{}/image dir:{}/other -q"),
        place.run("copy dir:{}/image tar:{}/new.tar -q"),
        place.run("load dir:{}/image -q"),
        place.run("tags dir:{}/none"),
        place.run("copy oci:examples/sample:latest dir:{}/other --referrers -q"),
        place.run("delete dir:{}/image"),
    ]
    .concat();
    baseline::check("plyfold/tests/it/runs/tar_images.txt", text.as_bytes());
}

/// What `export` writes is a root file system again, and the same files.
#[tokio::test(flavor = "multi_thread")]
async fn an_exported_image_is_an_image_again() {
    let place = Place::new();
    let exported = place.path("sample.tar");
    let run = place.run("export oci:examples/sample:latest --platform linux/amd64 --out {}/sample.tar -q");
    assert!(run.contains("[exit 0]"), "{run}");
    let options = Options::parse(["platform=linux/amd64"]).unwrap();
    let opened = Backends::linked().unwrap().open(&format!("tar:{exported}"), &options).await.unwrap();
    let name = opened.reference().await.unwrap();
    let platform = "linux/amd64".parse().unwrap();
    let source = plyfold::ImageRegistryExt::image(&opened.registry, &name, &platform).await.unwrap();
    assert_eq!(opened.registry.manifest(&name).await.unwrap().image().unwrap().layers().len(), 1);
    let mut tar = source.layer_tar(0).await.unwrap();
    let count = tokio::task::spawn_blocking(move || {
        let mut count = 0;
        while tar.next_entry().unwrap().is_some() {
            count += 1;
        }
        let summary: layer::LayerSummary = tar.finish().unwrap();
        (count, summary.diff_id.unwrap())
    })
    .await
    .unwrap();
    assert_eq!(count.1, plyfold::digest::sha256(&fs::read(&exported).unwrap()));
    assert!(count.0 > 3, "{count:?}");
    let again = place
        .run("export tar:{}/sample.tar -o platform=linux/amd64 --platform linux/amd64 --out {}/again.tar -q");
    assert!(again.contains("[exit 0]"), "{again}");
    assert!(fs::read(place.path("again.tar")).unwrap() == fs::read(exported).unwrap());
}
