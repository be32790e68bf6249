//! What a store's calls cost when it holds much, beside one that holds little.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use plyfold_core::{
    CacheProvider as _, Collect, Descriptor, MediaType, NameChange, Reference, digest, reference,
};
use plyfold_layout::Store;

use crate::measure::Result;

/// Blobs for each name.
const BLOBS: usize = 10;
const FEW: usize = 100;
const MANY: usize = 10_000;

pub(crate) fn compare() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let scratch = tempfile::tempdir()?;
    let (small, large) = (scratch.path().join("small"), scratch.path().join("large"));
    fill(&small, FEW)?;
    fill(&large, MANY)?;
    println!("call                        {FEW:>8} names   {MANY:>8} names   ratio");
    let (few, many) = runtime.block_on(async {
        Ok::<_, Box<dyn std::error::Error>>((measure(&small, FEW).await?, measure(&large, MANY).await?))
    })?;
    for ((call, few), (_, many)) in few.into_iter().zip(many) {
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        println!("{call:<28}{few:>14.1?} {many:>16.1?} {ratio:>7.2}");
    }
    Ok(())
}

async fn measure(path: &Path, names: usize) -> Result<Vec<(&'static str, Duration)>> {
    let wanted = name(names / 2)?;
    let mut calls = Vec::new();
    calls.push((
        "open",
        median(|| {
            black_box(Store::open(path)?);
            Ok(())
        })?,
    ));
    let mut first = Vec::new();
    for _ in 0..ROUNDS {
        let store = Store::open(path)?;
        let start = Instant::now();
        black_box(store.find_descriptor(&wanted).await?);
        first.push(start.elapsed());
    }
    calls.push(("find, in a new process", middle(first)));
    let store = Store::open(path)?;
    // A file that was just written is read again.
    std::thread::sleep(Duration::from_millis(100));
    let (mut found, mut statted, mut listed, mut added) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let descriptor = store.find_descriptor(&wanted).await?.ok_or("the name is there")?;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        black_box(store.find_descriptor(&wanted).await?);
        found.push(start.elapsed());
        let start = Instant::now();
        black_box(store.stat(descriptor.digest()).await?);
        statted.push(start.elapsed());
        let start = Instant::now();
        black_box(store.list().await?);
        listed.push(start.elapsed());
    }
    calls.extend([("find", middle(found)), ("stat", middle(statted)), ("list", middle(listed))]);
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_millis(60));
        let new = reference::parse(&format!("registry.example/added/image:{round}"))?;
        let start = Instant::now();
        store.update(&[NameChange::Set(new, descriptor.clone())]).await?;
        added.push(start.elapsed());
    }
    calls.push(("add a name", middle(added)));
    // Once each: they take seconds.
    let start = Instant::now();
    black_box(store.usage().await?);
    calls.push(("usage", start.elapsed()));
    let half: Vec<_> =
        (0..names / 2).map(|image| Ok(NameChange::Remove(name(image)?))).collect::<Result<_>>()?;
    store.update(&half).await?;
    let start = Instant::now();
    let collected = store.collect(&Collect::default()).await?;
    calls.push(("collect half of it", start.elapsed()));
    assert_eq!(collected.blobs.len(), names / 2 * BLOBS, "the other half stays");
    Ok(calls)
}

const ROUNDS: usize = 21;

fn median(mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed());
    }
    Ok(middle(times))
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn name(index: usize) -> Result<Reference> {
    Ok(reference::parse(&format!("registry.example/team-{}/service-{index}:1.{index}", index % 50))?)
}

/// A store of `names` images of eight layers each. Blobs are written behind the store's back: syncing each would take
/// minutes.
fn fill(path: &Path, names: usize) -> Result<()> {
    let store = Store::open(path)?;
    let folder = path.join("blobs/sha256");
    fs::create_dir_all(&folder)?;
    let keep = |media_type: MediaType, content: &str| -> Result<Descriptor> {
        let digest = digest::sha256(content.as_bytes());
        fs::write(folder.join(digest.digest()), content)?;
        Ok(Descriptor::new(media_type, content.len() as u64, digest))
    };
    let mut changes = Vec::with_capacity(names);
    for image in 0..names {
        let layer = |layer: usize| keep(MediaType::ImageLayer, &format!("layer {layer} of {image}"));
        let layers = (0..BLOBS - 2).map(layer).collect::<Result<Vec<_>>>()?;
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.digest().as_ref()).collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":{}}}}}"#,
            serde_json::to_string(&diff_ids)?
        );
        let config = serde_json::to_string(&keep(MediaType::ImageConfig, &config)?)?;
        let layers = serde_json::to_string(&layers)?;
        let media_type = MediaType::ImageManifest;
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":{layers}}}"#
        );
        changes.push(NameChange::Set(name(image)?, keep(media_type, &manifest)?));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(store.update(&changes))?)
}
