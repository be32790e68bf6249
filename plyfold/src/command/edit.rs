//! `append` and `config`: images of the store, made of others.

use std::path::{Path, PathBuf};

use super::edit_args::{Append, Config, Words};
use super::layer::{Input, refuse_terminal};
use super::program;
use super::progress::Doing;
use super::session::Session;
use super::store_admin::{new_name, show_named};
use super::suggestions;
use crate::blocking::blocking;
use crate::edit::{ConfigChange, Edit, NewLayer};
use crate::manifest::limits;
use crate::platform::is_attestation;
use crate::shell::quoted;
use crate::{CacheProvider as _, CacheProviderExt as _, Descriptor, Document, Error, RawManifest, Result};

pub(crate) async fn append(session: &Session, options: Append) -> Result<()> {
    let Append { image, layers, compress, tag } = options;
    if layers.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
        return Err(Error::config("standard input is one layer, and not several"));
    }
    let mut read = Vec::with_capacity(layers.len());
    for path in &layers {
        let layer = layer(session, path).await?;
        read.push(match compress {
            Some(how) => layer.compressed(how, &session.images.temporary()).await?,
            None => layer,
        });
    }
    let edit = Edit { layers: read, created_by: "plyfold append".to_owned(), ..Edit::default() };
    edited(session, &image, edit, &tag).await
}

/// Reads a layer to its end, and says what deviates from the format.
async fn layer(session: &Session, path: &Path) -> Result<NewLayer> {
    refuse_terminal(path)?;
    if path.is_dir() {
        let hint = format!("pack it: tar -C {} -c . | plyfold append IMAGE - --tag NAME", quoted(path));
        let error = Error::config("the layer is a directory, and not a tar");
        return Err(error.with_context("path", path.display()).with_hint(hint));
    }
    let (folder, from) = (session.images.temporary(), PathBuf::from(path));
    let file = blocking(move |stop| Input::rereadable(&from, &folder, stop)).await?;
    let layer = NewLayer::read(file, path.display().to_string()).await?;
    for warning in layer.warnings() {
        session.terminal.say("warning", &format!("{}: {warning}", path.display()));
    }
    Ok(layer)
}

pub(crate) async fn configure(session: &Session, options: Config) -> Result<()> {
    let words = |words: Option<Words>| words.map(|Words(words)| words);
    let config = ConfigChange {
        annotations: options.annotation,
        unset_annotations: options.unset_annotation,
        env: options.env,
        unset_env: options.unset_env,
        entrypoint: words(options.entrypoint),
        cmd: words(options.cmd),
        labels: options.label,
        unset_labels: options.unset_label,
        user: options.user,
        workdir: options.workdir,
        stop_signal: options.stop_signal,
        ports: options.expose,
        unset_ports: options.unset_expose,
        volumes: options.volume,
        unset_volumes: options.unset_volume,
    };
    if config.is_empty() {
        let hint =
            "`plyfold config --help` lists what can be changed; `plyfold inspect IMAGE` shows what there is";
        return Err(Error::config("nothing is to be changed").with_hint(hint));
    }
    let edit = Edit { config, created_by: "plyfold config".to_owned(), ..Edit::default() };
    edited(session, &options.image, edit, &options.tag).await
}

async fn edited(session: &Session, image: &str, edit: Edit, tag: &str) -> Result<()> {
    let from = session.stored(image).await?;
    let to = new_name(session, tag)?;
    suggestions::known(&session.images, &from).await?;
    let cache = session.images.cache();
    let before = cache.find_descriptor(&to).await?;
    let made = session.context.telling(Doing::Copy, |progress| {
        let edit = Edit { platforms: session.context.platforms(), progress, ..edit };
        let (cache, from, to) = (&cache, &from, &to);
        async move { cache.edit(from, &edit, to).await }
    });
    let made = made.await?;
    if let Some(before) = before.as_ref().filter(|_| from == to && !session.context.only.is_empty()) {
        let (had, has) = (images_of(session, before).await?, images_of(session, &made).await?);
        if has < had {
            let message = format!(
                "{to} was an index of {had} images, and has {has} of them now: without --platform all are changed"
            );
            session.terminal.say("warning", &program::named(&message));
        }
    }
    show_named(session, &to, &made, before.as_ref())
}

/// How many images are in an index; one is in a manifest.
async fn images_of(session: &Session, of: &Descriptor) -> Result<usize> {
    let bytes = session.images.cache().content(of, limits::MANIFEST).await?;
    Ok(match RawManifest::described(bytes, of)?.document() {
        Document::Index(index) => index.manifests().iter().filter(|child| !is_attestation(child)).count(),
        Document::Manifest(_) => 1,
    })
}
