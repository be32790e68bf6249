//! Places as sources, and what they lack.

use std::fs;

use plyfold::progress::Event;
use plyfold::{
    ErrorKind, Platform, Progress, PullOptions, SyncChange, SyncList, SyncOptions, SyncTarget, reference,
};
use plyfold_conformance::samples;

use super::super::every_pair;
use super::{KINDS, Site, app, changes};

/// What a store has after a pull of one platform goes on as it is, and is completed later.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_without_some_of_an_index_is_brought() {
    let site = Site::new().await;
    let index = samples::index();
    site.source.put("org/app", "1", &index);
    let name = format!("{}/org/app:1", site.source.host());
    let platform: Platform = index.images[0].platform.parse().unwrap();
    let options = PullOptions { platform, ..PullOptions::default() };
    site.images.pull(&name, options).await.unwrap();
    let others: Vec<_> = index.images[1..].iter().map(|image| image.manifest.digest()).collect();
    let store = SyncList::of_place(format!("oci:{}", site.path("store")));
    for kind in ["layout", "archive"] {
        let report = site.sync(&store, kind).await.unwrap();
        assert_eq!(report.names.len(), 1, "{kind}");
        let brought = &report.names[0];
        assert_eq!((&brought.after, brought.change), (index.top.digest(), SyncChange::Added), "{kind}");
        assert!(others.iter().all(|other| brought.absent.contains(other)), "{kind}: {brought:?}");
        let again = site.sync(&store, kind).await.unwrap();
        assert_eq!((changes(&again), again.moved), (["unchanged"].into(), 0), "{kind}");
        // The same name stands for all of it, where it comes from.
        let list = site.list("[[image]]\nname = \"HOST/org/app:1\"\n");
        let whole = site.sync(&list, kind).await.unwrap();
        assert_eq!(changes(&whole), ["unchanged"].into(), "{kind}");
        assert!(whole.moved > 0 && whole.names[0].absent.is_empty(), "{kind}: {whole:?}");
    }
    // With none of its images an index is not brought.
    let hollow = site.path("hollow");
    let (from, to) = (site.path("store"), std::path::Path::new(&hollow));
    for name in ["oci-layout", "index.json"] {
        fs::create_dir_all(to).unwrap();
        fs::copy(format!("{from}/{name}"), to.join(name)).unwrap();
    }
    let top = format!("blobs/sha256/{}", index.top.digest().digest());
    fs::create_dir_all(to.join("blobs/sha256")).unwrap();
    fs::copy(format!("{from}/{top}"), to.join(&top)).unwrap();
    let nothing = SyncList::of_place(format!("oci:{hollow}"));
    for kind in ["layout", "archive"] {
        let new = Site::new().await;
        let error = new.sync(&nothing, kind).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{kind}: {error}");
        let name = reference::parse(&name).unwrap();
        assert!(new.place(kind).await.resolve(&name).await.is_err(), "{kind}: it is named");
    }
    // A registry is not looked through: it would never be completed.
    let error = site.sync(&store, "registry").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("choose platforms")), "{error:?}");
}

/// Repositories of a registry below a prefix are a place, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_of_a_registry_is_a_place() {
    let site = Site::new().await;
    for (number, repository) in ["org/app", "org/team/app", "organ/app", "app"].into_iter().enumerate() {
        site.source.put(repository, "1", &app(u32::try_from(number).unwrap()));
    }
    for (prefix, expected) in [("", 4), ("org/", 2), ("org/team/", 1)] {
        let list = SyncList::of_place(format!("{}/{prefix}", site.source.host()));
        let dry = SyncOptions { dry_run: true, ..SyncOptions::default() };
        let report = site.images.sync(&list, &SyncTarget::Cache, &dry).await.unwrap();
        assert_eq!(report.names.len(), expected, "{prefix}: {:?}", report.names);
    }
    let list = SyncList::of_place(format!("{}/nowhere/", site.source.host()));
    let error = site.sync(&list, "layout").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
}

/// Where one image of an index is copied, what refers to the index stays behind, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_an_index_that_is_not_copied_is_told() {
    let (origin, site) = (every_pair::stored_origin().await, Site::new().await);
    let from = every_pair::place("registry", site.folder.path(), &site.source).await;
    origin.copy_into(&from).await;
    let index: serde_json::Value = serde_json::from_slice(origin.index.bytes()).unwrap();
    let platform = |at: usize| {
        let platform = &index["manifests"][at]["platform"];
        let part = |key: &str| platform[key].as_str().map(|part| format!("/{part}")).unwrap_or_default();
        format!("{}{}{}", platform["os"].as_str().unwrap(), part("architecture"), part("variant"))
    };
    let (first, second) = (platform(0), platform(1));
    for (platforms, is_told) in [
        (format!("[\"{first}\"]"), true),
        (format!("[\"{first}\", \"{second}\"]\nsparse = \"rewrite\""), true),
        ("[\"all\"]".to_owned(), false),
    ] {
        let text = format!(
            "[defaults]\nreferrers = true\n[[image]]\nname = \"HOST/org/app:1.2\"\nplatforms = {platforms}\n"
        );
        let list = site.list(&text);
        for kind in KINDS {
            let (progress, mut events) = Progress::channel();
            let options = SyncOptions { progress, ..SyncOptions::default() };
            site.images.sync(&list, &site.target(kind), &options).await.unwrap();
            drop(options);
            let mut warnings = Vec::new();
            while let Some(event) = events.next().await {
                if let Event::Warning { message } = event {
                    warnings.push(message);
                }
            }
            let told = warnings.iter().any(|message| message.contains("it refers to the index"));
            assert_eq!(told, is_told, "{platforms} {kind}: {warnings:?}");
        }
    }
}

/// A place whose signatures are damaged is brought without them when that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_brought_without_what_refers_to_its_images() {
    let (origin, site) = (every_pair::stored_origin().await, Site::new().await);
    let from = every_pair::place("oci", site.folder.path(), &site.source).await;
    origin.copy_into(&from).await;
    let blob = origin.referrers[0].0.references().pop().unwrap();
    let place = from.from.to_string();
    let path = format!("{}/blobs/sha256/{}", place.strip_prefix("oci:").unwrap(), blob.digest().digest());
    fs::remove_file(path).unwrap();
    let list = SyncList::of_place(place);
    for kind in ["archive", "registry", "store"] {
        let error = site.sync(&list, kind).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{kind}: {error}");
        assert!(matches!(error.advice(), Some(plyfold::Advice::LeaveReferrers)), "{kind}: {error:?}");
        let report = site.sync(&list.clone().without_referrers(), kind).await.unwrap();
        let name = report.names.iter().find(|name| name.after == *origin.index.digest()).unwrap();
        assert_eq!(name.referrers, None, "{kind}");
        assert!(reference::parse(&name.target.whole()).is_ok());
    }
}
