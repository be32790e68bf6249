//! `save`: images as one archive.

use std::io::Write as _;
use std::path::Path;

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Handle;

use super::image::Image;
use super::path;
use super::pipe::{self, Pipe};
use super::progress::Doing;
use super::save_args::{Form, Save};
use super::session::Session;
use super::size::Size;
use super::suggestions;
use super::terminal::Loudness;
use crate::blocking::blocking;
use crate::save::{SaveOptions, TarReader};
use crate::{Error, Result};

/// Of an archive with bases.
pub(crate) const NOTHING_LEFT_OUT: &str =
    "nothing is left out: the images share no layer with what --since names";

/// Bytes that are written at once.
const PIECE: usize = 256 << 10;

pub(crate) async fn write(session: &Session, options: Save) -> Result<()> {
    let Save { images, out, format, no_docker_list, referrers, since, durably } = options;
    let to_pipe = pipe::is_meant(&out, session.terminal)?;
    path::refuse_compressed(&out, "name it FILE.tar: the layers in it are compressed")?;
    if format == Form::Docker && no_docker_list {
        return Err(Error::config("an archive of this form has nothing but Docker's list to be read by"));
    }
    let mut texts = Vec::with_capacity(images.len());
    for image in &images {
        texts.push(text(session, image).await?);
    }
    let since: Vec<String> = since.iter().map(|base| of_base(session, base)).collect::<Result<_>>()?;
    if !to_pipe {
        session.refuse_replacing(&out, texts.iter().chain(&since))?;
    }
    let mut bases = Vec::with_capacity(since.len());
    for base in &since {
        bases.push(session.images.save_base(base).await?);
    }
    let names: Vec<&str> = texts.iter().map(String::as_str).collect();
    let saved = session.context.telling(Doing::Copy, |progress| {
        let options = SaveOptions {
            docker_list: !no_docker_list,
            form: format.into(),
            platforms: session.context.only.clone(),
            progress,
            referrers,
            retry: session.context.retry,
            since: bases,
            ..SaveOptions::default()
        };
        let (images, names, out) = (&session.images, &names, &out);
        async move {
            if to_pipe {
                return piped(images.save(names, &options).await?).await.map(|()| None);
            }
            images.save_to(names, &options, out, durably.options()).await.map(Some)
        }
    });
    let saved = saved.await?;
    if format == Form::Docker && session.terminal.loudness > Loudness::Quiet {
        session.terminal.say("note", "this form keeps the digests of configs, not those of manifests");
    }
    let Some(saved) = saved else { return Ok(()) };
    if !since.is_empty() && saved.left_out == 0 {
        session.terminal.say("warning", NOTHING_LEFT_OUT);
    }
    let digests = if format == Form::Docker { "config" } else { "all" };
    let document = json!({ "images": texts, "path": out.display().to_string(), "size": saved.size, "left_out": saved.left_out, "digests": digests });
    let left_out = match saved.left_out {
        0 => String::new(),
        bytes => format!(", without {} that the receiver has", Size(bytes)),
    };
    session.terminal.show(&document, || format!("{}  {}{left_out}\n", out.display(), Size(saved.size)))
}

/// An image as [`Images::save`](crate::Images::save) takes it: one of the store is there.
async fn text(session: &Session, image: &str) -> Result<String> {
    let image = session.context.image(image)?;
    if let Image::Name(name) = &image {
        suggestions::known(&session.images, name).await?;
    }
    Ok(image.text())
}

/// What is left out, as [`Images::save_base`](crate::Images::save_base) takes it.
pub(crate) fn of_base(session: &Session, base: &str) -> Result<String> {
    if base == "store" && !Path::new(base).exists() {
        return Ok(session.images.cache().to_string());
    }
    match path::existing(base, &session.context.backends) {
        Some(place) => Ok(place),
        None => Ok(session.context.image(base)?.text()),
    }
}

/// Writes a stream to standard output.
async fn piped(mut reader: TarReader) -> Result<()> {
    let runtime = Handle::current();
    blocking(move |stop| {
        let (mut pipe, mut piece) = (Pipe::new(stop), vec![0; PIECE]);
        let written = loop {
            match runtime.block_on(reader.read(&mut piece)) {
                Ok(0) => break pipe.flush().map_err(|e| Error::io("writing the tar", e)),
                Ok(count) => {
                    if let Err(e) = pipe.write_all(&piece[..count]) {
                        break Err(Error::io("writing the tar", e));
                    }
                }
                Err(e) => break Err(Error::from(e)),
            }
        };
        pipe.outcome(written)
    })
    .await
}
