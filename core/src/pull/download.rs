//! One layer: from the backend into the cache, and on the way into its artifact.

use super::by_index::ByIndex;
use super::conversion::{Conversion, Converted, Vacant, WhenFull};
use super::engine::Engine;
use super::options::{PullPolicy, PulledLayer};
use super::retry::Retry;
use super::retry::{Row, StallTimer, may_be_of_part};
use crate::blocking::{StopOnDrop, blocking};
use crate::cache::{BlobWriter, Ingest, MissingBlob, content};
use crate::layer::{Hashing, LayerForm, LayerOptions, LayerTar};
use crate::progress::Event;
use crate::stored_blob;
use crate::{
    Advice, Artifact, ArtifactHandle, ArtifactKey, Blob, BlobRange, CacheProvider, Descriptor, Digest, Error,
    ErrorKind, ImageRegistryExt, Result, TransferFault,
};

impl Engine<'_> {
    /// Brings one blob here and makes its artifact; with whether anything had to be fetched.
    pub(super) async fn layer(
        &self,
        layer: &Descriptor,
        diff_id: Option<Digest>,
    ) -> Result<(PulledLayer, bool)> {
        let at = |e: Error| e.with_context("layer", layer.digest());
        let (there, slot) = self.artifact(layer, diff_id.as_ref()).await.map_err(at)?;
        let ingest = self.telling(layer.digest().to_string(), self.cache.ingest(layer));
        let (fetched, made) = match ingest.await.map_err(at)? {
            Ingest::Present => {
                self.options.progress.emit(Event::BlobDone {
                    digest: layer.digest().clone(),
                    size: layer.size(),
                    cached: true,
                });
                self.materialize_present(layer, slot).await.map_err(at)?
            }
            // It was removed or quarantined since the image was found.
            Ingest::Vacant(_) if self.is_refused(layer).await? => {
                let error = Error::from(MissingBlob(layer.digest().clone()));
                return Err(at(error.with_endpoint(&self.cache)));
            }
            Ingest::Vacant(writer) => (true, self.fetch(layer, writer, slot).await.map_err(at)?),
        };
        let converted = there.is_none() && made.is_some();
        let artifact = there.or(made);
        if let (Some(artifact), Some(diff_id)) = (&artifact, &diff_id)
            && artifact.made().source.as_ref() != Some(layer.digest())
        {
            self.check_content(layer, diff_id).await.map_err(at)?;
        }
        Ok((PulledLayer { descriptor: layer.clone(), diff_id, artifact, converted }, fetched))
    }

    /// Reads a layer that is here to its end, whatever its form, and compares its content with its `diff_id`: a file was
    /// found that was made of another blob, which had that content.
    pub(crate) async fn check_content(&self, layer: &Descriptor, diff_id: &Digest) -> Result<()> {
        let options = LayerOptions {
            diff_id: Some(diff_id.clone()),
            hashing: Hashing::Tar,
            limits: self.options.limits.clone(),
            ..LayerOptions::default()
        };
        let stop = StopOnDrop::default();
        let bytes = stop.0.reader(stored_blob::reader(self.cache.open(layer, BlobRange::FULL).await?));
        let read = move || LayerTar::new(bytes, options)?.finish().map(drop);
        match self.workers.run("plyfold-verify", read)?.await {
            Err(e) => Err(content::verify_after(&self.cache, layer, e).await),
            read => read,
        }
    }

    /// Whether a blob that is to be stored would have to be fetched, and nothing may be.
    async fn is_refused(&self, blob: &Descriptor) -> Result<bool> {
        let is_never = self.options.policy == PullPolicy::Never;
        Ok(is_never && self.cache.stat(blob.digest()).await? != Some(blob.size()))
    }

    /// A layer's artifact, or the right to make it; neither when none is asked for.
    async fn artifact(
        &self,
        layer: &Descriptor,
        diff_id: Option<&Digest>,
    ) -> Result<(Option<Box<dyn ArtifactHandle>>, Option<Vacant>)> {
        let (Some(materializer), Some(diff_id)) = (&self.options.materializer, diff_id) else {
            return Ok((None, None));
        };
        let form = LayerForm::of(layer)?;
        let key = ArtifactKey::layer(materializer.format().of_form(form), diff_id.clone());
        match self.telling(diff_id.to_string(), self.cache.artifact(&key)).await? {
            Artifact::Present(artifact) => {
                self.options.progress.emit(Event::LayerDone {
                    digest: layer.digest().clone(),
                    diff_id: diff_id.clone(),
                    cached: true,
                });
                Ok((Some(artifact), None))
            }
            Artifact::Vacant(writer) => {
                let materializer = materializer.clone();
                Ok((None, Some(Vacant { writer, diff_id: diff_id.clone(), materializer, form })))
            }
        }
    }

    /// Converts a blob that is here. One that turns out to be damaged, or has been quarantined since it was found, is
    /// fetched again, once.
    async fn materialize_present(
        &self,
        layer: &Descriptor,
        slot: Option<Vacant>,
    ) -> Result<(bool, Option<Box<dyn ArtifactHandle>>)> {
        let diff_id = slot.as_ref().map(|slot| slot.diff_id.clone());
        let error = match self.convert_present(layer, slot).await {
            Ok(made) => return Ok((false, made)),
            Err(e) => e,
        };
        let damaged = content::is_damage_of(layer.digest(), &error);
        let lost = damaged || *error.kind() == ErrorKind::NotFound;
        if !lost || self.options.policy == PullPolicy::Never {
            return Err(if damaged { error.with_advice(Advice::RepairContent) } else { error });
        }
        self.quarantine_damaged(layer).await?;
        let (there, slot) = self.artifact(layer, diff_id.as_ref()).await?;
        let made = match self.cache.ingest(layer).await? {
            Ingest::Vacant(writer) => self.fetch(layer, writer, slot).await?,
            Ingest::Present => self.convert_present(layer, slot).await?,
        };
        Ok((true, there.or(made)))
    }

    async fn convert_present(
        &self,
        layer: &Descriptor,
        slot: Option<Vacant>,
    ) -> Result<Option<Box<dyn ArtifactHandle>>> {
        let Some(vacant) = slot else { return Ok(None) };
        let diff_id = vacant.diff_id.clone();
        let blob = self.cache.open(layer, BlobRange::FULL).await?;
        let (blob, vacant) = match self.convert_by_index(layer, blob, vacant).await? {
            ByIndex::Made(converted) => return self.publish(layer, converted, diff_id).await.map(Some),
            ByIndex::Failed(blob) => match self.artifact(layer, Some(&diff_id)).await? {
                (_, Some(vacant)) => (blob, vacant),
                (there, None) => return Ok(there),
            },
            ByIndex::None(blob, vacant) => (blob, vacant),
        };
        let source = stored_blob::reader(blob);
        let conversion = self.convert_from(
            |stop, options| LayerTar::new(stop.reader(source), options),
            vacant,
            WhenFull::Wait,
        )?;
        let converted = match conversion.finish().await {
            // Of a file the diff_id alone was checked: the error may come from damage of the blob.
            Err(e) => return Err(content::verify_after(&self.cache, layer, e).await),
            converted => {
                converted?.ok_or_else(|| Error::new(ErrorKind::Internal, "a conversion was put off"))?
            }
        };
        self.publish(layer, converted, diff_id).await.map(Some)
    }

    /// Downloads a blob, and converts it in the same pass when it starts at its first byte.
    async fn fetch(
        &self,
        layer: &Descriptor,
        mut writer: Box<dyn BlobWriter>,
        slot: Option<Vacant>,
    ) -> Result<Option<Box<dyn ArtifactHandle>>> {
        // Another layer's failure or the user may end this at any time.
        writer.set_resumable(true);
        let resumed_at = writer.offset();
        let digest = layer.digest();
        let started = self.options.progress.start(layer, resumed_at);
        let diff_id = slot.as_ref().map(|slot| slot.diff_id.clone());
        let (mut tee, mut pending) = (None, slot);
        // What an earlier attempt left was never seen by a conversion: convert from the cache afterwards. So is what may
        // share blocks with the blob.
        let is_later = |slot: &Vacant| slot.form.is_some() && self.cache.layout().is_some();
        if let Some(slot) = pending.take_if(|slot| resumed_at == 0 && !is_later(slot)) {
            tee = Some(self.convert(slot, WhenFull::Defer)?);
        }
        let is_pieced = match self.receive(layer, &mut *writer, tee.as_mut()).await {
            Ok(is_pieced) => is_pieced || resumed_at > 0,
            Err(e) => {
                // A transfer that broke can go on where it stopped; content that is wrong cannot.
                if *e.kind() == ErrorKind::Corrupt {
                    writer.set_resumable(false);
                    writer.discard().await;
                } else if let Err(lost) = writer.suspend().await {
                    tracing::debug!("the partial download of {digest} is not kept: {lost}");
                }
                return Err(e);
            }
        };
        let mut converted = match tee {
            Some(tee) => tee.finish().await.transpose(),
            None => None,
        };
        if let Err(e) = self.commit(writer).await {
            if !is_pieced || *e.kind() != ErrorKind::Corrupt {
                return Err(e);
            }
            self.fetch_anew(layer).await?;
            // The artifact of the wrong bytes: its writer holds the lock on the artifact.
            drop(converted.take());
        }
        started.done();
        if let (Some(converted), Some(diff_id)) = (converted, &diff_id) {
            return self.publish(layer, converted?, diff_id.clone()).await.map(Some);
        }
        // Now that the blob is here the conversion may also wait for memory, if there was none left.
        let (there, slot) = match pending {
            Some(slot) => (None, Some(slot)),
            None => self.artifact(layer, diff_id.as_ref()).await?,
        };
        Ok(there.or(self.convert_present(layer, slot).await?))
    }

    /// Downloads a blob once more, from the start: the bytes of an earlier attempt may have been the wrong ones.
    /// Nothing is fetched when another task or process has stored it meanwhile.
    async fn fetch_anew(&self, layer: &Descriptor) -> Result<()> {
        let Ingest::Vacant(mut writer) = self.cache.ingest(layer).await? else { return Ok(()) };
        writer.restart().await?;
        self.receive(layer, &mut *writer, None).await?;
        self.commit(writer).await
    }

    /// Content that is wrong came from the registry; any other error is the cache's own.
    async fn commit(&self, writer: Box<dyn BlobWriter>) -> Result<()> {
        writer.commit().await.map_err(|e| match e.kind() {
            ErrorKind::Corrupt => e.with_endpoint(&self.registry),
            _ => e,
        })
    }

    /// Moves a blob's bytes into `writer`, through failures of the transfer, each time from where it stopped; whether they
    /// may come from several places or attempts.
    async fn receive(
        &self,
        layer: &Descriptor,
        writer: &mut dyn BlobWriter,
        mut tee: Option<&mut Conversion>,
    ) -> Result<bool> {
        let (mut attempt, mut is_whole) = (1, false);
        let (mut asks_cache, mut was_elsewhere) = (true, false);
        let (mut row, mut row_start) = (Row::default(), writer.offset());
        while writer.offset() < layer.size() || layer.size() == 0 {
            let offset = writer.offset();
            let held = if asks_cache { writer.held_elsewhere().await? } else { None };
            let is_held = held.is_some();
            was_elsewhere |= is_held;
            let transfer = self.transfer(layer, writer, tee.as_deref_mut(), (attempt, is_whole), held);
            let error = match row.attempt(transfer).await {
                Ok(()) => break,
                Err(e) => e,
            };
            if is_held && !error.is_retryable() {
                // What the cache has elsewhere is damaged or gone: the backend may have it.
                tracing::debug!("{} is not taken from elsewhere: {error}", layer.digest());
                asks_cache = false;
                continue;
            }
            if writer.offset() >= row_start + Retry::PROGRESS {
                row = Row::default();
            }
            row_start = writer.offset();
            attempt += 1;
            // An endpoint that keeps answering ranges wrongly may still serve the whole blob.
            let is_futile = writer.offset() == offset || *error.kind() == ErrorKind::Corrupt;
            let was_part = !is_whole && offset > 0 && is_futile;
            is_whole = matches!(error.detail(), Some(TransferFault::NoRange | TransferFault::OtherRange))
                && row.failures() + 2 >= self.options.retry.attempts;
            let (retry, progress) = (&self.options.retry, &self.options.progress);
            match retry.pause(&mut row, error, layer.digest().as_ref(), progress).await {
                // Nor is one that refuses them to keep the blob from ever being complete.
                Err(e) if was_part && may_be_of_part(&e) => is_whole = true,
                outcome => outcome?,
            }
        }
        if let Some(tee) = tee {
            tee.end().await;
        }
        Ok(was_elsewhere || attempt > 1)
    }

    /// One attempt, counted from 1: from the writer's offset to the end, or to the first failure. The endpoint is asked
    /// for the blob from its first byte if `is_whole`, whatever is here. It is not asked for what is `held` elsewhere.
    async fn transfer(
        &self,
        layer: &Descriptor,
        writer: &mut dyn BlobWriter,
        mut tee: Option<&mut Conversion>,
        (attempt, is_whole): (u32, bool),
        held: Option<Blob>,
    ) -> Result<()> {
        let digest = layer.digest();
        let start = writer.offset();
        let range = BlobRange::from_start(if is_whole { 0 } else { start });
        let mut stall = StallTimer::new(self.options.stall);
        let place = held.as_ref().and_then(Blob::endpoint).map(str::to_owned);
        let at = |e: Error| match &place {
            Some(place) => e.with_endpoint(place),
            None => e.with_endpoint(&self.registry),
        };
        let opened = match held {
            Some(blob) => Ok(blob),
            // What was to be read elsewhere is gone.
            None if self.options.policy == PullPolicy::Never => {
                return Err(Error::from(MissingBlob(digest.clone())).with_endpoint(&self.cache));
            }
            None => stall.wait(self.registry.fetch_blob(self.reference, layer, range)).await,
        };
        let mut blob = opened.map_err(at)?.unverified();
        self.options.progress.emit(Event::BlobOpened {
            digest: digest.clone(),
            endpoint: blob.endpoint().map_or_else(|| self.registry.to_string(), str::to_owned),
            attempt,
        });
        // A backend without ranges begins earlier; what is here already is passed over, and the digest decides.
        let mut surplus = start.saturating_sub(blob.offset());
        while let Some(mut chunk) = stall.wait(blob.chunk()).await.map_err(at)? {
            stall.moved(chunk.len());
            let skipped = usize::try_from(surplus).unwrap_or(usize::MAX).min(chunk.len());
            surplus -= skipped as u64;
            let chunk = chunk.split_off(skipped);
            if chunk.is_empty() {
                continue;
            }
            writer.write(chunk.clone()).await?;
            self.options
                .progress
                .emit(Event::BlobProgress { digest: digest.clone(), received: writer.offset() });
            if let Some(tee) = tee.as_deref_mut() {
                // The blob is stored even when its conversion has failed.
                tee.send(Ok(chunk)).await;
            }
        }
        Ok(())
    }

    async fn publish(
        &self,
        layer: &Descriptor,
        (writer, made): Converted,
        diff_id: Digest,
    ) -> Result<Box<dyn ArtifactHandle>> {
        let format = self.options.materializer.as_ref().map(|made| made.format().name).unwrap_or_default();
        let made = made.with_source(Some(layer.digest().clone()));
        let committed = blocking(move |stop| writer.commit(format, &made, stop)).await;
        let mut finished = committed.map_err(|e| e.with_context("format", format))?;
        let missing = || Error::new(ErrorKind::Internal, "a conversion has no file");
        let (_, artifact, _) = finished.pop().ok_or_else(missing)?;
        self.options.progress.emit(Event::LayerDone {
            digest: layer.digest().clone(),
            diff_id,
            cached: false,
        });
        Ok(artifact)
    }
}
