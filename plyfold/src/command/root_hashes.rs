//! `verity IMAGE --as FORMAT`: the root hashes of what is made of an image.

use std::io::Write as _;

use crate::atomic_file::AtomicFile;
use crate::blocking::blocking;
use crate::{Error, HashTreeFault, OptionFault, Result, Rootfs};
use serde_json::json;

use super::disk_args::Verity;
use super::materialize::of_pulled;
use super::plugins::{HASH_TREE, options_of, with_hashed_formats};
use super::session::Session;
use super::size::Size;
use super::terminal::write;

/// Shows the document, or writes it to a file.
pub(crate) async fn show(session: &Session, options: Verity, format: &str) -> Result<()> {
    let Some(image) = options.file.to_str() else {
        return Err(Error::config("the name of an image is text"));
    };
    options.out.iter().try_for_each(|out| AtomicFile::check_new(out))?;
    let rootfs = rootfs(session, format, &options.format_option).and_then(|rootfs| {
        let rootfs = rootfs.verified(true);
        rootfs.check().map(|()| rootfs)
    });
    let rootfs = rootfs.map_err(|e| with_hashed_formats(e, session.images.materializers()))?;
    let limits = crate::layer::LayerLimits::default();
    let (image, hashes) = of_pulled(session, image, &rootfs, limits, !options.attach, async |image| {
        session.images.root_hashes(image, &rootfs).await
    })
    .await?;
    let document = hashes.document()?;
    if options.attach {
        let attached = session.images.attach(&image, &hashes).await?;
        let document = json!({ "referrer": attached.digest(), "subject": image.manifest });
        return session
            .terminal
            .show(&document, || format!("{}  of {}\n", attached.digest(), image.manifest));
    }
    let Some(out) = options.out else { return write(document.as_bytes()) };
    let (target, durably) = (out.clone(), options.durably);
    let size = blocking(move |stop| {
        let mut file = AtomicFile::create_new(&target, durably.options(), stop)?;
        file.write_all(document.as_bytes())?;
        file.publish()
    });
    let size = size.await?;
    let document = json!({ "path": out.display().to_string(), "size": size });
    session.terminal.show(&document, || format!("{}  {}\n", out.display(), Size(size)))
}

/// The format, with hash trees behind its images unless its options say another place.
fn rootfs(session: &Session, format: &str, options: &[String]) -> Result<Rootfs> {
    let given = options_of(format, options)?;
    let formats = session.images.materializers();
    if given.contains(HASH_TREE) {
        return Rootfs::named(format, &given, formats);
    }
    let with_append = [options, &[format!("{HASH_TREE}=append")]].concat();
    match Rootfs::named(format, &options_of(format, &with_append)?, formats) {
        // It was not given.
        Err(e) if matches!(e.detail(), Some(OptionFault::Unknown(key, _)) if key == HASH_TREE) => {
            Err(HashTreeFault::Missing(format!("the format {format}")).into())
        }
        opened => opened,
    }
}
