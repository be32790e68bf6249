//! `pull`, `inspect` and `load`: images in the store.

use std::fs::File;
use std::io;
use std::path::Path;

use plyfold::whole::blocking;
use plyfold::{
    CacheProviderExt as _, Error, ErrorKind, ImageRegistry, ImageRegistryExt as _, ImageSourceExt as _,
    PullOptions, PulledImage, PulledLayer, RawConfig, Reference, RegistrySource, Result, printable,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::layer::Input;
use super::places::Places;
use super::progress::Doing;
use super::screen::{table, write};
use super::session::{Fetch, Session};
use super::size::Size;

pub(crate) async fn pull_image(session: &Session, image: &str, fetch: Fetch) -> Result<()> {
    let image = session.pull(image, fetch).await?;
    session.screen.show(&pulled(&image), || format!("{}  {}\n", image.reference, image.digest))
}

/// Shows an image of the store.
pub(crate) async fn inspect(session: &Session, image: &str, raw: bool) -> Result<()> {
    let name = session.name(image).await?;
    show(&session.places, Box::new(session.images.store().as_registry()), &name, raw).await
}

/// Shows an image where it is, and needs no store.
pub(crate) async fn inspect_remote(places: &Places, image: &str, raw: bool) -> Result<()> {
    let opened = places.locate(image).await?;
    let name = opened.reference().await?;
    show(places, opened.registry, &name, raw).await
}

async fn show(places: &Places, registry: Box<dyn ImageRegistry>, name: &Reference, raw: bool) -> Result<()> {
    if raw {
        return write(registry.fetch_raw(name).await?.bytes());
    }
    let source = RegistrySource::open(registry, name, &places.platform()).await?;
    let manifest = source.manifest()?;
    // An artifact has layers, but no configuration that is an image's.
    let config = match source.config().await {
        Ok(config) => Some(config),
        Err(e) if *e.kind() == ErrorKind::Unsupported => None,
        Err(e) => return Err(e),
    };
    let document = json!({
        "reference": name.whole(),
        "digest": source.root().digest(),
        "platform": config.as_ref().map(|config| config.platform().to_string()),
        "manifest": { "digest": source.descriptor().digest(), "document": manifest },
        "config": config.as_ref().map(RawConfig::document),
    });
    places.screen.show(&document, || {
        let (digest, manifest_digest) = (source.root().digest(), source.descriptor().digest());
        let mut text = format!("image     {name}\ndigest    {digest}\nmanifest  {manifest_digest}\n");
        text.extend(config.iter().map(summary));
        let layers: Vec<[String; 2]> = manifest
            .layers()
            .iter()
            .map(|layer| [layer.digest().to_string(), Size(layer.size()).to_string()])
            .collect();
        text + "\n" + &table(["LAYER", "SIZE"], &layers)
    })
}

/// The lines of a configuration that people look for.
fn summary(config: &RawConfig) -> String {
    let document = config.document();
    let process = document.config().as_ref();
    let list = |list: Option<&Vec<String>>| list.map(|words| words.join(" "));
    let lines = [
        ("platform", Some(config.platform().to_string())),
        ("created", document.created().clone()),
        ("entry", list(process.and_then(|process| process.entrypoint().as_ref()))),
        ("command", list(process.and_then(|process| process.cmd().as_ref()))),
        ("user", process.and_then(|process| process.user().clone())),
        ("workdir", process.and_then(|process| process.working_dir().clone())),
    ];
    let shown = lines.into_iter().filter_map(|(name, value)| Some((name, value.filter(|v| !v.is_empty())?)));
    let lines = shown.map(|(name, value)| format!("{name:<8}  {}\n", printable(&value)));
    lines.collect::<Vec<_>>().concat()
}

pub(crate) async fn load(session: &Session, archive: &str) -> Result<()> {
    // It goes away when the images are in the store.
    let spooled = if archive == "-" { Some(spooled().await?) } else { None };
    let archive = match &spooled {
        Some(folder) => format!("docker-archive:{}", folder.path().join(STDIN).display()),
        None => archive_uri(archive, session),
    };
    let loaded = session.places.telling(Doing::Fetch, |progress| {
        let options = PullOptions { platform: session.places.platform(), progress, ..Default::default() };
        session.images.load(&archive, options)
    });
    let loaded = loaded.await?;
    let documents: Vec<Value> = loaded
        .iter()
        .map(|image| json!({ "reference": image.reference.whole(), "digest": image.digest }))
        .collect();
    session.screen.show(&documents, || {
        let line = |image: &PulledImage| format!("{}  {}\n", image.reference, image.digest);
        loaded.iter().map(line).collect()
    })
}

/// What unnamed images of an archive that came through a pipe are called after.
const STDIN: &str = "stdin.tar";

/// Standard input as a file: archives are read in any order, and a pipe comes in its own.
async fn spooled() -> Result<TempDir> {
    blocking(|stop| {
        let folder = tempfile::tempdir().map_err(|e| Error::io("making a temporary folder", e))?;
        let path = folder.path().join(STDIN);
        let at = |e| Error::io("writing standard input to a file", e).with_context("path", path.display());
        let mut file = File::create_new(&path).map_err(at)?;
        io::copy(&mut Input::open(Path::new("-"), stop)?, &mut file).map_err(at)?;
        Ok(folder)
    })
    .await
}

/// A path as a URI. Archives are read by what is in them, whichever scheme they are opened by.
fn archive_uri(archive: &str, session: &Session) -> String {
    if session.places.backends.knows(archive) {
        return archive.to_owned();
    }
    let scheme = if Path::new(archive).is_dir() { "oci" } else { "docker-archive" };
    format!("{scheme}:{archive}")
}

/// What a pulled image is, as JSON.
pub(crate) fn pulled(image: &PulledImage) -> Value {
    let layers: Vec<Value> = image.layers.iter().map(layer).collect();
    json!({
        "reference": image.reference.whole(),
        "digest": image.digest,
        "manifest": image.manifest,
        "platform": image.platform.to_string(),
        "store": image.path,
        "cached": image.cached,
        "layers": layers,
    })
}

fn layer(layer: &PulledLayer) -> Value {
    json!({
        "digest": layer.descriptor.digest(),
        "size": layer.descriptor.size(),
        "media_type": layer.descriptor.media_type(),
        "diff_id": layer.diff_id,
    })
}
