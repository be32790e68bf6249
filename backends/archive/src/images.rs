//! What is in an archive: the images of its two lists, each once.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use plyfold_core::blocking::Stop;
use plyfold_core::manifest::limits;
use plyfold_core::save::DELTA;
use plyfold_core::{
    Advice, Descriptor, Digest, Error, RawManifest, Reference, Result, TagTable, printable, reference,
};

use crate::Config;
use crate::docker::{self, DockerImage};
use crate::members::{Member, Members};
use crate::oci::OciImages;
use crate::spool;

/// How many bases of a delta are named.
const BASES: usize = 20;

/// The images of an archive. The form decides, not the scheme.
///
/// Since version 25 Docker writes two lists: `index.json`, and `manifest.json` for older readers. Each may have images
/// that the other lacks, so both are read. An image stands in both lists when its config does, with as many layers as that
/// has `diff_id`s; otherwise `manifest.json` is right about it.
#[derive(Debug)]
pub(crate) struct Images {
    path: PathBuf,
    members: Members,
    is_layout: bool,
    oci: OciImages,
    /// What `manifest.json` lists, in its order.
    docker: Vec<DockerImage>,
    /// Which of those has a name.
    named: HashMap<Reference, usize>,
    /// The name that its only image has for being that.
    derived: Option<Reference>,
    /// Layers and configs of the images that `manifest.json` alone lists.
    blobs: HashMap<Digest, Member>,
    /// The tags of each repository, for listings.
    tags: OnceLock<TagTable>,
    /// The first names, for messages.
    first: OnceLock<Vec<String>>,
}

impl Images {
    pub(crate) fn read(path: &Path, config: &Config, stop: &Stop) -> Result<Self> {
        Self::of(spool::plain(path, config, stop)?, &spool::place(path))
    }

    /// Of a plain tar.
    pub(crate) fn of(file: File, path: &Path) -> Result<Self> {
        let members = Members::scan(file)?;
        let oci = OciImages::read(&members, path)?;
        let is_layout = oci.is_some();
        let mut oci = oci.unwrap_or_else(|| OciImages::none(&members, path));
        let mut blobs = HashMap::new();
        let docker = docker::read(&members, path, || oci.known(path), &mut blobs)?;
        if !is_layout && docker.is_none() {
            return Err(Error::corrupt(
                "not an image archive: it has neither manifest.json nor oci-layout and index.json",
            )
            .with_advice(Advice::ConvertLayer));
        }
        if docker.as_ref().is_some_and(Vec::is_empty) && oci.is_empty() {
            let error = Error::corrupt("the archive holds no image");
            return Err(error.with_context("document", "manifest.json"));
        }
        let mut docker = docker.unwrap_or_default();
        let readable = docker.iter().filter(|image| image.manifest.is_some());
        oci.forget(&readable.flat_map(|image| &image.replaces).cloned().collect());
        oci.beside(&docker);
        let listed: HashSet<Reference> = oci.index.references().into_iter().collect();
        for image in &mut docker {
            image.names.retain(|name| !listed.contains(name));
        }
        let mut derived = None;
        if let [only] = docker.as_mut_slice()
            && oci.is_empty()
            && only.names.is_empty()
            && only.origin.is_none()
        {
            only.names.extend(reference::local(path, "latest"));
            derived = only.names.first().cloned();
        }
        let mut named = HashMap::new();
        for (place, image) in docker.iter().enumerate() {
            image.names.iter().for_each(|name| _ = named.entry(name.clone()).or_insert(place));
        }
        let (path, tags, first) = (path.to_owned(), OnceLock::new(), OnceLock::new());
        Ok(Self { path, members, is_layout, oci, docker, named, derived, blobs, tags, first })
    }

    /// Every name, of tags and of what stands in place of one.
    pub(crate) fn names(&self) -> Vec<Reference> {
        let mut names = self.oci.index.references();
        names.extend(self.docker.iter().flat_map(|image| &image.names).cloned());
        names
    }

    /// The first of them, for a message that says what there is: a copy asks for many tags of cosign that are not there.
    pub(crate) fn first_names(&self) -> &[String] {
        /// How many names a message has.
        const FIRST: usize = 20;
        self.first.get_or_init(|| self.names().iter().take(FIRST).map(Reference::whole).collect())
    }

    /// The tags of each repository.
    pub(crate) fn tags(&self) -> &TagTable {
        self.tags.get_or_init(|| TagTable::of(&self.names()))
    }

    /// The images without a name, by digest.
    ///
    /// # Errors
    /// Those of reading an image that is broken: an image without a name is reported nowhere else.
    pub(crate) fn untagged(&self) -> Result<Vec<Reference>> {
        let mut untagged = self.oci.index.untagged();
        // What refers to an image comes with it.
        self.oci.unlisted().sort(&mut untagged);
        for image in self.docker.iter().rev() {
            let Some((digest, origin)) = image.known.as_ref().zip(image.origin.as_ref()) else { continue };
            for name in untagged.iter_mut().filter(|name| name.digest() == Some(digest.as_ref())) {
                *name = reference::by_digest(origin, digest);
            }
        }
        let named = self.docker.iter().filter(|image| !image.names.is_empty());
        let named: HashSet<&str> =
            named.filter_map(|image| image.known.as_ref()).map(Digest::as_ref).collect();
        untagged.retain(|name| name.digest().is_none_or(|digest| !named.contains(digest)));
        for image in self.docker.iter().filter(|image| image.known.is_none() && image.names.is_empty()) {
            let digest = image.read_manifest(&self.members)?.digest().clone();
            untagged.push(match &image.origin {
                Some(origin) => reference::by_digest(origin, &digest),
                None => self.by_digest(&digest)?,
            });
        }
        let mut seen = HashSet::new();
        untagged.retain(|name| seen.insert(name.clone()));
        Ok(untagged)
    }

    /// What the image at a place of the list is asked for by: the list is `manifest.json`, and then what `index.json`
    /// alone has.
    pub(crate) fn at(&self, place: usize) -> Result<Reference> {
        if let Some(image) = self.docker.get(place) {
            let digest = match &image.known {
                Some(digest) => digest.clone(),
                None => image.read_manifest(&self.members)?.digest().clone(),
            };
            return image.names.first().map_or_else(|| self.named(&digest), |name| Ok(name.clone()));
        }
        let mut seen: HashSet<&Digest> =
            self.docker.iter().filter_map(|image| image.known.as_ref()).collect();
        let others = self.oci.index.entries().map(Descriptor::digest);
        let others: Vec<&Digest> = others.filter(|digest| seen.insert(*digest)).collect();
        let count = self.docker.len() + others.len();
        match others.get(place - self.docker.len()) {
            Some(digest) => self.named(digest),
            None => Err(Error::not_found(format!("there is no image @{place}, the archive has {count}"))
                .with_hint("the first image is @0")),
        }
    }

    /// The name that `index.json` gives to a digest, or the digest.
    fn named(&self, digest: &Digest) -> Result<Reference> {
        self.oci.name_of(digest).map_or_else(|| self.by_digest(digest), Ok)
    }

    fn by_digest(&self, digest: &Digest) -> Result<Reference> {
        Ok(reference::by_digest(&reference::local(&self.path, "latest")?, digest))
    }

    pub(crate) fn manifest(&self, reference: &Reference) -> Result<Option<RawManifest>> {
        if let Some(digest) = reference::digest_of(reference)? {
            let found = self.oci.manifest(reference)?;
            let mut others = self.docker.iter().filter_map(|image| image.manifest.as_ref());
            return Ok(found.or_else(|| others.find(|manifest| *manifest.digest() == digest).cloned()));
        }
        match self.named.get(reference).and_then(|place| self.docker.get(*place)) {
            None => self.oci.named(reference),
            Some(DockerImage { known: Some(digest), .. }) => {
                self.oci.manifest(&reference::by_digest(reference, digest))
            }
            Some(image) => image.read_manifest(&self.members).map(Some),
        }
    }

    /// What refers to a subject, by `index.json`.
    pub(crate) fn referrers(&self, list: &Reference, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.oci.referrers(list, subject)
    }

    /// What a delta archive leaves out the blobs of.
    pub(crate) fn bases(&self) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Delta {
            #[serde(default)]
            since: Vec<String>,
        }
        let Some(bytes) = self.members.document(DELTA, limits::MANIFEST)? else { return Ok(Vec::new()) };
        let invalid = |e| Error::corrupt("invalid document").with_source(e).with_context("document", DELTA);
        let delta: Delta = serde_json::from_slice(&bytes).map_err(invalid)?;
        Ok(delta.since.iter().take(BASES).map(|base| printable(base)).collect())
    }

    /// The name of an image that `manifest.json` alone lists, without one, and that is the only one.
    pub(crate) fn derived(&self) -> Option<&Reference> {
        self.derived.as_ref()
    }

    /// Whether it has `oci-layout` and `index.json`.
    pub(crate) fn is_layout(&self) -> bool {
        self.is_layout
    }

    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// A blob under the name that a layout has for it.
    pub(crate) fn in_layout(&self, digest: &Digest) -> Result<Option<Member>> {
        self.oci.member(digest)
    }

    pub(crate) fn member(&self, digest: &Digest) -> Result<Option<Member>> {
        self.blobs.get(digest).map_or_else(|| self.oci.member(digest), |member| Ok(Some(member.clone())))
    }
}
