//! Storing credentials that a registry has accepted, and removing them.

use std::path::PathBuf;

use plyfold_core::blocking::blocking;
use plyfold_core::{Credential, Error, ErrorKind, Result, Secret};
use reqwest::{Method, StatusCode};

use crate::auth::{Access, Credentials, Keeper, Store};
use crate::client::Client;
use crate::{Config, error};

/// What [`login`] has done.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Login {
    /// Where the credentials are now.
    pub keeper: Keeper,
    /// Whether the registry asked for credentials at all: a registry that asks for none does not check them.
    pub checked: bool,
    /// A file that is read before that one and has other credentials for the registry: they go on being used.
    pub shadowed_by: Option<PathBuf>,
}

/// Tries a user name and a password on a registry, and stores them when they are accepted: where the configuration or
/// `$REGISTRY_AUTH_FILE` says, else in Docker's `config.json`, or in what that names as the keeper.
///
/// # Errors
/// [`Auth`](ErrorKind::Auth) when the registry or a credential helper refuses, [`Config`](ErrorKind::Config) for a
/// host that is not valid and a file that is not valid, [`Io`](ErrorKind::Io) when the file cannot be written, and
/// those of the request.
pub async fn login(registry: &str, user: &Secret, password: &Secret, config: &Config) -> Result<Login> {
    let own = Config { username: Some(user.clone()), password: Some(password.clone()), ..config.clone() };
    own.check()?;
    let client = Client::new(&own, registry, Credentials::new(&own, registry)?)?;
    let checked = client.check_login(registry).await?;
    let (registry, user, password) = (registry.to_owned(), user.clone(), password.clone());
    let found = Credentials::new(&Config { username: None, password: None, ..config.clone() }, &registry)?;
    let stored = on_thread(config, move |store| {
        let keeper = store.insert(&registry, &user, &password)?;
        // Files that cannot be read say so when they are needed.
        let first = found.stored(&registry, "").ok().flatten();
        let other = first.filter(|(first, _)| *first != Credential::Basic(user, password));
        Ok((keeper, other.map(|(_, file)| file.to_owned())))
    });
    let (keeper, shadowed_by) = stored.await?;
    Ok(Login { keeper, checked, shadowed_by })
}

/// Forgets the credentials of a registry, and of its namespaces; with where they were.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound) when there are none, [`Config`](ErrorKind::Config) for a file that is not valid,
/// [`Auth`](ErrorKind::Auth) when a credential helper fails, [`Io`](ErrorKind::Io) when the file cannot be written.
pub async fn logout(registry: &str, config: &Config) -> Result<Vec<Keeper>> {
    let name = registry.to_owned();
    let keepers = on_thread(config, move |store| store.remove(&name)).await?;
    if keepers.is_empty() {
        return Err(Error::not_found(format!("no credentials are stored for {registry}")));
    }
    Ok(keepers)
}

impl Client {
    /// Whether the registry accepts the credentials that it asks for; `false` when it asks for none.
    ///
    /// # Errors
    /// [`Auth`](plyfold_core::ErrorKind::Auth) when it refuses them, and those of the request.
    async fn check_login(&self, home: &str) -> Result<bool> {
        let target = self.registry(home, "", Access::Login)?;
        let at = |e: Error| e.with_endpoint(format!("registry:{home}"));
        let response = self.send(&target, target.request(Method::GET, "")).await.map_err(at)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let refused = Error::new(ErrorKind::Auth, "the registry refuses this user name or password");
            return Err(at(
                refused.with_hint("many registries want an access token in place of the password")
            ));
        }
        if !response.status().is_success() {
            return Err(at(error::status(response, "login").await));
        }
        Ok(self.auth().granted(&target.scope, false).await.is_some())
    }
}

async fn on_thread<T: Send + 'static>(
    config: &Config,
    work: impl FnOnce(Store) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = Store::new(config)?;
    let path = store.path().to_owned();
    blocking(move |_| work(store)).await.map_err(|e| e.with_context("path", path.display()))
}
