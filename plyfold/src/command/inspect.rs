//! `inspect`: what an image is.

use crate::cache::with_platforms_here;
use crate::{
    CacheProvider as _, CacheProviderExt as _, Digest, ErrorKind, ImageRegistry, ImageRegistryExt as _,
    ImageSource as _, ImageSourceExt as _, RawConfig, RawManifest, Reference, RegistrySource, Result,
    printable, shell, snapshot,
};
use serde_json::json;

use super::args::Inspect;
use super::context::Context;
use super::progress::short;
use super::session::Session;
use super::size::Size;
use super::suggestions;
use super::terminal::{columns, cut, table, write};

/// Shows an image of the store.
pub(crate) async fn here(session: &Session, options: &Inspect) -> Result<()> {
    let name = session.name(&options.image).await?;
    let store = session.images.cache().as_registry();
    // Resolve the name once: it may move before the documents below it have been read.
    let shown = async {
        let root = store.fetch_raw(&name).await?;
        let registry = Box::new(store.fixed(name.clone(), root));
        show(&session.context, registry, &name, options).await
    };
    match shown.await {
        Err(e)
            if *e.kind() == ErrorKind::NotFound
                && matches!(session.images.cache().find_descriptor(&name).await, Ok(None)) =>
        {
            let near = suggestions::in_store(&session.images, &name).await;
            Err(e.with_better_hint(format!("{near}; `plyfold pull {name}` fetches it")))
        }
        Err(e) => Err(with_platforms_here(&*session.images.cache(), &name, e).await),
        shown => shown,
    }
}

/// Shows an image where it is, and needs no store.
pub(crate) async fn there(context: &Context, options: &Inspect) -> Result<()> {
    let image = &options.image;
    let opened = context.locate(image).await?;
    let name = opened.reference().await?;
    match show(context, opened.registry.clone(), &name, options).await {
        Err(e) => Err(suggestions::with_tags(e, context, image, &opened, &name).await),
        shown => shown,
    }
}

async fn show(
    context: &Context,
    registry: Box<dyn ImageRegistry>,
    name: &Reference,
    options: &Inspect,
) -> Result<()> {
    if options.raw {
        return write(context.asking("manifest", || registry.fetch_raw(name)).await?.bytes());
    }
    let ask = || async {
        let source = RegistrySource::open(registry.clone(), name, &context.platform()).await?;
        // An artifact has layers, but no image configuration.
        match source.config().await {
            Ok(config) => Ok((source, Some(config))),
            Err(e) if *e.kind() == ErrorKind::Unsupported => Ok((source, None)),
            Err(e) => Err(e),
        }
    };
    let (source, config) = context.asking("manifest", ask).await?;
    let manifest = source.manifest()?;
    let document = json!({
        "reference": name.whole(),
        "digest": source.root().digest(),
        "platform": config.as_ref().map(|config| config.platform_or(source.raw().platform()).to_string()),
        "manifest": { "digest": source.descriptor().digest(), "document": manifest },
        "config": config.as_ref().map(RawConfig::document),
    });
    let digest =
        |digest: &Digest| if options.no_trunc { digest.to_string() } else { short(digest).to_owned() };
    context.terminal.show(&document, || {
        let mut lines = vec![
            ("image", name.whole()),
            ("digest", digest(source.root().digest())),
            ("manifest", digest(source.descriptor().digest())),
        ];
        if config.is_none() {
            let kind = manifest.artifact_type().as_ref().unwrap_or(manifest.config().media_type());
            let says = if snapshot::is_snapshot(manifest) { " (a snapshot of disks)" } else { "" };
            lines.push(("artifact", format!("{kind}{says}")));
        }
        lines.extend(config.iter().flat_map(|config| summary(config, source.raw())));
        // One name for all lines of a list.
        let mut last = "";
        let columns = columns().filter(|_| !options.no_trunc);
        let mut text = String::new();
        for (name, value) in &lines {
            let label = if *name == last { "" } else { name };
            text += &cut(&format!("{label:<10}  {}", printable(value)), columns);
            text.push('\n');
            last = name;
        }
        let diff_ids = config.as_ref().and_then(|config| config.diff_ids().ok()).unwrap_or_default();
        let layers = manifest.layers().iter().enumerate().map(|(index, layer)| {
            let diff_id = diff_ids.get(index).map_or_else(|| "-".to_owned(), &digest);
            let kind = layer.media_type().to_string();
            let kind = kind.rsplit_once(".layer.v1.").map_or(&*kind, |(_, kind)| kind);
            [digest(layer.digest()), diff_id, Size(layer.size()).to_string(), printable(kind)]
        });
        text + "\n" + &table(["LAYER", "DIFF_ID", "SIZE", "TYPE"], &layers.collect::<Vec<_>>())
    })
}

/// The common fields of a configuration, one line for each value of a list.
fn summary(config: &RawConfig, raw: &RawManifest) -> Vec<(&'static str, String)> {
    let document = config.document();
    let process = document.config().as_ref();
    let words = |words: Option<&Vec<String>>| {
        let quoted = words.map(|words| words.iter().map(|word| shell::word(word)).collect::<Vec<_>>());
        quoted.map(|words| words.join(" "))
    };
    let mut lines = vec![("platform", config.platform_or(raw.platform()).to_string())];
    let one =
        |name, value: Option<String>| value.filter(|value| !value.is_empty()).map(|value| (name, value));
    lines.extend(one("created", document.created().clone()));
    let Some(process) = process else { return lines };
    lines.extend(one("entrypoint", words(process.entrypoint().as_ref())));
    lines.extend(one("command", words(process.cmd().as_ref())));
    lines.extend(one("user", process.user().clone()));
    lines.extend(one("workdir", process.working_dir().clone()));
    lines.extend(process.env().iter().flatten().map(|value| ("env", value.clone())));
    lines.extend(one("ports", process.exposed_ports().as_ref().map(|ports| ports.join(", "))));
    lines.extend(one("volumes", process.volumes().as_ref().map(|volumes| volumes.join(", "))));
    lines.extend(one("stopsignal", process.stop_signal().clone()));
    let mut labels: Vec<_> = process.labels().iter().flatten().collect();
    labels.sort();
    lines.extend(labels.into_iter().map(|(name, value)| ("labels", format!("{name}={value}"))));
    lines
}
