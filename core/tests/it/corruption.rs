//! Content that may be corrupt: damaged, of another size than declared, or replaced meanwhile.

use std::future::{Future as _, poll_fn};
use std::task::Poll;
use std::time::Duration;

use plyfold_core::cache::Verify;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::progress::{Event, Progress};
use plyfold_core::{
    Artifact, ArtifactKey, CacheProvider, CacheProviderExt as _, Collect, CopyOptions, Descriptor, Digest,
    ErrorKind, Ingest, Materializer, MediaType, NameChange, PullOptions, PullPolicy, Reference, copy, digest,
    pull, reference,
};
use serde_json::{Value, json};

use crate::events::{Asked, Watched};
use crate::fixture::{
    Drain, Fault, Scripted, descriptor, layer, name, options, put_document, put_image, verifying,
};

/// More than anything here takes, on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

/// An image like another, with one of its layers once more or of another size.
async fn relayered(registry: &MemoryRegistry, from: &str, to: &str, change: impl FnOnce(&mut Vec<Value>)) {
    use plyfold_core::ImageRegistry as _;
    let raw = registry.manifest(&name(from)).await.unwrap();
    let mut manifest: Value = serde_json::from_slice(raw.bytes()).unwrap();
    change(manifest["layers"].as_array_mut().unwrap());
    put_document(registry, &name(to), MediaType::ImageManifest, &manifest);
}

#[tokio::test]
async fn an_image_that_lies_about_a_size_takes_nothing_from_others() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let honest = name("example.com/app:honest");
    put_image(&registry, &honest, ("linux", "amd64"), &[layer("a", 700)]);
    relayered(&registry, "example.com/app:honest", "example.com/app:lying", |layers| {
        layers[0]["size"] = json!(layers[0]["size"].as_u64().unwrap() + 1);
    })
    .await;
    pull(&registry, &honest, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let lying = name("example.com/app:lying");
    let error = pull(&registry, &lying, &cache, &verifying(PullPolicy::IfMissing)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    pull(&registry, &honest, &cache, &verifying(PullPolicy::Never)).await.unwrap();
}

#[tokio::test]
async fn an_index_that_lies_about_a_size_stops_neither_repair_nor_collection() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let honest = name("example.com/app:honest");
    put_image(&registry, &honest, ("linux", "amd64"), &[layer("a", 700)]);
    let pulled = pull(&registry, &honest, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let mut child = serde_json::to_value(&pulled.descriptor).unwrap();
    child["size"] = json!(pulled.descriptor.size() + 1);
    let index = json!({ "schemaVersion": 2, "manifests": [child] }).to_string();
    let top = Descriptor::new(MediaType::ImageIndex, index.len() as u64, digest::sha256(index.as_bytes()));
    cache.insert_blob(top.digest().clone(), index);
    drop(pulled);
    cache.update(&[NameChange::Set(name("example.com/app:lying"), top)]).await.unwrap();
    cache.verify(&Verify { repair: true, ..Verify::default() }).await.unwrap();
    assert_eq!(cache.collect(&Collect::default()).await.unwrap().blobs, []);
    pull(&registry, &honest, &cache, &verifying(PullPolicy::Never)).await.unwrap();
}

#[tokio::test]
async fn one_layer_of_two_sizes_is_no_image() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    put_image(&registry, &name("example.com/app:1"), ("linux", "amd64"), &[layer("a", 700), layer("a", 700)]);
    relayered(&registry, "example.com/app:1", "example.com/app:2", |layers| {
        layers[1]["size"] = json!(layers[1]["size"].as_u64().unwrap() + 1);
    })
    .await;
    let twice = name("example.com/app:2");
    let error = pull(&registry, &twice, &cache, &options(PullPolicy::IfMissing)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn damage_that_somebody_else_has_repaired_meanwhile_is_not_repaired_again() {
    let (registry, cache) = (MemoryRegistry::new("a"), Watched::new());
    let image = name("example.com/app:1");
    let content = layer("a", 700);
    put_image(&registry, &image, ("linux", "amd64"), std::slice::from_ref(&content));
    pull(&registry, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap();
    let scripted = Scripted::new(&registry, &[]);
    let mut damaged = content.clone();
    damaged[600] ^= 1;
    cache.open_stale(&digest::sha256(&content), damaged.into());
    pull(&scripted, &image, &cache, &verifying(PullPolicy::IfMissing)).await.unwrap();
    assert_eq!(scripted.requests(), 0, "it is sound by now");
}

#[tokio::test]
async fn a_refusal_keeps_what_has_come_before_it() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    let (_, layers) = put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 5000)]);
    // The rest, and then the whole.
    let scripted = Scripted::new(&registry, &[Fault::Breaks(1000), Fault::Refuses, Fault::Refuses]);
    let error = pull(&scripted, &image, &cache, &options(PullPolicy::IfMissing)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Denied);
    assert_eq!(cache.partial(&layers[0]).await.unwrap(), 1000);
}

/// Waits, as over a network, until something has been asked.
async fn until(cache: &Watched, asked: &Asked, times: usize) {
    while cache.log.lock().unwrap().iter().filter(|other| *other == asked).count() < times {
        tokio::task::yield_now().await;
    }
    // Then it waits in the queue.
    tokio::task::yield_now().await;
}

#[tokio::test]
async fn a_blob_that_somebody_else_stores_after_our_wrong_one_is_ours_too() {
    let (registry, cache) = (MemoryRegistry::new("a"), Watched::new());
    let image = name("example.com/app:1");
    let content = layer("a", 5000);
    put_image(&registry, &image, ("linux", "amd64"), std::slice::from_ref(&content));
    let blob = Descriptor::new(MediaType::ImageLayer, content.len() as u64, digest::sha256(&content));
    let Ingest::Vacant(mut wrong) = cache.ingest(&blob).await.unwrap() else { panic!("nothing is here") };
    wrong.write(vec![1; 100].into()).await.unwrap();
    let pulling = tokio::spawn({
        let (registry, image, cache) = (registry.clone(), image.clone(), cache.clone());
        let options = PullOptions { materializer: Some(Box::new(Drain)), ..options(PullPolicy::IfMissing) };
        async move { pull(&registry, &image, &cache, &options).await }
    });
    let asked = Asked::Ingest(blob.digest().clone());
    until(&cache, &asked, 2).await;
    let other = tokio::spawn({
        let (cache, blob) = (cache.clone(), blob.clone());
        async move {
            let Ingest::Vacant(mut writer) = cache.ingest(&blob).await.unwrap() else { panic!("not yet") };
            writer.restart().await.unwrap();
            writer.write(content.into()).await.unwrap();
            writer.commit().await.unwrap();
        }
    });
    until(&cache, &asked, 3).await;
    wrong.suspend().await.unwrap();
    let pulled = tokio::time::timeout(LONG, pulling).await.unwrap().unwrap().unwrap();
    assert!(pulled.layers[0].artifact.is_some());
    other.await.unwrap();
}

/// An index whose every path leads through so many children, three deep, to one image; five documents in all.
fn fan(registry: &MemoryRegistry, image: &Reference, width: usize) -> Vec<(Descriptor, String)> {
    let (leaf, _) = put_image(registry, image, ("linux", "amd64"), &[layer("a", 10)]);
    let mut child = json!({ "mediaType": MediaType::ImageManifest, "digest": leaf, "size": 0 });
    let mut indexes = Vec::new();
    for depth in 0..3 {
        if depth == 0 {
            child["size"] = json!(sizes(registry, image));
        }
        let index = json!({ "schemaVersion": 2, "manifests": vec![child.clone(); width] });
        put_document(registry, image, MediaType::ImageIndex, &index);
        let text = index.to_string();
        child = descriptor(MediaType::ImageIndex.as_ref(), text.as_bytes());
        indexes.push((serde_json::from_value(child.clone()).unwrap(), text));
    }
    indexes
}

fn sizes(registry: &MemoryRegistry, image: &Reference) -> usize {
    use plyfold_core::ImageRegistry as _;
    let raw = futures_util::FutureExt::now_or_never(registry.manifest(image)).unwrap().unwrap();
    raw.bytes().len()
}

#[tokio::test]
async fn documents_that_are_listed_many_times_are_read_once() {
    const WIDTH: usize = 40;
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let indexes = fan(&registry, &image, WIDTH);
    let scripted = Scripted::new(&registry, &[]);
    let target = MemoryRegistry::new("b");
    copy(&scripted, &image, &target, &image, &CopyOptions::default()).await.unwrap();
    assert!(scripted.manifest_requests() < WIDTH, "{} requests", scripted.manifest_requests());

    let cache = Watched::new();
    for (index, text) in &indexes {
        cache.inner().insert_blob(index.digest().clone(), text.clone());
    }
    let top = indexes.last().unwrap().0.clone();
    cache.update(&[NameChange::Set(image.clone(), top)]).await.unwrap();
    cache.asked();
    let opened = |cache: &Watched| {
        let opened = cache.asked().iter().filter(|asked| matches!(asked, Asked::Open(_))).count();
        assert!(opened < WIDTH, "{opened} documents opened");
    };
    let pushed = cache.push(&image, &target, &image, &CopyOptions::default()).await;
    assert_eq!(*pushed.unwrap_err().kind(), ErrorKind::NotFound, "the image itself is not here");
    opened(&cache);
    let absent: Digest = digest::sha256(b"absent");
    let missing = reference::parse(&format!("example.com/app@{absent}")).unwrap();
    let names = cache.list().await.unwrap();
    assert_eq!(plyfold_core::cache::find_among(&cache, &names, &missing).await.unwrap(), None);
    opened(&cache);
}

#[tokio::test]
async fn waiting_for_an_artifact_is_told() {
    let (registry, cache) = (MemoryRegistry::new("a"), MemoryCache::new().unwrap());
    let image = name("example.com/app:1");
    let (_, layers) = put_image(&registry, &image, ("linux", "amd64"), &[layer("a", 300)]);
    let key = ArtifactKey::layer(Drain.format(), layers[0].clone());
    let Artifact::Vacant(theirs) = cache.artifact(&key).await.unwrap() else { panic!("nothing is here") };
    let (progress, mut events) = Progress::channel();
    let options =
        PullOptions { materializer: Some(Box::new(Drain)), progress, ..options(PullPolicy::IfMissing) };
    let pulling = tokio::spawn(async move { pull(&registry, &image, &cache, &options).await });
    let what = layers[0].to_string();
    let told = async { while events.next().await.unwrap() != (Event::Waiting { what: what.clone() }) {} };
    tokio::time::timeout(LONG, told).await.expect("it waits without a word");
    drop(theirs);
    pulling.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pull_that_is_dropped_after_any_poll_is_in_nobodys_way() {
    let registry = MemoryRegistry::new("a");
    let image = name("example.com/app:1");
    let layers = [layer("a", 300), layer("b", 700_000), layer("a", 300)];
    put_image(&registry, &image, ("linux", "amd64"), &layers);
    let mut half_way = 0;
    for polls in 0.. {
        let (scripted, cache) = (Scripted::new(&registry, &[Fault::Breaks(100)]), Watched::new());
        let options = PullOptions { materializer: Some(Box::new(Drain)), ..options(PullPolicy::IfMissing) };
        let (mut first, mut left) = (Box::pin(pull(&scripted, &image, &cache, &options)), polls);
        let done = poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(false);
            }
            left -= 1;
            first.as_mut().poll(context).map(|outcome| outcome.is_ok())
        })
        .await;
        drop(first);
        half_way += usize::from(!done && scripted.layer_reads() > 0);
        assert_eq!(cache.leases(), 0, "after {polls}");
        let again = tokio::time::timeout(LONG, pull(&registry, &image, &cache, &options)).await;
        let again = again.unwrap_or_else(|_| panic!("it waits for one that was dropped after {polls}"));
        assert!(again.unwrap().layers.iter().all(|layer| layer.artifact.is_some()));
        assert_eq!(cache.verify(&Verify::default()).await.unwrap().damage, [], "after {polls}");
        if done {
            assert!(half_way > 0, "none of {polls} was dropped half way");
            break;
        }
    }
}
