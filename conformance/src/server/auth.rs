//! Who may do what: anonymous, Basic, and Bearer with a token endpoint.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::http::{Request, Response};

/// How the server authenticates its clients.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Everyone may do everything.
    #[default]
    Anonymous,
    /// `Authorization: Basic` on every request.
    Basic(Login),
    /// Tokens from this server's `/token`.
    Bearer {
        /// Who gets a token; `None` gives tokens to everyone.
        login: Option<Login>,
        /// How long a token is good for.
        ttl: Duration,
        /// The realm in the challenge, in place of this server's own endpoint.
        realm: Option<String>,
    },
}

/// A user name and a password; as a refresh token the password stands alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password, or identity token.
    pub password: String,
}

impl Login {
    /// A login.
    pub fn new(user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned() }
    }

    fn header(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

/// The tokens that were handed out.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    issued: u64,
    valid: BTreeMap<String, Instant>,
}

impl Tokens {
    /// Makes every token invalid at once.
    pub(super) fn revoke(&mut self) {
        self.valid.clear();
    }

    /// The answer of the token endpoint: GET with Basic, or POST as OAuth 2 (distribution's `token/oauth`).
    pub(super) fn answer(&mut self, auth: &Auth, request: &Request) -> Response {
        let Auth::Bearer { login, ttl, .. } = auth else { return Response::error(404, "UNSUPPORTED") };
        let granted = match (login, request.method.as_str()) {
            (None, _) => true,
            (Some(login), "POST") => match request.form("grant_type").as_deref() {
                Some("refresh_token") => request.form("refresh_token").as_ref() == Some(&login.password),
                Some("password") => {
                    request.form("username").as_ref() == Some(&login.user)
                        && request.form("password").as_ref() == Some(&login.password)
                }
                _ => false,
            },
            (Some(login), _) => request.header("authorization") == Some(&login.header()),
        };
        if !granted {
            return Response::error(401, "UNAUTHORIZED");
        }
        self.issued += 1;
        let token = format!("token-{}", self.issued);
        self.valid.insert(token.clone(), Instant::now() + *ttl);
        let field = if request.method == "POST" { "access_token" } else { "token" };
        let body = format!(r#"{{"{field}":"{token}","expires_in":{}}}"#, ttl.as_secs());
        Response::new(200, body).with("Content-Type", "application/json")
    }

    /// The challenge that a request without good credentials gets; `None` lets it pass.
    pub(super) fn challenge(
        &self,
        auth: &Auth,
        request: &Request,
        host: &str,
        scope: &str,
    ) -> Option<Response> {
        let sent = request.header("authorization");
        let challenge = match auth {
            Auth::Anonymous => return None,
            Auth::Basic(login) if sent == Some(&login.header()) => return None,
            Auth::Basic(_) => r#"Basic realm="plyfold""#.to_owned(),
            Auth::Bearer { realm, .. } => {
                let token = sent.and_then(|header| header.strip_prefix("Bearer "));
                let expiry = token.and_then(|token| self.valid.get(token));
                if expiry.is_some_and(|expiry| Instant::now() < *expiry) {
                    return None;
                }
                let realm = realm.clone().unwrap_or_else(|| format!("http://{host}/token"));
                format!(r#"Bearer realm="{realm}",service="{host}",scope="{scope}""#)
            }
        };
        Some(Response::error(401, "UNAUTHORIZED").with("WWW-Authenticate", challenge))
    }
}
