//! TLS: trusted CAs and client certificates.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use plyfold_core::{Error, Result};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::Config;
use crate::hosts::file::{ClientCertificate, Host};

/// The system's CA certificates, read once: there are some hundred.
static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
});

/// The CAs that are trusted for a host, and the client certificates for it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Identity {
    ca: Vec<PathBuf>,
    client: Vec<ClientCertificate>,
    skip_verify: bool,
}

impl Identity {
    /// Of hosts without options of their own.
    pub(crate) fn new(config: &Config) -> Self {
        Self { ca: config.ca.clone(), client: Vec::new(), skip_verify: false }
    }

    /// Of the registry that the URI names: the configuration's client certificate is for it.
    pub(crate) fn of_home(mut self, config: &Config) -> Self {
        let own = config.client_cert.as_ref();
        let own = own.map(|cert| ClientCertificate { cert: cert.clone(), key: config.client_key.clone() });
        self.client.extend(own);
        self
    }

    /// Of a host with options of its own.
    pub(crate) fn of_host(mut self, host: &Host) -> Self {
        self.ca.extend(host.ca.iter().cloned());
        if !host.client.is_empty() {
            self.client.clone_from(&host.client);
        }
        self.skip_verify = host.skip_verify;
        self
    }

    /// Whether a server has to prove its name.
    pub(crate) fn verifies(&self) -> bool {
        !self.skip_verify
    }
}

/// The system's CA certificates and those of the identity, TLS 1.2 or 1.3, and the client's own certificates.
///
/// The provider is named here: none has to be installed for the process, and one that is installed is not used. A
/// system without any CA certificate is no error: plain HTTP and own CAs work there, other hosts fail as untrusted.
///
/// With it whether a server has asked for a certificate of the client.
pub(crate) fn client(identity: &Identity) -> Result<(ClientConfig, Arc<AtomicBool>)> {
    let mut roots = SYSTEM.clone();
    for path in &identity.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|e| invalid(path, "is not a CA certificate", e))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::config("no TLS version is available").with_source(e))?;
    let builder = if identity.skip_verify {
        let accept_any = AcceptAny(Arc::clone(&provider));
        builder.dangerous().with_custom_certificate_verifier(Arc::new(accept_any))
    } else {
        builder.with_root_certificates(roots)
    };
    let own = identity.client.iter().map(|certificate| key(&provider, certificate));
    let keys = Keys { own: own.collect::<Result<_>>()?, asked: Arc::default() };
    let asked = Arc::clone(&keys.asked);
    Ok((builder.with_client_cert_resolver(Arc::new(keys)), asked))
}

fn key(provider: &CryptoProvider, certificate: &ClientCertificate) -> Result<Arc<CertifiedKey>> {
    let path = certificate.key.as_ref().unwrap_or(&certificate.cert);
    let private =
        PrivateKeyDer::from_pem_file(path).map_err(|e| unreadable(path, "holds no private key", e))?;
    let key = CertifiedKey::from_der(certificates(&certificate.cert)?, private, provider);
    key.map(Arc::new).map_err(|e| invalid(&certificate.cert, "does not match its key", e))
}

/// The client's certificates, of which the server takes the first that it knows the issuer of.
#[derive(Debug)]
struct Keys {
    own: Vec<Arc<CertifiedKey>>,
    asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Keys {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        let mut usable = self.own.iter().filter(|key| key.key.choose_scheme(schemes).is_some());
        // An issuer's name stands in the certificate as it stands in the server's question.
        let is_known = |key: &&Arc<CertifiedKey>| {
            let names = |certificate: &CertificateDer<'_>, issuer: &[u8]| {
                certificate.windows(issuer.len().max(1)).any(|part| part == issuer)
            };
            issuers.iter().any(|issuer| key.cert.iter().any(|certificate| names(certificate, issuer)))
        };
        let first = usable.clone().next();
        usable.find(is_known).or(first).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.own.is_empty()
    }
}

/// Accepts every certificate, and still checks that the server has its key (`skip_verify`).
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// All certificates of a PEM file; a file with none is an error, not an empty list.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found =
        found.and_then(|found| if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) });
    found.map_err(|e| unreadable(path, "holds no certificate", e))
}

/// The error for a file that could not be read, or whose content is not what it has to be.
fn unreadable(path: &Path, why: &str, error: pem::Error) -> Error {
    match error {
        pem::Error::Io(e) => {
            let message =
                format!("the certificate or the key {:?} cannot be read", path.display().to_string());
            Error::config(message).with_source(e)
        }
        e => invalid(path, why, e),
    }
}

fn invalid(path: &Path, why: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::config(format!("{} {why}", path.display()))
        .with_hint("certificates and keys are read as PEM")
        .with_source(source)
}
