//! Lists, right and wrong, and whole runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plyfold::{ErrorKind, Options, SyncFault, SyncList, SyncOptions, SyncTarget};
use plyfold_conformance::samples;

use super::super::run::{self, Place};
use super::{KINDS, Site, app, changes};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_list_names_wrongly_is_refused() {
    let site = Site::new().await;
    for tag in ["1.0.0", "1.1.0", "latest"] {
        site.source.put("org/app", tag, &app(1));
        site.source.put("other/app", tag, &app(2));
    }
    let image = |more: &str| format!("[[image]]\nname = \"HOST/org/app\"\n{more}\n");
    let optional = "optional = true\n";
    for (text, kind, detail) in [
        (image("tags = [\"2.*\"]"), ErrorKind::NotFound, Some(4)),
        (image("semver = \"^2\""), ErrorKind::NotFound, Some(4)),
        (image("tags = [\"1.0.0\", \"3\"]"), ErrorKind::NotFound, None),
        (image(""), ErrorKind::Config, Some(2)),
        (
            "[[image]]\nname = \"HOST/org/app:1.0.0\"\ntags = [\"1.0.0\"]\n".to_owned(),
            ErrorKind::Config,
            Some(2),
        ),
        ("[[image]]\nname = \"alpine:3\"\n".to_owned(), ErrorKind::Config, None),
    ] {
        let error = site.sync(&site.list(&text), "layout").await.unwrap_err();
        assert_eq!(*error.kind(), kind, "{text}: {error}");
        match (error.detail(), detail) {
            (Some(SyncFault::NoMatch(line, ..) | SyncFault::Value(line, ..)), expected) => {
                assert_eq!(Some(*line), expected, "{text}: {error}");
            }
            (_, None) => assert_eq!(error.context("line"), Some("2"), "{text}: {error:?}"),
            other => panic!("{text}: {other:?} {error}"),
        }
        assert!(!site.folder.path().join("layout").exists(), "{text}: something is stored");
        if kind == ErrorKind::NotFound {
            let report = site.sync(&site.list(&format!("{text}{optional}")), "layout").await.unwrap();
            assert_eq!(report.missing.len(), 1, "{text}");
            let _ = fs::remove_dir_all(site.folder.path().join("layout"));
        }
    }
    let two = |more: &str| {
        format!(
            "[[image]]\nname = \"HOST/org/app:1.0.0\"\nto = \"app\"\n[[image]]\nname = \"HOST/other/app:1.0.0\"\n{more}"
        )
    };
    let error = site.sync(&site.list(&two("to = \"app\"\n")), "layout").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Ambiguous, "{error}");
    assert!(matches!(error.detail(), Some(SyncFault::SameTarget(..))), "{error:?}");
    assert_eq!(error.context("lines"), Some("2 and 5"));
    site.sync(&site.list(&two("")), "layout").await.unwrap();
    let named = SyncTarget::Place(format!("oci:{}:one", site.path("layout")));
    let list = site.list(&image("tags = [\"latest\"]"));
    let error = site.images.sync(&list, &named, &SyncOptions::default()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_names_a_bounded_number_of_images() {
    let site = Site::new().await;
    let sample = app(1);
    site.source.put("org/app", "first", &sample);
    for number in 0..100_000 {
        site.source.tag("org/app", &number.to_string(), sample.top.digest());
    }
    let list = site.list("[[image]]\nname = \"HOST/org/app\"\ntags = [\"*\"]\n");
    let error = site.sync(&list, "layout").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Limit, "{error}");
    assert_eq!(error.detail(), Some(&SyncFault::Many(100_000)));
    assert!(!site.source.requests().iter().any(|request| request.method == "HEAD"), "a name is resolved");
}

/// Credentials for one registry are not sent to another, and an option that no place knows is an error.
#[tokio::test(flavor = "multi_thread")]
async fn options_are_those_of_the_places() {
    let site = Site::new().await;
    site.source.put("org/app", "1", &app(1));
    let list = site.list("[[image]]\nname = \"HOST/org/app:1\"\n");
    let with = |option: &str| {
        let options = Options::parse(option.split(' ')).unwrap();
        site.images.clone().with_options(options)
    };
    for (option, kind, is_right) in [
        ("username=me password=secret", "registry", false),
        ("username=me password=secret", "layout", true),
        ("no-such-option=1", "layout", false),
        ("follow-symlinks=true", "layout", true),
        ("docker-list=false", "archive", true),
    ] {
        let outcome = with(option).sync(&list, &site.target(kind), &SyncOptions::default()).await;
        assert_eq!(outcome.is_ok(), is_right, "{option} {kind}: {outcome:?}");
        let config = outcome.is_err_and(|e| *e.kind() == ErrorKind::Config);
        assert_eq!(config, !is_right, "{option} {kind}");
    }
}

/// In place of a list, a repository is all of its tags; one tag is that image.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_brought_with_all_its_tags() {
    let site = Site::new().await;
    for (number, tag) in ["1.0.0", "1.1.0", "stable"].into_iter().enumerate() {
        site.source.put("org/app", tag, &app(u32::try_from(number).unwrap()));
    }
    let host = site.source.host();
    for (word, expected) in [("org/app", 3), ("org/app:1.1.0", 1)] {
        for kind in KINDS {
            let list = SyncList::of_place(format!("registry:{host}/{word}"));
            let report = site.sync(&list, kind).await.unwrap();
            assert_eq!(report.names.len(), expected, "{word} {kind}: {:?}", report.names);
        }
        // As it is written for the command.
        let place = Place::new();
        let said = place.run(&format!("sync {host}/{word} {{}}/new.tar -q"));
        assert!(said.contains(&format!("{expected} added")), "{said}");
    }
}

/// Files that a run would make of what it reads or writes to are refused, and stay; also what is not there yet.
#[test]
fn no_output_replaces_what_it_is_made_of() {
    const FILE: &str = "the output would replace what the command reads or writes to";
    const INSIDE: &str = "the output would be a file of the images that the command reads or writes";
    const PART: &str = "the output would replace the file that the archive is written to";
    let place = Place::new();
    let list = "version = 1\n[[image]]\nname = \"oci:examples/sample\"\n";
    fs::write(place.path("site.toml"), list).unwrap();
    place.run("sync {}/site.toml {}/site.tar -q");
    place.run("sync {}/site.toml {}/layout/ -q");
    place.run("load examples/sample -q");
    place.run("copy oci:examples/sample:latest dir:{}/dir -q");
    let inner = list.replace("examples/sample", &place.path("layout"));
    fs::write(place.path("inner.toml"), inner).unwrap();
    fs::create_dir(place.path("sub")).unwrap();
    std::os::unix::fs::symlink("layout", place.path("link")).unwrap();
    let before = tree(place.dir.path());
    for (line, why) in [
        ("sync {}/site.toml {}/site.tar --since {}/site.tar", FILE),
        ("sync {}/site.toml {}/site.tar --since oci-archive:{}/site.tar", FILE),
        ("sync {}/site.toml {}/no/ --report {}/site.toml --dry-run", FILE),
        ("sync {}/site.toml {}/site.tar --report {}/site.tar", FILE),
        ("sync {}/site.tar {}/no/ --report {}/site.tar", FILE),
        ("save localhost/sample:latest --out {}/site.tar --since {}/site.tar", FILE),
        ("sync {}/site.toml {}/no.tar --report {}/no.tar", FILE),
        ("sync {}/site.toml {}/no.tar --report {}/./no.tar", FILE),
        ("sync {}/site.toml oci-archive:{}/no.tar --report {}/sub/../no.tar", FILE),
        ("sync {}/site.toml docker-archive:{}/sub/../no.tar --report {}/no.tar", FILE),
        ("sync {}/site.toml {}/no.tar --report {}/.no.tar.plyfold-part", PART),
        ("sync {}/site.toml {}/no.tar --since {}/site.tar --report {}/site.tar", FILE),
        ("sync {}/site.toml {}/no/ --report {}/no/index.json", INSIDE),
        ("sync {}/site.toml {}/layout/ --report {}/layout/index.json", INSIDE),
        ("sync {}/site.toml {}/layout/ --report {}/link/oci-layout", INSIDE),
        ("sync {}/layout {}/no.tar --report {}/layout/blobs/report.json", INSIDE),
        ("sync {}/inner.toml {}/no.tar --report {}/layout/index.json", INSIDE),
        ("sync {}/inner.toml {}/layout/index.json", INSIDE),
        ("sync {}/site.toml store --report {}/store/index.json", INSIDE),
        ("sync store {}/no.tar --report {}/store/oci-layout", INSIDE),
        ("sync {}/site.toml {}/no.tar --since {}/layout --report {}/layout/index.json", INSIDE),
        ("save oci:{}/layout:localhost/sample:latest --out {}/layout/index.json", INSIDE),
        ("save dir:{}/dir --out {}/dir/manifest.json", INSIDE),
        ("save localhost/sample:latest --out {}/no.tar --since {}/no.tar", "there is no file"),
        ("save localhost/sample:latest --out {}/store/index.json", INSIDE),
        ("export oci:{}/layout:localhost/sample:latest --out {}/layout/oci-layout", INSIDE),
        ("export localhost/sample:latest --out {}/store/index.json", INSIDE),
    ] {
        let said = place.run(line);
        assert!(!said.contains("[exit 0]") && said.contains(why), "{said}");
        assert!(tree(place.dir.path()) == before, "{line}: files have changed");
    }
    // A name of a registry is no path.
    fs::write(place.path("sample"), "").unwrap();
    let mut export = place.command(["export", "localhost/sample", "--out", "localhost/sample"]);
    fs::create_dir(place.path("localhost")).unwrap();
    let ended = export.current_dir(place.dir.path()).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

/// The files below a directory, with their content; without what a store keeps for itself.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            files.extend(tree(&path));
        } else if path.is_file() && !path.components().any(|part| part.as_os_str() == "locks") {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// A list comes from standard input, and from a named pipe; while none writes to that, signals are heeded.
#[test]
fn lists_come_from_pipes() {
    let place = Place::new();
    let list = b"version = 1\n[[image]]\nname = \"oci:examples/sample\"\n";
    let said = place.run_fed("sync - {}/site.tar", list);
    assert!(said.contains("[exit 0]") && said.contains("1 added"), "{said}");
    let said = place.run_fed("sync - {}/site.tar", b"[[imag]]\n");
    assert!(said.contains("[exit 2]") && said.contains("imag"), "{said}");
    let pipe = place.path("site.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut waiting = place.command(["sync", &pipe, &place.path("new/")]);
    let mut waiting = waiting.stderr(Stdio::null()).spawn().unwrap();
    // It waits from when its handlers of signals are set on.
    let handles = || {
        let status = fs::read_to_string(format!("/proc/{}/status", waiting.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(caught, 16).unwrap() & (1 << 14) != 0
    };
    while !handles() {
        std::thread::yield_now();
    }
    let kill = format!("kill -s TERM {}", waiting.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert!(!waiting.wait().unwrap().success());
    let (path, written) = (pipe.clone(), list.to_vec());
    let writer = std::thread::spawn(move || fs::write(path, written).unwrap());
    let said = place.run("sync {}/site.toml {}/new/");
    writer.join().unwrap();
    assert!(said.contains("[exit 0]") && said.contains("1 added"), "{said}");
}

/// Platforms, and indexes that are rewritten: what is there is known without a copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_an_index_is_known_again() {
    let site = Site::new().await;
    let index = samples::index();
    site.source.put("org/app", "1", &index);
    let [first, second, ..] = &index.images[..] else { panic!() };
    let (first, second) = (&first.platform, &second.platform);
    for platforms in [format!("[\"{first}\"]"), format!("[\"{first}\", \"{second}\"]\nsparse = \"rewrite\"")]
    {
        let list = site.list(&format!("[[image]]\nname = \"HOST/org/app:1\"\nplatforms = {platforms}\n"));
        for kind in KINDS {
            let report = site.sync(&list, kind).await.unwrap();
            assert_ne!(report.names[0].after, *index.top.digest(), "{kind}");
            site.source.clear_requests();
            let again = site.sync(&list, kind).await.unwrap();
            assert_eq!((changes(&again), again.moved), (["unchanged"].into(), 0), "{kind} {platforms}");
        }
    }
}

#[test]
fn runs_are_as_they_were() {
    let place = Place::new();
    let write = |name: &str, text: &str| fs::write(place.path(name), text).unwrap();
    let list =
        "version = 1\n[[image]]\nname = \"oci:examples/sample\"\ntags = [\"late*\"]\nto = \"site/sample\"\n";
    write("site.toml", list);
    write("typo.toml", &list.replace("tags", "tagz"));
    write("none.toml", &list.replace("late*", "v*"));
    write("optional.toml", &list.replace("late*\"]", "v*\"]\noptional = true"));
    write("twice.toml", &format!("{list}{}", list.replace("version = 1\n", "")));
    let named = |name: &str| format!("version = 1\n[[image]]\nname = \"{name}\"\n");
    let root = samples::LayerBuilder::new().file("root", 0o644, b"root").finish();
    fs::write(place.path("root.tar"), root).unwrap();
    write("other.toml", &named(&format!("tar:{}", place.path("root.tar"))));
    write("new.toml", &named("oci:examples/sample:latest"));
    write("short.toml", &named("alpine:3"));
    write("layout.toml", &named("examples"));
    write("platform.toml", &format!("{}platforms = [\"plan9/mips\"]\n", named("oci:examples/sample:latest")));
    let runs = [
        "sync {}/site.toml {}/site/ --dry-run",
        "sync {}/site.toml {}/site/ --report {}/report.json -q",
        "sync {}/site.toml {}/site/ -q",
        "sync {}/site.toml {}/site.tar -q --json",
        "sync {}/site.tar store -q",
        "list --no-trunc",
        "sync {}/site.toml {}/delta.tar --since {}/site.tar -q",
        "sync {}/typo.toml store",
        "sync {}/none.toml store -q",
        "sync {}/optional.toml store -q",
        "sync {}/twice.toml store -q",
        "sync {}/absent.toml store -q",
        "sync {}/site.toml nowhere -q",
        "sync {}/site.toml oci:{}/site:one -q",
        "sync {}/site.toml store -q --platform linux/amd64",
        "sync {}/site.toml store -q --since {}/site.tar",
        "sync store {}/all.tar --no-referrers -q",
        "sync {}/other.toml {}/new/ --dry-run -q",
        "sync {}/new.toml {}/delta2.tar --since store -q",
        "sync {}/site.toml {}/site.tar.gz -q",
        "sync {}/site.toml site.img -q",
        "sync {}/site.toml dir:{}/dir -q",
        "sync {}/site.toml store:{}/other -q",
        "sync {}/short.toml store -q",
        "sync {}/layout.toml store -q",
        "sync {}/platform.toml store -q",
    ];
    // The report names the target, whose folder is another one each time.
    let without = |text: String| -> String {
        let line = |line: &str| match line.split_once("report sha256:").or(line.split_once("  \"digest\": "))
        {
            Some(_) => "DIGEST OF THE REPORT\n".to_owned(),
            None => line.to_owned(),
        };
        text.split_inclusive('\n').map(line).collect()
    };
    run::check("sync", &runs.map(|line| without(place.run(line))));
    // Which of two blobs is missed first is chance.
    place.run("sync {}/new.toml {}/delta3.tar --since store -q");
    let said = place.run("sync {}/delta3.tar {}/elsewhere/ -q");
    assert!(said.contains("[exit 3]") && said.contains("was made against store (content sha256:"), "{said}");
    assert!(said.contains("bring that to {}/elsewhere/ first, and then the archive"), "{said}");
    let report = fs::read(place.path("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["names"][0]["change"], "added", "{report}");
}
