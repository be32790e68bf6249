//! Conversions: what a copy stores in place of an image, when it is asked to.

pub(crate) mod asked;
mod media;
pub(crate) mod recompress;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use self::asked::{Conversion, ConversionFault, MediaForm};
use self::recompress::Recipe;
use super::ends::Ends;
use super::rewrite::{Child, Entries, Rewrite, rewrite};
use super::subset;
use crate::manifest::{Document, RawManifest, check_is_image};
use crate::progress::Event;
use crate::registry::ImageRegistryExt as _;
use crate::{Descriptor, Digest, Error, Result, Size, platform, select};

/// Bytes of all documents of one image: they are kept in memory, with what they become.
const DOCUMENTS: u64 = 32 << 20;
/// How many things an error names.
const NAMED: usize = 20;

/// A conversion of one image.
pub(super) struct Converter<'a> {
    pub(super) ends: Ends<'a>,
    pub(super) conversion: Conversion,
    /// All documents, by their digests.
    documents: HashMap<Digest, RawManifest>,
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
        Self { ends, conversion, documents: rewritten, left_out: 0 }
    }

    /// What an image becomes, and all documents that this leads to. Its new layers are at the target by then.
    pub(super) async fn converted(
        mut self,
        root: &RawManifest,
    ) -> Result<(RawManifest, HashMap<Digest, RawManifest>)> {
        // What cannot be converted is found before anything is moved.
        let mut survey = Survey { converter: &mut self, bytes: 0, misfits: Vec::new() };
        survey.note(root)?;
        rewrite(&mut survey, root).await?;
        let Survey { mut misfits, .. } = survey;
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
        let (made, documents) = rewrite(&mut self, root).await?;
        if self.left_out > 0 {
            let (image, count) = (self.ends.image, self.left_out);
            let message =
                format!("{image}: attestations about images before their conversion are left out: {count}");
            self.ends.options.progress.emit(Event::Warning { message });
        }
        self.documents.extend(documents.into_iter().map(|raw| (raw.digest().clone(), raw)));
        Ok((made.unwrap_or_else(|| root.clone()), self.documents))
    }

    async fn document(&mut self, entry: &Descriptor) -> Result<RawManifest> {
        if let Some(raw) = self.documents.get(entry.digest()) {
            return RawManifest::described(raw.bytes().clone(), entry);
        }
        let (from, image) = (self.ends.from, self.ends.image);
        let raw = self.ends.retrying("manifest", || from.fetch_child(image, entry)).await;
        let raw = raw.map_err(|e| super::ends::of_source(e, entry.digest()))?;
        self.documents.insert(entry.digest().clone(), raw.clone());
        Ok(raw)
    }

    async fn image(&self, raw: &RawManifest) -> Result<RawManifest> {
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

/// Reads all documents, and notes what the form has no place for.
struct Survey<'s, 'a> {
    converter: &'s mut Converter<'a>,
    /// Of the documents.
    bytes: u64,
    misfits: Vec<String>,
}

impl Survey<'_, '_> {
    fn makes_docker(&self) -> bool {
        self.converter.conversion.form == Some(MediaForm::Docker)
    }

    fn note(&mut self, raw: &RawManifest) -> Result<()> {
        self.bytes = self.bytes.saturating_add(raw.descriptor().size());
        if self.bytes > DOCUMENTS {
            return Err(ConversionFault::Documents(Size(DOCUMENTS).to_string()).into());
        }
        self.misfits.extend(media::misfits(raw, self.converter.conversion)?);
        Ok(())
    }
}

#[async_trait]
impl Rewrite for Survey<'_, '_> {
    fn takes(&self, entry: &Descriptor) -> bool {
        !self.makes_docker() || !platform::is_attestation(entry)
    }

    async fn child(&mut self, entry: &Descriptor) -> Result<Child> {
        let raw = self.converter.document(entry).await?;
        if self.makes_docker() && matches!(raw.document(), Document::Index(_)) {
            self.misfits.push(format!("the index {} within the index", entry.digest()));
        }
        self.note(&raw)?;
        Ok(Child::Document(Box::new(raw)))
    }

    fn index(&mut self, raw: &RawManifest, _: Entries<'_>) -> Result<Option<RawManifest>> {
        Ok(Some(raw.clone()))
    }
}

#[async_trait]
impl Rewrite for Converter<'_> {
    async fn child(&mut self, entry: &Descriptor) -> Result<Child> {
        Ok(Child::Document(Box::new(self.document(entry).await?)))
    }

    async fn manifest(&mut self, raw: &RawManifest, _: Option<&Descriptor>) -> Result<Option<RawManifest>> {
        self.image(raw).await.map(Some)
    }

    /// Leaves out attestations to what has changed: they name the digest of what they are about, and it is no longer here.
    fn index(&mut self, raw: &RawManifest, mut entries: Entries<'_>) -> Result<Option<RawManifest>> {
        let old = entries.old.iter();
        let pairs = old.clone().zip(&entries.new);
        let changed = pairs.filter(|(old, new)| new.as_ref().is_none_or(|new| new.digest() != old.digest()));
        let mut changed: HashSet<Digest> = changed.map(|(old, _)| old.digest().clone()).collect();
        if !changed.is_empty() {
            let subjects = old.clone().zip(&entries.subjects);
            let subjects = subjects.map(|(old, about)| subset::subject(old).or_else(|| about.clone()));
            let subjects: Vec<Option<Digest>> = subjects.collect();
            for ((old, subject), new) in old.zip(&subjects).zip(&mut entries.new) {
                // It may be about any of them.
                if subject.is_none() && platform::is_attestation(old) && new.take().is_some() {
                    changed.insert(old.digest().clone());
                    self.left_out += 1;
                }
            }
            self.left_out += entries.leave_out_about(changed, &subjects);
        }
        let made = media::index(raw, self.conversion.form, entries)?;
        // What attests to nothing else is not in the index alone.
        made.ok_or_else(|| Error::from(ConversionFault::Sparse).with_image(self.ends.image)).map(Some)
    }
}
