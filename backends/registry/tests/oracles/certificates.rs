//! A certificate authority for one test.

use std::path::{Path, PathBuf};

use plyfold_conformance::oracle::Failure;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, NameConstraints, date_time_ymd,
};

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A client's certificate is chosen by the name of its issuer.
        let key = KeyPair::generate()?;
        let name = format!("plyfold test CA {:x?}", &key.public_key_raw()[..8]);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, key)?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("ca.pem"), issuer.pem())?;
        Ok(Self { issuer, folder })
    }

    /// The authority's own certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The registry's `tls` options with a certificate for these names; without any, it has a common name only.
    pub(crate) fn server_options(&self, names: &[&str]) -> Result<String, Failure> {
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        self.server(CertificateParams::new(names)?)
    }

    pub(crate) fn expired_server_options(&self) -> Result<String, Failure> {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.server(params)
    }

    /// A certificate for 127.0.0.1 from an authority below this one that is for 10.0.0.0/8 alone (RFC 5280 4.2.1.10).
    pub(crate) fn constrained_server_options(&self) -> Result<String, Failure> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "plyfold constrained CA");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::IpAddress(CidrSubnet::V4(
                [10, 0, 0, 0],
                [255, 0, 0, 0],
            ))],
            excluded_subtrees: Vec::new(),
        });
        let below = CertifiedIssuer::signed_by(params, KeyPair::generate()?, &self.issuer)?;
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let chain = leaf.signed_by(&key, &below)?.pem() + &below.pem();
        let (certificate, key) = self.written(&chain, &key)?;
        Ok(options(&certificate, &key))
    }

    /// A client's certificate and its key.
    pub(crate) fn client(&self) -> Result<(PathBuf, PathBuf), Failure> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.signed(&params)
    }

    fn server(&self, mut params: CertificateParams) -> Result<String, Failure> {
        params.distinguished_name.push(DnType::CommonName, "127.0.0.1");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (certificate, key) = self.signed(&params)?;
        Ok(options(&certificate, &key))
    }

    fn signed(&self, params: &CertificateParams) -> Result<(PathBuf, PathBuf), Failure> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.written(&certificate.pem(), &key)
    }

    fn written(&self, chain: &str, key: &KeyPair) -> Result<(PathBuf, PathBuf), Failure> {
        let folder = tempfile::tempdir_in(self.folder.path())?.keep();
        let (path, key_path) = (folder.join("leaf.pem"), folder.join("leaf.key"));
        std::fs::write(&path, chain)?;
        std::fs::write(&key_path, key.serialize_pem())?;
        Ok((path, key_path))
    }
}

/// What stands behind `tls:` in the registry's configuration.
fn options(certificate: &Path, key: &Path) -> String {
    let quoted = |path: &Path| format!("\"{}\"", path.display());
    format!("{{certificate: {}, key: {}, minimumtls: tls1.2}}", quoted(certificate), quoted(key))
}
