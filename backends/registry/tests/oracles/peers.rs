//! The clients of others on the other end: what we push they pull, what they push we pull, and what they attach to
//! an image is listed and copied.

use std::path::Path;

use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::server::FaultServer;
use plyfold_core::{
    Blob, BlobRange, CopyOptions, Descriptor, ImageAttestations, ImageRegistry, ImageRegistryExt, MediaType,
    Reference, RegistrySource, copy, digest, reference,
};
use plyfold_registry::{Config, Registry};

use crate::cosign::{cosign, sign, verify};
use crate::registry::DockerRegistry;
use crate::{block_on, open, push};

/// What we push to docker-registry crane, oras and skopeo pull; every byte is there, and the digest is ours.
pub(crate) fn crane_pulls_what_we_push_and_we_what_it_pushes() -> Verdict {
    let server = DockerRegistry::start("", "")?;
    let registry = open(&server, |_| ())?;
    let folder = tempfile::tempdir()?;
    for sample in [samples::image(), samples::zstandard(), samples::docker_image()] {
        let name = push(&registry, &server, &sample)?;
        let said = Run::new("crane").args(["digest", "--insecure", &name.whole()]).success()?;
        assert_eq!(said.stdout.trim(), sample.top.digest().as_ref());
        let layout = folder.path().join(sample.name);
        Run::new("crane")
            .args(["pull", "--insecure", "--format=oci", &name.whole()])
            .arg(&layout)
            .success()?;
        holds(&layout, &sample)?;
        let theirs = named(server.host(), &format!("crane/{}", name.repository()))?;
        Run::new("crane").args(["push", "--insecure"]).arg(&layout).arg(theirs.whole()).success()?;
        reads_back(&registry, &theirs, &sample)?;
    }
    let sample = samples::index();
    let name = push(&registry, &server, &sample)?;
    let theirs = named(server.host(), "crane/index")?;
    Run::new("crane").args(["copy", "--insecure", &name.whole(), &theirs.whole()]).success()?;
    reads_back(&registry, &theirs, &sample)
}

/// Chunks, of which docker-registry says how much it has received.
pub(crate) fn docker_registry_takes_chunks() -> Verdict {
    let server = DockerRegistry::start("", "")?;
    let registry = open(&server, |config| config.upload_chunk = 1)?;
    let content: Vec<u8> = (0..(3 << 20) + 17).map(|at: usize| (at * 7 + at / 251) as u8).collect();
    let content = bytes::Bytes::from(content);
    let blob = Descriptor::new("application/octet-stream".into(), 3_145_745, digest::sha256(&content));
    let name = named(server.host(), "chunks")?;
    block_on(registry.push_blob(&name, Blob::from_bytes(&blob, BlobRange::FULL, &content)?))?;
    let read = async { registry.blob(&name, &blob, BlobRange::FULL).await?.bytes(4 << 20).await };
    assert!(block_on(read)? == content);
    Ok(())
}

pub(crate) fn oras_pulls_what_we_push_and_we_what_it_pushes() -> Verdict {
    let server = DockerRegistry::start("", "")?;
    let registry = open(&server, |_| ())?;
    let folder = tempfile::tempdir()?;
    for sample in [samples::image(), samples::index(), samples::artifact()] {
        let name = named(server.host(), &sample.name.replace('_', "-"))?;
        publish(&registry, &name, &sample)?;
        let layout = folder.path().join(sample.name);
        let local = format!("{}:1", layout.display());
        let down = ["copy", "--from-plain-http", "--to-oci-layout", &name.whole(), &local];
        Run::new("oras").args(down).success()?;
        holds(&layout, &sample)?;
        let theirs = named(server.host(), &format!("oras/{}", name.repository()))?;
        let up = ["copy", "--to-plain-http", "--from-oci-layout", &local, &theirs.whole()];
        Run::new("oras").args(up).success()?;
        reads_back(&registry, &theirs, &sample)?;
    }
    Ok(())
}

/// Signatures by cosign, as a referrer and under a tag of its own, and an SBOM by oras: all are listed where the
/// registry has an API for that and where it has none, and go along with a copy to either.
pub(crate) fn signatures_and_sboms_are_listed_and_copied() -> Verdict {
    let (without, with) = (DockerRegistry::start("", "")?, FaultServer::start()?);
    let folder = tempfile::tempdir()?;
    let keys = cosign(folder.path()).args(["generate-key-pair"]).success()?;
    let (private, public) = (folder.path().join("cosign.key"), folder.path().join("cosign.pub"));
    assert!(private.exists() && public.exists(), "{keys}");
    let sbom = folder.path().join("sbom.json");
    std::fs::write(&sbom, r#"{"spdxVersion":"SPDX-2.3"}"#)?;
    let sample = samples::image();
    for (from, to) in [(without.host(), with.host()), (with.host(), without.host())] {
        let source = Registry::new(from, &Config { anonymous: true, ..Config::default() })?;
        let target = Registry::new(to, &Config { anonymous: true, ..Config::default() })?;
        let name = named(from, "signed")?;
        publish(&source, &name, &sample)?;
        let pinned = reference::by_digest(&name, sample.top.digest()).whole();
        for bundle in ["--new-bundle-format=true", "--new-bundle-format=false"] {
            sign(folder.path(), bundle, &pinned)?;
        }
        let attach = [
            "attach",
            "--plain-http",
            "--disable-path-validation",
            "--artifact-type",
            "application/spdx+json",
        ];
        Run::new("oras").args(attach).arg(&pinned).arg(format!("{}:text/json", sbom.display())).success()?;

        let list = |registry: &Registry, name: &Reference, kind: Option<&MediaType>| {
            let listed = block_on(registry.referrers(name, sample.top.digest(), kind));
            listed.map(|list| {
                let mut digests: Vec<_> = list.iter().map(|one| one.digest().to_string()).collect();
                digests.sort();
                digests
            })
        };
        let listed = list(&source, &name, None)?;
        let spdx = MediaType::from("application/spdx+json");
        assert_eq!((listed.len(), list(&source, &name, Some(&spdx))?.len()), (2, 1), "{from}");

        let copied = named(to, "copied")?;
        let options = CopyOptions { referrers: true, ..CopyOptions::default() };
        block_on(copy(&source, &name, &target, &copied, &options))?;
        assert_eq!(list(&target, &copied, None)?, listed, "{to}");
        let discovered = Run::new("oras")
            .args(["discover", "--plain-http", "--format=json", &copied.whole()])
            .success()?;
        assert!(listed.iter().all(|digest| discovered.stdout.contains(digest)), "{discovered}");
        // Both kinds of signature are good where they went to: the tagged one as soon as the other is gone.
        verify(folder.path(), &copied.whole())?;
        let tag = format!("{}.sig", sample.top.digest().as_ref().replace(':', "-"));
        let tagged = Reference::with_tag(to.to_owned(), "copied".to_owned(), tag);
        assert!(block_on(target.exists(&tagged))?);
    }
    Ok(())
}

/// SBOMs and provenance by cosign, as referrers in bundles and under its own tags as envelopes, and SBOMs by oras and by
/// `cosign attach` as plain documents: all of them are found, and are what was attached.
pub(crate) fn what_cosign_and_oras_attest_is_read() -> Verdict {
    let (without, with) = (DockerRegistry::start("", "")?, FaultServer::start()?);
    let folder = tempfile::tempdir()?;
    cosign(folder.path()).args(["generate-key-pair"]).success()?;
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).map(|()| path)
    };
    let spdx = r#"{"SPDXID":"SPDXRef-DOCUMENT","name":"app","spdxVersion":"SPDX-2.3"}"#;
    let cyclonedx = r#"{"bomFormat":"CycloneDX","components":[],"specVersion":"1.5"}"#;
    let built = r#"{"buildDefinition":{"buildType":"https://example.org/build","externalParameters":{"a":1}},"runDetails":{"builder":{"id":"https://example.org/builder"}}}"#;
    let spdx_file = write("spdx.json", spdx)?;
    let (cyclonedx_file, built_file) = (write("cyclonedx.json", cyclonedx)?, write("built.json", built)?);
    for host in [without.host(), with.host()] {
        let registry = Registry::new(host, &Config { anonymous: true, ..Config::default() })?;
        for bundle in ["--new-bundle-format=true", "--new-bundle-format=false"] {
            let name = named(host, &format!("attested{}", bundle.len()))?;
            publish(&registry, &name, &samples::image())?;
            let pinned = reference::by_digest(&name, samples::image().top.digest()).whole();
            let attested =
                [("spdxjson", &spdx_file), ("cyclonedx", &cyclonedx_file), ("slsaprovenance1", &built_file)];
            for (kind, file) in attested {
                let offline =
                    ["--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry", "-y"];
                let run = cosign(folder.path()).arg("attest").args(offline).args([bundle, "--type", kind]);
                let run = run.arg("--key").arg(folder.path().join("cosign.key"));
                run.arg("--predicate").arg(file).arg(&pinned).success()?;
            }
            assert_eq!(
                predicates(&registry, &name)?,
                [(true, spdx), (true, cyclonedx), (false, built)].map(parsed),
                "{host} {bundle}"
            );
        }
        let name = named(host, "plain")?;
        publish(&registry, &name, &samples::image())?;
        let attach = [
            "attach",
            "--plain-http",
            "--disable-path-validation",
            "--artifact-type",
            "application/spdx+json",
        ];
        Run::new("oras").args(attach).arg(name.whole()).arg(&spdx_file).success()?;
        let run = cosign(folder.path()).args([
            "attach",
            "sbom",
            "--allow-http-registry",
            "--type",
            "cyclonedx",
            "--sbom",
        ]);
        run.arg(&cyclonedx_file).arg(name.whole()).success()?;
        assert_eq!(predicates(&registry, &name)?, [(true, spdx), (true, cyclonedx)].map(parsed), "{host}");
    }
    Ok(())
}

fn parsed((is_sbom, text): (bool, &str)) -> (bool, serde_json::Value) {
    (is_sbom, serde_json::from_str(text).expect("JSON"))
}

/// What attests to an image: whether it is an SBOM, and what it says.
fn predicates(registry: &Registry, name: &Reference) -> Result<Vec<(bool, serde_json::Value)>, Failure> {
    block_on(async {
        let source = RegistrySource::open(Box::new(registry.clone()), name, &"linux/amd64".parse()?).await?;
        let mut found = Vec::new();
        for one in source.sboms().await?.iter().chain(&source.provenance().await?) {
            let predicate = one.predicate().await?;
            let text = String::from_utf8_lossy(&predicate).into_owned();
            found.push(parsed((one.kind().is_sbom(), &text)));
        }
        found.sort_by_key(|(is_sbom, value)| (!is_sbom, value["spdxVersion"].is_null()));
        Ok(found)
    })
}

fn named(host: &str, repository: &str) -> Result<Reference, Failure> {
    Ok(reference::parse(&format!("{host}/{repository}:1"))?)
}

/// Pushes a sample under a name.
fn publish(registry: &Registry, name: &Reference, sample: &Sample) -> Verdict {
    let from = FaultServer::start()?;
    from.put("a", "1", sample);
    let source = Registry::new(from.host(), &Config { anonymous: true, ..Config::default() })?;
    block_on(copy(&source, &named(from.host(), "a")?, registry, name, &CopyOptions::default()))?;
    Ok(())
}

/// Every byte of the sample is in a layout directory.
fn holds(layout: &Path, sample: &Sample) -> Verdict {
    for blob in &sample.blobs {
        let file = layout.join("blobs/sha256").join(digest::sha256(&blob.bytes).digest());
        assert_eq!(std::fs::read(file)?, &blob.bytes[..], "{}", sample.name);
    }
    Ok(())
}

/// Every byte of the sample is in the registry under a name.
fn reads_back(registry: &Registry, name: &Reference, sample: &Sample) -> Verdict {
    assert_eq!(block_on(registry.fetch_raw(name))?.bytes(), sample.top_bytes(), "{}", sample.name);
    let blobs = |blob: &&samples::SampleBlob| !blob.is_manifest();
    for blob in sample.blobs.iter().filter(blobs) {
        let descriptor: &Descriptor = &blob.descriptor;
        let read = async { registry.blob(name, descriptor, BlobRange::FULL).await?.bytes(1 << 20).await };
        assert_eq!(block_on(read)?, blob.bytes, "{}", sample.name);
    }
    Ok(())
}
