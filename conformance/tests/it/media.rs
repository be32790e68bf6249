//! The media that the suite writes are what their names say: skopeo reads them.

use std::process::Command;

use plyfold_conformance::samples::{self, Sample};

fn inspect(transport: &str) -> String {
    let output = Command::new("skopeo").args(["inspect", "--raw", transport]).output().unwrap();
    assert!(output.status.success(), "{transport}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs skopeo"]
fn skopeo_reads_every_medium() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let name = "registry.example/library/app:1.2";
    let samples = [samples::image(), samples::repeated_layer(), samples::no_layers()];
    for sample in &samples {
        let images: &[(String, &Sample)] = &[(name.to_owned(), sample)];
        samples::write_layout(path(sample.name).as_ref(), images).unwrap();
        let raw = inspect(&format!("oci:{}:{name}", path(sample.name)));
        assert_eq!(raw.as_bytes(), &sample.top_bytes()[..]);
        std::fs::write(path("oci.tar"), samples::oci_archive(images)).unwrap();
        let raw = inspect(&format!("oci-archive:{}:{name}", path("oci.tar")));
        assert_eq!(raw.as_bytes(), &sample.top_bytes()[..]);
        for archive in [samples::docker_archive(images), samples::hybrid_archive(images)] {
            std::fs::write(path("docker.tar"), archive).unwrap();
            let raw = inspect(&format!("docker-archive:{}:{name}", path("docker.tar")));
            assert!(raw.contains(sample.images[0].config.digest().as_ref()), "{raw}");
        }
    }
}
