//! What a store's calls cost when it holds much.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use plyfold_core::{CacheProvider as _, Descriptor, MediaType, NameChange, Reference, digest, reference};
use plyfold_layout::Store;

use crate::result::Result;

/// Blobs for each name.
pub(crate) const BLOBS: usize = 10;

/// The calls and their seconds, in a store of so many names: medians of so many rounds.
pub(crate) fn calls(path: &Path, names: usize, rounds: usize) -> Result<Vec<(&'static str, f64)>> {
    block_on(async {
        let wanted = name(names / 2)?;
        let (mut opened, mut first) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = Instant::now();
            let store = Store::open(path)?;
            opened.push(start.elapsed());
            black_box(store.find_descriptor(&wanted).await?);
            first.push(start.elapsed());
        }
        let store = Store::open(path)?;
        // A file that was just written is read again.
        thread::sleep(Duration::from_millis(100));
        let descriptor = store.find_descriptor(&wanted).await?.ok_or("the name is not there")?;
        let (mut found, mut listed, mut added) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = Instant::now();
            black_box(store.find_descriptor(&wanted).await?);
            found.push(start.elapsed());
            let start = Instant::now();
            black_box(store.list().await?);
            listed.push(start.elapsed());
        }
        for round in 0..rounds {
            let new = reference::parse(&format!("registry.example/added/image:{round}"))?;
            thread::sleep(Duration::from_millis(60));
            let start = Instant::now();
            store.update(&[NameChange::Set(new, descriptor.clone())]).await?;
            added.push(start.elapsed());
        }
        let start = Instant::now();
        black_box(store.usage().await?);
        let usage = start.elapsed().as_secs_f64();
        let calls = [
            ("open", opened),
            ("open and find", first),
            ("find again", found),
            ("list", listed),
            ("add a name", added),
        ];
        let calls = calls.map(|(call, times)| (call, middle(times)));
        Ok(calls.into_iter().chain([("usage", usage)]).collect())
    })
}

fn middle(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn name(index: usize) -> Result<Reference> {
    Ok(reference::parse(&format!("registry.example/team-{}/service-{index}:1.{index}", index % 50))?)
}

/// A store of so many images of eight layers each. Blobs are written behind the store's back: syncing each would take
/// minutes.
pub(crate) fn fill(path: &Path, names: usize) -> Result<()> {
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
    block_on(async { Ok(store.update(&changes).await?) })
}

/// Removes the names of half of the images, and leaves their blobs.
pub(crate) fn forget_half(path: &Path, names: usize) -> Result<()> {
    let half =
        (0..names / 2).map(|image| Ok(NameChange::Remove(name(image)?))).collect::<Result<Vec<_>>>()?;
    block_on(async { Ok(Store::open(path)?.update(&half).await?) })
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_filled_and_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        fill(&path, 4).unwrap();
        assert_eq!(fs::read_dir(path.join("blobs/sha256")).unwrap().count(), 4 * BLOBS);
        assert!(calls(&path, 4, 1).unwrap().iter().all(|(_, seconds)| *seconds > 0.0));
        forget_half(&path, 4).unwrap();
        let left = block_on(async { Ok(Store::open(&path)?.list().await?.len()) }).unwrap();
        assert_eq!(left, 2 + 1);
    }
}
