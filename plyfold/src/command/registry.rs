//! `copy`, `push`, `tags` and `delete`: images where they are, without the store.

use std::path::Path;

use crate::backend::Pages;
use crate::progress::Progress;
use crate::{
    CacheProviderExt as _, Copied, CopyJob, CopyOptions, Digest, Error, ImageRegistry, Location, Reference,
    Result, Sparse, copy_all, printable, reference,
};
use serde_json::json;

use super::context::{Context, resolved};
use super::copy_args::{Copy, Push};
use super::image::Image;
use super::progress::Doing;
use super::session::Session;
use super::suggestions;
use super::sync_args::STORE;
use super::terminal::write;

/// Copies an image from one place to another.
pub(crate) async fn copy_image(context: &Context, options: Copy) -> Result<()> {
    let Copy { source, target, referrers, sparse, convert } = options;
    let (from, to, name) = context.ends(&source, &target).await?;
    let image = from.reference().await?;
    let shows = shows_names(&target);
    let jobs = [CopyJob { image: image.clone(), target: name.clone() }];
    let copied = context.telling(Doing::Copy, |progress| {
        let (sparse, conversion) = (sparse.into(), convert.into());
        let options = CopyOptions { conversion, referrers, sparse, ..options_of(context, progress) };
        let (from, jobs, to, name) = (&*from.registry, &jobs, &*to.registry, &name);
        async move { replacing(shows, to, name, &options, copy_all(from, jobs, to, &options)).await }
    });
    match copied.await {
        Ok((copied, before)) => {
            copied.iter().try_for_each(|copied| show_copied(context, copied, before.as_ref()))
        }
        Err(e) => Err(suggestions::with_tags(e, context, &source, &from, &image).await),
    }
}

/// Copies an image of the store to another place.
pub(crate) async fn push(session: &Session, options: Push) -> Result<()> {
    let Push { image, target, rewrite_index, referrers, convert } = options;
    let (context, image) = (&session.context, session.stored(&image).await?);
    suggestions::known(&session.images, &image).await?;
    let (to, name) = context.target(&target, &session.images.cache().to_string()).await?;
    let shows = shows_names(&target);
    let pushed = context.telling(Doing::Copy, |progress| {
        let sparse = if rewrite_index { Sparse::Rewrite } else { Sparse::Refuse };
        let scratch = Some(session.images.temporary());
        let options = CopyOptions {
            conversion: convert.into(),
            referrers,
            scratch,
            sparse,
            ..options_of(context, progress)
        };
        let (cache, image, to, name) = (session.images.cache(), &image, &*to.registry, &name);
        async move { replacing(shows, to, name, &options, cache.push(image, to, name, &options)).await }
    });
    let (pushed, before) = pushed.await?;
    show_copied(context, &pushed, before.as_ref())
}

/// Whether a target says what its names stand for. A Docker daemon writes the whole image for that.
fn shows_names(target: &str) -> bool {
    !target.starts_with("docker-daemon:")
}

/// Copies, and says what the name of the target stood for before, if the target says that.
async fn replacing<T>(
    shows: bool,
    to: &dyn ImageRegistry,
    name: &Reference,
    options: &CopyOptions,
    copy: impl Future<Output = Result<T>>,
) -> Result<(T, Option<Digest>)> {
    let before = if shows { standing(to, name, options).await? } else { None };
    Ok((copy.await?, before))
}

/// What a name of the target stands for until now.
async fn standing(to: &dyn ImageRegistry, name: &Reference, options: &CopyOptions) -> Result<Option<Digest>> {
    if name.tag().is_none() || !to.capabilities().push {
        return Ok(None);
    }
    match options.retry.run("manifest", &options.progress, || to.resolve(name)).await {
        Ok(found) => Ok(Some(found.digest().clone())),
        Err(e) if e.is_retryable() => Err(e.with_image(name).with_endpoint(to)),
        // A target may take what it does not show.
        Err(_) => Ok(None),
    }
}

fn options_of(context: &Context, progress: Progress) -> CopyOptions {
    CopyOptions { platforms: context.platforms(), progress, retry: context.retry, ..CopyOptions::default() }
}

/// Shows what was copied, of what it was made if that has another digest, and what its name stood for until now.
fn show_copied(context: &Context, copied: &Copied, before: Option<&Digest>) -> Result<()> {
    let (name, digest) = (&copied.target, copied.descriptor.digest());
    let original = Some(copied.original.digest()).filter(|original| *original != digest);
    let replaced = before.filter(|before| *before != digest);
    let mut document = json!({ "reference": name.whole(), "digest": digest, "replaced": replaced });
    if let Some(original) = original {
        document["original"] = json!(original);
    }
    context.terminal.show(&document, || {
        let said = |what: &str, digest: Option<&Digest>| {
            digest.map_or_else(String::new, |digest| format!(", {what} {digest}"))
        };
        let (original, replaced) = (said("made of", original), said("replaced", replaced));
        format!("{name}  {digest}{original}{replaced}\n")
    })
}

/// Lists the tags of a repository, or the repositories of a registry; of a place on this machine all names.
pub(crate) async fn tags(context: &Context, repository: &str) -> Result<()> {
    let is_place = Location::parse(repository).is_ok_and(|location| location.rest.is_empty());
    if repository == STORE && !Path::new(STORE).exists() {
        let error = Error::config("store is the store here, and may be a name");
        let hint = "`plyfold list` lists the images of the store; write docker.io/library/store for the name";
        return Err(error.with_hint(hint));
    }
    // A daemon has no path.
    let image = if is_place && context.backends.knows(repository) {
        Image::Uri(repository.to_owned())
    } else {
        Image::parse(repository, &context.backends)?
    };
    let opened = context.backends.open(&image.uri(), &context.options).await?;
    let is_local = !image.is_remote(&context.backends);
    if opened.reference.is_none() && is_local {
        let names: Vec<String> = opened.references().await?.iter().map(Reference::whole).collect();
        return context.terminal.show(&names, || lines(&names));
    }
    let place = opened.reference.as_ref().filter(|_| is_local);
    let place = place.map_or_else(String::new, |name| reference::repository_of(name) + ":");
    let (mut pages, mut all) = (Pages::default(), Vec::new());
    while let Some(page) = pages.page() {
        let ask = || async {
            match &opened.reference {
                Some(name) => opened.registry.tags(&reference::repository_of(name), page.clone()).await,
                None => opened.registry.repositories(page.clone()).await,
            }
        };
        let names = context.asking("names", ask).await?;
        pages.advance(&names).map_err(|e| e.with_endpoint(&opened.registry))?;
        let names: Vec<String> = names.names.iter().map(|name| format!("{place}{name}")).collect();
        if context.terminal.json {
            all.extend(names);
        } else {
            write(lines(&names).as_bytes())?;
        }
    }
    if context.terminal.json { context.terminal.show(&all, String::new) } else { Ok(()) }
}

fn lines(names: &[String]) -> String {
    names.iter().map(|name| format!("{}\n", printable(name))).collect::<Vec<_>>().concat()
}

/// Removes a tag, a manifest with all its tags, or a blob.
pub(crate) async fn delete(context: &Context, image: &str, is_blob: bool) -> Result<()> {
    let image = &*resolved(image)?;
    let opened = context.locate(image).await?;
    if !opened.registry.capabilities().delete {
        return Err(opened.registry.unsupported("delete images").with_image(printable(image)));
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
                return Err(suggestions::with_tags(e, context, image, &opened, &name).await);
            }
        }
    }
    context.terminal.show(&json!({ "deleted": name.whole() }), || format!("{name} deleted\n"))
}
