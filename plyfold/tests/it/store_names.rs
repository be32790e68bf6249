//! What verbs do with the names of the store: those that read leave them.

use std::fs;

use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_conformance::server::FaultServer;
use serde_json::Value;

use super::run::Place;

const NAME: &str = "localhost/app:1";

fn app(content: &str) -> Sample {
    samples::of_layers("app", &[LayerBuilder::new().file("file", 0o644, content.as_bytes()).finish()])
}

/// The names of the store with their digests.
fn names(place: &Place) -> Vec<(String, String)> {
    let output = place.command(["list", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let images = listed["images"].as_array().or(listed.as_array()).unwrap();
    let text = |image: &Value, key: &str| image[key].as_str().unwrap().to_owned();
    images.iter().map(|image| (text(image, "reference"), text(image, "digest"))).collect()
}

/// A place whose store has an image under [`NAME`], beside two layouts with other images of that name.
fn place() -> Place {
    let place = Place::new();
    for number in ["1", "2", "3"] {
        samples::write_layout(place.path(number).as_ref(), &[(NAME.to_owned(), &app(number))]).unwrap();
    }
    assert!(place.run("load {}/1").contains("[exit 0]"));
    place
}

#[test]
fn verbs_that_read_leave_the_names_of_the_store() {
    let place = place();
    let before = names(&place);
    assert_eq!(before.len(), 1);
    for line in [
        "export oci:{}/2:localhost/app:1 --out {}/root.tar",
        "diff oci:{}/2:localhost/app:1 oci:{}/3:localhost/app:1",
        "ls -R oci:{}/2:localhost/app:1",
        "cat oci:{}/2:localhost/app:1 file",
        "verity oci:{}/2:localhost/app:1 --as erofs",
        "inspect oci:{}/2:localhost/app:1",
        "inspect --runtime-spec oci:{}/2:localhost/app:1",
        "ls oci:examples/sample:latest",
    ] {
        let run = place.run(line);
        assert!(run.contains("[exit 0]"), "{run}");
        assert_eq!(names(&place), before, "{line}");
    }
    assert!(
        place.run("cat oci:{}/2:localhost/app:1 file -q").ends_with('2'),
        "what it reads is the other one"
    );
    assert!(place.run("cat localhost/app:1 file -q --policy never").ends_with('1'));
    let diff = place.run("diff oci:{}/2:localhost/app:1 oci:{}/3:localhost/app:1");
    assert!(diff.contains("~ /file (content)"), "{diff}");
    // Nothing keeps what was read.
    assert!(place.run("gc --grace 0s").contains("[exit 0]"));
    assert!(place.run("verify").contains("[exit 0]"));
    assert_eq!(names(&place), before);
}

/// An image of a registry is kept under a name that the store lacks, so that it is not fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn verbs_that_read_name_what_the_store_lacks_of_a_registry_and_replace_nothing() {
    let server = FaultServer::start().unwrap();
    server.put("app", "1", &app("1"));
    let mut place = Place::new();
    place.hosts.push(server.host().to_owned());
    let cat = |more: &str| place.run(&format!("cat HOST:PORT/app:1 file -q{more}"));
    assert!(cat("").ends_with('1'));
    let named = names(&place);
    assert_eq!(named.len(), 1);
    server.put("app", "1", &app("2"));
    assert!(cat("").ends_with('1'));
    assert!(cat(" --policy always").ends_with('2'));
    assert_eq!(names(&place), named, "the name was replaced by a verb that reads");
    let pulled = place.run("pull HOST:PORT/app:1 --policy always -q");
    assert!(pulled.contains(&format!(", replaced {}\n", named[0].1)), "{pulled}");
    assert!(cat("").ends_with('2'));
}

/// A digest is found under a tag of its repository, and the image stays when that tag moves on.
#[test]
fn a_pull_by_digest_sets_a_name_of_its_own() {
    let place = place();
    let digest = names(&place)[0].1.clone();
    let by_digest = format!("localhost/app@{digest}");
    let index = || fs::read(place.path("store/index.json")).unwrap();
    let mut before = Vec::new();
    for line in [
        format!("pull {by_digest} -q"),
        format!("pull {by_digest} --policy never -q"),
        format!("pull oci:{{}}/1:{by_digest} -q"),
    ] {
        let pulled = place.run(&line);
        assert!(pulled.contains("[exit 0]") && !pulled.contains("replaced"), "{pulled}");
        let own = [(NAME.to_owned(), digest.clone()), (by_digest.clone(), digest.clone())];
        assert_eq!(names(&place), own, "{line}");
        if !before.is_empty() {
            assert_eq!(index(), before, "the name was there");
        }
        before = index();
    }
    assert!(place.run("pull oci:{}/2:localhost/app:1 -q").contains(", replaced "));
    assert!(place.run("gc --grace 0s").contains("[exit 0]"));
    assert!(place.run(&format!("cat {by_digest} file -q --policy never")).ends_with('1'));
}

#[test]
fn pull_and_materialize_say_what_they_replace() {
    let place = place();
    let first = names(&place)[0].1.clone();
    let pulled = place.run("pull oci:{}/2:localhost/app:1 -q");
    assert!(pulled.contains(&format!(", replaced {first}\n")), "{pulled}");
    let second = names(&place)[0].1.clone();
    assert_ne!(first, second);
    let again = place.run("pull oci:{}/2:localhost/app:1 -q");
    assert!(again.contains("[exit 0]") && !again.contains("replaced"), "{again}");
    for (number, before) in [("3", &second), ("3", &Value::Null.to_string())] {
        let output = place
            .command(["pull", &format!("oci:{}:{NAME}", place.path(number)), "--json"])
            .output()
            .unwrap();
        let pulled: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(pulled["replaced"].as_str().unwrap_or("null"), before);
    }
    let third = names(&place)[0].1.clone();
    let made = place.run("materialize oci:{}/1:localhost/app:1 --as erofs --out {}/vm -q");
    assert!(made.contains(&format!("warning: {NAME} was {third} in the store before, and is ")), "{made}");
    assert_eq!(names(&place)[0].1, first);
    fs::remove_dir_all(place.path("vm")).unwrap();
    let made = place.run("materialize oci:{}/1:localhost/app:1 --as erofs --out {}/vm");
    assert!(made.contains("[exit 0]") && !made.contains("before, and is"), "{made}");
}

/// A directory that was misspelled is no empty store, and is not made.
#[test]
fn verbs_that_read_make_no_store() {
    let place = place();
    fs::create_dir(place.path("empty")).unwrap();
    for line in [
        "list",
        "ls",
        "ls localhost/app:1 --policy never",
        "diff localhost/app:1 localhost/app:2 --policy never",
        "inspect localhost/app:1",
        "pull localhost/app:1 --policy never",
        "verify",
        "gc",
        "gc --dry-run",
        "tag localhost/app:1 new:1",
        "remove localhost/app:1",
        "pin localhost/app:1",
        "push localhost/app:1 oci:{}/to:1",
        "save localhost/app:1 --out {}/saved.tar",
        "config localhost/app:1 --tag new:1 --user 1",
        "sbom localhost/app:1 --policy never",
        "snapshot list",
        "sync store {}/to.tar",
        "sync store {}/to.tar --dry-run",
    ] {
        for folder in ["none", "empty"] {
            let told = place.told(&format!("{line} --store {{}}/{folder}"));
            assert!(told.is_refused("not-found") && told.code == Some(3), "{line}: {told:?}");
            assert!(told.error["context"]["path"].as_str().unwrap().ends_with(folder), "{line}: {told:?}");
        }
    }
    // A run would make it.
    let told = place.told("sync {}/1 store --dry-run --store {}/none");
    assert_eq!((told.code, told.warnings), (Some(0), 1), "{told:?}");
    assert_eq!(told.document["report"]["target"], format!("oci:{}", place.path("none")));
    assert_eq!(told.document["report"]["names"][0]["change"], "added");
    // Nothing is wrong where no store was named: nothing was pulled so far.
    fs::remove_dir_all(place.path("store")).unwrap();
    for line in ["list", "verify", "gc", "snapshot list", "load {}/1 --list"] {
        let told = place.told(line);
        assert_eq!((told.code, told.warnings), (Some(0), 0), "{line}: {told:?}");
    }
    assert!(place.told("inspect localhost/app:1").is_refused("not-found"));
    for name in ["none", "store", "to", "to.tar", "saved.tar"] {
        assert!(!fs::exists(place.path(name)).unwrap(), "{name}");
    }
    assert_eq!(fs::read_dir(place.path("empty")).unwrap().count(), 0);
}

/// What fails before anything is stored makes no store; what is stored does.
#[test]
fn a_store_is_made_when_something_is_stored() {
    let place = place();
    fs::create_dir(place.path("empty")).unwrap();
    for line in [
        "pull oci:{}/1:none",
        "pull oci:{}/nowhere:1",
        "pull localhost:1/app:1 --retry-max-time 0s",
        "pull oci:{}/1:localhost/app:1 --platform linux/s390x",
        "ls oci:{}/1:none",
        "cat oci:{}/1:none file",
        "diff oci:{}/1:none oci:{}/2:none",
        "export oci:{}/1:none --out {}/x.tar",
        "inspect --runtime-spec oci:{}/1:none",
        "materialize oci:{}/1:none --as erofs --out {}/x",
        "verity oci:{}/1:none --as erofs",
        "snapshot load localhost:1/app:1 --out {}/x --retry-max-time 0s",
        "load {}/nowhere",
        "load {}/1 --image localhost/none:1",
        "sync {}/nowhere store",
    ] {
        for folder in ["none", "empty"] {
            let told = place.told(&format!("{line} --store {{}}/{folder}"));
            assert!(told.code != Some(0), "{line}: {told:?}");
            assert!(!fs::exists(place.path("none")).unwrap(), "{line}: {told:?}");
            assert_eq!(fs::read_dir(place.path("empty")).unwrap().count(), 0, "{line}: {told:?}");
        }
    }
    for folder in ["none", "empty"] {
        let run = place.run(&format!("cat oci:{{}}/1:localhost/app:1 file -q --store {{}}/{folder}"));
        assert!(run.ends_with('1'), "{run}");
        assert_eq!(place.told(&format!("verify --store {{}}/{folder}")).code, Some(0));
        assert_eq!(place.told(&format!("pull {{}}/1:localhost/app:1 --store {{}}/{folder}")).code, Some(0));
        assert_eq!(place.told(&format!("inspect localhost/app:1 --store {{}}/{folder}")).code, Some(0));
    }
}

/// A copy says what it replaces, as a pull does.
#[tokio::test(flavor = "multi_thread")]
async fn copies_say_what_they_replace() {
    let server = FaultServer::start().unwrap();
    let mut place = place();
    place.hosts.push(server.host().to_owned());
    for target in ["oci:{}/to:1", "oci-archive:{}/to.tar:1", "HOST:PORT/to:1"] {
        let mut before = Value::Null;
        for (line, number) in [
            ("copy oci:{}/2:localhost/app:1", "2"),
            ("push localhost/app:1", "1"),
            ("copy oci:{}/3:localhost/app:1", "3"),
        ] {
            let told = place.told(&format!("{line} {target}"));
            let now = Value::from(app(number).top.digest().to_string());
            assert_eq!((&told.document["digest"], &told.document["replaced"]), (&now, &before), "{told:?}");
            let again = place.told(&format!("{line} {target}"));
            assert_eq!((again.code, &again.document["replaced"]), (Some(0), &Value::Null), "{again:?}");
            before = now;
        }
    }
}
