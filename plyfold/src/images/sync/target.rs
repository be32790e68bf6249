//! Where a sync goes.

use std::path::PathBuf;

use plyfold_core::{CacheProviderExt as _, Error, ImageRegistry, Location, Reference, Result, reference};

use super::options::SyncTarget;
use super::places::{Places, Source};
use crate::sync::SyncFault;

/// A target that is open.
pub(super) struct Target {
    pub(super) registry: Box<dyn ImageRegistry>,
    /// How it is shown.
    pub(super) text: String,
    /// The host of a registry, and what stands before each repository.
    place: Option<(String, String)>,
    /// The URI.
    uri: Option<String>,
}

impl Target {
    pub(super) async fn open(places: &mut Places<'_>, target: &SyncTarget) -> Result<Self> {
        let opened = match target {
            SyncTarget::Cache => {
                let registry: Box<dyn ImageRegistry> = Box::new(places.images.cache().as_target());
                Self { text: registry.to_string(), registry, place: None, uri: None }
            }
            SyncTarget::Place(text) => Self::of_text(places, text).await?,
        };
        if !opened.registry.capabilities().push {
            return Err(opened.registry.unsupported("store images"));
        }
        Ok(opened)
    }

    async fn of_text(places: &mut Places<'_>, text: &str) -> Result<Self> {
        if let Some((host, prefix)) = places.of_registry(text) {
            let registry = places.open(&format!("registry:{host}/")).await?.registry;
            let text = if prefix.is_empty() { registry.to_string() } else { format!("{registry}/{prefix}") };
            return Ok(Self { registry, text, place: Some((host, prefix)), uri: None });
        }
        let opened = places.open(text).await?;
        if let Some(reference) = opened.reference {
            let error = Error::config("the target is one image, and not a place for several");
            let hint = match opened.registry.to_string() {
                // It has no other place for an image than itself.
                place if place == text => {
                    "FILE.tar is an archive of several images, DIR/ a layout".to_owned()
                }
                place => format!("name the place alone: {place}"),
            };
            return Err(error.with_image(reference).with_endpoint(&opened.registry).with_hint(hint));
        }
        let (text, uri) = (opened.registry.to_string(), Some(text.to_owned()));
        Ok(Self { registry: opened.registry, text, place: None, uri })
    }

    /// Refuses a registry or a part of it that this target is in: what a run has brought would be brought by the next one.
    pub(super) fn check_is_outside(&self, source: &Source) -> Result<()> {
        let Some((host, prefix)) = &self.place else { return Ok(()) };
        let rest = prefix.strip_prefix(&source.prefix);
        let is_within =
            source.prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if source.host.as_ref() != Some(host) || !is_within {
            return Ok(());
        }
        let place = |prefix: &str| format!("{host}/{prefix}");
        Err(SyncFault::Within(place(&source.prefix), place(prefix)).into())
    }

    pub(super) fn is_registry(&self) -> bool {
        self.place.is_some()
    }

    /// The name of an image at the target.
    pub(super) fn name(&self, image: &Reference, to: Option<&str>) -> Result<Reference> {
        let repository = to.unwrap_or(image.repository());
        let repository = match &self.place {
            Some((host, prefix)) if prefix.is_empty() => format!("{host}/{repository}"),
            Some((host, prefix)) => format!("{host}/{prefix}/{repository}"),
            None => format!("{}/{repository}", image.registry()),
        };
        let name = match (image.digest(), image.tag()) {
            (Some(digest), _) => format!("{repository}@{digest}"),
            (None, Some(tag)) => format!("{repository}:{tag}"),
            (None, None) => repository,
        };
        reference::parse(&name)
    }

    /// The path of an archive, for a delta.
    pub(super) fn archive(&self) -> Result<PathBuf> {
        let location = self.uri.as_deref().map(Location::parse).transpose()?;
        let archive = location.filter(|at| ["docker-archive", "oci-archive"].contains(&at.scheme.as_str()));
        match archive {
            Some(location) => Ok(PathBuf::from(location.path_and_image().0)),
            None => Err(Error::config("only an archive leaves out what its receiver has")
                .with_endpoint(&self.registry)),
        }
    }
}
