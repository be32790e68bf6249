//! `export`: an image's root file system as one tar.

use std::io::BufWriter;

use crate::atomic_file::AtomicFile;
use crate::blocking::blocking;
use crate::{ImageSourceExt as _, PullOptions, Result, flatten};
use serde_json::json;
use tokio::runtime::Handle;

use super::args::Export;
use super::path::Written;
use super::pipe::{self, Pipe};
use super::session::Session;
use super::size::Size;

/// Writes the image, which is pulled if need be, with whiteouts applied.
pub(crate) async fn write(session: &Session, options: Export) -> Result<()> {
    let Export { image, out, bounds, durably } = options;
    let to_pipe = pipe::is_meant(&out, session.terminal)?;
    if !to_pipe {
        Written::refuse_same_image(&image, &out)?;
    }
    let image = session.pull(&image, None, PullOptions::default()).await?;
    let source = session.images.source(&image);
    let (target, runtime) = (out.clone(), Handle::current());
    let options = session.images.layer_options(bounds.layer());
    let size = blocking(move |stop| {
        let open = |layer| runtime.block_on(source.layer_tar_with(layer, options.clone()));
        let layers = source.layers()?.len();
        if to_pipe {
            let mut pipe = Pipe::new(stop);
            let written = flatten(layers, open, BufWriter::with_capacity(1 << 20, &mut pipe));
            return pipe.outcome(written).map(|()| None);
        }
        let mut file = AtomicFile::create(&target, durably.options(), stop)?;
        flatten(layers, open, BufWriter::with_capacity(1 << 20, &mut file))?;
        file.publish().map(Some)
    });
    let Some(size) = size.await.map_err(|e| e.with_image(&image.reference))? else { return Ok(()) };
    let document = json!({ "image": image.reference.whole(), "path": out, "size": size });
    session.terminal.show(&document, || format!("{}  {}\n", out.display(), Size(size)))
}
