//! The suite's own server and media as skopeo sees them: they must be honest, or the rules judge nothing.

use std::time::Duration;

use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::server::{Auth, FaultServer, Login, Options};

/// What skopeo pulls from one server and pushes to another, with a token, is the same image.
pub(crate) fn skopeo_pulls_and_pushes() -> Verdict {
    let login = Login::new("user", "secret");
    let auth = Auth::Bearer { login: Some(login), ttl: Duration::from_secs(60), realm: None };
    let from = FaultServer::start()?;
    let to = FaultServer::with(Options { auth, ..Options::default() })?;
    let folder = tempfile::tempdir()?;
    let layout = format!("oci:{}:t", folder.path().display());
    let copy = || Run::new("skopeo").args(["copy", "-q", "--all", "--preserve-digests"]);
    for sample in [samples::image(), samples::index(), samples::zstandard(), samples::artifact()] {
        from.put("a/b", "1", &sample);
        let source = format!("docker://{}/a/b:1", from.host());
        copy().args(["--src-tls-verify=false", &source, &layout]).success()?;
        let target = format!("docker://{}/c:{}", to.host(), sample.name);
        let login = ["--dest-tls-verify=false", "--dest-creds", "user:secret"];
        copy().args(login).args([&layout, &target]).success()?;
        assert_eq!(to.tagged("c", sample.name), Some(sample.top.digest().to_string()));
        for blob in &sample.blobs {
            assert_eq!(
                to.content("c", blob.descriptor.digest()).as_ref(),
                Some(&blob.bytes),
                "{}",
                sample.name
            );
        }
    }
    Ok(())
}

/// Layout directories and all three archives.
pub(crate) fn skopeo_reads_every_medium() -> Verdict {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let inspect = |image: String| -> Result<String, Failure> {
        Ok(Run::new("skopeo").args(["inspect", "--raw", &image]).success()?.stdout)
    };
    let name = "registry.example/library/app:1.2";
    for sample in [samples::image(), samples::repeated_layer(), samples::no_layers()] {
        let images: &[(String, &Sample)] = &[(name.to_owned(), &sample)];
        samples::write_layout(path(sample.name).as_ref(), images)?;
        let raw = inspect(format!("oci:{}:{name}", path(sample.name)))?;
        assert_eq!(raw.as_bytes(), &sample.top_bytes()[..]);
        std::fs::write(path("oci.tar"), samples::oci_archive(images))?;
        let raw = inspect(format!("oci-archive:{}:{name}", path("oci.tar")))?;
        assert_eq!(raw.as_bytes(), &sample.top_bytes()[..]);
        for archive in [samples::docker_archive(images), samples::hybrid_archive(images)] {
            std::fs::write(path("docker.tar"), archive)?;
            let raw = inspect(format!("docker-archive:{}:{name}", path("docker.tar")))?;
            assert!(raw.contains(sample.images[0].config.digest().as_ref()), "{raw}");
        }
    }
    Ok(())
}
