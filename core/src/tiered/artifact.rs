//! Artifacts: taken from the far tier, or made here and stored in both.

use std::io::SeekFrom;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::blocking::{Stop, alone};
use crate::format::Output;
use crate::holes::is_zero;
use crate::{
    Artifact, ArtifactHandle, ArtifactKey, ArtifactReader, ArtifactWriter, Error, ErrorKind, Made, Result,
};

use super::far::Far;
use super::tiers::Tiered;

/// Bytes that are asked for at once.
const SPAN: u64 = 16 << 20;

/// Spans that are read at the same time: each waits for the network.
const PARALLEL: u64 = 4;

impl Tiered {
    /// The artifact of the near tier, a copy of the far one's, or the right to make it in both.
    pub(super) async fn find_or_make(&self, key: &ArtifactKey) -> Result<Artifact> {
        let mut near = match self.near.artifact(key).await? {
            Artifact::Vacant(near) => near,
            present @ Artifact::Present(_) => return Ok(present),
        };
        let Some(far) = self.far.asked().await? else { return Ok(Artifact::Vacant(near)) };
        let found = if far.is_read_only() {
            far.find_artifact(key).await.map(|found| found.map(Artifact::Present))
        } else {
            far.artifact(key).await.map(Some)
        };
        let artifact = match self.far.answer(found)?.flatten() {
            None => return Ok(Artifact::Vacant(near)),
            Some(Artifact::Vacant(there)) => {
                return Ok(Artifact::Vacant(Box::new(TierArtifact {
                    near,
                    there,
                    tier: self.far.clone(),
                    what: format!("{} of {}", key.format, key.content),
                    stop: Stop::default(),
                })));
            }
            Some(Artifact::Present(artifact)) => artifact,
        };
        let copied = alone("plyfold-fetch", move |stop| {
            near.stop_with(stop);
            copy(&*artifact, near.output(), stop)?;
            near.commit(artifact.made())
        });
        match copied.await {
            // It is made here: what the tier has is damaged or cannot be read, and its own check finds that.
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) || e.is_retryable() => {
                self.far.unpublished(format_args!("{} of {}", key.format, key.content), e);
                self.near.artifact(key).await
            }
            copied => copied.map(Artifact::Present),
        }
    }
}

/// An artifact in the making: for the near tier, and from there for the far one.
#[derive(Debug)]
struct TierArtifact {
    near: Box<dyn ArtifactWriter>,
    there: Box<dyn ArtifactWriter>,
    tier: Far,
    what: String,
    stop: Stop,
}

impl ArtifactWriter for TierArtifact {
    fn output(&mut self) -> &mut dyn Output {
        self.near.output()
    }

    fn stop_with(&mut self, stop: &Stop) {
        self.stop = stop.clone();
        self.near.stop_with(stop);
        self.there.stop_with(stop);
    }

    fn commit(self: Box<Self>, made: &Made) -> Result<Box<dyn ArtifactHandle>> {
        let Self { near, mut there, tier, what, stop } = *self;
        let artifact = near.commit(made)?;
        let sent = ArtifactReader::open(&*artifact)
            .and_then(|mut file| file.copy_to(there.output()))
            .and_then(|()| stop.check())
            .and_then(|()| there.commit(made));
        if let Err(e) = sent {
            tier.unpublished(what, e);
        }
        Ok(artifact)
    }
}

/// Copies an artifact, several spans of it at a time. Zeros are left out, as holes.
fn copy(from: &dyn ArtifactHandle, to: &mut dyn Output, stop: &Stop) -> Result<()> {
    let writing = |e| Error::io("writing an artifact", e);
    let size = from.size();
    to.set_len(size).map_err(writing)?;
    let (next, to, failed) = (AtomicU64::new(0), Mutex::new(to), Mutex::new(None));
    let work = || -> Result<()> {
        loop {
            let start = next.fetch_add(SPAN, Ordering::Relaxed);
            if start >= size {
                return Ok(());
            }
            let mut at = start;
            let mut write = |piece: &[u8]| -> Result<()> {
                stop.check()?;
                if failed.lock().is_ok_and(|failed| failed.is_some()) {
                    return Err(Error::new(ErrorKind::Cancelled, "another span has failed"));
                }
                if !is_zero(piece) {
                    let broken = |_| Error::new(ErrorKind::Internal, "another thread has panicked");
                    let mut to = to.lock().map_err(broken)?;
                    to.seek(SeekFrom::Start(at)).and_then(|_| to.write_all(piece)).map_err(writing)?;
                }
                at += piece.len() as u64;
                Ok(())
            };
            let span = start..size.min(start.saturating_add(SPAN));
            let read = from.read_range(span, &mut |piece| Ok(write(piece)?));
            read.map_err(|e| Error::io("reading an artifact", e))?;
        }
    };
    thread::scope(|scope| {
        for _ in 0..size.div_ceil(SPAN).min(PARALLEL) {
            scope.spawn(|| {
                if let (Err(e), Ok(mut failed)) = (work(), failed.lock()) {
                    failed.get_or_insert(e);
                }
            });
        }
    });
    failed.into_inner().ok().flatten().map_or(Ok(()), Err)
}
