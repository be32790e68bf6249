//! Places that are opened for a sync.

use std::path::Path;

use plyfold_core::{Error, Location, Opened, Reference, Result, reference};

use super::super::Images;
use super::super::knowing::{KnownOptions, open_knowing};

/// The places of a sync, which are opened with the options that each knows.
pub(super) struct Places<'a> {
    pub(super) images: &'a Images,
    known: KnownOptions,
}

impl<'a> Places<'a> {
    pub(super) fn new(images: &'a Images) -> Self {
        Self { images, known: KnownOptions::default() }
    }

    /// Opens a URI. No image is looked at.
    pub(super) async fn open(&mut self, uri: &str) -> Result<Opened> {
        if let Some(own) = self.images.own(uri) {
            return Ok(own);
        }
        let Images { backends, options, shared, .. } = self.images;
        let (opened, strange) = open_knowing(backends, uri, options, shared).await?;
        self.known.note(&opened, options, strange);
        Ok(opened)
    }

    /// As [`open`](Self::open), of an image written as for [`Images::pull`], and of `HOST/[PREFIX/]`.
    pub(super) async fn open_named(&mut self, image: &str) -> Result<Source> {
        if let Some((host, prefix)) = self.of_registry(image).filter(|_| image.ends_with('/')) {
            let opened = self.open(&format!("registry:{host}/")).await?;
            return Ok(Source { opened, host: Some(host), prefix, is_remote: true });
        }
        let uri = self.images.uri(image).await?;
        let backend = self.images.backends().of(&uri);
        let is_remote = backend.is_some_and(|backend| backend.takes_credentials);
        let opened = match (self.open(&uri).await, backend) {
            (Err(e), None) => return Err(hinted(e, image)),
            (opened, _) => opened?,
        };
        Ok(Source { opened, host: None, prefix: String::new(), is_remote })
    }

    /// The host of a registry and a prefix of its repositories, if that is what a text is.
    pub(super) fn of_registry(&self, text: &str) -> Option<(String, String)> {
        let backends = self.images.backends();
        let rest = match backends.of(text) {
            Some(backend) if backend.schemes.contains(&"registry") => Location::parse(text).ok()?.rest,
            Some(_) => return None,
            None => text.to_owned(),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((&rest, ""));
        let is_host = backends.knows(text) || host == "localhost" || host.contains(['.', ':']);
        (is_host && !host.is_empty()).then(|| (host.to_owned(), prefix.trim_end_matches('/').to_owned()))
    }

    /// Refuses options that no place knows, and credentials for several registries.
    pub(super) fn check(self) -> Result<()> {
        self.known.check()
    }
}

/// A place that images come from.
pub(super) struct Source {
    pub(super) opened: Opened,
    /// The host of a registry, if that or a part of it is the place.
    pub(super) host: Option<String>,
    /// What stands before the repositories of a registry that are meant; nothing means all.
    pub(super) prefix: String,
    /// Whether it is on another machine.
    pub(super) is_remote: bool,
}

impl Source {
    /// Those of its images that are meant.
    ///
    /// # Errors
    /// `NotFound` when no repository is below the prefix.
    pub(super) fn within(&self, mut names: Vec<Reference>) -> Result<Vec<Reference>> {
        let within = |name: &Reference| {
            let rest = name.repository().strip_prefix(&self.prefix);
            self.prefix.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
        };
        names.retain(within);
        if names.is_empty() && !self.prefix.is_empty() {
            return Err(Error::not_found(format!("there is no repository below {}/", self.prefix))
                .with_hint("without the slash at its end it is one repository"));
        }
        Ok(names)
    }
}

/// Says of a text without a known scheme what it may be.
fn hinted(error: Error, image: &str) -> Error {
    let path = Path::new(image);
    let hint = if path.is_dir() {
        format!("write oci:{image} for the layout directory")
    } else if path.is_file() {
        format!("write docker-archive:{image} for the archive, of whatever form")
    } else if let Ok(name) = reference::parse(image) {
        format!("write the name with its registry: {}", name.whole())
    } else {
        return error;
    };
    error.with_better_hint(hint)
}
