//! `oci-client`, the ecosystem's own client, on the other end.

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
    // Over plain HTTP there is no certificate to verify, and a machine without any CA is no reason to fail.
    let config = ClientConfig {
        protocol: ClientProtocol::Http,
        accept_invalid_certificates: true,
        ..ClientConfig::default()
    };
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn it_pulls_what_we_push_and_we_pull_what_it_pushes() {
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
