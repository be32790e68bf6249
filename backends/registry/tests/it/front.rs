//! TLS in front of a plain server: certificates of an authority made for one test, and who has shown one.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use plyfold_conformance::server::FaultServer;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "plyfold test CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// The authority's own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A client's certificate and key in one file.
    pub(crate) fn client(&self) -> PathBuf {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = self.folder.path().join("client.pem");
        std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
        path
    }

    /// What a server at a loopback address needs. It asks for a certificate of the client and does without.
    fn server(&self, address: &str) -> ServerConfig {
        let mut params = CertificateParams::new(vec![address.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = verifier.allow_unauthenticated().build().unwrap();
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_client_cert_verifier(verifier);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key.into()).unwrap();
        config.alpn_protocols = ["h2", "http/1.1"].map(|name| name.as_bytes().to_vec()).to_vec();
        config
    }
}

/// A server with TLS on a loopback address, in front of one without. It would rather speak HTTP/2.
pub(crate) struct Front {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// What it has seen of a request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Whether it came with a certificate of the client.
    has_certificate: bool,
    /// What was agreed on of what the client offers (RFC 7301).
    pub(crate) protocol: Option<String>,
    pub(crate) head: String,
}

impl Front {
    pub(crate) fn start(authority: &Authority, address: &str, behind: &FaultServer) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (config, seen) = (Arc::new(authority.server(address)), Arc::<Mutex<Vec<Seen>>>::default());
        let (behind, noted) = (behind.host().to_owned(), Arc::clone(&seen));
        // The thread ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let (behind, seen) = (behind.clone(), Arc::clone(&noted));
                std::thread::spawn(move || {
                    // A client that does not trust it goes away in the middle.
                    let _ = passed(StreamOwned::new(connection, stream), &behind, &seen);
                });
            }
        });
        Self { host, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.host)
    }

    /// For each request, whether it came with a certificate of the client.
    pub(crate) fn shown(&self) -> Vec<bool> {
        self.seen().iter().map(|seen| seen.has_certificate).collect()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// One request there and its answer back; the connection is closed after it.
fn passed(
    mut client: StreamOwned<ServerConnection, TcpStream>,
    behind: &str,
    seen: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut client);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
        let line = head[start..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let protocol = client.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    let has_certificate = client.conn.peer_certificates().is_some();
    seen.lock().unwrap().push(Seen { has_certificate, protocol, head: head.clone() });
    let mut server = TcpStream::connect(behind)?;
    server.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes())?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let end = answer.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    client.write_all(&answer[..end])?;
    client.write_all(b"Connection: close\r\n")?;
    client.write_all(&answer[end..])?;
    client.conn.send_close_notify();
    client.flush()
}
