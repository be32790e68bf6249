//! `export`: an image's root file system as one tar.

use crate::blocking::blocking;
use crate::{FlatOptions, PullOptions, Result};
use serde_json::json;

use super::args::Export;
use super::path;
use super::pipe::{self, Pipe};
use super::session::Session;
use super::size::Size;

/// Writes the image, which is pulled if need be, with whiteouts applied.
pub(crate) async fn write(session: &Session, options: Export) -> Result<()> {
    let Export { image, out, bounds, durably } = options;
    let to_pipe = pipe::is_meant(&out, session.terminal)?;
    path::refuse_compressed(&out, "name it FILE.tar, or write `--out -` into a program that compresses")?;
    if !to_pipe {
        session.refuse_replacing(&out, &[session.context.image(&image)?.text()])?;
    }
    let image = session.read(&image, None, PullOptions::default()).await?;
    let options = FlatOptions { limits: bounds.layer(), ..FlatOptions::default() };
    if to_pipe {
        let flat = session.images.flat(&image, &options).await?;
        let written = blocking(move |stop| {
            let mut pipe = Pipe::new(stop);
            let written = flat.write(&mut pipe, stop);
            pipe.outcome(written)
        });
        return written.await.map_err(|e| e.with_image(&image.reference));
    }
    let size = session.images.export_to(&image, &options, &out, durably.options()).await?;
    let document =
        json!({ "image": image.reference.whole(), "path": out.display().to_string(), "size": size });
    session.terminal.show(&document, || format!("{}  {}\n", out.display(), Size(size)))
}
