//! The suite's own server as crane and oras see it.

use plyfold_conformance::oracle::{Run, Verdict};
use plyfold_conformance::samples;
use plyfold_conformance::server::{FaultServer, Options};

/// What crane pulls from one server and pushes to another is the same image.
pub(crate) fn crane_pulls_and_pushes() -> Verdict {
    let (from, to) = (FaultServer::start()?, FaultServer::start()?);
    let folder = tempfile::tempdir()?;
    for sample in [samples::image(), samples::zstandard(), samples::docker_image()] {
        from.put("a/b", sample.name, &sample);
        let layout = folder.path().join(sample.name);
        let source = format!("{}/a/b:{}", from.host(), sample.name);
        Run::new("crane").args(["pull", "--insecure", "--format=oci", &source]).arg(&layout).success()?;
        let target = format!("{}/copied:{}", to.host(), sample.name);
        Run::new("crane").args(["push", "--insecure"]).arg(&layout).arg(&target).success()?;
        assert_eq!(
            to.tagged("copied", sample.name),
            Some(sample.top.digest().to_string()),
            "{}",
            sample.name
        );
        for blob in &sample.blobs {
            let stored = to.content("copied", blob.descriptor.digest());
            assert_eq!(stored.as_ref(), Some(&blob.bytes), "{}", sample.name);
        }
    }
    let sample = samples::index();
    from.put("a/b", "index", &sample);
    let copy = [format!("{}/a/b:index", from.host()), format!("{}/copied:index", to.host())];
    Run::new("crane").args(["copy", "--insecure"]).args(&copy).success()?;
    assert_eq!(to.tagged("copied", "index"), Some(sample.top.digest().to_string()));
    let listed = Run::new("crane").args(["ls", "--insecure", &format!("{}/copied", to.host())]).success()?;
    assert!(listed.stdout.lines().any(|tag| tag == "index"), "{listed}");
    Ok(())
}

/// What oras copies with all that refers to it, lists, and pushes itself.
pub(crate) fn oras_pulls_and_pushes() -> Verdict {
    for referrers in [true, false] {
        let from = FaultServer::with(Options { referrers, ..Options::default() })?;
        let to = FaultServer::with(Options { referrers, ..Options::default() })?;
        let sample = samples::subject();
        from.put("a/b", "1", &sample);
        let subject = sample.subject.as_ref().map(|image| image.manifest.digest().to_string());
        let subject = subject.unwrap_or_default();
        let copy = ["copy", "-r", "--from-plain-http", "--to-plain-http"];
        let names = [format!("{}/a/b@{subject}", from.host()), format!("{}/copied:1", to.host())];
        Run::new("oras").args(copy).args(&names).success()?;
        for blob in &sample.blobs {
            assert_eq!(
                to.content("copied", blob.descriptor.digest()).as_ref(),
                Some(&blob.bytes),
                "{referrers}"
            );
        }
        let listed =
            Run::new("oras").args(["discover", "--plain-http", "--format=json", &names[1]]).success()?;
        assert!(listed.stdout.contains(sample.top.digest().as_ref()), "{listed}");

        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("note.txt"), "a note")?;
        let attach = ["attach", "--plain-http", "--disable-path-validation", "--artifact-type=example/note"];
        let file = folder.path().join("note.txt").display().to_string();
        Run::new("oras").args(attach).arg(&names[1]).arg(format!("{file}:text/plain")).success()?;
        let listed =
            Run::new("oras").args(["discover", "--plain-http", "--format=json", &names[1]]).success()?;
        assert!(listed.stdout.contains("example/note"), "{listed}");
        assert!(listed.stdout.contains(sample.top.digest().as_ref()), "{listed}");
    }
    Ok(())
}
