//! Where images can be: backends, their options, and the two ends of a copy.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::images::knowing::{SECRETS, open_knowing};
use crate::package::GitTree;
use crate::progress::Progress;
use crate::pull::Retry;
use crate::{
    Backends, Error, Opened, Options, Platform, Platforms, Reference, Result, Shared, digest, printable,
};

use super::global::Global;
use super::image::Image;
use super::progress::{Doing, Reporter};
use super::replaced::refuse_within;
use super::stop::Leftovers;
use super::store_place;
use super::terminal::Terminal;

/// The sources and targets of images, and the terminal. Works without a store.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) backends: Backends,
    pub(crate) options: Options,
    /// The platforms that the user asked for.
    pub(crate) only: Vec<Platform>,
    pub(crate) terminal: Terminal,
    /// What happens after a request that failed.
    pub(crate) retry: Retry,
    /// The URI of the fleet behind the store.
    pub(crate) fleet: Option<String>,
    leftovers: Arc<Leftovers>,
}

impl Context {
    pub(crate) fn new(global: &Global, terminal: Terminal, leftovers: &Arc<Leftovers>) -> Result<Self> {
        let default = Retry::default();
        Ok(Self {
            options: Options::parse(global.option.iter().map(String::as_str))?,
            backends: backends()?,
            only: global.platform.clone(),
            terminal,
            retry: Retry { total: global.retry_max_time.unwrap_or(default.total), ..default },
            fleet: store_place::fleet(global)?,
            leftovers: leftovers.clone(),
        })
    }

    /// The platform to choose from an index.
    pub(crate) fn platform(&self) -> Platform {
        self.only.first().cloned().unwrap_or_default()
    }

    /// What is moved of an index.
    pub(crate) fn platforms(&self) -> Platforms {
        match self.only.as_slice() {
            [] => Platforms::All,
            [one] => Platforms::One(one.clone()),
            several => Platforms::Some(several.to_vec()),
        }
    }

    pub(crate) fn image(&self, image: &str) -> Result<Image> {
        Image::parse(&resolved(image)?, &self.backends)?.in_repository(&self.backends)
    }

    /// The name that an image is to have in the store, whatever is here; `None` for a place.
    pub(crate) fn name(&self, image: &str) -> Result<Option<Reference>> {
        Image::name(&resolved(image)?, &self.backends)
    }

    /// Opens the backend that an image is in.
    pub(crate) async fn locate(&self, image: &str) -> Result<Opened> {
        self.backends.open(&self.image(image)?.uri(), &self.options).await
    }

    /// Opens the backend that an image of the store is to go to.
    pub(crate) async fn target(&self, image: &str, store: &str) -> Result<(Opened, Reference)> {
        let uri = self.target_uri(image)?;
        refuse_within(store, &uri, &self.backends)?;
        named(self.backends.open(&uri, &self.options).await?, image)
    }

    /// Opens both ends of a copy, each with the options that it knows. One that neither knows is an error.
    pub(crate) async fn ends(&self, source: &str, target: &str) -> Result<(Opened, Opened, Reference)> {
        let target_uri = self.target_uri(target)?;
        let source_uri = self.image(source)?.uri();
        refuse_within(&source_uri, &target_uri, &self.backends)?;
        let (from, refused) = self.open_knowing(&source_uri).await?;
        let (to, mut unknown) = self.open_knowing(&target_uri).await?;
        if let Some(error) = refused.keys().find_map(|key| unknown.remove(key)) {
            return Err(error);
        }
        let is_for_both = |key: &str| {
            self.options.contains(key) && !refused.contains_key(key) && !unknown.contains_key(key)
        };
        let is_one_place = from.registry.to_string() == to.registry.to_string();
        // Credentials for one registry are not sent to the other.
        if !is_one_place && let Some(secret) = SECRETS.into_iter().find(|key| is_for_both(key)) {
            return Err(Error::config("the user name and the password are ambiguous for two registries")
                .with_context("option", secret)
                .with_hint("`plyfold login` stores them for each registry by itself"));
        }
        let (to, name) = named(to, target)?;
        Ok((from, to, name))
    }

    async fn open_knowing(&self, uri: &str) -> Result<(Opened, BTreeMap<String, Error>)> {
        open_knowing(&self.backends, uri, &self.options, &Shared::default()).await
    }

    /// The URI that an image is to go to.
    fn target_uri(&self, image: &str) -> Result<String> {
        Ok(Image::target(&resolved(image)?, &self.backends)?.in_repository(&self.backends)?.uri())
    }

    /// Retries a small request as pulls do.
    pub(crate) async fn asking<T, F>(&self, what: &str, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let run = |progress| async move { self.retry.run(what, &progress, attempt).await };
        self.telling(Doing::Fetch, run).await
    }

    /// Runs work that sends events, and shows them until the last one.
    pub(crate) async fn telling<T, F>(&self, doing: Doing, work: impl FnOnce(Progress) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let reporter = Reporter::new(self.terminal, doing, self.leftovers.clone());
        reporter.with_fleet(self.fleet.clone()).telling(work).await
    }
}

/// The name that a template of a package stands for, relative to the working directory; other texts are what they are,
/// and so are paths, whose names may have braces.
pub(crate) fn resolved(image: &str) -> Result<Cow<'_, str>> {
    if image.starts_with(['.', '/']) && !image.contains("@pkg:") {
        return Ok(image.into());
    }
    let name = GitTree::new(".").name(image).map_err(|e| e.with_image(printable(image)))?;
    Ok(name.map_or(image.into(), Cow::from))
}

/// The backends of the command: without `memory:`, which is empty in a new process.
pub(crate) fn backends() -> Result<Backends> {
    Ok(Backends::linked()?.without("memory"))
}

/// Refuses a new name that is a digest or the beginning of one, such as `sha256:…`, read as the repository `sha256` and a tag.
pub(crate) fn refuse_digest(name: &Reference) -> Result<()> {
    let algorithm = name.repository().rsplit('/').next().unwrap_or_default();
    let tag = name.tag().unwrap_or_default();
    let is_hex = tag.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
    let is_short = ["sha256", "sha384", "sha512"].contains(&algorithm) && !tag.is_empty() && is_hex;
    if !is_short && digest::parse(&format!("{algorithm}:{tag}")).is_err() {
        return Ok(());
    }
    let error = Error::config("the new name is a digest, without a repository and a tag");
    Err(error.with_image(name).with_hint("write REPOSITORY:TAG: its digest follows from what is in it"))
}

/// A target with the given name. A name is never guessed: that would overwrite an image.
fn named(target: Opened, image: &str) -> Result<(Opened, Reference)> {
    match target.reference.clone() {
        Some(name) => refuse_digest(&name).map(|()| (target, name)),
        None => Err(Error::config("the target has no tag")
            .with_image(printable(image))
            .with_endpoint(&target.registry)
            .with_hint("name the target, as in oci:DIRECTORY:TAG, oci-archive:FILE:TAG or registry:HOST/REPOSITORY:TAG")),
    }
}
