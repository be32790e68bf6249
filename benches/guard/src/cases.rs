//! What is counted. Each case has a process of its own, which finds its inputs as files: a native run has made them.

use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;

use plyfold::backends::layout::Store;
use plyfold::layer::{LayerOptions, LayerTar};
use plyfold::materializers::erofs::{ErofsLayer, ErofsMerged};
use plyfold::{CacheProvider as _, Images, InputArtifact, Materializer as _, PullOptions, Rootfs};

use crate::inputs;
use crate::result::Result;

/// Names of the large store.
const NAMES: usize = 10_000;

/// Something that is counted.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    run: fn(&Path) -> Result<()>,
}

/// All of them.
pub(crate) const CASES: &[Case] = &[
    Case { name: "find", run: find },
    Case { name: "layer", run: layer },
    Case { name: "list", run: list },
    Case { name: "materialize", run: materialize },
    Case { name: "merge", run: merge },
    Case { name: "pull", run: pull },
];

/// Runs the case of this name in a folder that [`prepare`] has made.
pub(crate) fn run(name: &str, folder: &Path) -> Result<()> {
    let case = CASES.iter().find(|case| case.name == name).ok_or("no such case")?;
    (case.run)(folder)
}

/// Makes the inputs.
pub(crate) fn prepare(folder: &Path) -> Result<()> {
    let at = |name: &str| folder.join(name);
    fs::write(at("layer.tar.gz"), inputs::gzip(&inputs::tree(2_000)?)?)?;
    for (name, tar) in ["base.erofs", "top.erofs"].into_iter().zip(inputs::stacked()?) {
        fs::write(at("tar"), tar)?;
        convert(&at("tar"), &at(name))?;
    }
    inputs::layout(&at("layout"), &[inputs::tree(400)?, inputs::tree(100)?, inputs::tree(20)?])?;
    block_on(async {
        Images::open(at("pulled")).await?.pull(&image(folder), PullOptions::default()).await?;
        inputs::fill(&at("names"), NAMES).await
    })
}

/// A compressed tar to an image, with both digests.
fn layer(folder: &Path) -> Result<()> {
    convert(&folder.join("layer.tar.gz"), &folder.join("out"))
}

fn convert(tar: &Path, out: &Path) -> Result<()> {
    let mut tar = LayerTar::new(File::open(tar)?, LayerOptions::default())?;
    ErofsLayer::default().layer(&mut tar, &mut created(out)?)?;
    tar.finish()?;
    Ok(())
}

/// The images of two layers to one image of metadata.
fn merge(folder: &Path) -> Result<()> {
    let layer = |name| InputArtifact::local(&folder.join(name), None);
    let layers = [layer("base.erofs")?, layer("top.erofs")?];
    ErofsMerged::default().join(&layers, &mut created(&folder.join("merged"))?)?;
    Ok(())
}

/// A small image out of a layout into an empty store, several times: one takes little more than the start of a process.
fn pull(folder: &Path) -> Result<()> {
    block_on(async {
        for number in 0..20 {
            let images = Images::open(folder.join(format!("store-{number}"))).await?;
            images.pull(&image(folder), PullOptions::default()).await?;
        }
        Ok(())
    })
}

/// Layers and merged image of what the store has.
fn materialize(folder: &Path) -> Result<()> {
    block_on(async {
        let images = Images::open(folder.join("pulled")).await?;
        let image = images.pull(&image(folder), PullOptions::default()).await?;
        images.materialize(&image, &Rootfs::erofs_merged(), &folder.join("disks")).await?;
        Ok(())
    })
}

/// One name in a large store, by a process that has not read its list.
fn find(folder: &Path) -> Result<()> {
    let store = Store::open(folder.join("names"))?;
    let found = block_on(async { Ok(store.find_descriptor(&inputs::name(NAMES / 2)?).await?) })?;
    black_box(found.ok_or("the name is not there")?);
    Ok(())
}

/// All names of a large store.
fn list(folder: &Path) -> Result<()> {
    let store = Store::open(folder.join("names"))?;
    let names = block_on(async { Ok(store.list().await?) })?;
    match names.len() {
        NAMES => Ok(()),
        found => Err(format!("{found} names in place of {NAMES}").into()),
    }
}

fn image(folder: &Path) -> String {
    format!("oci:{}:latest", folder.join("layout").display())
}

fn created(path: &Path) -> Result<File> {
    Ok(File::options().read(true).write(true).create_new(true).open(path)?)
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
