//! The two lists of an archive: `index.json` and `manifest.json`.

use std::collections::HashSet;
use std::path::Path;

use plyfold_core::layout_index::{INDEX_LIMIT, LayoutIndex};
use plyfold_core::manifest::{Document, check_is_image, limits};
use plyfold_core::referrers::{self, Change};
use plyfold_core::save::DockerList;
use plyfold_core::{Digest, Platform, RawManifest, Reference, Result, platform, reference};

use super::content::Content;
use crate::images::Images;

/// Both lists, as they are to be.
pub(super) struct Lists {
    index: LayoutIndex,
    /// `None` in a layout without Docker's list.
    docker: Option<DockerList>,
    before: (Option<Vec<u8>>, Option<Vec<u8>>),
}

impl Lists {
    /// Those of the archive that is there, or empty ones. `with_docker` adds Docker's list where there is none.
    pub(super) fn of(content: &Content<'_>, path: &Path, with_docker: bool) -> Result<Self> {
        let members = content.old.map(Images::members);
        let read = |name: &str, limit| members.map(|members| members.document(name, limit)).transpose();
        let index = if content.old.is_some_and(Images::is_layout) {
            read("index.json", INDEX_LIMIT)?.flatten()
        } else {
            None
        };
        let docker = read("manifest.json", limits::MANIFEST)?.flatten();
        let parsed = index.as_deref().map(|bytes| LayoutIndex::parse(bytes, path)).transpose()?;
        let mut lists = Self {
            index: parsed.unwrap_or_else(|| LayoutIndex::new(path)),
            docker: docker.as_deref().map(DockerList::parse).transpose()?,
            before: (index.map(Into::into), docker.map(Into::into)),
        };
        if let (Some(docker), Some(name)) = (&mut lists.docker, content.old.and_then(Images::derived)) {
            // With another image beside it, it would have none.
            docker.name_only(name);
        }
        if lists.docker.is_none() && with_docker {
            // Podman and older versions of Docker see nothing beside the list, so it has what was there, too.
            lists.docker = Some(DockerList::default());
            for (name, entry) in lists.index.names() {
                if let Ok(Some(raw)) = content.document(&entry) {
                    lists.list(&name, &raw, content)?;
                }
            }
        }
        Ok(lists)
    }

    /// Lets a name stand for a document; without a tag it is listed by its repository and its digest.
    pub(super) fn set(&mut self, name: &Reference, raw: &RawManifest, content: &Content<'_>) -> Result<()> {
        let name = match name.tag() {
            Some(tag) => reference::parse(&format!("{}:{tag}", reference::repository_of(name)))?,
            None => reference::by_digest(name, raw.digest()),
        };
        if self.index.find(&name).ok().flatten().is_none_or(|old| old != *raw.descriptor()) {
            self.index.set(&name, raw.descriptor(), false);
        }
        self.list(&name, raw, content)
    }

    /// The list of what refers to a subject, when it changes.
    pub(super) fn referrers(
        &self,
        list: &Reference,
        of: &[&RawManifest],
        content: &Content<'_>,
    ) -> Result<Option<RawManifest>> {
        let old = self.index.find(list)?.map(|entry| content.document(&entry)).transpose()?.flatten();
        let changed = referrers::changed(old.as_ref(), &Change::Add(of))?;
        changed.map(|bytes| RawManifest::new(bytes, None)).transpose()
    }

    /// Writes an image into Docker's list.
    fn list(&mut self, name: &Reference, raw: &RawManifest, content: &Content<'_>) -> Result<()> {
        let Some(docker) = &mut self.docker else { return Ok(()) };
        let is_about_images = reference::is_about_images(name);
        let image =
            if is_about_images { None } else { image(raw, content, limits::NESTING, &mut HashSet::new())? };
        match image {
            Some(image) => docker.set(name, image.image()?),
            None => docker.forget(name),
        }
        Ok(())
    }

    /// The documents by their names, and whether one differs from what is there.
    pub(super) fn documents(&self) -> (Vec<(&'static str, Vec<u8>)>, bool) {
        let after = (Some(self.index.to_bytes()), self.docker.as_ref().map(DockerList::to_bytes));
        let is_changed = after != self.before;
        let named = [("index.json", after.0), ("manifest.json", after.1)];
        let named = named.into_iter().filter_map(|(name, bytes)| Some((name, bytes?)));
        (named.collect(), is_changed)
    }
}

/// The image that Docker's list has of a document: of an index that of this host, else the first that is complete, of
/// indexes that are nested no more than `depth` deep. Documents that were `seen` are no image, and are not read again.
fn image(
    raw: &RawManifest,
    content: &Content<'_>,
    depth: usize,
    seen: &mut HashSet<(Digest, u64)>,
) -> Result<Option<RawManifest>> {
    let index = match raw.document() {
        Document::Manifest(manifest) => {
            let is_image = check_is_image(manifest).is_ok() && content.has_blobs(raw)?;
            return Ok(is_image.then(|| raw.clone()));
        }
        Document::Index(index) => index,
    };
    let Some(depth) = depth.checked_sub(1) else { return Ok(None) };
    let preferred = platform::candidates(index.manifests(), &Platform::host());
    let others = index.manifests().iter().filter(|child| !platform::is_attestation(child));
    for child in preferred.into_iter().chain(others) {
        if !seen.insert((child.digest().clone(), child.size())) {
            continue;
        }
        let Some(child) = content.document(child)? else { continue };
        if let Some(image) = image(&child, content, depth, seen)? {
            return Ok(Some(image));
        }
    }
    Ok(None)
}
