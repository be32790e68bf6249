//! `load`: images of archives and layout directories come into the store.

use std::path::Path;

use serde_json::{Value, json};

use super::layer::{Input, refuse_terminal};
use super::load_args::Load;
use super::path::Written;
use super::progress::Doing;
use super::session::Session;
use super::size::Size;
use super::terminal::table;
use crate::blocking::blocking;
use crate::images::Spooled;
use crate::{
    Digest, Error, ListedImage, LoadOptions, LoadedImage, Reference, Result, digest, printable, reference,
};

pub(crate) async fn load(session: &Session, options: Load) -> Result<()> {
    let (archive, _spooled) = opened(session, &options).await?;
    if options.list {
        let listed = session.images.list_images(&archive).await?;
        let documents: Vec<Value> = listed.iter().map(document).collect();
        return session.terminal.show(&documents, || list(&listed));
    }
    let mut images = Vec::with_capacity(options.images.len());
    for image in &options.images {
        images.push(chosen(session, &archive, image).await?);
    }
    let loaded = session.context.telling(Doing::Fetch, |progress| {
        let load = LoadOptions {
            images,
            keep_names: options.keep_names,
            platforms: session.context.platforms(),
            progress,
            referrers: !options.no_referrers,
            retry: session.context.retry,
            ..LoadOptions::default()
        };
        session.images.load(&archive, load)
    });
    let loaded = loaded.await?;
    let documents: Vec<Value> = loaded
        .iter()
        .map(|image| {
            json!({
                "reference": image.reference.whole(),
                "digest": image.digest,
                "replaced": image.replaced,
                "kept": image.kept,
            })
        })
        .collect();
    session.terminal.show(&documents, || loaded.iter().map(line).collect())
}

/// The URI of the archive, and the file that it is in when it comes once and is read several times.
async fn opened(session: &Session, options: &Load) -> Result<(String, Option<Spooled>)> {
    let archive = options.archive.as_str();
    refuse_terminal(Path::new(archive))?;
    Ok(match archive {
        "-" if options.list || !options.images.is_empty() => {
            let folder = session.images.temporary();
            let file = blocking(move |stop| Input::rereadable(Path::new("-"), &folder, stop));
            let spooled = Spooled(file.await?);
            (spooled.uri(), Some(spooled))
        }
        // The backend reads what comes once, and names its images after `stdin`.
        "-" => ("docker-archive:/dev/stdin".to_owned(), None),
        // The content of an archive decides its form, not the scheme.
        path if !session.context.backends.knows(path) && Path::new(path).is_dir() => {
            (format!("oci:{path}"), None)
        }
        path if !session.context.backends.knows(path) => {
            if !Path::new(path).exists() && !Written::is_path(path) && reference::parse(path).is_ok() {
                let error = Error::not_found("no such archive").with_image(printable(path));
                let hint = format!("`plyfold pull {}` fetches an image of a registry", printable(path));
                return Err(error.with_hint(hint));
            }
            (format!("docker-archive:{path}"), None)
        }
        uri if session.context.image(uri)?.is_remote(&session.context.backends) => {
            let error =
                Error::config("this is a registry, and `load` uses no network").with_image(printable(uri));
            return Err(error.with_hint("`plyfold pull` fetches an image of a registry"));
        }
        uri => (uri.to_owned(), None),
    })
}

/// The image of the archive that a text names, as a URI does.
async fn chosen(session: &Session, archive: &str, image: &str) -> Result<Reference> {
    let place = session.images.locate(archive).await?;
    if let Some(named) = &place.reference {
        return Err(
            Error::config("the URI names an image already, and --image another one").with_image(named)
        );
    }
    let separator = if digest::parse(image).is_ok() { '@' } else { ':' };
    session.images.locate(&format!("{archive}{separator}{image}")).await?.reference().await
}

fn line(image: &LoadedImage) -> String {
    let said = |what: &str, digest: &Option<Digest>| {
        digest.as_ref().map_or_else(String::new, |digest| format!(", {what} {digest}"))
    };
    let (replaced, kept) = (said("replaced", &image.replaced), said("kept", &image.kept));
    format!("{}  {}{replaced}{kept}\n", image.reference, image.digest)
}

fn document(image: &ListedImage) -> Value {
    json!({
        "reference": image.reference.whole(),
        "digest": image.descriptor.digest(),
        "size": image.size,
        "missing": image.missing,
        "platforms": image.platforms,
    })
}

fn list(images: &[ListedImage]) -> String {
    let row = |image: &ListedImage| {
        let digest = image.descriptor.digest().to_string();
        let size = match image.missing {
            0 => Size(image.size).to_string(),
            missing => format!("{}, {} not here", Size(image.size), Size(missing)),
        };
        [image.reference.to_string(), digest, size, image.platforms.join(", ")]
    };
    table(["IMAGE", "DIGEST", "SIZE", "PLATFORMS"], &images.iter().map(row).collect::<Vec<_>>())
}
