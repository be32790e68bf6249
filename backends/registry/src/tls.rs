//! The TLS side of connections: whom to trust and who we are.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use plyfold_core::{Error, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::Config;

/// The system's CA certificates, read once: there are some hundred.
static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
});

/// The system's CA certificates and the configured ones, TLS 1.2 or 1.3, and the client's own certificate.
///
/// `ring` is named here, so that neither a process-wide provider nor `CMake` is needed. A system without any CA
/// certificate is no error: plain HTTP and own CAs work there, other hosts fail as untrusted.
pub(crate) fn client(config: &Config) -> Result<ClientConfig> {
    let mut roots = SYSTEM.clone();
    for path in &config.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|e| invalid(path, "is not a CA certificate", e))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::config("no TLS version is available").with_source(e))?
        .with_root_certificates(roots);
    let Some(certificate) = &config.client_cert else {
        if config.client_key.is_some() {
            return Err(Error::config("client-key is given without client-cert"));
        }
        return Ok(builder.with_no_client_auth());
    };
    let key = config.client_key.as_ref().unwrap_or(certificate);
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| invalid(key, "holds no private key", e))?;
    builder
        .with_client_auth_cert(certificates(certificate)?, private)
        .map_err(|e| invalid(certificate, "does not go with its key", e))
}

/// All certificates of a PEM file; a file with none is an error, not an empty list.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |e| invalid(path, "holds no certificate", e);
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if found.is_empty() {
        let message = format!("{} holds no certificate", path.display());
        return Err(Error::config(message).with_hint("certificates and keys are read as PEM"));
    }
    Ok(found)
}

fn invalid(path: &Path, why: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::config(format!("{} {why}", path.display()))
        .with_hint("certificates and keys are read as PEM")
        .with_source(source)
}
