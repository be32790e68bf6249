//! Images of a list into every kind of target: nothing twice, and all names or none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::process::Stdio;

use plyfold::{
    Advice, Backends, CacheProviderExt as _, Digest, ErrorKind, ImageRegistry, Images, Options, Platform,
    PullOptions, Result, SyncChange, SyncList, SyncOptions, SyncReport, SyncTarget, reference,
};
use plyfold_conformance::samples::{self, LayerBuilder, Sample, SampleImage};
use plyfold_conformance::server::{Exchange, Fault, FaultServer, On};
use tempfile::TempDir;

use super::every_pair::{self, Origin};
use super::run::Place;

mod lists;
mod places;

/// A server with images, and places for them.
struct Site {
    source: FaultServer,
    mirror: FaultServer,
    folder: TempDir,
    images: Images,
}

const KINDS: [&str; 4] = ["layout", "archive", "registry", "store"];

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open(folder.path().join("store")).await.unwrap();
        let (source, mirror) = (FaultServer::start().unwrap(), FaultServer::start().unwrap());
        Self { source, mirror, folder, images }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn target(&self, kind: &str) -> SyncTarget {
        match kind {
            "layout" => SyncTarget::Place(format!("oci:{}", self.path("layout"))),
            "archive" => SyncTarget::Place(format!("oci-archive:{}", self.path("site.tar"))),
            "registry" => SyncTarget::Place(format!("{}/mirror", self.mirror.host())),
            _ => SyncTarget::Cache,
        }
    }

    /// The target, opened anew.
    async fn place(&self, kind: &str) -> Box<dyn ImageRegistry> {
        let uri = match self.target(kind) {
            SyncTarget::Place(uri) if kind == "registry" => format!("registry:{uri}/x"),
            SyncTarget::Place(uri) => uri,
            _ => return Box::new(self.images.cache().as_registry()),
        };
        Backends::linked().unwrap().open(&uri, &Options::default()).await.unwrap().registry
    }

    /// The list in which `HOST` is the source.
    fn list(&self, text: &str) -> SyncList {
        SyncList::parse(&format!("version = 1\n{}", text.replace("HOST", self.source.host()))).unwrap()
    }

    async fn sync(&self, list: &SyncList, kind: &str) -> Result<SyncReport> {
        self.images.sync(list, &self.target(kind), &SyncOptions::default()).await
    }

    /// What the targets of these names stand for.
    async fn stands(&self, kind: &str, report: &SyncReport) -> BTreeMap<String, Option<Digest>> {
        let (place, mut stands) = (self.place(kind).await, BTreeMap::new());
        for name in &report.names {
            let found = place.resolve(&name.target).await.ok();
            stands.insert(name.target.whole(), found.map(|found| found.digest().clone()));
        }
        stands
    }
}

/// An image that is another one for each number.
fn app(number: u32) -> Sample {
    let mut state = u64::from(number) + 1;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let content: Vec<u8> = noise.take(16 << 10).collect();
    samples::of_layers("app", &[LayerBuilder::new().file("noise", 0o644, &content).finish()])
}

/// Blobs of an image, once each.
fn blobs(sample: &Sample) -> HashMap<Digest, u64> {
    let blobs = sample.blobs.iter().filter(|blob| !blob.is_manifest());
    blobs.map(|blob| (blob.descriptor.digest().clone(), blob.descriptor.size())).collect()
}

fn size_of(samples: &[&Sample]) -> u64 {
    samples.iter().flat_map(|sample| blobs(sample)).collect::<HashMap<_, _>>().values().sum()
}

fn changes(report: &SyncReport) -> BTreeSet<&'static str> {
    report.names.iter().map(|name| name.change.name()).collect()
}

fn is_of_blob(exchange: &Exchange) -> bool {
    exchange.method == "GET" && exchange.target.contains("/blobs/")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_asks_for_names_alone() {
    let site = Site::new().await;
    let apps: Vec<Sample> = (0..6).map(app).collect();
    for (minor, app) in apps.iter().enumerate() {
        site.source.put("org/app", &format!("1.{minor}.0"), app);
    }
    site.source.put("org/app", "latest", &apps[5]);
    site.source.put("org/app", "2.0.0", &app(20));
    let other = app(30);
    site.source.put("org/other", "2", &other);
    let list = site.list(
        "[[image]]\nname = \"HOST/org/app\"\ntags = [\"1.*\", \"latest\"]\n\
         [[image]]\nname = \"HOST/org/other:2\"\nto = \"tools/other\"\n",
    );
    let every: Vec<&Sample> = apps.iter().chain([&other]).collect();
    for kind in KINDS {
        let dry = SyncOptions { dry_run: true, ..SyncOptions::default() };
        let dry = site.images.sync(&list, &site.target(kind), &dry).await.unwrap();
        assert_eq!((dry.moved, dry.names.len(), dry.dry_run), (size_of(&every), 8, true), "{kind}");
        assert!(site.stands(kind, &dry).await.values().all(Option::is_none), "{kind}: a dry run sets a name");
        assert!(!site.folder.path().join("layout").exists() || kind != "layout");
        let report = site.sync(&list, kind).await.unwrap();
        assert_eq!((report.moved, changes(&report)), (size_of(&every), ["added"].into()), "{kind}");
        let stands = site.stands(kind, &report).await;
        assert_eq!(stands.len(), 8);
        for name in &report.names {
            assert_eq!(stands[&name.target.whole()].as_ref(), Some(&name.after), "{kind}: {name:?}");
            let tag = name.name.tag().unwrap();
            let expected = match tag.split('.').nth(1) {
                Some(minor) => &apps[minor.parse::<usize>().unwrap()],
                None if tag == "latest" => &apps[5],
                None => &other,
            };
            assert_eq!(name.after, *expected.top.digest(), "{kind}: {name:?}");
        }
        assert!(stands.keys().any(|name| name.ends_with("/tools/other:2")), "{stands:?}");
        site.source.clear_requests();
        site.mirror.clear_requests();
        let again = site.sync(&list, kind).await.unwrap();
        assert_eq!((again.moved, changes(&again)), (0, ["unchanged"].into()), "{kind}");
        let asked = |server: &FaultServer| {
            let asked = server.requests().into_iter().filter(|request| request.target != "/v2/");
            let mut count: BTreeMap<String, usize> = BTreeMap::new();
            for request in asked {
                let what = request.target.split('/').rev().nth(1).unwrap_or_default().to_owned();
                *count.entry(format!("{} {what}", request.method)).or_default() += 1;
            }
            count
        };
        let names = [("GET tags".to_owned(), 1), ("HEAD manifests".to_owned(), 8)];
        assert_eq!(asked(&site.source), names.into(), "{kind}");
        if kind == "registry" {
            assert_eq!(asked(&site.mirror), [("HEAD manifests".to_owned(), 8)].into());
        }
        let third = site.sync(&list, kind).await.unwrap();
        assert_eq!(third.to_json(), again.to_json(), "{kind}");
        assert_eq!(third.digest(), plyfold::digest::sha256(&third.to_json()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_has_changed_is_moved() {
    let site = Site::new().await;
    for number in 0..8 {
        site.source.put("org/app", &number.to_string(), &app(number));
    }
    let list = site.list("[[image]]\nname = \"HOST/org/app\"\ntags = [\"*\"]\n");
    for kind in KINDS {
        site.sync(&list, kind).await.unwrap();
    }
    let changed = [app(100), app(101)];
    site.source.put("org/app", "2", &changed[0]);
    site.source.put("org/app", "5", &changed[1]);
    for kind in KINDS {
        site.source.clear_requests();
        let report = site.sync(&list, kind).await.unwrap();
        let replaced: Vec<_> =
            report.names.iter().filter(|name| name.change == SyncChange::Replaced).collect();
        let tags: Vec<_> = replaced.iter().filter_map(|name| name.name.tag()).collect();
        assert_eq!(tags, ["2", "5"], "{kind}");
        assert_eq!(replaced[0].before.as_ref(), Some(app(2).top.digest()), "{kind}");
        assert_eq!(replaced[0].after, *changed[0].top.digest(), "{kind}");
        assert_eq!(report.moved, size_of(&[&changed[0], &changed[1]]), "{kind}");
        let read: u64 = site.source.requests().iter().filter(|one| is_of_blob(one)).map(|one| one.sent).sum();
        assert_eq!(read, report.moved, "{kind}");
        assert!(site.stands(kind, &report).await.values().all(Option::is_some), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_leaves_every_name_as_it_was() {
    let site = Site::new().await;
    for number in 0..4 {
        site.source.put("org/app", &number.to_string(), &app(number));
    }
    let list = site.list("[[image]]\nname = \"HOST/org/app\"\ntags = [\"*\"]\n");
    let mut before = BTreeMap::new();
    for kind in KINDS {
        let report = site.sync(&list, kind).await.unwrap();
        before.insert(kind, (site.stands(kind, &report).await, report));
    }
    for number in 0..5 {
        site.source.put("org/app", &number.to_string(), &app(100 + number));
    }
    let fifth = app(104);
    let layer = fifth.images[0].layers[0].descriptor.digest();
    site.source.script(On::blob(layer), [Fault::Status(404)]);
    for kind in KINDS {
        let error = site.sync(&list, kind).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{kind}: {error}");
        let (stood, report) = &before[kind];
        assert_eq!(site.stands(kind, report).await, *stood, "{kind}");
        assert!(site.place(kind).await.resolve(&with_tag(report, "4")).await.is_err(), "{kind}");
    }
    // A registry sets one name after the other, and says how far it came.
    site.source.clear_scripts();
    site.mirror.script(On::manifest("2").method("PUT"), [Fault::Status(403)]);
    let error = site.sync(&list, "registry").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Denied, "{error}");
    let set = format!("2 names, the last is {}/mirror/org/app:1", site.mirror.host());
    assert_eq!(error.context("set before"), Some(set.as_str()), "{error:?}");
    site.mirror.clear_scripts();
    let report = site.sync(&list, "registry").await.unwrap();
    let unchanged = report.names.iter().filter(|name| name.change == SyncChange::Unchanged).count();
    // The server has set the name that it said it refuses, too.
    assert_eq!((unchanged, report.moved), (3, 0), "a run goes on where the one before was refused");
}

/// The target of another tag of the same repository.
fn with_tag(report: &SyncReport, tag: &str) -> plyfold::Reference {
    let repository = reference::repository_of(&report.names[0].target);
    reference::parse(&format!("{repository}:{tag}")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_an_image_goes_with_it_and_back() {
    let (origin, site) = (every_pair::stored_origin().await, Site::new().await);
    let from = every_pair::place("registry", site.folder.path(), &site.source).await;
    origin.copy_into(&from).await;
    let list = site.list("[defaults]\nreferrers = true\n[[image]]\nname = \"HOST/org/app:1.2\"\n");
    for kind in KINDS {
        let report = site.sync(&list, kind).await.unwrap();
        assert_is_in(&origin, &site, kind, &report).await;
        let again = site.sync(&list, kind).await.unwrap();
        assert_eq!((changes(&again), again.moved), (["unchanged"].into(), 0), "{kind}");
        if kind == "layout" || kind == "archive" {
            let SyncTarget::Place(place) = site.target(kind) else { unreachable!() };
            let back = SyncTarget::Place(format!("{}/back-of-{kind}", site.mirror.host()));
            let options = SyncOptions::default();
            let report = site.images.sync(&SyncList::of_place(place), &back, &options).await.unwrap();
            assert!(report.names.iter().any(|name| name.after == *origin.index.digest()), "{kind}");
            assert_is_in(&origin, &site, "registry", &report).await;
        }
    }
}

async fn assert_is_in(origin: &Origin, site: &Site, kind: &str, report: &SyncReport) {
    let name = report.names.iter().find(|name| name.after == *origin.index.digest()).unwrap();
    let place = every_pair::Place {
        from: site.place(kind).await,
        to: site.place(kind).await,
        name: name.target.clone(),
    };
    origin.assert_is_in(&place, kind).await;
}

/// A signature that came later is brought when the images are looked at again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_brings_what_came_later() {
    let (origin, site) = (every_pair::stored_origin().await, Site::new().await);
    let from = every_pair::place("registry", site.folder.path(), &site.source).await;
    let plain = plyfold::CopyOptions::default();
    plyfold::copy(&origin.registry, &Origin::name(), &*from.to, &from.name, &plain).await.unwrap();
    let list = site.list("[defaults]\nreferrers = true\n[[image]]\nname = \"HOST/org/app:1.2\"\n");
    let mut reports = HashMap::new();
    for kind in KINDS {
        let report = site.sync(&list, kind).await.unwrap();
        assert_eq!(report.names[0].referrers.as_deref(), Some(&[][..]), "{kind}");
        reports.insert(kind, site.sync(&list, kind).await.unwrap());
        assert_eq!(reports[kind].names[0].referrers, None, "{kind}: it is not looked at");
    }
    origin.copy_into(&from).await;
    let refresh = SyncOptions { refresh: true, ..SyncOptions::default() };
    for kind in KINDS {
        let report = site.images.sync(&list, &site.target(kind), &refresh).await.unwrap();
        assert_eq!(changes(&report), ["unchanged"].into(), "{kind}");
        assert!(report.moved > 0, "{kind}");
        assert_is_in(&origin, &site, kind, &report).await;
        // Also a report of what had come already says what is there.
        let again = site.images.sync(&list, &site.target(kind), &refresh).await.unwrap();
        let referrers = again.names[0].referrers.clone().unwrap();
        assert!(origin.referrers.iter().all(|(raw, _)| referrers.contains(raw.digest())), "{kind}");
        assert_eq!(report.names[0].referrers, Some(referrers), "{kind}");
        assert_ne!(again.digest(), reports[kind].digest(), "{kind}");
    }
}

/// A name that stands for the same is not enough: a pull of one platform names the whole index.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_complete_is_completed() {
    let site = Site::new().await;
    let index = samples::index();
    site.source.put("org/app", "1", &index);
    let list = site.list("[[image]]\nname = \"HOST/org/app:1\"\n");
    let name = format!("{}/org/app:1", site.source.host());
    let [first, second, ..] = &index.images[..] else { panic!() };
    let platform = |image: &SampleImage| image.platform.parse::<Platform>().unwrap();
    let options = PullOptions { platform: platform(first), ..PullOptions::default() };
    site.images.pull(&name, options).await.unwrap();
    let name = reference::parse(&name).unwrap();
    assert!(!site.images.is_cached(&name, &platform(second)).await.unwrap());
    let report = site.sync(&list, "store").await.unwrap();
    assert_eq!(changes(&report), ["unchanged"].into());
    assert!(report.moved > 0);
    assert!(site.images.is_cached(&name, &platform(second)).await.unwrap());
    site.sync(&list, "layout").await.unwrap();
    let layer = second.layers[0].descriptor.digest();
    let blob = site.folder.path().join("layout/blobs/sha256").join(layer.digest());
    fs::remove_file(&blob).unwrap();
    let report = site.sync(&list, "layout").await.unwrap();
    assert_eq!(report.moved, second.layers[0].descriptor.size());
    assert!(blob.exists());
}

/// Names are set when everything is there, what refers to the images as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_signature_leaves_every_name_as_it_was() {
    let (origin, site) = (every_pair::stored_origin().await, Site::new().await);
    let from = every_pair::place("registry", site.folder.path(), &site.source).await;
    origin.copy_into(&from).await;
    let blob = origin.referrers[0].0.references().pop().unwrap();
    site.source.script(On::blob(blob.digest()), [Fault::Status(404)]);
    let list = site.list("[defaults]\nreferrers = true\n[[image]]\nname = \"HOST/org/app:1.2\"\n");
    for kind in KINDS {
        let error = site.sync(&list, kind).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{kind}: {error}");
        let place = site.place(kind).await;
        let host = if kind == "registry" {
            format!("{}/mirror", site.mirror.host())
        } else {
            site.source.host().to_owned()
        };
        for tag in ["1.2", origin.tag.tag().unwrap()] {
            let name = reference::parse(&format!("{host}/org/app:{tag}")).unwrap();
            assert!(place.resolve(&name).await.is_err(), "{kind}: {name} is set");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_has_every_name_and_what_its_base_lacks() {
    let site = Site::new().await;
    for number in 0..4 {
        site.source.put("org/app", &number.to_string(), &app(number));
    }
    let list = site.list("[[image]]\nname = \"HOST/org/app\"\ntags = [\"*\"]\n");
    site.sync(&list, "layout").await.unwrap();
    site.sync(&list, "store").await.unwrap();
    let changed = app(100);
    site.source.put("org/app", "2", &changed);
    let SyncTarget::Place(base) = site.target("layout") else { unreachable!() };
    let since = vec![site.images.save_base(&base).await.unwrap()];
    let dry = SyncOptions { since: since.clone(), dry_run: true, ..SyncOptions::default() };
    let dry = site.images.sync(&list, &site.target("archive"), &dry).await.unwrap();
    assert!(!site.folder.path().join("site.tar").exists());
    let delta = SyncOptions { since, ..SyncOptions::default() };
    let report = site.images.sync(&list, &site.target("archive"), &delta).await.unwrap();
    assert_eq!((report.moved, report.left_out), (dry.moved, dry.left_out));
    assert_eq!(report.names.len(), 4);
    assert_eq!(report.moved, report.names.iter().map(|name| name.moved).sum::<u64>());
    let moved = |tag: &str| report.names.iter().find(|name| name.name.tag() == Some(tag)).unwrap().moved;
    assert_eq!(moved("2"), size_of(&[&changed]), "{report:?}");
    assert!(report.names.iter().all(|name| name.before.is_none() && name.change == SyncChange::Added));
    assert!(matches!(&report.since[..], [base] if base.starts_with("layout ")), "{report:?}");
    let layers = |numbers: &[u32]| -> u64 {
        numbers.iter().map(|number| app(*number).images[0].layers[0].descriptor.size()).sum()
    };
    assert_eq!(report.left_out, layers(&[0, 1, 3]));
    let file = fs::metadata(site.path("site.tar")).unwrap().len();
    assert!(file < layers(&[100, 0]), "{file} bytes");
    let archive = SyncList::of_place(format!("docker-archive:{}", site.path("site.tar")));
    let loaded = site.sync(&archive, "store").await.unwrap();
    assert_eq!(loaded.moved, size_of(&[&changed]));
    let stands = site.stands("store", &loaded).await;
    assert!(stands.values().any(|digest| digest.as_ref() == Some(changed.top.digest())), "{stands:?}");
    let empty = Images::open(site.folder.path().join("empty")).await.unwrap();
    let error = empty.sync(&archive, &SyncTarget::Cache, &SyncOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    assert!(matches!(error.advice(), Some(Advice::LoadBase { bases }) if bases.len() == 1), "{error:?}");
    assert!(empty.list_cached().await.unwrap().is_empty());
    // Only an archive can be one.
    let refused = site.images.sync(&list, &SyncTarget::Cache, &delta).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Config, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_tag_goes_everywhere() {
    let site = Site::new().await;
    let sample = app(1);
    site.source.put("org/app", "1", &sample);
    let digest = sample.top.digest();
    site.source.put("org/app", "2", &app(2));
    let entry = |digest: &Digest| format!("[[image]]\nname = \"HOST/org/app@{digest}\"\n");
    // One alone would be called latest.
    let list = site.list(&format!("{}{}", entry(digest), entry(app(2).top.digest())));
    site.sync(&list, "archive").await.unwrap();
    let SyncTarget::Place(archive) = site.target("archive") else { unreachable!() };
    let mut named = Vec::new();
    for kind in ["layout", "registry", "store"] {
        let report = site.sync(&SyncList::of_place(archive.clone()), kind).await.unwrap();
        assert_eq!(report.names.len(), 2, "{kind}");
        let place = site.place(kind).await;
        for name in &report.names {
            assert_eq!(name.target.digest(), Some(name.after.as_ref()), "{kind}");
            assert_eq!(*place.resolve(&name.target).await.unwrap().digest(), name.after, "{kind}");
        }
        named = report.names.iter().map(|name| name.target.clone()).collect();
        if kind == "layout" {
            assert_eq!(place.untagged().await.unwrap().len(), 2, "no collection of the layout removes it");
        }
    }
    site.images.collect(&plyfold::Collect::default()).await.unwrap();
    let store = site.place("store").await;
    for name in named {
        assert!(store.resolve(&name).await.is_ok(), "a collection removes {name}");
    }
}

/// The first run is killed in the middle of a blob.
#[test]
fn a_killed_run_goes_on() {
    const IMAGES: u32 = 40;
    for kind in ["layout", "archive", "store"] {
        let (server, place) = (FaultServer::start().unwrap(), Place::new());
        let mut all: HashMap<Digest, u64> = HashMap::new();
        for number in 0..IMAGES {
            server.put("org/app", &format!("{number:02}"), &app(number));
            all.extend(blobs(&app(number)));
        }
        let list = place.path("list.toml");
        let text = format!("version = 1\n[[image]]\nname = \"{}/org/app\"\ntags = [\"*\"]\n", server.host());
        fs::write(&list, text).unwrap();
        let target = match kind {
            "layout" => place.path("site/") + "/",
            "archive" => place.path("site.tar"),
            _ => "store".to_owned(),
        };
        let slow = app(IMAGES - 5);
        let stalled = slow.images[0].layers[0].descriptor.digest();
        server.script(On::blob(stalled), [Fault::StallAt(1000)]);
        let sync = ["sync", &list, &target, "-q", "--json"];
        let mut command = place.command(sync);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = std::time::Instant::now();
        while server.served(stalled).requests == 0 {
            assert!(start.elapsed().as_secs() < 120 && child.try_wait().unwrap().is_none(), "{kind}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        server.clear_scripts();
        let read = |server: &FaultServer| -> u64 {
            server.requests().iter().filter(|one| is_of_blob(one)).map(|one| one.sent).sum()
        };
        let first = read(&server);
        server.clear_requests();
        let output = place.command(sync).output().unwrap();
        assert!(output.status.success(), "{kind}: {output:?}");
        let (total, both) = (all.values().sum::<u64>(), first + read(&server));
        assert!(both * 100 <= total * 105, "{kind}: {both} bytes are read of {total}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["report"]["names"].as_array().unwrap().len(), IMAGES as usize, "{kind}");
    }
}
