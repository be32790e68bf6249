//! The images that a list names.

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use plyfold_core::backend::Pages;
use plyfold_core::{
    CopyFrom, CopyJob, Error, ErrorKind, ImageRegistry, Platforms, PushSession, Reference, Result, Sparse,
    reference,
};

use super::options::SyncOptions;
use super::places::{Places, Source};
use super::target::Target;
use crate::sync::list::{Entry, OfLine, SyncFault, SyncList, is_written};
use crate::sync::pick::{Pattern, Pick, Versions};

/// An image that is to come, and its name at the target.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) registry: Box<dyn ImageRegistry>,
    pub(super) image: Reference,
    pub(super) target: Reference,
    pub(super) optional: bool,
    pub(super) platforms: Platforms,
    pub(super) referrers: bool,
    pub(super) sparse: Sparse,
    line: usize,
}

impl Chosen {
    pub(super) fn job(&self, target: &Reference) -> CopyFrom<'_> {
        let job = CopyJob { image: self.image.clone(), target: target.clone() };
        let mut from = CopyFrom::new(&*self.registry, job);
        from.platforms = self.platforms.clone();
        (from.referrers, from.sparse) = (self.referrers, self.sparse);
        from
    }

    pub(super) fn located(&self, error: Error) -> Error {
        located(error.with_image(&self.image).with_endpoint(&self.registry), self.line)
    }
}

/// Adds the line of the entry to an error that has none.
fn located(error: Error, line: usize) -> Error {
    if line == 0 || error.detail::<SyncFault>().is_some() {
        return error;
    }
    error.with_context("line", line).with_detail(OfLine)
}

/// What a list names.
#[derive(Default)]
pub(super) struct Selection {
    pub(super) images: Vec<Chosen>,
    /// What is optional, and not there.
    pub(super) missing: Vec<String>,
    /// The names of the target, each with the line and the image that have it.
    taken: HashMap<String, (usize, String)>,
}

/// Opens all places of a list. No image is looked at before the options are those of some place.
pub(super) async fn open_all(mut places: Places<'_>, list: &SyncList) -> Result<Vec<Source>> {
    let mut opened = Vec::with_capacity(list.entries.len());
    for entry in &list.entries {
        opened.push(places.open_named(&entry.name).await.map_err(|e| located(e, entry.line))?);
    }
    places.check().map(|()| opened)
}

/// The images of all entries, each name of the target once.
pub(super) async fn select(
    list: &SyncList,
    sources: Vec<Source>,
    target: &Target,
    options: &SyncOptions,
) -> Result<Selection> {
    let mut selection = Selection::default();
    for (entry, source) in list.entries.iter().zip(sources) {
        let at = |e| located(e, entry.line);
        let looking = Looking { entry, source: &source, options };
        let found = looking.images(&mut selection.missing).await;
        let registry = &source.opened.registry;
        let found = found.map_err(|e| at(e.with_endpoint(registry)))?;
        if selection.images.len() + found.len() > PushSession::LIMIT {
            return Err(SyncFault::Many(PushSession::LIMIT).into());
        }
        for image in found {
            let name = target.name(&image, entry.to.as_deref()).map_err(at)?;
            selection.take(entry, &image, &name)?;
            let both = || registry.capabilities().referrers && target.registry.capabilities().referrers;
            selection.images.push(Chosen {
                registry: registry.clone(),
                image,
                target: name,
                optional: entry.optional,
                platforms: entry.platforms.clone(),
                referrers: entry.referrers.unwrap_or_else(both),
                sparse: entry.sparse.unwrap_or(if target.is_registry() || source.is_remote {
                    Sparse::Refuse
                } else {
                    Sparse::Keep
                }),
                line: entry.line,
            });
        }
    }
    Ok(selection)
}

impl Selection {
    /// Takes a name of the target, which no other image may have.
    fn take(&mut self, entry: &Entry, image: &Reference, name: &Reference) -> Result<()> {
        let other = match self.taken.entry(name.whole()) {
            Place::Vacant(place) => {
                place.insert((entry.line, image.whole()));
                return Ok(());
            }
            Place::Occupied(other) => other.into_mut(),
        };
        let (line, first) = other;
        let image = image.whole();
        let fault = if *first == image {
            SyncFault::Twice(image)
        } else {
            SyncFault::SameTarget(first.clone(), image, name.whole())
        };
        let error = Error::from(fault);
        let lines = || format!("{line} and {}", entry.line);
        Err(if *line == 0 { error } else { error.with_context("lines", lines()) })
    }
}

/// The images of one entry.
struct Looking<'a> {
    entry: &'a Entry,
    source: &'a Source,
    options: &'a SyncOptions,
}

impl Looking<'_> {
    async fn images(&self, missing: &mut Vec<String>) -> Result<Vec<Reference>> {
        let (entry, source) = (self.entry, &self.source.opened);
        let written = source.reference.as_ref().filter(|name| is_written(name, &entry.name));
        let wrong = |key, why: &str| Err(SyncFault::Value(entry.line, key, why.to_owned()).into());
        match (&entry.pick, written) {
            (Pick::All, None) => match &source.reference {
                // A tag is never guessed: it is the repository.
                Some(name) if source.registry.capabilities().tags => {
                    let mut names = self.tags(&reference::repository_of(name)).await?;
                    names.retain(|name| !reference::is_about_images(name));
                    Ok(names)
                }
                Some(name) => Ok(vec![name.clone()]),
                None => self.source.within(self.asking(|| source.images_without_referrers()).await?),
            },
            (Pick::All | Pick::Named, Some(name)) => Ok(vec![name.clone()]),
            (Pick::Named, None) if let Some(name) = &source.reference => {
                // The only image of a place needs no tag, and elsewhere none is guessed.
                let is_alone = !self.source.is_remote
                    && self.tags(&reference::repository_of(name)).await.is_ok_and(|names| names.len() == 1);
                if is_alone {
                    return Ok(vec![name.clone()]);
                }
                wrong("name", "it has neither tag nor digest, and there is neither `tags` nor `semver`")
            }
            (Pick::Named, None) => Ok(vec![self.asking(|| source.reference()).await?]),
            (Pick::Tags { .. }, Some(_)) => {
                wrong("name", "it has a tag or a digest, beside `tags` or `semver`")
            }
            (Pick::Tags { patterns, versions }, None) => {
                let picking = Picking { entry, patterns, versions: versions.as_ref() };
                let names = match &source.reference {
                    Some(name) if versions.is_none() && patterns.iter().all(|one| one.tag().is_some()) => {
                        // Each is asked for by itself.
                        let tags = patterns.iter().filter_map(Pattern::tag);
                        return tags.map(|tag| named_by(&reference::repository_of(name), tag)).collect();
                    }
                    Some(name) => self.tags(&reference::repository_of(name)).await,
                    None => {
                        self.asking(|| source.references()).await.and_then(|names| self.source.within(names))
                    }
                };
                match names {
                    Err(e) if entry.optional && *e.kind() == ErrorKind::NotFound => {
                        missing.push(entry.name.clone());
                        Ok(Vec::new())
                    }
                    names => picking.of(&names?, missing),
                }
            }
        }
    }

    /// All names of a repository.
    async fn tags(&self, repository: &str) -> Result<Vec<Reference>> {
        let (mut pages, mut names) = (Pages::default(), Vec::new());
        while let Some(page) = pages.page() {
            let tags = self.asking(|| self.source.opened.registry.tags(repository, page.clone())).await?;
            pages.advance(&tags)?;
            for tag in &tags.names {
                names.push(named_by(repository, tag)?);
            }
        }
        Ok(names)
    }

    async fn asking<T, F>(&self, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.options.retry.run("names", &self.options.progress, attempt).await
    }
}

fn named_by(repository: &str, tag: &str) -> Result<Reference> {
    reference::parse(&format!("{repository}:{tag}"))
}

/// The patterns and versions of an entry.
struct Picking<'a> {
    entry: &'a Entry,
    patterns: &'a [Pattern],
    versions: Option<&'a Versions>,
}

impl Picking<'_> {
    /// What they match of these names, of each repository by itself. What refers to an image is no image.
    fn of(&self, names: &[Reference], missing: &mut Vec<String>) -> Result<Vec<Reference>> {
        let mut repositories: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for name in names.iter().filter(|name| !reference::is_about_images(name)) {
            repositories.entry(reference::repository_of(name)).or_default().extend(name.tag());
        }
        let mut taken: BTreeSet<(&str, &str)> = BTreeSet::new();
        let all = || repositories.iter().map(|(repository, tags)| (repository.as_str(), tags));
        for pattern in self.patterns {
            let matched = all().flat_map(|(repository, tags)| {
                tags.iter().filter(|tag| pattern.matches(tag)).map(move |tag| (repository, *tag))
            });
            self.take(matched.collect(), (pattern.line, &pattern.text), &mut taken, missing)?;
        }
        if let Some(versions) = self.versions {
            let matched = all().flat_map(|(repository, tags)| {
                versions.of(tags).into_iter().map(move |tag| (repository, tag))
            });
            self.take(matched.collect(), (versions.line, &versions.text), &mut taken, missing)?;
        }
        taken.into_iter().map(|(repository, tag)| named_by(repository, tag)).collect()
    }

    fn take<'n>(
        &self,
        matched: Vec<(&'n str, &'n str)>,
        (line, text): (usize, &str),
        taken: &mut BTreeSet<(&'n str, &'n str)>,
        missing: &mut Vec<String>,
    ) -> Result<()> {
        let name = &self.entry.name;
        match (matched.is_empty(), self.entry.optional) {
            (true, true) => missing.push(format!("{name}:{text}")),
            (true, false) => {
                return Err(SyncFault::NoMatch(line, name.clone(), text.to_owned()).into());
            }
            (false, _) => taken.extend(matched),
        }
        Ok(())
    }
}
