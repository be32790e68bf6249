//! Credentials of the small client: those of the set-up, those that are stored, and the tokens they give.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plyfold_core::{Error, ErrorKind, Result};

use super::wire::{Request, Response};
use super::{HttpFault, SmallRegistry};

/// What proves who we are.
enum Credential {
    /// The value of `Authorization: Basic`.
    Basic(String),
    /// An identity token.
    Refresh(String),
}

impl SmallRegistry {
    /// Sends a request with what was granted before, and again with what its challenge asks for.
    pub(super) async fn authorized(&self, request: &Request, repository: &str) -> Result<Response> {
        let key = self.grant_key(&request.host, repository);
        let granted = self.grants.lock().unwrap().get(&key).cloned();
        let response = self.followed(request, granted.as_deref()).await?;
        if response.status != 401 || response.host != request.host {
            return Ok(response);
        }
        if granted.is_some() && self.fault == HttpFault::TokensKept {
            return Ok(response);
        }
        let fresh = self.answer(&response, repository).await?;
        if self.fault != HttpFault::TokensForgotten {
            self.grants.lock().unwrap().insert(key, fresh.clone());
        }
        self.followed(request, Some(&fresh)).await
    }

    fn grant_key(&self, host: &str, repository: &str) -> String {
        match self.fault {
            HttpFault::TokensShared => host.to_owned(),
            _ => format!("{host}/{repository}"),
        }
    }

    /// The `Authorization` that a challenge asks for.
    async fn answer(&self, challenged: &Response, repository: &str) -> Result<String> {
        let host = &challenged.host;
        let refused = |why: &str| Error::new(ErrorKind::Auth, why).with_endpoint(format!("http://{host}"));
        let challenge = challenged.header("www-authenticate").unwrap_or_default();
        let credential = self.credential(host)?;
        if challenge.starts_with("Basic") {
            return match credential {
                Some(Credential::Basic(header)) => Ok(header),
                _ => Err(refused("a user name and a password are needed")),
            };
        }
        let realm = challenge.split("realm=\"").nth(1).and_then(|rest| rest.split('"').next());
        let place = realm.and_then(|realm| realm.strip_prefix("http://")?.split_once('/'));
        let (realm_host, path) = place.ok_or_else(|| refused("the challenge has no realm"))?;
        let same = |name: &str| name.split(':').next().map(str::to_owned);
        if credential.is_some() && same(realm_host) != same(host) && self.fault != HttpFault::AnyRealm {
            return Err(refused("untrusted realm"));
        }
        let scope = self.scope(challenge, repository).replace(':', "%3A").replace('/', "%2F");
        let request = match credential {
            Some(Credential::Refresh(token)) => {
                let mut post = Request::new("POST", realm_host, format!("/{path}"))
                    .with("Content-Type", "application/x-www-form-urlencoded");
                let form =
                    format!("grant_type=refresh_token&client_id=small&scope={scope}&refresh_token={token}");
                post.body = form.into();
                post
            }
            credential => {
                let get = Request::new("GET", realm_host, format!("/{path}?scope={scope}"));
                match credential {
                    Some(Credential::Basic(header)) => get.with("Authorization", header),
                    _ => get,
                }
            }
        };
        let mut request = request;
        match self.fault {
            HttpFault::HeaderToTokenServers => request.headers.extend(self.setup.header.clone()),
            HttpFault::ProxyForAll => request.proxy = self.own(request.clone()).proxy,
            _ => {}
        }
        let response = request.send().await?;
        if response.status >= 500 {
            return Err(response.error("token"));
        }
        if response.status != 200 {
            let shown = match self.fault {
                HttpFault::SecretsInErrors => format!("{request:?}"),
                _ => "the token server refused".to_owned(),
            };
            return Err(refused(&shown));
        }
        let body: serde_json::Value = serde_json::from_slice(&response.document().await?)
            .map_err(|_| refused("the token server's answer is no token"))?;
        let token = body["token"].as_str().or_else(|| body["access_token"].as_str());
        let token = token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
        token.map(|token| format!("Bearer {token}")).ok_or_else(|| refused("no token"))
    }

    /// The scope that answers a challenge: for reading, under the name that it uses.
    fn scope(&self, challenge: &str, repository: &str) -> String {
        let asked = challenge.split("scope=\"").nth(1).and_then(|rest| rest.split('"').next());
        match asked.map(|asked| (asked, asked.rsplit_once(':'))) {
            Some((asked, Some(_))) if self.fault == HttpFault::ScopesWidened => asked.to_owned(),
            Some((_, Some((resource, _)))) if self.fault != HttpFault::ScopesAsKnown => {
                format!("{resource}:pull")
            }
            Some((asked, None)) if !asked.is_empty() => asked.to_owned(),
            _ => format!("repository:{repository}:pull"),
        }
    }

    fn credential(&self, host: &str) -> Result<Option<Credential>> {
        let is_home = *host == self.setup.host || self.fault == HttpFault::CredentialsToMirrors;
        if let (Some(login), true) = (&self.setup.login, is_home) {
            return Ok(Some(basic(&login.user, &login.password)));
        }
        let Some(folder) = &self.setup.docker_config else { return Ok(None) };
        let text = std::fs::read(folder.join("config.json")).unwrap_or_default();
        let file: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let key = if self.fault == HttpFault::CredentialsToMirrors { &self.setup.host } else { host };
        if let (Some(name), true) =
            (file["credHelpers"][key].as_str(), self.fault != HttpFault::HelpersIgnored)
        {
            return self.helped(name, key).map(Some);
        }
        let entry = &file["auths"][key];
        if let (Some(token), true) =
            (entry["identitytoken"].as_str(), self.fault != HttpFault::IdentityTokensIgnored)
        {
            return Ok(Some(Credential::Refresh(token.to_owned())));
        }
        Ok(entry["auth"].as_str().map(|auth| Credential::Basic(format!("Basic {auth}"))))
    }

    /// Asks `docker-credential-NAME get`.
    fn helped(&self, name: &str, server: &str) -> Result<Credential> {
        let failed = || Error::new(ErrorKind::Auth, format!("the credential helper {name} failed"));
        let program =
            self.setup.helpers.as_ref().ok_or_else(failed)?.join(format!("docker-credential-{name}"));
        let child = Command::new(program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|_| failed())?;
        // A helper that does not read its input may still answer.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(server.as_bytes()));
        let output = child.wait_with_output().map_err(|_| failed())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            return Err(match self.fault {
                HttpFault::SecretsInErrors => failed().with_context("said", said),
                _ => failed(),
            });
        }
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|_| failed())?;
        let (user, secret) = (answer["Username"].as_str(), answer["Secret"].as_str());
        let (user, secret) = user.zip(secret).ok_or_else(failed)?;
        Ok(if user == "<token>" { Credential::Refresh(secret.to_owned()) } else { basic(user, secret) })
    }
}

fn basic(user: &str, password: &str) -> Credential {
    Credential::Basic(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}
