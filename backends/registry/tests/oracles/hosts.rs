//! Hosts and logins against real registries, in the files of other tools.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use plyfold_conformance::oracle::{Run, Verdict};
use plyfold_conformance::samples;
use plyfold_core::{BlobRange, ErrorKind, ImageRegistry, ImageRegistryExt, reference};
use plyfold_registry::{Registry, Secret};

use super::certificates::Authority;
use super::registry::DockerRegistry;
use super::{assert_kind, block_on, htpasswd, open, push, with_login};

/// Client certificates and CAs, once in `hosts.toml` and once as a folder of Docker's.
pub(super) fn hosts_toml_names_certificates() -> Verdict {
    let authority = Authority::new()?;
    let options = authority.server_options(&["127.0.0.1"])?;
    let ca = authority.certificate();
    let wants = format!("{}, clientcas: [{}]}}", options.trim_end_matches('}'), ca.display());
    let server = DockerRegistry::start("", &wants)?;
    let (certificate, key) = authority.client()?;
    // One that the registry does not know stands first.
    let stranger = Authority::new()?;
    let (other, other_key) = stranger.client()?;
    let known = open(&server, |config| {
        config.ca = vec![ca.clone()];
        config.client_cert = Some(certificate.clone());
        config.client_key = Some(key.clone());
    })?;
    let name = push(&known, &server, &samples::image())?;
    let folder = tempfile::tempdir()?;
    let own = folder.path().join(server.host());
    fs::create_dir(&own)?;
    for (from, to) in [(&ca, "ca.crt"), (&certificate, "me.cert"), (&key, "me.key")] {
        fs::copy(from, own.join(to))?;
    }
    let by_folder = |change: &dyn Fn(&Path) -> std::io::Result<()>| {
        change(&own)?;
        let registry = open(&server, |config| config.hosts_dir = vec![folder.path().to_owned()])?;
        Ok::<_, plyfold_conformance::oracle::Failure>(block_on(registry.manifest(&name)))
    };
    by_folder(&|_| Ok(()))??;
    let client = format!(
        "[[{:?}, {:?}], [\"me.cert\", \"me.key\"]]",
        other.display().to_string(),
        other_key.display().to_string()
    );
    by_folder(&|own| fs::write(own.join("hosts.toml"), format!("ca = \"ca.crt\"\nclient = {client}\n")))??;
    by_folder(&|own| fs::write(own.join("hosts.toml"), format!("skip_verify = true\nclient = {client}\n")))??;
    for (what, text) in [
        ("no client certificate", "ca = \"ca.crt\"\n".to_owned()),
        ("no CA", format!("client = {client}\n")),
        ("verification", format!("skip_verify = false\nclient = {client}\n")),
    ] {
        let outcome = by_folder(&|own| fs::write(own.join("hosts.toml"), &text))?;
        let error = assert_kind(outcome, &ErrorKind::Tls);
        assert!(error.context("endpoint").is_some_and(|at| at.starts_with("https://")), "{what}: {error}");
    }
    Ok(())
}

/// A mirror that fetches what it lacks from the registry; when it is gone, the registry answers.
pub(super) fn a_pull_through_mirror_and_its_end() -> Verdict {
    let origin = DockerRegistry::start("", "")?;
    let name = push(&open(&origin, |_| ())?, &origin, &samples::image())?;
    let mirror = DockerRegistry::start(&format!("proxy: {{remoteurl: \"http://{}\"}}", origin.host()), "")?;
    let folder = tempfile::tempdir()?;
    let own = folder.path().join(origin.host());
    fs::create_dir(&own)?;
    let capabilities = "capabilities = [\"pull\", \"resolve\"]";
    fs::write(own.join("hosts.toml"), format!("[host.\"http://{}\"]\n{capabilities}\n", mirror.host()))?;
    let registry = open(&origin, |config| config.hosts_dir = vec![folder.path().to_owned()])?;
    let sample = samples::image();
    let read = |registry: &Registry| {
        assert_eq!(block_on(registry.fetch_raw(&name))?.descriptor(), &sample.top);
        for layer in &sample.images[0].layers {
            let blob =
                block_on(async { registry.fetch_blob(&name, &layer.descriptor, BlobRange::FULL).await });
            let bytes = block_on(blob?.bytes(1 << 20))?;
            assert_eq!(Some(&bytes), sample.blob(layer.descriptor.digest()));
        }
        Ok::<_, plyfold_core::Error>(())
    };
    read(&registry)?;
    let layer = sample.images[0].layers[0].descriptor.digest();
    // It keeps what it fetched after it has answered.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !mirror.blob_file(layer).exists() {
        assert!(Instant::now() < deadline, "the mirror has not kept what it fetched");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(mirror);
    read(&registry)?;
    Ok(())
}

/// What skopeo's login stores we use, and skopeo uses what ours stores; the registry checks bcrypt.
pub(super) fn podman_s_login_is_ours_and_ours_is_skopeo_s() -> Verdict {
    let folder = tempfile::tempdir()?;
    let auth = htpasswd(folder.path())?;
    let server = DockerRegistry::start(&auth, "")?;
    let name = push(&open(&server, with_login)?, &server, &samples::image())?;
    let theirs = folder.path().join("theirs.json");
    let authfile = format!("--authfile={}", theirs.display());
    Run::new("skopeo")
        .args(["login", "--tls-verify=false", "-u", "user", "-p", "s3cret-word", &authfile, server.host()])
        .success()?;
    let with_file = |file: &Path| {
        open(&server, |config| {
            config.docker_config = None;
            config.auth_file = Some(file.to_owned());
        })
    };
    block_on(with_file(&theirs)?.manifest(&name))?;
    let ours = folder.path().join("ours.json");
    let config = plyfold_registry::Config {
        auth_file: Some(ours.clone()),
        hosts_dir: Vec::new(),
        ..plyfold_registry::Config::default()
    };
    let (user, wrong) = (Secret::new("user"), Secret::new("s3cret-guess"));
    let refused = block_on(plyfold_registry::login(server.host(), &user, &wrong, &config));
    assert_kind(refused, &ErrorKind::Auth);
    assert!(!ours.exists(), "what is refused is not stored");
    let right = Secret::new("s3cret-word");
    let done = block_on(plyfold_registry::login(server.host(), &user, &right, &config))?;
    assert!(done.checked);
    let authfile = format!("--authfile={}", ours.display());
    let image = format!("docker://{}", reference::parse(&name.whole())?);
    Run::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &authfile, &image]).success()?;
    block_on(plyfold_registry::logout(server.host(), &config))?;
    assert_kind(block_on(with_file(&ours)?.manifest(&name)), &ErrorKind::Auth);
    Ok(())
}
