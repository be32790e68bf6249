//! `oci-client`, the ecosystem's own client, on the other end.

use std::process::Command;
use std::{env, fs};

use plyfold_conformance::samples;
use plyfold_conformance::server::{FaultServer, Options};
use plyfold_core::{CopyOptions, ImageRegistry, copy, reference};
use plyfold_registry::oci_client::client::{ClientConfig, ClientProtocol};
use plyfold_registry::oci_client::secrets::RegistryAuth;
use plyfold_registry::oci_client::{Client, Reference as PeerReference};

use crate::{open, serve};

fn peer() -> Client {
    // It takes whichever provider the process has, and panics without one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    Client::try_from(config).unwrap()
}

/// The peer panics on a machine without any CA, although nothing here is verified: this process gives one to another,
/// which runs the test.
#[test]
fn it_pulls_what_we_push_and_we_pull_what_it_pushes() {
    if env::var_os("SSL_CERT_FILE").is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(both_ways());
    }
    let ca = tempfile::NamedTempFile::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&ca, made.cert.pem()).unwrap();
    let name = "peer::it_pulls_what_we_push_and_we_pull_what_it_pushes";
    let mut child = Command::new(env::current_exe().unwrap());
    let ran = child.args(["--exact", name]).env("SSL_CERT_FILE", ca.path()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"), "the test has run");
}

async fn both_ways() {
    let sample = samples::image();
    let (from, name) = serve(Options::default(), &sample);
    let to = FaultServer::start().unwrap();
    let target = reference::parse(&format!("{}/ours:1", to.host())).unwrap();
    let registry = open(to.host(), |_| ());
    copy(&open(from.host(), |_| ()), &name, &registry, &target, &CopyOptions::default()).await.unwrap();

    let peer = peer();
    let theirs = |text: &str| PeerReference::try_from(text).unwrap();
    let accepted = ["application/vnd.oci.image.manifest.v1+json"];
    let pulled = peer.pull_manifest_raw(&theirs(&target.whole()), &RegistryAuth::Anonymous, &accepted).await;
    let (bytes, digest) = pulled.unwrap();
    assert_eq!((&bytes, digest.as_str()), (sample.top_bytes(), sample.top.digest().as_ref()));

    let image = theirs(&format!("{}/theirs:1", to.host()));
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        peer.push_blob(&image, blob.bytes.clone(), blob.descriptor.digest().as_ref()).await.unwrap();
    }
    peer.push_manifest_raw(&image, bytes, accepted[0].parse().unwrap()).await.unwrap();
    let name = reference::parse(&format!("{}/theirs:1", to.host())).unwrap();
    assert_eq!(registry.manifest(&name).await.unwrap().descriptor(), &sample.top);
}
