//! Images of an index that are not here.

use super::{CacheProvider, MissingBlob};
use crate::select::AbsentImage;
use crate::{Advice, Error, Platform, Reference, platform};

/// The error of an image that is not in the cache for a platform, with the platforms that are; any other error as it is. For
/// errors of what is not fetched.
pub async fn with_platforms_here(cache: &dyn CacheProvider, image: &Reference, error: Error) -> Error {
    let (Some(absent), Some(missing)) = (error.detail::<AbsentImage>(), error.detail::<MissingBlob>()) else {
        return error;
    };
    let mut here = Vec::new();
    for child in absent.listed.iter().filter(|child| !platform::is_attestation(child)) {
        if let Some(platform) = child.platform().as_ref().map(Platform::from)
            && cache.stat(child.digest()).await.is_ok_and(|size| size.is_some())
        {
            here.push(platform.to_string());
        }
    }
    here.sort();
    here.dedup();
    let message =
        format!("the image for platform {} is listed by the index, and is not here", absent.platform);
    let explained = Error::not_found(message)
        .with_image(image)
        .with_endpoint(cache)
        .with_context("blob", &missing.0)
        .with_detail(missing.clone());
    explained.with_advice(Advice::PullPlatform { platform: absent.platform.clone(), here })
}
