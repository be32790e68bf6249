//! `copy`, `push`, `tags` and `delete`: images where they are, without the store.

use crate::backend::Pages;
use crate::progress::Progress;
use crate::{
    CacheProviderExt as _, CopyOptions, Descriptor, Error, Platforms, PushOptions, Reference, Result, Sparse,
    copy, printable, reference,
};
use serde_json::json;

use super::near;
use super::places::Places;
use super::progress::Doing;
use super::screen::write;
use super::session::Session;

/// Copies an image from one place to another.
pub(crate) async fn copy_image(places: &Places, source: &str, target: &str, referrers: bool) -> Result<()> {
    let (from, to, name) = places.ends(source, target).await?;
    let image = from.reference().await?;
    let copied = places.telling(Doing::Copy, |progress| {
        let options = CopyOptions { referrers, ..options(places, progress) };
        let (from, image, to, name) = (&*from.registry, &image, &*to.registry, &name);
        async move { copy(from, image, to, name, &options).await }
    });
    match copied.await {
        Ok(copied) => show(places, &name, &copied),
        Err(e) => {
            let place = near::Place::of(places, source, &from)?;
            Err(near::with_tags(e, &*from.registry, &place, &image).await)
        }
    }
}

/// Copies an image of the store to another place.
pub(crate) async fn push(session: &Session, image: &str, target: &str, sparse: Sparse) -> Result<()> {
    let (places, image) = (&session.places, near::known(&session.images, session.name(image).await?).await?);
    let (to, name) = places.target(target).await?;
    let pushed = places.telling(Doing::Copy, |progress| {
        let options = PushOptions { copy: options(places, progress), sparse };
        let (cache, image, to, name) = (session.images.cache(), &image, &*to.registry, &name);
        async move { cache.push(image, to, name, &options).await }
    });
    show(places, &name, &pushed.await?)
}

fn options(places: &Places, progress: Progress) -> CopyOptions {
    let platforms = places.only.clone().map_or(Platforms::All, Platforms::One);
    CopyOptions { platforms, progress, retry: places.retry, ..CopyOptions::default() }
}

fn show(places: &Places, name: &Reference, descriptor: &Descriptor) -> Result<()> {
    let digest = descriptor.digest();
    places
        .screen
        .show(&json!({ "reference": name.whole(), "digest": digest }), || format!("{name}  {digest}\n"))
}

/// Lists the tags of a repository, or the repositories of a registry; of a place on this machine all names.
pub(crate) async fn tags(places: &Places, repository: &str) -> Result<()> {
    let image = places.repository(repository)?;
    let opened = places.backends.open(&image.uri(), &places.options).await?;
    if opened.reference.is_none() && !image.is_remote(&places.backends) {
        let names: Vec<String> = opened.references().await?.iter().map(Reference::whole).collect();
        return places.screen.show(&names, || lines(&names));
    }
    let (mut pages, mut all) = (Pages::default(), Vec::new());
    while let Some(page) = pages.page() {
        let ask = || async {
            match &opened.reference {
                Some(name) => opened.registry.tags(&reference::repository_of(name), page.clone()).await,
                None => opened.registry.repositories(page.clone()).await,
            }
        };
        let names = places.asking("names", ask).await?;
        pages.turn(&names).map_err(|e| e.with_endpoint(&opened.registry))?;
        if places.screen.json() {
            all.extend(names.names);
        } else {
            write(lines(&names.names).as_bytes())?;
        }
    }
    if places.screen.json() { places.screen.show(&all, String::new) } else { Ok(()) }
}

fn lines(names: &[String]) -> String {
    names.iter().map(|name| format!("{}\n", printable(name))).collect::<Vec<_>>().concat()
}

/// Removes a tag, a manifest with all its tags, or a blob.
pub(crate) async fn delete(places: &Places, image: &str, is_blob: bool) -> Result<()> {
    let opened = places.locate(image).await?;
    if !opened.registry.capabilities().delete {
        let error = Error::config("this backend cannot delete").with_image(printable(image));
        return Err(error.with_endpoint(&opened.registry));
    }
    let name = opened.reference().await?;
    let digest = reference::digest_of(&name)?;
    // `latest` is deleted only when it is written out.
    let says_tag = name.tag().is_some_and(|tag| image.ends_with(&format!(":{tag}")));
    match (&digest, is_blob) {
        (Some(digest), true) => opened.registry.delete_blob(&name, digest).await?,
        (None, true) => return Err(Error::config("a blob is named by its digest").with_image(&name)),
        (None, false) if !says_tag => {
            return Err(Error::config("neither a tag nor a digest is given").with_image(printable(image)));
        }
        _ => {
            if let Err(e) = opened.registry.delete(&name).await {
                let place = near::Place::of(places, image, &opened)?;
                return Err(near::with_tags(e, &*opened.registry, &place, &name).await);
            }
        }
    }
    places.screen.show(&json!({ "deleted": name.whole() }), || format!("{name} deleted\n"))
}
