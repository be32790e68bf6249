//! A network that fails between a node and its service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plyfold_core::{CacheProvider as _, CacheProviderExt as _, Collect, ErrorKind, NameChange, Verify};
use plyfold_object_store::{Config, ObjectStoreCache};

use crate::content::{artifact_key, blob, commit, make, name, names, put, read, set};
use crate::front::{Fault, Front, URI};
use crate::medium::Medium;

/// Numbers that are the same for each seed (splitmix64).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn fault(&mut self) -> Fault {
        match self.below(10) {
            0 => Fault::Reset,
            1 => Fault::Lost,
            2 => Fault::Stalled,
            3 => Fault::Said(500, "InternalError"),
            4 => Fault::Said(503, "SlowDown"),
            5 => Fault::FailedAfter,
            6 => Fault::Truncated,
            7 => Fault::Twice,
            8 => Fault::Unanswered,
            _ => Fault::TwiceLate(Duration::from_millis(self.below(300))),
        }
    }
}

/// Each of what may go wrong, with each kind of request, once.
#[tokio::test(flavor = "multi_thread")]
async fn one_failure_is_no_failure() {
    let faults = [
        Fault::Reset,
        Fault::Lost,
        Fault::Stalled,
        Fault::Said(500, "InternalError"),
        Fault::Said(503, "SlowDown"),
        Fault::FailedAfter,
        Fault::Truncated,
        Fault::Twice,
        Fault::TwiceLate(Duration::from_millis(30)),
        Fault::Unanswered,
    ];
    let mut running = tokio::task::JoinSet::new();
    for fault in faults {
        running.spawn(async move {
            let medium = Medium::memory();
            let service = Front::of(medium.memory.as_ref().unwrap());
            let cache = service.cache().await.unwrap();
            commit(make(&cache, b"artifact").await).await.unwrap();
            // The number of requests of a round is not known before; so the fault moves on until a round has none.
            for at in 0.. {
                let (count, fault) = (AtomicUsize::new(0), fault.clone());
                let met = Arc::new(AtomicUsize::new(0));
                let counted = met.clone();
                service.plan(move |_| {
                    let is_met = count.fetch_add(1, Ordering::SeqCst) == at;
                    counted.fetch_add(usize::from(is_met), Ordering::SeqCst);
                    is_met.then(|| fault.clone())
                });
                round(&cache, at).await;
                if met.load(Ordering::SeqCst) == 0 {
                    break;
                }
                assert!(at < 200, "a round has an end");
            }
            service.heal();
            cache.settle().await;
            assert_eq!(cache.verify(&Verify::default()).await.unwrap().damage, []);
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

/// Stores, names, reads and removes: each has to work.
async fn round(cache: &ObjectStoreCache, number: usize) {
    let content = [format!("small {number}").into_bytes(), vec![number as u8; 20_000 + number]];
    let small = put(cache, &content[0]).await.unwrap();
    let large = put(cache, &content[1]).await.unwrap();
    set(cache, "a.example/a:1", &small).await.unwrap();
    let changes = [
        NameChange::Set(name("a.example/a:1"), large.clone()),
        NameChange::Set(name("a.example/b:1"), small.clone()),
    ];
    cache.update(&changes).await.unwrap();
    cache.verify_blob(&large).await.unwrap();
    let artifact = cache.find_artifact(&artifact_key()).await.unwrap().unwrap();
    assert_eq!(read(artifact).await.unwrap(), b"artifact");
    let found = cache.find_descriptor(&name("a.example/b:1")).await.unwrap();
    assert_eq!(found.map(|found| found.digest().clone()), Some(small.digest().clone()));
    cache.update(&[NameChange::Remove(name("a.example/b:1"))]).await.unwrap();
    assert_eq!(names(cache).await, [("a.example/a:1".to_owned(), large.digest().to_string())]);
}

/// What a name may stand for.
type Allowed = BTreeMap<String, BTreeSet<Option<String>>>;

/// Scripts of failures by seeds: whatever an operation has said is true, and nothing is lost or wrong.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_what_was_said_is_true() {
    let wanted = std::env::var("PLYFOLD_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds: Vec<u64> = wanted.map_or_else(|| (1..=8).collect(), |seed| vec![seed]);
    let mut running = tokio::task::JoinSet::new();
    for seed in seeds {
        running.spawn(async move { (seed, tokio::spawn(script(seed)).await) });
        if running.len() == 8 {
            let (seed, ended) = running.join_next().await.unwrap().unwrap();
            assert!(ended.is_ok(), "PLYFOLD_SEED={seed} fails: {ended:?}");
        }
    }
    while let Some(ended) = running.join_next().await {
        let (seed, ended) = ended.unwrap();
        assert!(ended.is_ok(), "PLYFOLD_SEED={seed} fails: {ended:?}");
    }
}

async fn script(seed: u64) {
    const NAMES: u64 = 4;
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let caches = [service.cache().await.unwrap(), service.cache().await.unwrap()];
    let mut random = Random(seed);
    let mut faults = Random(seed ^ 0xffff);
    // Of some seeds each second request fails, of others each twelfth.
    let rarely = 2 + random.below(11);
    service.plan(move |_| (faults.below(rarely) == 0).then(|| faults.fault()));
    let mut allowed = Allowed::new();
    for step in 0..12 {
        let cache = &caches[random.below(2) as usize];
        let content =
            vec![random.below(256) as u8; [10, 20_000, 6 << 20][random.below(8).saturating_sub(5) as usize]];
        let image = blob(&content);
        let texts: Vec<String> =
            (0..=random.below(2)).map(|_| format!("a.example/a:{}", random.below(NAMES))).collect();
        let is_removal = random.below(5) == 0;
        let changes = texts.iter().map(|text| {
            let of = name(text);
            if is_removal { NameChange::Remove(of) } else { NameChange::Set(of, image.clone()) }
        });
        let changes: Vec<_> = changes.collect();
        // As a pull does: what is stored is leased until it has its name.
        let made = async {
            let _lease = cache.lease(std::slice::from_ref(image.digest())).await?;
            put(cache, &content).await?;
            cache.update(&changes).await
        };
        let made = tokio::time::timeout(Duration::from_secs(60), made).await.expect("it ends");
        for text in texts {
            let now = (!is_removal).then(|| image.digest().to_string());
            let allowed = allowed.entry(text).or_insert_with(|| [None].into());
            if made.is_ok() {
                allowed.clear();
            }
            allowed.insert(now);
        }
        if let Err(e) = made {
            let is_expected = matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::NotFound);
            assert!(is_expected, "step {step}: {e:?}");
        }
        if random.below(4) == 0 {
            // It may fail, and removes nothing that is in use.
            let _ = cache.collect(&Collect::default()).await;
        }
    }
    service.heal();
    for cache in &caches {
        cache.settle().await;
    }
    let cache = service.cache().await.unwrap();
    let found: BTreeMap<_, _> = names(&cache).await.into_iter().collect();
    for (text, allowed) in &allowed {
        assert!(allowed.contains(&found.get(text).cloned()), "{text}: {:?} of {allowed:?}", found.get(text));
    }
    assert!(found.keys().all(|text| allowed.contains_key(text)), "{found:?}");
    assert_eq!(cache.verify(&Verify::default()).await.unwrap().damage, []);
    // What is left goes, and everything can be changed again.
    tokio::time::sleep(Duration::from_millis(4100)).await;
    cache.collect(&Collect::default()).await.unwrap();
    let last = put(&cache, b"last").await.unwrap();
    let changes =
        (0..NAMES).map(|number| NameChange::Set(name(&format!("a.example/a:{number}")), last.clone()));
    cache.update(&changes.collect::<Vec<_>>()).await.unwrap();
    cache.settle().await;
    assert_eq!(cache.verify(&Verify::default()).await.unwrap().damage, []);
    cache.collect(&Collect::default()).await.unwrap();
    assert_eq!(medium.left(), [""; 0]);
}

/// A service that does not answer at all, and one that only refuses.
const OUTAGES: [Fault; 3] = [Fault::Reset, Fault::Stalled, Fault::Said(503, "SlowDown")];

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_ends_in_an_error() {
    let outages = OUTAGES.map(|fault| outage(fault, Front::config, Duration::from_secs(30)));
    futures_util::future::join_all(outages).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes a minute: by the settings that users have"]
async fn an_outage_ends_within_about_a_minute() {
    let config = |service: &Front| {
        let mut config = Config { lease_seconds: Config::default().lease_seconds, ..service.config() };
        config.service.remove("read_timeout");
        config
    };
    let outages = [Fault::Reset, Fault::Silent, Fault::Said(503, "SlowDown")];
    let outages = outages.map(|fault| outage(fault, config, Duration::from_secs(75)));
    futures_util::future::join_all(outages).await;
}

async fn outage(fault: Fault, config: impl Fn(&Front) -> Config, limit: Duration) {
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let cache = ObjectStoreCache::open(URI, &config(&service)).await.unwrap();
    let image = put(&cache, b"image").await.unwrap();
    let artifact = make(&cache, b"artifact").await;
    let failed = fault.clone();
    service.plan(move |_| Some(failed.clone()));
    let (begun, key) = (Instant::now(), artifact_key());
    let (listed, stored, named, looked, held, made) = tokio::join!(
        cache.list(),
        put(&cache, b"other"),
        set(&cache, "a.example/a:1", &image),
        cache.find_artifact(&key),
        cache.single_flight("some work"),
        commit(artifact),
    );
    let errors = [
        listed.map(drop).unwrap_err(),
        stored.map(drop).unwrap_err(),
        named.unwrap_err(),
        looked.map(drop).unwrap_err(),
        held.map(drop).unwrap_err(),
        made.map(drop).unwrap_err(),
    ];
    assert!(begun.elapsed() < limit, "{fault:?}: {:?}", begun.elapsed());
    for error in errors {
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{fault:?}: {error:?}");
        assert!(error.hint().is_some() && error.is_retryable(), "{fault:?}: {error:?}");
    }
    service.heal();
    put(&cache, b"other").await.unwrap();
    set(&cache, "a.example/a:1", &image).await.unwrap();
}

/// An outage is no end of a right that no other machine has taken meanwhile, whatever became of the renewals.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_outlasts_an_outage() {
    let outages = [Fault::Reset, Fault::Lost, Fault::FailedAfter, Fault::Unanswered].map(async |fault| {
        let medium = Medium::memory();
        let service = Front::of(medium.memory.as_ref().unwrap());
        let cache = service.cache().await.unwrap();
        let writer = make(&cache, b"artifact").await;
        let failed = fault.clone();
        service.plan(move |_| Some(failed.clone()));
        // Longer than requests are made again.
        tokio::time::sleep(Duration::from_millis(5200)).await;
        service.heal();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let made = commit(writer).await.unwrap_or_else(|e| panic!("{fault:?}: {e:?}"));
        assert_eq!(read(made).await.unwrap(), b"artifact", "{fault:?}");
    });
    futures_util::future::join_all(outages).await;
}

/// Connections that end again and again, each later than requests are made again: what goes on is read to its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_is_read_over_a_slow_network() {
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let cache = service.cache().await.unwrap();
    let content: Vec<u8> = (0..300_000_u32).map(|at| (at / 7) as u8).collect();
    let wanted = put(&cache, &content).await.unwrap();
    let answers = AtomicUsize::new(0);
    service.plan(move |request| {
        let is_content = request.method == "GET" && request.key.starts_with("a/fleet/data/");
        (is_content && answers.fetch_add(1, Ordering::SeqCst) < 2).then_some(Fault::Slow)
    });
    let read = cache.open(&wanted, plyfold_core::BlobRange::FULL).await.unwrap();
    assert_eq!(read.bytes(1 << 20).await.unwrap(), content);
    let reads = |(method, target): &&(String, String)| method == "GET" && target.contains("/data/");
    assert_eq!(service.requests().iter().filter(reads).count(), 3, "it is read on where it ended");
}

/// The record of a blob is put, the answer is lost, and another machine changes the record before the put is sent again: the
/// content is not removed as that of a writer that has lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_stays() {
    let medium = Medium::memory();
    let service = Front::of(medium.memory.as_ref().unwrap());
    let cache = service.cache().await.unwrap();
    let content = vec![7; 50_000];
    let wanted = blob(&content);
    let (raw, of) = (medium.raw(), wanted.clone());
    let seen = AtomicUsize::new(0);
    service.plan(move |request| {
        if !request.writes("blobs") || !request.body.starts_with(br#"{"state":"live""#) {
            return None;
        }
        if seen.fetch_add(1, Ordering::SeqCst) == 1 {
            // A user of content that a collection has condemned does this.
            let path = format!("blobs/{}/{}", of.digest().algorithm(), of.digest().digest());
            let mut record = raw.record(&path).unwrap();
            record["token"] = "of another machine".into();
            raw.write(&path, record.to_string().into());
        }
        (seen.load(Ordering::SeqCst) == 1).then_some(Fault::Lost)
    });
    put(&cache, &content).await.unwrap();
    service.heal();
    cache.settle().await;
    assert_eq!(cache.stat(wanted.digest()).await.unwrap(), Some(wanted.size()));
    cache.verify_blob(&wanted).await.unwrap();
}
