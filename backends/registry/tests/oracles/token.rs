//! A token server (distribution, "Token Authentication Implementation"): ES256 tokens with their chain in `x5c`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use plyfold_conformance::oracle::Failure;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SigningKey};
use serde_json::json;

/// `Basic` of `user:s3cret-word`.
const LOGIN: &str = "authorization: basic dxnlcjpzm2nyzxqtd29yza==";

pub(crate) struct TokenServer {
    address: String,
    issued: Arc<AtomicUsize>,
    folder: tempfile::TempDir,
}

struct Issuer {
    key: CertifiedIssuer<'static, KeyPair>,
    life: Duration,
    issued: Arc<AtomicUsize>,
}

impl TokenServer {
    /// Starts one whose tokens are good for `life`, which it does not say.
    pub(crate) fn start(life: Duration) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let params = CertificateParams::new(vec!["token".to_owned()])?;
        let key = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(folder.path().join("token.pem"), key.pem())?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let issued = Arc::new(AtomicUsize::new(0));
        let server = Issuer { key, life, issued: Arc::clone(&issued) };
        // The thread ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = server.serve(&stream);
            }
        });
        Ok(Self { address, issued, folder })
    }

    /// The registry's side of it.
    pub(crate) fn configuration(&self) -> String {
        self.configuration_at(&self.address)
    }

    /// The same, where the registry names the server by `host:port` of another name.
    pub(crate) fn configuration_at(&self, address: &str) -> String {
        let bundle: PathBuf = self.folder.path().join("token.pem");
        format!(
            "auth: {{token: {{realm: \"http://{}/token\", service: test, issuer: test, rootcertbundle: \"{}\"}}}}",
            address,
            bundle.display()
        )
    }

    /// Where it listens, by the name that the system's resolver has for this machine.
    pub(crate) fn by_name(&self) -> String {
        let port = self.address.rsplit(':').next().unwrap_or_default();
        format!("localhost:{port}")
    }

    pub(crate) fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }
}

impl Issuer {
    fn serve(&self, mut stream: &TcpStream) -> Result<(), Failure> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut head = String::new();
        while reader.read_line(&mut head)? > 2 {}
        let (status, body) = if head.to_ascii_lowercase().contains(LOGIN) {
            self.issued.fetch_add(1, Ordering::SeqCst);
            let target = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
            ("200 OK", json!({ "token": self.token(&target)? }).to_string())
        } else {
            ("401 Unauthorized", "{}".to_owned())
        };
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        Ok(stream.write_all(answer.as_bytes())?)
    }

    fn token(&self, target: &str) -> Result<String, Failure> {
        let decoded = target.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        let scopes = decoded.split(['?', '&']).filter_map(|pair| pair.strip_prefix("scope="));
        let access: Vec<_> = scopes
            .filter_map(|scope| {
                let (kind, rest) = scope.split_once(':')?;
                let (name, actions) = rest.rsplit_once(':')?;
                let actions: Vec<&str> = actions.split(',').collect();
                Some(json!({ "type": kind, "name": name, "actions": actions }))
            })
            .collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        // The registry grants a minute more than the token says.
        let expiry = now - 60 + self.life.as_secs();
        let claims = json!({
            "iss": "test", "sub": "user", "aud": "test", "jti": "1", "access": access,
            "iat": now - 60, "nbf": now - 60, "exp": expiry,
        });
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(self.key.der())] });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.key().sign(text.as_bytes())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(fixed(&signature))))
    }
}

/// An ECDSA signature as two integers of 32 bytes (RFC 7518 3.4) out of its DER form: SEQUENCE { r, s }.
fn fixed(der: &[u8]) -> Vec<u8> {
    let mut fixed = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let integer = &rest[2..2 + length];
        let start = integer.len().saturating_sub(32);
        fixed.resize(fixed.len() + 32 - (integer.len() - start), 0);
        fixed.extend_from_slice(&integer[start..]);
        rest = &rest[2 + length..];
    }
    fixed
}
