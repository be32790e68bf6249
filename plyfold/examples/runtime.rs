//! What a runtime does with images, from the first start of a machine to the end of it:
//! `cargo run -p plyfold --example runtime -- STORE IMAGE DIRECTORY`, such as
//! `… -- target/store oci:examples/sample:latest target/machine`.

use std::path::Path;
use std::time::Duration;

use plyfold::{Collect, Error, Images, PullOptions, PulledImage, Result, Rootfs, printable};

/// Bytes that images may take on this machine.
const BUDGET: u64 = 20 << 30;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, image, directory] = arguments.as_slice() else {
        return Err(Error::config("three arguments are wanted: STORE IMAGE DIRECTORY"));
    };
    // Any number of runtimes may share one store.
    let images = Images::open(store).await?;
    let image = start(&images, image, Path::new(directory)).await?;
    show(&images).await?;
    // While the machine runs, its image may lose its name, but nothing that it is made of.
    collect(&images).await?;
    // The machine has ended: from now on its image goes like any other that is not used for long.
    drop(image);
    collect(&images).await
}

/// The image into the store, with its layers converted while they come, and its disks into `directory`.
async fn start(images: &Images, image: &str, directory: &Path) -> Result<PulledImage> {
    let rootfs = Rootfs::vmdk().upper(1 << 30);
    let options = PullOptions { materializer: Some(rootfs.layer_materializer()), ..PullOptions::default() };
    let image = images.pull(image, options).await?;
    let disks = images.materialize(&image, &rootfs, directory).await?;
    say(&format!("{} starts from {:?} and {:?}", image.reference, disks.vmdk, disks.upper));
    Ok(image)
}

/// What is in the store, and how much of it each image has for itself.
async fn show(images: &Images) -> Result<()> {
    for image in images.usage().await?.images {
        let name = image.reference.whole();
        say(&format!("{}  {} bytes, {} its own", printable(&name), image.size, image.unique));
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
