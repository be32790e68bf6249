//! Collections of many small caches, judged by what must hold of every one.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use plyfold_core::cache::{Held, HeldArtifact, Holdings, Inventory, Needs};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Blob, BlobRange, CacheProvider as _, CacheProviderExt as _, Collect, Descriptor, Digest, MediaType,
    NameChange, RawManifest, Reference, digest, reference,
};

/// Numbers that are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

async fn put(cache: &MemoryCache, media_type: &str, content: &str) -> Descriptor {
    let bytes = Bytes::copy_from_slice(content.as_bytes());
    let described = Descriptor::new(MediaType::from(media_type), bytes.len() as u64, digest::sha256(&bytes));
    cache.put(Blob::from_bytes(&described, BlobRange::FULL, &bytes).unwrap()).await.unwrap();
    described
}

fn json(descriptor: &Descriptor) -> String {
    serde_json::to_string(descriptor).unwrap()
}

async fn image(cache: &MemoryCache, layers: &[u64], subject: Option<&Descriptor>) -> Descriptor {
    let mut list = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in layers {
        let content = format!("layer {layer} {}", "x".repeat(100 * *layer as usize));
        let layer = put(cache, "application/vnd.oci.image.layer.v1.tar", &content).await;
        diff_ids.push(format!("{:?}", layer.digest().to_string()));
        list.push(json(&layer));
    }
    let rootfs = format!(r#"{{"type":"layers","diff_ids":[{}]}}"#, diff_ids.join(","));
    let config = format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{rootfs}}}"#);
    let config = json(&put(cache, "application/vnd.oci.image.config.v1+json", &config).await);
    let subject = subject.map(|subject| format!(r#","subject":{}"#, json(subject))).unwrap_or_default();
    let list = list.join(",");
    let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{list}]{subject}}}"#);
    put(cache, "application/vnd.oci.image.manifest.v1+json", &text).await
}

async fn held(cache: &MemoryCache, digests: impl IntoIterator<Item = Digest>) -> HashSet<Digest> {
    let mut held = HashSet::new();
    for digest in digests {
        if cache.stat(&digest).await.unwrap().is_some() {
            held.insert(digest);
        }
    }
    held
}

async fn needed(cache: &MemoryCache, tops: &[Descriptor]) -> HashSet<Digest> {
    let mut needed = HashSet::new();
    for top in tops {
        needed.extend(Needs::of(cache, top).await.unwrap().blobs.into_keys());
    }
    needed
}

#[tokio::test]
async fn what_is_left_is_what_is_needed_and_fits() {
    for seed in 0..30 {
        one_cache(&mut Chance(seed)).await;
    }
}

async fn one_cache(chance: &mut Chance) {
    let cache = MemoryCache::new().unwrap();
    let mut images: Vec<(Reference, Descriptor)> = Vec::new();
    let mut referrers: Vec<(Descriptor, Descriptor)> = Vec::new();
    for number in 0..2 + chance.below(8) {
        let layers: Vec<u64> = (0..=chance.below(4)).map(|_| chance.below(10)).collect();
        let top = image(&cache, &layers, None).await;
        if chance.below(3) == 0 {
            referrers.push((image(&cache, &[20 + number], Some(&top)).await, top.clone()));
        }
        let name = reference::parse(&format!("registry.example/app:{number}")).unwrap();
        cache.update(&[NameChange::Set(name.clone(), top.clone())]).await.unwrap();
        images.push((name, top));
    }
    let loose = image(&cache, &[chance.below(12), 15], None).await;
    // The order in which they are used is another than that in which they were stored.
    let mut used: Vec<usize> = (0..images.len()).collect();
    for place in (1..used.len()).rev() {
        used.swap(place, chance.below(place as u64 + 1) as usize);
    }
    for &place in &used {
        drop(cache.lease(&[images[place].1.digest().clone()]).await.unwrap());
    }
    let pinned = images[chance.below(images.len() as u64) as usize].0.clone();
    cache.update(&[NameChange::Pin(pinned.clone())]).await.unwrap();
    let leased = images[chance.below(images.len() as u64) as usize].1.clone();
    let lease = cache.lease(&[leased.digest().clone()]).await.unwrap();

    let tops: Vec<Descriptor> = images.iter().map(|(_, top)| top.clone()).collect();
    let about: Vec<Descriptor> = referrers.iter().map(|(referrer, _)| referrer.clone()).collect();
    let all = needed(&cache, &[&tops[..], &about, &[loose]].concat()).await;
    let usage = cache.usage().await.unwrap();
    let budget = chance.below(usage.blobs + 100);
    let policy = Collect { budget: Some(budget), ..Collect::default() };
    let dry = cache.collect(&Collect { dry_run: true, ..policy.clone() }).await.unwrap();
    assert_eq!(cache.usage().await.unwrap(), usage, "a dry run changes nothing");
    let collected = cache.collect(&policy).await.unwrap();
    assert_eq!(dry, collected);
    assert_eq!(collected.freed + collected.kept, usage.blobs);

    let left: Vec<Descriptor> = cache.list().await.unwrap().into_iter().map(|(_, top)| top).collect();
    let kept_about = referrers.iter().filter(|(_, subject)| left.contains(subject) || *subject == leased);
    let kept_about: Vec<Descriptor> = kept_about.map(|(referrer, _)| referrer.clone()).collect();
    let expected = needed(&cache, &[&left[..], &kept_about, std::slice::from_ref(&leased)].concat()).await;
    assert_eq!(held(&cache, all).await, expected, "what is needed, and nothing else");

    // Least recently used first, and no more of them than it took.
    let top_of = |name: &Reference| images.iter().find(|(other, _)| other == name).map(|(_, top)| top);
    // Names for one content were used when it was.
    let order = |name: &Reference| used.iter().rposition(|&place| Some(&images[place].1) == top_of(name));
    let evicted: Vec<Option<usize>> = collected.evicted.iter().map(order).collect();
    assert!(evicted.is_sorted(), "{evicted:?}");
    assert!(!collected.evicted.contains(&pinned));
    assert!(!images.iter().any(|(name, top)| *top == leased && collected.evicted.contains(name)));
    if collected.kept > budget {
        // Whatever else has a name is protected, or shares everything with what is.
        let protected: Vec<Descriptor> = images
            .iter()
            .filter(|(name, top)| *name == pinned || *top == leased)
            .map(|(_, top)| top.clone())
            .collect();
        let protected = needed(&cache, &protected).await;
        for top in &left {
            let needs = Needs::of(&cache, top).await.unwrap();
            let shares = needs.blobs.keys().any(|digest| protected.contains(digest));
            assert!(shares, "{top:?} could go");
        }
    }
    drop(lease);
}

fn app(tag: &str) -> Reference {
    reference::parse(&format!("registry.example/app:{tag}")).unwrap()
}

/// A document that refers to a subject and is in the list of what does so.
async fn listed(cache: &MemoryCache, layer: u64, subject: &Descriptor) -> Descriptor {
    let referrer = image(cache, &[layer], Some(subject)).await;
    let bytes = cache.get_content(referrer.digest(), referrer.size()).await.unwrap();
    cache.list_referrers(&app("1"), &[RawManifest::new(bytes, None).unwrap()]).await.unwrap();
    referrer
}

/// Otherwise a budget is missed by the bytes of a list, although another image could go.
#[tokio::test]
async fn a_list_of_referrers_counts_before_the_first_name_is_removed() {
    let cache = MemoryCache::new().unwrap();
    let (subject, other) = (image(&cache, &[1], None).await, image(&cache, &[2], None).await);
    let names = [NameChange::Set(app("1"), subject.clone()), NameChange::Set(app("2"), other)];
    cache.update(&[&names[..], &[NameChange::Pin(app("1"))]].concat()).await.unwrap();
    listed(&cache, 3, &subject).await;
    let budget = cache.usage().await.unwrap().blobs - 1;
    let collected = cache.collect(&Collect { budget: Some(budget), ..Collect::default() }).await.unwrap();
    assert_eq!((collected.evicted, collected.missed), (vec![app("2")], None));
}

/// The tag of the list has a part of the digest then.
#[tokio::test]
async fn a_list_of_what_refers_to_a_sha512_digest_stays_with_its_subject() {
    let cache = MemoryCache::new().unwrap();
    let image = image(&cache, &[1], None).await;
    let bytes = cache.get_content(image.digest(), image.size()).await.unwrap();
    let mut hasher = digest::Hasher::like(&format!("sha512:{}", "0".repeat(128)).parse().unwrap()).unwrap();
    hasher.update(&bytes);
    let subject = Descriptor::new(image.media_type().clone(), image.size(), hasher.finish());
    cache.put(Blob::from_bytes(&subject, BlobRange::FULL, &bytes).unwrap()).await.unwrap();
    listed(&cache, 3, &subject).await;
    cache.update(&[NameChange::Set(app("1"), subject.clone()), NameChange::Pin(app("1"))]).await.unwrap();
    let none = Collect { budget: Some(0), ..Collect::default() };
    assert_eq!(cache.collect(&none).await.unwrap().evicted, []);
    cache.update(&[NameChange::Remove(app("1"))]).await.unwrap();
    assert_eq!(cache.collect(&none).await.unwrap().evicted.len(), 1);
}

/// In whatever order their names are.
#[tokio::test]
async fn a_list_stays_with_a_subject_that_another_list_keeps() {
    let cache = MemoryCache::new().unwrap();
    let mut lists = Vec::new();
    for number in 0..8 {
        let subject = image(&cache, &[number], None).await;
        let referrer = listed(&cache, 10 + number, &subject).await;
        listed(&cache, 20 + number, &referrer).await;
        let list_of = |subject: &Descriptor| reference::referrers_of(&app("1"), subject.digest());
        cache.update(&[NameChange::Pin(list_of(&subject))]).await.unwrap();
        lists.extend([list_of(&subject), list_of(&referrer)]);
    }
    let collected = cache.collect(&Collect::default()).await.unwrap();
    assert_eq!(collected.evicted, []);
    let left: HashSet<Reference> = cache.list().await.unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, lists.into_iter().collect());
}

#[tokio::test]
async fn what_may_stay_for_ever_stays() {
    let cache = MemoryCache::new().unwrap();
    let blob = put(&cache, "application/octet-stream", "stored without a name").await;
    let policy = Collect { grace: Duration::MAX, budget: Some(0), ..Collect::default() };
    assert_eq!(cache.collect(&policy).await.unwrap().blobs, []);
    assert_eq!(cache.stat(blob.digest()).await.unwrap(), Some(blob.size()));
}

#[tokio::test]
async fn sizes_beyond_all_numbers_are_counted_as_the_largest() {
    let cache = MemoryCache::new().unwrap();
    let used = SystemTime::UNIX_EPOCH;
    let blobs = ["a", "b"].map(|seed| (digest::sha256(seed.as_bytes()), Held { size: u64::MAX, used }));
    let diff_id = digest::sha256(b"c");
    let artifact = HeldArtifact { content: diff_id, held: Held { size: u64::MAX, used } };
    for leased in [Vec::new(), blobs.iter().map(|(digest, _)| digest.clone()).collect()] {
        let holdings = Holdings {
            leased: leased.iter().cloned().collect(),
            blobs: blobs.iter().cloned().collect(),
            artifacts: vec![artifact.clone(), artifact.clone()],
            ..Holdings::default()
        };
        let policy = Collect::default();
        let unread = |_| async { Ok(Vec::new()) };
        let inventory = Inventory::of(&cache, holdings, &policy, unread).await.unwrap();
        let usage = inventory.usage();
        assert_eq!((usage.blobs, usage.artifacts), (u64::MAX, u64::MAX));
        let plan = inventory.plan(Some(0)).unwrap();
        assert_eq!((plan.freed, plan.kept), (u64::MAX, if leased.is_empty() { 0 } else { u64::MAX }));
    }
}
