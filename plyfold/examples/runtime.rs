//! What a runtime does with images, from the first start of machines to their end:
//! `cargo run -p plyfold --example runtime -- STORE DIRECTORY IMAGE…`, such as
//! `… -- target/store target/machines oci:examples/sample:latest docker-archive:app.tar alpine-of-a-registry…`.
//!
//! Where an image comes from is the scheme of its URI: a registry, a layout, an archive, or the backend of a third party
//! (`folder:`, which `use example_backend as _` links), each chosen while the program runs.

use std::path::Path;
use std::time::Duration;

use example_backend as _;
use plyfold::{Collect, Error, ImageProvider, Images, PullOptions, PulledImage, Result, Rootfs, printable};

/// Bytes that images may take on this machine.
const BUDGET: u64 = 20 << 30;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, directory, images @ ..] = arguments.as_slice() else {
        return Err(Error::config("arguments are wanted: STORE DIRECTORY IMAGE…"));
    };
    // Any number of runtimes may share one store.
    let provider = Images::open(store).await?;
    let mut running = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let image = pulled(&provider, image).await?;
        start(&provider, &image, &Path::new(directory).join(format!("machine-{number}"))).await?;
        running.push(image);
    }
    show(&provider).await?;
    // While machines run, their images may lose their names, but nothing that they are made of.
    collect(&provider).await?;
    // The machines have ended: from now on their images go like any other that is not used for long.
    drop(running);
    collect(&provider).await
}

/// The boot path: it knows the trait alone, and its tests give it a double.
pub(crate) async fn pulled(images: &dyn ImageProvider, image: &str) -> Result<PulledImage> {
    let image = images.pull(image, PullOptions::default()).await?;
    let from = if image.cached { "was here" } else { "was fetched" };
    say(&format!("{} {from}: {} in {}", image.reference, image.manifest, image.path.display()));
    Ok(image)
}

/// Its disks into `directory`.
async fn start(images: &Images, image: &PulledImage, directory: &Path) -> Result<()> {
    let disks = images.materialize(image, &Rootfs::vmdk().upper(1 << 30), directory).await?;
    say(&format!("{} starts from {:?} and {:?}", image.reference, disks.vmdk, disks.upper));
    Ok(())
}

/// What is here.
pub(crate) async fn show(images: &dyn ImageProvider) -> Result<()> {
    for (name, descriptor) in images.list_cached().await? {
        say(&format!("{}  {}", printable(&name.whole()), descriptor.digest()));
    }
    Ok(())
}

/// What was not used for longest goes until the rest fits; partial downloads may be resumed for a day.
async fn collect(images: &Images) -> Result<()> {
    let day = Duration::from_secs(24 * 3600);
    let policy = Collect { budget: Some(BUDGET), resumable: day, ..Collect::default() };
    let collected = images.collect(&policy).await?;
    for name in &collected.evicted {
        say(&format!("{} was not used for long, and is gone", printable(&name.whole())));
    }
    say(&format!("{} bytes freed, {} kept", collected.freed, collected.kept));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example talks")]
fn say(line: &str) {
    println!("{line}");
}
