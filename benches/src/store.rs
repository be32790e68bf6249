//! What a store's calls cost when it holds much, beside one that holds little.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use plyfold_core::{
    Blob, BlobRange, CacheProvider as _, CacheProviderExt as _, Descriptor, MediaType, NameChange, Reference,
    digest, reference,
};
use plyfold_layout::Store;

use crate::Result;

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

/// A store of `names` names, and ten blobs for each. Blobs are written behind the store's back: syncing each would take
/// minutes.
fn fill(path: &Path, names: usize) -> Result<()> {
    let store = Store::open(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let content = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, MediaType::ImageIndex);
    let top =
        Descriptor::new(MediaType::ImageIndex, content.len() as u64, digest::sha256(content.as_bytes()));
    let changes: Result<Vec<_>> =
        (0..names).map(|index| Ok(NameChange::Set(name(index)?, top.clone()))).collect();
    runtime.block_on(async {
        store.put(Blob::from_bytes(&top, BlobRange::FULL, &content.into())?).await?;
        store.update(&changes?).await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    let folder = path.join("blobs/sha256");
    for blob in 0..names * BLOBS {
        let content = format!("blob {blob}");
        fs::write(folder.join(digest::sha256(content.as_bytes()).digest()), content)?;
    }
    Ok(())
}
