//! `export`: an image's root file system as one tar.

use std::io::BufWriter;
use std::path::PathBuf;

use plyfold::whole::{WholeFile, blocking};
use plyfold::{CacheProviderExt as _, ImageSourceExt as _, Result, flatten, reference};
use serde_json::json;
use tokio::runtime::Handle;

use super::session::{Fetch, Session};
use super::size::Size;

/// Writes the image, which is pulled if need be, with whiteouts applied.
pub(crate) async fn write(session: &Session, image: &str, out: PathBuf) -> Result<()> {
    let image = session.pull(image, Fetch::default()).await?;
    let name = reference::by_digest(&image.reference, &image.manifest);
    let source = session.images.store().new_source(&name, &image.platform).await?;
    let (target, runtime) = (out.clone(), Handle::current());
    let size = blocking(move |stop| {
        let mut file = WholeFile::create(&target, stop)?;
        let open = |layer| runtime.block_on(source.layer_tar(layer));
        flatten(source.layers()?.len(), open, BufWriter::with_capacity(1 << 20, &mut file))?;
        file.publish()
    });
    let size = size.await.map_err(|e| e.with_image(&image.reference))?;
    let document = json!({ "image": image.reference.whole(), "path": out, "size": size });
    session.screen.show(&document, || format!("{}  {}\n", out.display(), Size(size)))
}
