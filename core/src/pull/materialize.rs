//! Artifacts of an image that is already resolved.

use super::engine::Engine;
use super::options::{PullOptions, PullPolicy, PulledLayer};
use crate::source::{ImageSource as _, RegistrySource};
use crate::worker::Workers;
use crate::{CacheProvider, Result};

/// Makes the artifact of each layer of a [resolved](RegistrySource::in_hand) image that is in a cache, bottom first.
/// Nothing is fetched, and no name is looked up: the image may have lost its name, or the name stand for another one,
/// as long as its content is there. Of `options` the materializer, the limits, the concurrency and the progress count.
///
/// The last progress event is [`Event::Finished`](crate::progress::Event::Finished), always.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) when content is not there; otherwise those of the cache and of the
/// materializer, with the image in their context.
pub async fn materialize(
    image: &RegistrySource,
    cache: &dyn CacheProvider,
    options: &PullOptions,
) -> Result<Vec<PulledLayer>> {
    let operation = options.progress.operation();
    let options =
        PullOptions { policy: PullPolicy::Never, progress: operation.progress().clone(), ..options.clone() };
    let engine = Engine {
        registry: dyn_clone::clone_box(image.registry()),
        reference: image.reference(),
        name: image.reference().clone(),
        cache: dyn_clone::clone_box(cache),
        options: &options,
        workers: Workers::new(),
    };
    let made = Box::pin(async {
        let config = engine.config(image).await?;
        engine.layers(image.raw(), config.as_ref()).await
    });
    let made = made.await;
    let made = operation.end(engine.end(made).await)?;
    Ok(made.into_iter().map(|(layer, _)| layer).collect())
}
