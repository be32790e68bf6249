//! How images are written on the command line: names, paths, URIs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use plyfold_conformance::samples::{self, LayerBuilder, docker_archive};

use super::baseline;
use super::run::{Place, check, failure};

/// What looks like a path is one, or is refused with what to write.
#[test]
fn paths_and_names() {
    let place = Place::new();
    let image = samples::of_layers("app", &[LayerBuilder::new().file("a", 0o644, b"a").finish()]);
    let other = samples::of_layers("other", &[LayerBuilder::new().file("b", 0o644, b"b").finish()]);
    let named = |image| move |name: &str| (name.to_owned(), image);
    let one = ["a.example/app:1", "a.example/app:2"].map(named(&image));
    let two = [named(&image)("a.example/app:1"), named(&other)("a.example/other:1")];
    fs::write(place.path("one.tar"), docker_archive(&one)).unwrap();
    fs::write(place.path("two.tar"), docker_archive(&two)).unwrap();
    let platform = "--platform linux/amd64";
    let lines = [
        "copy oci:examples/sample:latest o.tar",
        "copy oci:examples/sample:latest {}/o.tar:v1",
        "copy oci:examples/sample:latest {}/layout",
        "copy oci:examples/sample:latest {}/layout:v1 -q",
        "copy oci:examples/sample:latest {}/lay:out:v1",
        "pull ./examples/sample --platform linux/amd64 -q",
        "pull examples/sample/ --platform linux/amd64 -q",
        "pull ./nowhere",
        "pull nowhere.tar",
        "pull nowhere/",
        "pull ~/sample",
        "pull examples/sample",
        "pull README.md",
        "pull {}/one.tar:app",
        &format!("pull {{}}/one.tar -q {platform}"),
        &format!("pull {{}}/two.tar -q {platform}"),
        &format!("inspect {{}}/one.tar {platform}"),
        &format!("inspect --remote {{}}/one.tar {platform}"),
        &format!("export {{}}/one.tar --out {{}}/rootfs.tar -q {platform}"),
        "pull registry.invalid/",
        "inspect --remote registry:registry.invalid/",
        "delete docker://registry.invalid/",
        "pull registry:",
        "pull oci:",
        "pull memory:here:app",
    ];
    check("names", &lines.map(|line| place.run(line)));
}

/// Every verb that takes an image takes the template of a package.
#[test]
fn packages() {
    let place = Place::new();
    fs::create_dir_all(place.path("pkg/init")).unwrap();
    fs::write(place.path("pkg/init/run.sh"), "exec true\n").unwrap();
    let lines = [
        "pull oci:examples/sample:latest --platform linux/amd64 -q",
        "tag localhost/sample registry.lan/org/{name}:{hash}@pkg:{}/pkg/init",
        "tag localhost/sample @pkg:{}/pkg/init",
        "list -q --json",
        "inspect registry.lan/org/{name}:{hash}@pkg:{}/pkg/init --raw",
        "pull @pkg:{}/pkg/init --policy never --platform linux/amd64",
        "export @pkg:{}/pkg/init --out {}/rootfs.tar -q",
        "copy examples/sample/:latest oci:{}/layout:{hash}@pkg:{}/pkg/init -q",
        "push @pkg:{}/pkg/init oci:{}/layout:{name}@pkg:{}/pkg/init --platform linux/amd64 -q",
        "inspect oci:{}/layout:{name}@pkg:{}/pkg/init --raw",
        "pin @pkg:{}/pkg/init",
        "unpin @pkg:{}/pkg/init",
        "verify @pkg:{}/pkg/init",
        "delete oci:{}/layout:{hash}@pkg:{}/pkg/init",
        "remove @pkg:{}/pkg/init registry.lan/org/{name}:{hash}@pkg:{}/pkg/init",
        "inspect @pkg:{}/pkg/absent",
        "inspect {}/{name}",
        "inspect {tag}@pkg:{}/pkg/init",
    ];
    check("packages", &lines.map(|line| place.run(line)));
}

/// JSON cannot hold such a path as it is.
#[test]
fn a_working_directory_may_have_any_name() {
    let place = Place::new();
    let dir = Path::new(&place.path("")).join(OsStr::from_bytes(b"d\xff"));
    fs::create_dir(&dir).unwrap();
    let image = format!("oci:{}/examples/sample:latest", baseline::root().display());
    let line = [
        "materialize",
        &image,
        "--platform",
        "linux/amd64",
        "--as",
        "vmdk",
        "--upper",
        "64M",
        "--json",
        "--out",
        "o",
    ];
    let output = place.command(line).current_dir(&dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["upper"].as_str().unwrap().ends_with("o/upper.ext4"), "{document}");
}

/// A store that is not a directory is a mistake in the command line, and is reported as such.
#[test]
fn a_store_is_a_directory() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    for store in ["/dev/null".to_owned(), "/dev/null/store".to_owned(), place.path("file/in/it")] {
        let output = place.command(["--store", &store, "list"]).output().unwrap();
        let (code, said) = failure(&output);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("is not a directory"), "{said}");
    }
}

/// A shell that asks in the middle of a line gets the names of images, as people write them and as they are.
#[test]
fn names_complete_a_line() {
    let place = Place::new();
    place.run("pull oci:examples/sample:latest --platform linux/amd64 -q");
    place.run("tag localhost/sample alpine:3");
    let names = |words: &[&str]| {
        let output = place.command(["names-for-completion", "--"].iter().chain(words)).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(names(&["inspect", ""]), "alpine:3\ndocker.io/library/alpine:3\nlocalhost/sample:latest\n");
    assert_eq!(names(&["rm", "-v", "alpine:"]), "alpine:3\n");
    assert_eq!(names(&["push", "loc"]), "localhost/sample:latest\n");
    for words in [&["gc", ""][..], &["inspect", "--"], &["inspect", "none"], &[]] {
        assert_eq!(names(words), "", "{words:?}");
    }
    let none = place.path("none");
    assert_eq!(names(&["--store", &none, "inspect", ""]), "");
    assert!(!Path::new(&none).exists(), "asking makes no store");
}

#[test]
fn an_output_never_replaces_its_input() {
    let place = Place::new();
    let tar = LayerBuilder::new().file("f", 0o644, b"content").finish();
    fs::write(place.dir.path().join("a.tar"), &tar).unwrap();
    for arguments in [
        &["layer", "a.tar", "--out", "a.tar"][..],
        &["layer", "./a.tar", "--out", "a.tar"],
        &["export", "a.tar", "--out", "./a.tar"],
        &["export", "docker-archive:a.tar", "--out", "a.tar"],
    ] {
        let output = place.command(arguments).current_dir(place.dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("the output would replace"),
            "{arguments:?}"
        );
        assert_eq!(fs::read(place.dir.path().join("a.tar")).unwrap(), tar, "{arguments:?}");
    }
}

#[test]
fn a_directory_is_no_name_to_write_to() {
    let place = Place::new();
    fs::create_dir(place.dir.path().join("sub")).unwrap();
    let sample = format!("oci:{}", baseline::root().join("examples/sample").display());
    let copy = place.command(["copy", &sample, "sub"]).current_dir(place.dir.path()).output().unwrap();
    assert_eq!(copy.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&copy.stderr).contains("oci:sub"), "{copy:?}");
}

/// What can only be meant as something else is refused with what to write.
#[test]
fn a_digest_is_no_new_name_and_the_store_no_repository() {
    let place = Place::new();
    assert_eq!(place.told("load examples/sample").code, Some(0));
    let digest = place.told("list").document["images"][0]["digest"].as_str().unwrap().to_owned();
    for line in [
        "tag localhost/sample DIGEST",
        "tag localhost/sample localhost/DIGEST",
        "config localhost/sample --user 1 --tag DIGEST",
        "copy oci:examples/sample:latest oci:{}/to:DIGEST",
        "push localhost/sample oci-archive:{}/to.tar:DIGEST",
        "tags store",
        "tag localhost/sample sha256:abc",
        "tag localhost/sample sha512:0123456789ab",
        "config localhost/sample --user 1 --tag localhost/sha256:abc",
    ] {
        let told = place.told(&line.replace("DIGEST", &digest));
        assert!(told.is_refused("config"), "{line}: {told:?}");
    }
    assert_eq!(place.told("list").document["images"].as_array().unwrap().len(), 1);
    let loaded = place.told(&format!("load examples/sample --image {digest}"));
    assert_eq!(loaded.document[0]["reference"], format!("localhost/sample@{digest}"));
}

#[test]
fn no_target_lies_in_its_source() {
    let place = Place::new();
    assert_eq!(place.told("copy oci:examples/sample:latest oci:{}/from:1").code, Some(0));
    assert_eq!(place.told("load {}/from").code, Some(0));
    let before = place.files();
    for line in [
        "copy oci:{}/from:1 oci-archive:{}/from/to.tar:1",
        "copy oci:{}/from:1 oci-archive:{}/to/../from/blobs/to.tar:1",
        "copy oci:{}/from:1 oci:{}/from/to:1",
        "copy oci:{}/from:1 dir:{}/from/to",
        "push localhost/from:1 oci-archive:{}/store/to.tar:1",
        "sync {}/from/ {}/from/to.tar",
        "sync {}/from/ {}/from/to/",
    ] {
        let told = place.told(line);
        assert!(told.is_refused("config"), "{line}: {told:?}");
    }
    assert_eq!(place.files(), before);
    assert!(!fs::exists(place.path("store/to.tar")).unwrap());
    for line in ["copy oci:{}/from:1 oci:{}/from:2", "copy oci:{}/from:1 oci-archive:{}/from.tar:1"] {
        assert_eq!(place.told(line).code, Some(0), "{line}");
    }
}

#[test]
fn a_file_is_not_written_by_the_name_of_a_directory() {
    let place = Place::new();
    fs::create_dir(place.path("o")).unwrap();
    let image = "oci:examples/sample:latest --platform linux/amd64";
    for line in [
        format!("save {image} --out {{}}/o/none/"),
        format!("export {image} --out {{}}/o/none/"),
        "disk --size 8M --out {}/o/none/".to_owned(),
        "sync examples/sample {}/to.tar --report {}/o/none/".to_owned(),
    ] {
        let told = place.told(&line);
        assert!(told.is_refused("config") && told.code == Some(2), "{line}: {told:?}");
    }
    assert_eq!(place.files(), [] as [&str; 0]);
}

/// An archive is a file with a name: said before any work, of which nothing is left.
#[test]
fn an_archive_is_no_directory_and_no_stream() {
    let place = Place::new();
    fs::create_dir(place.path("o")).unwrap();
    for line in [
        "copy oci:examples/sample:latest oci-archive:{}/o/to.tar/:1",
        "copy oci:examples/sample:latest docker-archive:{}/o/to.tar/:app:1",
        "sync examples/sample oci-archive:{}/o/to.tar/",
        "sync examples/sample docker-archive:{}/o/to.tar/",
        "sync examples/sample oci-archive:-",
        "copy oci:examples/sample:latest oci-archive:-:1",
        "copy oci:examples/sample:latest docker-archive:-:app:1",
    ] {
        let told = place.told(line);
        assert!(told.is_refused("config") && told.code == Some(2), "{line}: {told:?}");
    }
    assert_eq!(place.files(), [] as [&str; 0]);
    assert!(!fs::exists(baseline::root().join("-")).unwrap());
}

/// What a run would be refused is refused to a dry one, and in the same way.
#[test]
fn a_dry_run_looks_at_its_target() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    fs::create_dir(place.path("plain")).unwrap();
    fs::write(place.path("plain/file"), "").unwrap();
    for (target, code) in [
        ("oci-archive:{}/none/to.tar", 3),
        ("docker-archive:{}/none/to.tar", 3),
        ("{}/none/to.tar", 3),
        ("{}/to.tar/to.tar", 3),
        ("oci-archive:{}/plain", 2),
        ("oci:{}/file/to", 2),
        ("oci:{}/plain", 2),
        ("{}/plain/", 2),
    ] {
        for run in ["", " --dry-run"] {
            let told = place.told(&format!("sync examples/sample {target}{run}"));
            assert!(told.error["hint"].is_string() && told.code == Some(code), "{target}{run}: {told:?}");
        }
    }
    for target in ["{}/new/to/", "{}/to.tar"] {
        assert_eq!(place.told(&format!("sync examples/sample {target} --dry-run")).code, Some(0), "{target}");
    }
    assert_eq!(place.files(), ["file", "plain/file"]);
    assert!(!fs::exists(place.path("new")).unwrap());
}
