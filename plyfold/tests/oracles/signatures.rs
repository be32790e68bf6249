//! Images with what refers to them, in archives and out again, as `cosign` and `oras` see the copy.

use std::fs;

use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples::{attested, write_layout};
use serde_json::Value;

use crate::cosign::{cosign, sign, verify};
use crate::registry::DockerRegistry;

const PROGRAM: &str = env!("CARGO_BIN_EXE_plyfold");

/// An index with attestations, signed in both of cosign's ways, with an SBOM of `oras`: saved, loaded elsewhere and pushed, it has the
/// same digests, both signatures are good, and both programs list what they made.
pub(crate) fn cosign_verifies_what_was_saved_and_loaded() -> Verdict {
    let (origin, other) = (DockerRegistry::start("", "")?, DockerRegistry::start("", "")?);
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    let sample = attested();
    write_layout(&path("layout"), &[("1".to_owned(), &sample)])?;
    let run = |store: &str, line: &str| {
        Run::new(PROGRAM)
            .args(line.split(' '))
            .args(["--quiet", "--json", "--store"])
            .arg(path(store))
            .success()
    };
    let shown = |name: &str| path(name).display().to_string();
    let name = format!("{}/org/app:1", origin.host());
    run("first", &format!("copy oci:{}:1 registry:{name}", shown("layout")))?;

    cosign(dir.path()).arg("generate-key-pair").success()?;
    let pinned = format!("{}/org/app@{}", origin.host(), sample.top.digest());
    for bundle in ["--new-bundle-format=true", "--new-bundle-format=false"] {
        sign(dir.path(), bundle, &pinned)?;
    }
    fs::write(path("sbom.json"), r#"{"spdxVersion":"SPDX-2.3"}"#)?;
    let attach =
        ["attach", "--plain-http", "--disable-path-validation", "--artifact-type=application/spdx+json"];
    Run::new("oras").args(attach).arg(&pinned).arg(format!("{}:text/json", shown("sbom.json"))).success()?;

    // The store has it as a layout brings it; then the archive, and another store.
    run("first", &format!("copy --referrers registry:{name} oci:{}:{name}", shown("signed")))?;
    run("first", &format!("load {}", shown("signed")))?;
    run("first", &format!("save {name} --referrers --out {}", shown("saved.tar")))?;
    run("second", &format!("load {}", shown("saved.tar")))?;
    let copy = format!("{}/mirror/app:1", other.host());
    let pushed = run("second", &format!("push --referrers {name} registry:{copy}"))?;
    let pushed: Value = serde_json::from_str(&pushed.stdout)?;
    assert_eq!(pushed["digest"], sample.top.digest().as_ref());

    let listed = |image: &str| -> Result<Vec<String>, Failure> {
        let said = Run::new("oras").args(["discover", "--plain-http", "--format=json", image]).success()?;
        let said: Value = serde_json::from_str(&said.stdout)?;
        let listed = said["referrers"].as_array().into_iter().flatten();
        let mut listed: Vec<_> = listed.map(|one| one["digest"].to_string()).collect();
        listed.sort();
        Ok(listed)
    };
    let (before, after) = (listed(&name)?, listed(&copy)?);
    assert_eq!((before.len(), &before), (2, &after), "a bundle of cosign and the SBOM");
    verify(dir.path(), &copy)?;
    // By its tag alone, where there is no list.
    let tag = format!("{}.sig", sample.top.digest().as_ref().replace(':', "-"));
    let (mirror, alone) = (format!("{}/mirror/app", other.host()), format!("{}/alone/app", other.host()));
    run("third", &format!("copy registry:{copy} registry:{alone}:1"))?;
    run("third", &format!("copy registry:{mirror}:{tag} registry:{alone}:{tag}"))?;
    assert_eq!(listed(&format!("{alone}:1"))?, [""; 0]);
    verify(dir.path(), &format!("{alone}:1"))
}
