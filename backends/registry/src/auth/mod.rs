//! Authentication: which `Authorization` a request carries, obtained once and kept until it runs out.

mod challenge;
pub(crate) mod credentials;
mod grant;
mod helper;
pub(crate) mod scope;
mod store;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use plyfold_core::blocking::blocking;
use plyfold_core::{Advice, Credential, Error, ErrorKind, Result};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};

use self::challenge::Challenge;
pub(crate) use self::credentials::Credentials;
use self::grant::{Grant, basic, bearer};
pub(crate) use self::scope::{Access, Permission, Scope};
pub use self::store::Keeper;
pub(crate) use self::store::Store;
use crate::hosts::{Endpoint, Places, authority};
use crate::policy::origin;

/// Grants that are kept; beyond this number all are dropped and fetched again.
const GRANTS: usize = 1024;

/// Credentials, and what they were exchanged for.
#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Credentials,
    grants: Mutex<HashMap<Scope, Slot>>,
}

/// The grant for one scope. The task that fetches a new one holds the lock, and the others wait for it.
type Slot = Arc<tokio::sync::Mutex<Option<Grant>>>;

impl Auth {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, grants: Mutex::default() }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What an earlier request was granted and still holds; also one that may have expired, for a request that is
    /// sent only `once`. No I/O of its own.
    pub(crate) async fn granted(&self, scope: &Scope, once: bool) -> Option<HeaderValue> {
        let slot = self.slot(scope);
        let grant = slot.lock().await;
        grant.as_ref().filter(|grant| once || grant.is_valid()).map(|grant| grant.header.clone())
    }

    /// The credential for a scope's repository, looked up off the async threads.
    async fn stored(&self, scope: &Scope) -> Result<Option<Credential>> {
        let (credentials, scope) = (self.credentials.clone(), scope.clone());
        blocking(move |_| credentials.of(&scope.registry, &scope.repository)).await
    }

    /// Answers the challenge of a registry at `base` that has refused `refused`.
    ///
    /// # Errors
    /// [`Auth`](ErrorKind::Auth) when there is no answer: no credentials, an untrusted realm, a token server that
    /// refuses or sends an invalid answer.
    pub(crate) async fn answer(
        &self,
        exchange: &Exchange<'_>,
        scope: &Scope,
        challenge: &HeaderMap,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue> {
        let slot = self.slot(scope);
        let mut grant = slot.lock().await;
        // Another task may have stored a grant meanwhile.
        let newer = grant.as_ref().filter(|grant| grant.is_valid() && Some(&grant.header) != refused);
        if let Some(newer) = newer {
            return Ok(newer.header.clone());
        }
        *grant = None;
        let credential = self.stored(scope).await?;
        let fresh = fresh(exchange, scope, Challenge::of(challenge)?, credential).await?;
        if Some(&fresh.header) == refused {
            return Err(Error::new(ErrorKind::Auth, "the registry refuses these credentials"));
        }
        let header = fresh.header.clone();
        *grant = Some(fresh);
        Ok(header)
    }

    /// Forgets a grant that the registry did not accept.
    pub(crate) async fn forget(&self, scope: &Scope, refused: &HeaderValue) {
        let slot = self.slot(scope);
        let mut grant = slot.lock().await;
        if grant.as_ref().is_some_and(|grant| grant.header == *refused) {
            *grant = None;
        }
    }

    fn slot(&self, scope: &Scope) -> Slot {
        // Every change is one insertion, so a poisoned lock is consistent.
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.len() >= GRANTS && !grants.contains_key(scope) {
            grants.clear();
        }
        Arc::clone(grants.entry(scope.clone()).or_default())
    }
}

/// What a challenge is answered with.
async fn fresh(
    exchange: &Exchange<'_>,
    scope: &Scope,
    challenge: Challenge,
    credential: Option<Credential>,
) -> Result<Grant> {
    match (challenge, credential) {
        (_, Some(Credential::RegistryToken(token))) => {
            exchange.log(scope, &exchange.endpoint.root);
            Ok(Grant { header: bearer(&token)?, until: None })
        }
        (Challenge::Bearer { realm, service, scope: asked }, credential) => {
            let Exchange { places, endpoints, endpoint } = exchange;
            let (url, trusted) =
                places.policy.realm(&endpoint.root, endpoint.transport.verifies(), &realm)?;
            if credential.is_some() {
                if !trusted {
                    return Err(untrusted(&scope.registry, &url));
                }
                exchange.log(scope, &url);
            }
            let access = scope::answered(&scope.access, asked.as_deref().unwrap_or_default());
            let transport = places.transport(endpoints, endpoint, &url)?;
            token::fetch(&transport, url, service.as_deref(), &access, credential.as_ref()).await
        }
        (Challenge::Basic, Some(Credential::Basic(user, password))) => {
            exchange.log(scope, &exchange.endpoint.root);
            Ok(Grant { header: basic(&user, &password)?, until: None })
        }
        (Challenge::Basic, _) => {
            let error = Error::new(ErrorKind::Auth, "the registry asks for a user name and a password");
            Err(error.with_advice(Advice::GiveCredentials { registry: scope.registry.clone() }))
        }
    }
}

/// What a request to a token server needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) places: &'a Places,
    /// The registry's hosts.
    pub(crate) endpoints: &'a [Endpoint],
    /// The one that challenged us.
    pub(crate) endpoint: &'a Endpoint,
}

impl Exchange<'_> {
    /// Logs where credentials are sent.
    fn log(&self, scope: &Scope, to: &Url) {
        let (registry, from, to) = (&scope.registry, origin(&self.endpoint.root), origin(to));
        if from == to {
            tracing::debug!("the credentials for {registry} go to {to}");
        } else {
            tracing::info!(
                "the credentials for {registry} go to {to}, which {from} names as its token server"
            );
        }
    }
}

fn untrusted(registry: &str, realm: &Url) -> Error {
    let message = format!(
        "untrusted realm: {registry} names the token server {}; no credentials were sent",
        origin(realm)
    );
    Error::new(ErrorKind::Auth, message).with_advice(Advice::options(
        "{} lets them go there; {} asks without them",
        [("trusted-realm", authority(realm)), ("anonymous", "true".to_owned())],
    ))
}
