//! The OCI layout as a tar: oci-archive, and `docker save` since version 25.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use plyfold_core::cache::MissingBlob;
use plyfold_core::layout_index::{
    INDEX_LIMIT, IndexReferrers, LAYOUT_LIMIT, LayoutIndex, blob_name, check_layout,
};
use plyfold_core::manifest::{Document, limits};
use plyfold_core::{Descriptor, Digest, RawManifest, Reference, Result, reference};

use crate::docker::{Configs, Configured, DockerImage, EntryNames, Known};
use crate::members::{Member, Members};

/// The images of an oci-archive.
#[derive(Debug)]
pub(crate) struct OciImages {
    members: Members,
    pub(crate) index: LayoutIndex,
    /// `index.json` as it stands in the archive: it may be an image itself.
    bytes: Bytes,
    /// What refers to other documents without a list, read at the first question.
    referrers: OnceLock<IndexReferrers>,
}

impl OciImages {
    /// Reads `oci-layout` and `index.json`; `None` when one of them is missing.
    pub(crate) fn read(members: &Members, path: &Path) -> Result<Option<Self>> {
        let Some(layout) = members.document("oci-layout", LAYOUT_LIMIT)? else { return Ok(None) };
        let Some(bytes) = members.document("index.json", INDEX_LIMIT)? else { return Ok(None) };
        check_layout(&layout)?;
        let mut index = LayoutIndex::parse(&bytes, path)?;
        index.settle_names();
        Ok(Some(Self { members: members.clone(), index, bytes, referrers: OnceLock::new() }))
    }

    /// No images, for an archive of the other form.
    pub(crate) fn none(members: &Members, path: &Path) -> Self {
        let (index, referrers) = (LayoutIndex::new(path), OnceLock::new());
        Self { members: members.clone(), index, bytes: Bytes::new(), referrers }
    }

    /// Docker 25.0 lists an image without a tag in `manifest.json` alone.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.entries().next().is_none()
    }

    /// Takes account of the images of `manifest.json`. The only entry of the index has a name for being the only image,
    /// and entries of several platforms are one image: both are corrected by the other list.
    pub(crate) fn beside(&mut self, docker: &[DockerImage]) {
        let is_one_of_several = docker.iter().any(|image| image.known.is_none());
        let has_several = docker.len() > 1 && self.index.entries().nth(1).is_some();
        if !self.is_empty() && (is_one_of_several || has_several) {
            self.index.forget_derived_names();
        }
    }

    /// A name that an entry has.
    pub(crate) fn name_of(&self, digest: &Digest) -> Option<Reference> {
        self.index.names().into_iter().find(|(_, entry)| entry.digest() == digest).map(|(name, _)| name)
    }

    /// What the other list is compared with.
    pub(crate) fn known(&self, path: &Path) -> Result<Known> {
        let mut names: HashMap<Digest, EntryNames> = HashMap::new();
        let local = reference::repository_of(&reference::local(path, "latest")?);
        if !self.bytes.is_empty() {
            // As it was written: of several entries with one name one alone has it in `index`.
            let mut index = LayoutIndex::parse(&self.bytes, path)?;
            index.forget_derived_names();
            for (name, entry) in index.names() {
                let name = match name.tag() {
                    Some(tag) => {
                        let (host, repository) = (name.registry().to_owned(), name.repository().to_owned());
                        Reference::with_tag(host, repository, tag.to_owned())
                    }
                    None => name,
                };
                names.entry(entry.digest().clone()).or_default().add(name, &local);
            }
        }
        Ok(Known { configs: self.configs(), names })
    }

    /// The configs of all images with the manifests that have them, as far as they can be read.
    fn configs(&self) -> Configs {
        /// Bytes of manifests that are read, and their number. An image beyond is one more image of `manifest.json`.
        const BYTES: u64 = 64 << 20;
        const DOCUMENTS: usize = 1 << 14;
        /// Manifests with one config, each of which is compared with each item of `manifest.json`.
        const SAME: usize = 256;
        let (mut configs, mut bytes, mut seen) = (Configs::new(), 0_u64, HashSet::new());
        let entries = self.index.entries().filter(|entry| seen.insert(entry.digest().clone()));
        let entries = entries.map(|entry| (entry.clone(), entry.digest().clone(), 0));
        let mut left: Vec<(Descriptor, Digest, usize)> = entries.collect();
        for _ in 0..DOCUMENTS {
            let Some((descriptor, entry, depth)) = left.pop() else { break };
            bytes = bytes.saturating_add(descriptor.size());
            if bytes > BYTES {
                break;
            }
            let Ok(Some(raw)) = self.described(&descriptor) else { continue };
            match raw.document() {
                Document::Manifest(manifest) => {
                    let layers = manifest.layers().len();
                    let same = configs.entry(manifest.config().digest().clone()).or_default();
                    if same.len() < SAME {
                        same.push(Configured { entry, layers, depth });
                    }
                }
                Document::Index(index) if depth < limits::NESTING && left.len() < DOCUMENTS => {
                    let children = index.manifests().iter().cloned();
                    left.extend(children.map(|child| (child, entry.clone(), depth + 1)));
                }
                Document::Index(_) => {}
            }
        }
        configs
    }

    /// Removes entries, with their names.
    pub(crate) fn forget(&mut self, entries: &HashSet<Digest>) {
        if !entries.is_empty() {
            self.index.retain(|_, digest| !entries.contains(digest));
        }
    }

    pub(crate) fn manifest(&self, reference: &Reference) -> Result<Option<RawManifest>> {
        let digest = reference::digest_of(reference)?;
        let descriptor = match &digest {
            Some(digest) => self.index.entry(digest).cloned(),
            None => self.index.find(reference)?,
        };
        if let Some(descriptor) = descriptor {
            if let Some(image) = self.index.as_image(descriptor.digest(), &self.bytes) {
                return image.map(Some);
            }
            return self.described(&descriptor);
        }
        // A child of an index: nothing here says its type or size, its own bytes do.
        let Some(digest) = digest else { return Ok(None) };
        let content = self.members.document(&blob_name(&digest), limits::MANIFEST)?;
        content.map(|bytes| RawManifest::verified(bytes, None, &digest)).transpose()
    }

    /// The same of a name with a tag: a manifest that the index names and that is missing is an error.
    pub(crate) fn named(&self, name: &Reference) -> Result<Option<RawManifest>> {
        let found = self.manifest(name)?;
        match self.index.find(name)? {
            Some(entry) if found.is_none() => Err(MissingBlob(entry.digest().clone()).into()),
            _ => Ok(found),
        }
    }

    /// The entries without a name that refer to others.
    pub(crate) fn unlisted(&self) -> &IndexReferrers {
        self.referrers.get_or_init(|| IndexReferrers::read(&self.index, |entry| self.described(entry)))
    }

    /// What refers to a subject.
    pub(crate) fn referrers(&self, list: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.unlisted().of(&self.index, (list, subject), |entry| self.described(entry))
    }

    pub(crate) fn member(&self, digest: &Digest) -> Result<Option<Member>> {
        self.members.find(&blob_name(digest))
    }

    fn described(&self, descriptor: &Descriptor) -> Result<Option<RawManifest>> {
        plyfold_core::digest::supported(descriptor.digest())?;
        let content = self.members.document(&blob_name(descriptor.digest()), limits::MANIFEST)?;
        content.map(|bytes| RawManifest::described(bytes, descriptor)).transpose()
    }
}
