//! What the verbs about the store share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{
    Error, ErrorKind, Images, PullNaming, PullOptions, PullPolicy, PulledImage, Reference, Result, printable,
};

use super::context::Context;
use super::global::Global;
use super::progress::Doing;
use super::replaced::refuse_in;
use super::stop::Leftovers;
use super::store_to_make::StoreToMake;
use super::store_use::{StoreUse, is_absent, not_there};
use super::suggestions;
use super::terminal::Terminal;

/// The registry of names that directories and archives give to their images.
const UNNAMED: &str = "localhost";

/// An open store, and the places that its images come from.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) images: Images,
    pub(crate) context: Context,
    pub(crate) terminal: Terminal,
    /// The path at which the store would be, where none is and the verb makes none.
    pub(crate) absent: Option<PathBuf>,
}

impl Session {
    pub(crate) async fn open(
        global: &Global,
        terminal: Terminal,
        leftovers: &Arc<Leftovers>,
        store_use: StoreUse,
    ) -> Result<Self> {
        let context = Context::new(global, terminal, leftovers)?;
        let store = global.store.clone().map_or_else(default_store, Ok)?;
        let absent = is_absent(&store).then(|| store.clone());
        let images = match &absent {
            None => Images::open(store).await?,
            Some(store) if store_use == StoreUse::Needs && global.store.is_some() => {
                return Err(not_there(store));
            }
            // Nothing is made for what is read, and what fails.
            Some(store) => Images::with_cache(StoreToMake::at(store)?)?,
        };
        let absent = absent.filter(|_| store_use != StoreUse::Makes);
        // The cache of this run.
        let _ = leftovers.cache.set(images.cache());
        let images = images.with_backends(context.backends.clone()).with_options(context.options.clone());
        Ok(Self { images, context, terminal, absent })
    }

    /// Brings an image here, and shows its progress. Without a policy a registry is asked when something is missing, and
    /// what is on this machine always: that costs nothing, and several directories and archives may give one name.
    pub(crate) async fn pull(
        &self,
        image: &str,
        policy: Option<PullPolicy>,
        options: PullOptions,
    ) -> Result<PulledImage> {
        self.bring(image, policy, |_| options).await
    }

    /// As [`pull`](Self::pull), for verbs that read: no name of the store is replaced. One that it lacks is set for an image
    /// of a registry, which is not fetched again then.
    pub(crate) async fn read(
        &self,
        image: &str,
        policy: Option<PullPolicy>,
        options: PullOptions,
    ) -> Result<PulledImage> {
        let naming = |is_remote| if is_remote { PullNaming::Keep } else { PullNaming::Leave };
        self.bring(image, policy, |is_remote| PullOptions { naming: naming(is_remote), ..options }).await
    }

    async fn bring(
        &self,
        image: &str,
        policy: Option<PullPolicy>,
        options: impl FnOnce(bool) -> PullOptions,
    ) -> Result<PulledImage> {
        let never = policy == Some(PullPolicy::Never);
        let image = self.context.image(image)?;
        let is_remote = image.is_remote(&self.context.backends);
        let by_default = if is_remote { PullPolicy::IfMissing } else { PullPolicy::Always };
        let (image, options) = (image.text(), options(is_remote));
        let pulled = self
            .context
            .telling(Doing::Fetch, |progress| {
                let options = PullOptions {
                    platform: self.context.platform(),
                    policy: policy.unwrap_or(by_default),
                    progress,
                    retry: self.context.retry,
                    ..options
                };
                self.images.pull(&image, options)
            })
            .await;
        match pulled {
            Err(e) if is_remote && *e.kind() == ErrorKind::NotFound && !never => {
                // Opening succeeded before, so it can be opened again.
                let opened = self.images.locate(&image).await?;
                Err(match &opened.reference {
                    Some(name) => suggestions::with_tags(e, &self.context, &image, &opened, name).await,
                    None => e,
                })
            }
            Err(e) if is_remote && *e.kind() == ErrorKind::Unavailable => {
                Err(match self.of_other_platforms(&image).await {
                    Some(other) => other,
                    // It was asked for only where something is missing.
                    None if policy != Some(PullPolicy::Always) => self.of_this_machine(&image, e).await,
                    None => e,
                })
            }
            pulled => pulled,
        }
    }

    /// The error of an image that the store has, and that is for other platforms than the one asked for: it says more than that
    /// its registry cannot be reached.
    async fn of_other_platforms(&self, image: &str) -> Option<Error> {
        let name = self.images.name(image).await.ok()?;
        let found = self.images.is_cached(&name, &self.context.platform()).await;
        found.err().filter(|e| matches!(e.kind(), ErrorKind::PlatformNotFound { .. }))
    }

    /// The error of an image that came from a directory or an archive, which no registry has: what is asked for is damaged, or was,
    /// and is in quarantine.
    async fn of_this_machine(&self, image: &str, error: Error) -> Error {
        let Ok(name) = self.images.name(image).await else { return error };
        let is_known = matches!(self.images.cache().find_descriptor(&name).await, Ok(Some(_)));
        if name.registry() != UNNAMED || !is_known {
            return error;
        }
        Error::corrupt("content of the image is damaged or missing in the store, and no registry has it")
            .with_image(&name)
            .with_endpoint(self.images.cache())
            .with_hint("`plyfold load` brings it from its directory or archive again")
            .with_source(error)
    }

    /// The name that an image has in the store.
    pub(crate) async fn name(&self, image: &str) -> Result<Reference> {
        self.images.name(&self.context.image(image)?.text()).await
    }

    /// As [`name`](Self::name), for verbs that work on what the store has: a place on this machine may have another image of
    /// that name.
    pub(crate) async fn stored(&self, image: &str) -> Result<Reference> {
        let place = self.context.image(image)?;
        if !place.is_remote(&self.context.backends) {
            let hint = "`plyfold load` brings images of a directory or an archive into the store, `plyfold copy` copies from place to place";
            let error = Error::config("an image of the store is needed, and this is another place");
            return Err(error.with_image(printable(image)).with_hint(hint));
        }
        self.images.name(&place.text()).await
    }

    /// Refuses an output that would replace a file of these places of images, or of the store.
    pub(crate) fn refuse_replacing<'a>(
        &self,
        out: &Path,
        places: impl IntoIterator<Item = &'a String>,
    ) -> Result<()> {
        let store = self.images.cache().to_string();
        let refuse = |place: &String| refuse_in(place, out, &self.context.backends);
        places.into_iter().try_for_each(refuse).and_then(|()| refuse(&store))
    }

    /// The names that images have in the store, each once: all of them are there.
    pub(crate) async fn known(&self, images: &[String]) -> Result<Vec<Reference>> {
        let mut names = Vec::with_capacity(images.len());
        for image in images {
            let name = self.name(image).await?;
            suggestions::known(&self.images, &name).await?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }
}

pub(crate) fn default_store() -> Result<PathBuf> {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(store) = given("PLYFOLD_STORE") {
        return Ok(store);
    }
    let absolute = |name: &str| given(name).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    data.map(|data| data.join("plyfold")).ok_or_else(|| {
        Error::config("the default directory of the store is not known").with_hint("give one by --store DIR")
    })
}
