//! What the verbs about the store share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plyfold_layout::Store;

use crate::blocking::blocking;
use crate::{
    CacheProvider, Error, ErrorKind, Images, PullNaming, PullOptions, PullPolicy, PulledImage, Reference,
    Result, Tiered, printable,
};

use super::context::Context;
use super::global::Global;
use super::progress::Doing;
use super::remote_store::RemoteStore;
use super::replaced::refuse_in;
use super::stop::Leftovers;
use super::store_place::{
    StorePlace, caches, check_fleet, check_scheme, options, refuse_options, with_options,
};
use super::store_to_make::StoreToMake;
use super::store_use::{StoreUse, is_absent, not_there};
use super::suggestions;
use super::terminal::Terminal;

/// The longest wait for a store to open.
const PATIENCE: Duration = Duration::from_secs(30);

/// The registry of names that directories and archives give to their images.
const UNNAMED: &str = "localhost";

/// An open store, and the places that its images come from.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) images: Images,
    pub(crate) context: Context,
    pub(crate) terminal: Terminal,
    /// The place at which the store would be, where none is and the verb makes none.
    pub(crate) absent: Option<StorePlace>,
}

impl Session {
    /// `asks` says whether more than this machine may be asked, such as a fleet.
    pub(crate) async fn open(
        global: &Global,
        terminal: Terminal,
        leftovers: &Arc<Leftovers>,
        store_use: StoreUse,
        asks: bool,
    ) -> Result<Self> {
        let context = Context::new(global, terminal, leftovers)?;
        let place = StorePlace::of(global)?;
        if matches!(place, StorePlace::Directory(_)) && context.fleet.is_none() {
            refuse_options(global)?;
        }
        let fleet = context.fleet.as_deref().filter(|_| asks);
        // An absent store that was named is an error for what works on it; a fleet may have what is wanted.
        let is_needed = store_use == StoreUse::Needs && global.store.is_some() && fleet.is_none();
        let (cache, is_there) = match &place {
            StorePlace::Directory(path) => directory(path, is_needed).await?,
            StorePlace::Uri(uri) => remote(uri, global, is_needed).await?,
        };
        let absent = (!is_there && store_use != StoreUse::Makes && fleet.is_none()).then(|| place.clone());
        let images = match fleet {
            Some(uri) => {
                let caches = caches()?;
                check_fleet(uri, &caches)?;
                let far = RemoteStore::fleet(uri, caches, options(global)?)?;
                Images::with_cache(Tiered::new(cache, Box::new(far)))?.reading_through_cache()
            }
            None => Images::with_cache(cache)?,
        };
        let images = match place {
            StorePlace::Directory(_) => images,
            // What is in it is read through the cache alone: no verb needs the files.
            StorePlace::Uri(_) if images.scratch().is_some() => images.without_layouts(),
            StorePlace::Uri(_) => images.without_layouts().with_scratch(std::env::temp_dir()),
        };
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

/// The store in a directory, and whether it is there.
async fn directory(path: &Path, is_needed: bool) -> Result<(Box<dyn CacheProvider>, bool)> {
    if !is_absent(path) {
        let path = path.to_owned();
        return Ok((Box::new(blocking(move |_| Store::open(path)).await?), true));
    }
    if is_needed {
        return Err(not_there(&StorePlace::Directory(path.to_owned())));
    }
    // Nothing is made for what is read, and what fails.
    Ok((Box::new(StoreToMake::at(path)?), false))
}

/// The cache of a URI, and whether it is there.
async fn remote(uri: &str, global: &Global, is_needed: bool) -> Result<(Box<dyn CacheProvider>, bool)> {
    let (caches, options) = (caches()?, options(global)?);
    check_scheme(uri, &caches)?;
    let late = |_| {
        let message = format!("no answer for {}s", PATIENCE.as_secs());
        Err(Error::new(ErrorKind::Timeout, message).with_endpoint(printable(uri)))
    };
    let opened = tokio::time::timeout(PATIENCE, caches.open_existing(uri, &options)).await;
    match opened.unwrap_or_else(late) {
        Ok(cache) => Ok((cache, true)),
        Err(e) if *e.kind() != ErrorKind::NotFound => Err(with_options(e)),
        Err(_) if is_needed => Err(not_there(&StorePlace::Uri(uri.to_owned()))),
        Err(_) => Ok((Box::new(RemoteStore::absent(uri, caches, options)?), false)),
    }
}
