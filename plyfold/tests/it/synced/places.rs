//! Places as sources, and what they lack.

use std::collections::BTreeSet;
use std::fs;

use plyfold::progress::Event;
use plyfold::{
    Advice, Collect, Digest, ErrorKind, Platform, Progress, PullOptions, SyncChange, SyncFault, SyncList,
    SyncOptions, SyncTarget, reference,
};
use plyfold_conformance::samples::{self, Sample, SampleImage};
use plyfold_conformance::server::{Fault, FaultServer, On};
use serde_json::Value;

use super::super::every_pair;
use super::{KINDS, Place, Site, app, changes};

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
    assert_eq!(error.advice(), Some(&Advice::ChoosePart), "{error:?}");
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
    let index: Value = serde_json::from_slice(origin.index.bytes()).unwrap();
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
        assert!(matches!(error.advice(), Some(Advice::LeaveReferrers)), "{kind}: {error:?}");
        let report = site.sync(&list.clone().without_referrers(), kind).await.unwrap();
        let name = report.names.iter().find(|name| name.after == *origin.index.digest()).unwrap();
        assert_eq!(name.referrers, None, "{kind}");
        assert!(reference::parse(&name.target.whole()).is_ok());
    }
}

/// The image of an index that a machine of the test has.
fn image_of(index: &Sample) -> &SampleImage {
    index.images.iter().find(|image| image.platform == "linux/amd64").unwrap()
}

/// A store after a pull of one platform, beside an image that is complete, and a registry.
fn part_of_an_index() -> (Sample, FaultServer, Place) {
    let (index, server, mut place) = (samples::index(), FaultServer::start().unwrap(), Place::new());
    server.put("org/app", "1", &index);
    server.put("org/other", "1", &app(7));
    place.hosts.push(server.host().to_owned());
    let platform = &image_of(&index).platform;
    for name in ["app:1", "other:1"] {
        let pulled = place.run(&format!("pull HOST:PORT/org/{name} --platform {platform} -q"));
        assert!(pulled.contains("[exit 0]"), "{pulled}");
    }
    (index, server, place)
}

/// What the server has under a tag.
fn stored(server: &FaultServer, repository: &str, tag: &str) -> Value {
    let digest = server.tagged(repository, tag).unwrap_or_else(|| panic!("there is no {repository}:{tag}"));
    serde_json::from_slice(&server.content(repository, &digest.parse().unwrap()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_with_a_part_of_an_index_has_a_way_into_a_registry() {
    let (index, _server, mut place) = part_of_an_index();
    let mirror = FaultServer::start().unwrap();
    place.hosts = vec![mirror.host().to_owned()];
    let refused = place.run("sync store HOST:PORT/m/ -q");
    assert!(refused.contains("[exit 3]") && refused.contains("--sparse rewrite brings"), "{refused}");
    assert!(!refused.contains("in the list") && !refused.contains("choose platforms of it"), "{refused}");
    let image = image_of(&index);
    for (flags, is_index) in
        [("--sparse rewrite".to_owned(), true), (format!("--platform {}", image.platform), false)]
    {
        let line = format!("sync store HOST:PORT/{}/ {flags}", if is_index { "rewritten" } else { "one" });
        let said = place.run(&line);
        assert!(said.contains("[exit 0]") && said.contains("2 added, 0 replaced, 0 unchanged"), "{said}");
        let path = if is_index { "rewritten/org/app" } else { "one/org/app" };
        let found = stored(&mirror, path, "1");
        if is_index {
            let listed: Vec<&str> = found["manifests"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["digest"].as_str().unwrap())
                .collect();
            assert_eq!(listed, [image.manifest.digest().as_ref()], "{found}");
            assert!(said.contains("not in the source, and left out of the index"), "{said}");
        } else {
            assert_eq!(found["config"]["digest"].as_str(), Some(image.config.digest().as_ref()), "{found}");
        }
        assert!(mirror.tagged(&path.replace("app", "other"), "1").is_some());
        let again = place.run(&line);
        assert!(again.contains("0 added, 0 replaced, 2 unchanged: 0 B moved"), "{again}");
    }
    let delta = place.run("sync store {}/delta.tar --since store --sparse rewrite");
    assert!(delta.contains("takes the same of every image"), "{delta}");
    let several = place
        .run(&format!("sync store HOST:PORT/m/ -q --platform {} --platform linux/s390x", image.platform));
    assert!(several.contains("without --platform all of it is brought"), "{several}");
    fs::write(
        place.path("list.toml"),
        "version = 1\n[[image]]\nname = \"store\"\ntags = [\"*\"]\nplatforms = [\"linux/amd64\"]\n",
    )
    .unwrap();
    for flag in ["--sparse keep", "--platform linux/amd64"] {
        let said = place.run(&format!("sync {{}}/list.toml HOST:PORT/m/ {flag}"));
        assert!(said.contains("[exit 2]") && said.contains("the list says"), "{said}");
    }
}

/// A list names the store by the word of the command.
#[test]
fn a_list_names_the_store() {
    let (index, _server, place) = part_of_an_index();
    let text = format!(
        "version = 1\n[[image]]\nname = \"store\"\ntags = [\"*\"]\nplatforms = [\"{}\"]\n",
        image_of(&index).platform
    );
    fs::write(place.path("list.toml"), text).unwrap();
    let said = place.run("sync {}/list.toml {}/new/");
    assert!(said.contains("[exit 0]") && said.contains("2 added, 0 replaced, 0 unchanged"), "{said}");
    fs::write(place.path("list.toml"), "version = 1\n[[image]]\nname = \"store\"\ntags = [\"none*\"]\n")
        .unwrap();
    let said = place.run("sync {}/list.toml {}/new/");
    assert!(said.contains("[exit 3]") && said.contains("no tag of"), "{said}");
}

/// Signatures under cosign's tags and documents that refer to an image come with it, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_an_image_is_no_image_of_a_place() {
    let (origin, site) = (every_pair::stored_origin().await, Site::new().await);
    let from = every_pair::place("oci", site.folder.path(), &site.source).await;
    origin.copy_into(&from).await;
    let place = from.from.to_string();
    // As oras writes it: an entry without a name for what refers to the image.
    let path = format!("{}/index.json", place.strip_prefix("oci:").unwrap());
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let (referrer, _) = &origin.referrers[0];
    index["manifests"].as_array_mut().unwrap().push(serde_json::to_value(referrer.descriptor()).unwrap());
    fs::write(&path, index.to_string()).unwrap();
    let list = SyncList::of_place(&place);
    let listed = site.images.list_images(&place).await.unwrap();
    let names: Vec<String> = listed.iter().map(|image| image.reference.whole()).collect();
    assert_eq!(names, [every_pair::Origin::name().whole()], "load --list");
    for (kind, referrers) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let site = Site::new().await;
        let list = if referrers { list.clone() } else { list.clone().without_referrers() };
        let report = site.sync(&list, kind).await.unwrap();
        let brought: Vec<&Digest> = report.names.iter().map(|name| &name.after).collect();
        assert_eq!(brought, [origin.index.digest()], "{kind} {referrers}: {report:?}");
        let (target, tag) = (site.place(kind).await, origin.tag.tag().unwrap());
        let repository = reference::repository_of(&report.names[0].target);
        let tag = reference::parse(&format!("{repository}:{tag}")).unwrap();
        assert_eq!(target.resolve(&tag).await.is_ok(), referrers, "{kind}: {tag}");
        let digest = reference::parse(&format!("{repository}@{}", referrer.digest())).unwrap();
        assert_eq!(target.resolve(&digest).await.is_ok(), referrers, "{kind}: {digest}");
        assert_eq!(report.names[0].referrers.is_some(), referrers, "{kind}");
    }
}

/// Each run would bring again what the one before has brought.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_not_brought_into_itself() {
    let site = Site::new().await;
    site.source.put("org/app", "1", &app(1));
    let host = site.source.host();
    let sync = async |from: &str, to: &str| {
        let (list, to) =
            (SyncList::of_place(format!("{host}/{from}")), SyncTarget::Place(format!("{host}/{to}")));
        site.images.sync(&list, &to, &SyncOptions::default()).await
    };
    for (from, to) in
        [("org/", "org/mirror"), ("org/", "org/mirror/"), ("org/", "org/"), ("", "mirror"), ("", "")]
    {
        let error = sync(from, to).await.unwrap_err();
        assert!(matches!(error.detail(), Some(SyncFault::Within(..))), "{from} {to}: {error}");
    }
    for (from, to) in [("org/", "mirror"), ("org/", "organ"), ("org/", "")] {
        for run in 0..2 {
            let report = sync(from, to).await.unwrap();
            assert_eq!(report.names.len(), 1, "{from} {to}, run {run}: {:?}", report.names);
        }
    }
}

/// The host that has sent other bytes is the one to look at.
#[tokio::test(flavor = "multi_thread")]
async fn tampered_content_is_of_the_source() {
    let site = Site::new().await;
    let sample = app(1);
    site.source.put("org/app", "1", &sample);
    let layer = sample.images[0].layers[0].descriptor.digest();
    let list = site.list("[[image]]\nname = \"HOST/org/app:1\"\n");
    for kind in KINDS {
        site.source.script(On::blob(layer), [Fault::Flip(100)]);
        let error = site.sync(&list, kind).await.unwrap_err();
        site.source.clear_scripts();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{kind}: {error}");
        let endpoint = error.context("endpoint").unwrap();
        assert!(endpoint.contains(site.source.host()), "{kind}: {endpoint}");
        assert_eq!(error.context("blob"), Some(layer.as_ref()), "{kind}: {error:?}");
        assert!(error.context("image").is_some_and(|image| image.contains("org/app")), "{kind}: {error:?}");
    }
}

/// Registries say of such an index that something is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_refuses_a_part_of_an_index_is_named_so() {
    let index = samples::index();
    let platforms = index.images[..2].iter().map(|image| format!("\"{}\"", image.platform));
    let platforms = platforms.collect::<Vec<_>>().join(", ");
    for status in [400, 404] {
        let site = Site::new().await;
        site.source.put("org/app", "1", &index);
        let text =
            format!("[[image]]\nname = \"HOST/org/app:1\"\nplatforms = [{platforms}]\nsparse = \"keep\"\n");
        site.mirror.script(On::manifest("1").method("PUT"), [Fault::Status(status)]);
        let error = site.sync(&site.list(&text), "registry").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{status}: {error}");
        assert!(error.message().contains("refuses an index of which not all is there"), "{status}: {error}");
        assert_eq!(error.advice(), Some(&Advice::RewriteIndex), "{status}: {error:?}");
        assert!(std::error::Error::source(&error).is_some(), "{status}: {error:?}");
    }
}

/// An image by its digest stays when a name that it had moves on in the same run.
#[tokio::test(flavor = "multi_thread")]
async fn a_digest_has_a_name_of_its_own() {
    let (first, second) = (app(1), app(2));
    let digest = first.top.digest();
    for kind in KINDS {
        let site = Site::new().await;
        site.source.put("org/app", "rel", &first);
        site.sync(&site.list("[[image]]\nname = \"HOST/org/app:rel\"\n"), kind).await.unwrap();
        site.source.put("org/app", "rel", &second);
        site.source.put("org/app", "old", &first);
        let both =
            format!("[[image]]\nname = \"HOST/org/app:rel\"\n[[image]]\nname = \"HOST/org/app@{digest}\"\n");
        let report = site.sync(&site.list(&both), kind).await.unwrap();
        assert_eq!(changes(&report), BTreeSet::from(["replaced", "unchanged"]), "{kind}");
        site.images.collect(&Collect::default()).await.unwrap();
        let place = site.place(kind).await;
        for name in &report.names {
            let found = place.resolve(&name.target).await.map(|found| found.digest().clone());
            assert_eq!(found.as_ref().ok(), Some(&name.after), "{kind}: {found:?}");
        }
    }
}

/// Without the image for arm64 that its index lists.
fn without_arm(place: &Place) {
    let index = samples::index();
    samples::write_layout(place.path("from").as_ref(), &[("localhost/app:1".to_owned(), &index)]).unwrap();
    let arm = index.images.iter().find(|image| image.platform.starts_with("linux/arm64")).unwrap();
    fs::remove_file(place.path(&format!("from/blobs/sha256/{}", arm.manifest.digest().digest()))).unwrap();
}

#[test]
fn an_error_about_one_of_several_platforms_names_it() {
    let place = Place::new();
    without_arm(&place);
    for line in [
        "sync {}/from/ {}/to/ --platform linux/amd64 --platform linux/arm64 --sparse rewrite",
        "copy oci:{}/from:localhost/app:1 oci:{}/to:1 --platform linux/amd64 --platform linux/arm64 --sparse rewrite",
        "copy oci:{}/from:localhost/app:1 oci:{}/to:1",
    ] {
        let told = place.told(line);
        assert_eq!(told.code, Some(3), "{line}: {told:?}");
        let platform = told.error["context"]["platform"].as_str().unwrap_or_default();
        assert!(platform.starts_with("linux/arm64"), "{line}: {told:?}");
    }
    // All of it is brought without the image, and a warning says so, each time.
    for target in ["{}/to/", "{}/to.tar", "store"] {
        for _ in 0..2 {
            let told = place.told(&format!("sync {{}}/from/ {target}"));
            assert_eq!((told.code, told.warnings), (Some(0), 1), "{target}: {told:?}");
        }
    }
}

#[test]
fn a_hint_names_no_flag_that_was_given() {
    let place = Place::new();
    for (sparse, is_named) in [("", true), (" --sparse keep", true), (" --sparse rewrite", false)] {
        let told = place.told(&format!("sync examples/sample {{}}/to/ --platform linux/s390x{sparse}"));
        assert!(told.is_refused("platform-not-found"), "{told:?}");
        let hint = told.error["hint"].as_str().unwrap();
        assert_eq!(hint.contains("--sparse rewrite"), is_named, "{hint}");
    }
}

#[test]
fn a_delta_that_leaves_nothing_out_is_told() {
    let place = Place::new();
    samples::write_layout(place.path("other").as_ref(), &[("localhost/app:1".to_owned(), &app(1))]).unwrap();
    for (base, warnings) in [("{}/other/", 1), ("examples/sample", 0)] {
        let told = place.told(&format!("sync examples/sample {{}}/delta.tar --since {base}"));
        assert_eq!((told.code, told.warnings), (Some(0), warnings), "{told:?}");
        // A slash at the end of its path is no part of its name.
        let since = told.document["report"]["since"][0].as_str().unwrap();
        assert!(["other (", "sample ("].iter().any(|name| since.starts_with(name)), "{since}");
    }
}

#[test]
fn a_report_may_go_to_standard_output() {
    let place = Place::new();
    let line =
        |report: &str| format!("sync examples/sample {}/to/ --dry-run -q --report {report}", place.path(""));
    let run = |report: &str| place.command(line(report).split(' ')).output().unwrap();
    let (file, piped) = (run(&place.path("report.json")), run("-"));
    assert!(file.status.success() && piped.status.success(), "{piped:?}");
    assert_eq!(fs::read(place.path("report.json")).unwrap(), piped.stdout);
    assert!(place.told(&line("-")).is_refused("config"));
    assert!(!fs::exists(super::super::baseline::root().join("-")).unwrap());
}
