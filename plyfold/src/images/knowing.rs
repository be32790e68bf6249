//! Places that are opened with the options that their backends know.

use std::collections::{BTreeMap, BTreeSet};

use plyfold_core::{Backends, Error, Opened, OptionFault, Options, Result, Shared};

/// Opens a URI with the options that its backend knows; returns the others, each with the backend's error.
pub(crate) async fn open_knowing(
    backends: &Backends,
    uri: &str,
    options: &Options,
    shared: &Shared,
) -> Result<(Opened, BTreeMap<String, Error>)> {
    let (mut options, mut strange) = (options.clone(), BTreeMap::new());
    loop {
        let error = match backends.open_with(uri, &options, None, shared).await {
            Ok(opened) => return Ok((opened, strange)),
            Err(e) => e,
        };
        let Some(OptionFault::Unknown(key, _)) = error.detail().cloned() else { return Err(error) };
        options = options.without(&key);
        strange.insert(key, error);
    }
}

/// Options that belong to one registry.
pub(crate) const SECRETS: [&str; 2] = ["password", "username"];

/// What the backends of several places have made of the options.
#[derive(Default)]
pub(crate) struct KnownOptions {
    /// What no backend has known so far; `None` before the first one.
    unknown: Option<BTreeMap<String, Error>>,
    /// The places that have taken a user name or a password.
    entrusted: BTreeSet<String>,
}

impl KnownOptions {
    /// Notes a place that was opened with `options`, but for those that are `strange` to it.
    pub(crate) fn note(&mut self, opened: &Opened, options: &Options, strange: BTreeMap<String, Error>) {
        if SECRETS.iter().any(|key| options.contains(key) && !strange.contains_key(*key)) {
            self.entrusted.insert(opened.registry.to_string());
        }
        let unknown = self.unknown.take();
        self.unknown = Some(match unknown {
            None => strange,
            Some(unknown) => unknown.into_iter().filter(|(key, _)| strange.contains_key(key)).collect(),
        });
    }

    /// Refuses an option that no backend knows, and credentials for several registries.
    pub(crate) fn check(self) -> Result<()> {
        if let Some((_, error)) = self.unknown.into_iter().flatten().next() {
            return Err(error);
        }
        if self.entrusted.len() > 1 {
            let places: Vec<String> = self.entrusted.into_iter().collect();
            let message = "the user name and the password are ambiguous for several registries";
            return Err(Error::config(message).with_context("registries", places.join(", ")));
        }
        Ok(())
    }
}
