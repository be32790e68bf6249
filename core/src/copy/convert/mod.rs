//! Conversions: what a copy stores in place of an image, when it is asked to.

pub(crate) mod asked;
mod media;
pub(crate) mod recompress;

use std::collections::{HashMap, HashSet};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use self::asked::{Conversion, ConversionFault, MediaForm};
use self::recompress::Recipe;
use super::ends::Ends;
use super::subset;
use crate::manifest::{Document, RawManifest, check_is_image, limits};
use crate::progress::Event;
use crate::registry::ImageRegistryExt as _;
use crate::{Descriptor, Digest, Error, Result, Size, platform, select};

/// Bytes of all documents of one image, before and after: they are kept in memory.
const DOCUMENTS: u64 = 64 << 20;
/// How many things an error names.
const NAMED: usize = 20;

/// A conversion of one image.
pub(super) struct Converter<'a> {
    pub(super) ends: Ends<'a>,
    pub(super) conversion: Conversion,
    /// All documents, by their digests.
    documents: HashMap<Digest, RawManifest>,
    /// What each has become.
    made: HashMap<Digest, RawManifest>,
    /// Of the documents.
    bytes: u64,
    /// Attestations that are left out.
    left_out: usize,
}

impl<'a> Converter<'a> {
    /// `rewritten` are documents that are not in the source.
    pub(super) fn new(
        ends: Ends<'a>,
        conversion: Conversion,
        rewritten: HashMap<Digest, RawManifest>,
    ) -> Self {
        Self { ends, conversion, documents: rewritten, made: HashMap::new(), bytes: 0, left_out: 0 }
    }

    /// What an image becomes, and all documents that this leads to. Its new layers are at the target by then.
    pub(super) async fn converted(
        mut self,
        root: &RawManifest,
    ) -> Result<(RawManifest, HashMap<Digest, RawManifest>)> {
        // What cannot be converted is found before anything is moved.
        let mut misfits = Vec::new();
        self.survey(root, limits::NESTING, &mut HashSet::new(), &mut misfits).await?;
        if !misfits.is_empty() {
            let more = misfits.len().saturating_sub(NAMED);
            misfits.truncate(NAMED);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let named = crate::printable(&format!("{}{more}", misfits.join(", ")));
            return Err(Error::from(match self.conversion.form {
                Some(MediaForm::Docker) => ConversionFault::Docker(named),
                Some(MediaForm::Oci) => ConversionFault::Oci(named),
                None => ConversionFault::ZstdInDocker,
            }));
        }
        let made = self.of(root).await?;
        if self.left_out > 0 {
            let (image, count) = (self.ends.image, self.left_out);
            let message =
                format!("{image}: attestations about images before their conversion are left out: {count}");
            self.ends.options.progress.emit(Event::Warning { message });
        }
        let documents = self.made.into_values().map(|raw| (raw.digest().clone(), raw)).collect();
        Ok((made, documents))
    }

    /// Reads all documents, and notes what the form has no place for.
    fn survey<'s>(
        &'s mut self,
        raw: &'s RawManifest,
        depth: usize,
        seen: &'s mut HashSet<Digest>,
        misfits: &'s mut Vec<String>,
    ) -> BoxFuture<'s, Result<()>> {
        Box::pin(async move {
            // Hostile input lists one document many times, and in each of those another.
            if !seen.insert(raw.digest().clone()) {
                return Ok(());
            }
            self.bytes = self.bytes.saturating_add(raw.descriptor().size());
            if self.bytes > DOCUMENTS / 2 {
                return Err(ConversionFault::Documents(Size(DOCUMENTS / 2).to_string()).into());
            }
            misfits.extend(media::misfits(raw, self.conversion)?);
            let Document::Index(index) = raw.document() else { return Ok(()) };
            if depth == 0 {
                return Err(Error::limit(format!("indexes are nested more than {} deep", limits::NESTING)));
            }
            for child in index.manifests() {
                let is_docker = self.conversion.form == Some(MediaForm::Docker);
                if is_docker && platform::is_attestation(child) {
                    continue;
                }
                let nested = self.child(child).await?;
                if is_docker && matches!(nested.document(), Document::Index(_)) {
                    misfits.push(format!("the index {} within the index", child.digest()));
                }
                self.survey(&nested, depth - 1, seen, misfits).await?;
            }
            Ok(())
        })
    }

    async fn child(&mut self, child: &Descriptor) -> Result<RawManifest> {
        if let Some(raw) = self.documents.get(child.digest()) {
            return RawManifest::described(raw.bytes().clone(), child);
        }
        let (from, image) = (self.ends.from, self.ends.image);
        let raw = self.ends.retrying("manifest", || from.fetch_child(image, child)).await;
        let raw = raw.map_err(|e| super::ends::of_source(e, child.digest()))?;
        self.documents.insert(child.digest().clone(), raw.clone());
        Ok(raw)
    }

    /// What a document becomes.
    fn of<'s>(&'s mut self, raw: &'s RawManifest) -> BoxFuture<'s, Result<RawManifest>> {
        Box::pin(async move {
            if let Some(made) = self.made.get(raw.digest()) {
                return Ok(made.clone());
            }
            let made = match raw.document() {
                Document::Index(index) => self.index(raw, index.manifests()).await?,
                Document::Manifest(_) => self.manifest(raw).await?,
            };
            self.made.insert(raw.digest().clone(), made.clone());
            Ok(made)
        })
    }

    async fn index(&mut self, raw: &RawManifest, children: &[Descriptor]) -> Result<RawManifest> {
        let mut kept = Vec::with_capacity(children.len());
        let mut changed = HashSet::new();
        let mut subjects = Vec::with_capacity(children.len());
        for child in children {
            let document = self.child(child).await?;
            let made = self.of(&document).await?;
            let mut entry = child.clone();
            if made.digest() != child.digest() {
                changed.insert(child.digest().clone());
                entry.set_digest(made.digest().clone());
                entry.set_size(made.descriptor().size());
                entry.set_media_type(made.descriptor().media_type().clone());
            }
            let about = document.subject().map(|subject| subject.digest().clone());
            subjects.push(subset::subject(child).or(about));
            kept.push(Some(entry));
        }
        // Their statements name the digest of what they are about, and it is no longer here.
        loop {
            let before = changed.len();
            for ((child, subject), kept) in children.iter().zip(&subjects).zip(&mut kept) {
                let is_about = match subject {
                    Some(subject) => changed.contains(subject),
                    // It may be about any of them.
                    None => platform::is_attestation(child) && !changed.is_empty(),
                };
                if is_about && kept.take().is_some() {
                    changed.insert(child.digest().clone());
                    self.left_out += 1;
                }
            }
            if changed.len() == before {
                break;
            }
        }
        let made = media::index(raw, self.conversion.form, children, kept)?;
        // What attests to nothing else is not in the index alone.
        made.ok_or_else(|| Error::from(ConversionFault::Sparse).with_image(self.ends.image))
    }

    async fn manifest(&mut self, raw: &RawManifest) -> Result<RawManifest> {
        let manifest = raw.image()?;
        if check_is_image(manifest).is_err() {
            return Ok(raw.clone());
        }
        let form = self.conversion.form.unwrap_or_else(|| MediaForm::of(raw.descriptor().media_type()));
        let mut layers = manifest.layers().clone();
        let mut jobs = Vec::new();
        for (at, layer) in layers.iter_mut().enumerate() {
            // What has no place was found by the survey.
            let Some(plan) = media::plan(layer, form, self.conversion) else { continue };
            if plan.is_made {
                jobs.push((at, layer.clone()));
            }
            layer.set_media_type(plan.media_type);
        }
        if let (Some(how), false) = (self.conversion.compress, jobs.is_empty()) {
            let ends = self.ends;
            let read = || select::read_config(ends.from, ends.image, manifest);
            let config = ends.retrying("config", read).await?;
            let diff_ids = config.diff_ids()?;
            let work = jobs.into_iter().filter_map(|(at, layer)| {
                let recipe = Recipe { layer, diff_id: diff_ids.get(at)?.clone(), how };
                Some(async move { Ok::<_, Error>((at, ends.recompressed(&recipe).await?)) })
            });
            let made = stream::iter(work).buffer_unordered(ends.concurrency());
            for (at, blob) in made.try_collect::<Vec<_>>().await? {
                if let Some(layer) = layers.get_mut(at) {
                    layer.set_digest(blob.digest().clone());
                    layer.set_size(blob.size());
                }
            }
        }
        let made = media::manifest(raw, self.conversion.form, &layers)?;
        if made.digest() != raw.digest() {
            let (original, digest) = (raw.digest().clone(), made.digest().clone());
            self.ends.options.progress.emit(Event::Converted { original, digest });
        }
        Ok(made)
    }
}
