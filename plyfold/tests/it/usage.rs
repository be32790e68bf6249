//! Mistakes in command lines, and what the errors say.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_conformance::server::{Fault, FaultServer, On};
use serde_json::Value;

use super::baseline;
use super::run::{Place, failure};

/// What looks like a file, or is another tool's transport, is never taken for a name of Docker Hub.
#[test]
fn what_is_no_name_is_never_asked_of_a_registry() {
    let place = Place::new();
    fs::create_dir(place.path("out")).unwrap();
    let sample = format!("oci:{}", baseline::root().join("examples/sample:latest").display());
    for (target, said) in [
        ("o.img", "oci:DIRECTORY:TAG"),
        ("o.ext4:v1", "oci:DIRECTORY:TAG"),
        ("sub/o.qcow2", "registry:sub/o.qcow2"),
        ("dir:", "names a place, not an image"),
        ("oci-layout:big:v1", "oci:DIRECTORY:TAG"),
        ("containers-storage:x", "podman load"),
        ("containerd:x:1", "ctr image import"),
        ("file:x", "oci:DIRECTORY:TAG"),
        ("https://registry.invalid/app:1", "registry.invalid/app:1"),
        ("docker-archive:", "names a place, not an image"),
        ("docker-archive:x.tar", "the target has no tag"),
        ("out/app:1", "oci:out/app:1"),
    ] {
        let copy = ["copy", &sample, target];
        let output = place.command(copy).current_dir(place.dir.path()).output().unwrap();
        let (code, text) = failure(&output);
        assert_eq!(code, Some(2), "{target}: {text}");
        assert!(text.contains(said), "{target}: {text}");
    }
    for (image, code, said) in [
        ("o.img", 3, "there is no file or directory o.img"),
        ("dir:big", 3, "there is no directory big"),
        ("file:big", 2, "oci:DIRECTORY"),
        ("containers-storage:x", 2, "podman save"),
        ("containerd:x:1", 2, "ctr image export"),
        ("docker-daemon:", 2, "names a place, not an image"),
        ("http://registry.invalid/app", 2, "registry.invalid/app"),
        ("docker://registry.invalid/", 2, "without a repository"),
    ] {
        let (exit, text) = failure(&place.command(["pull", image]).output().unwrap());
        assert_eq!(exit, Some(code), "{image}: {text}");
        assert!(text.contains(said), "{image}: {text}");
    }
}

/// A name that is not there is not found, and the hint lists what is.
#[test]
fn a_missing_tag_names_the_place_to_look() {
    let place = Place::new();
    let server = FaultServer::start().unwrap();
    server.put("org/app", "latest", &samples::image());
    let app = format!("{}/org/app", server.host());
    let lists = format!("`plyfold tags {app}` lists all tags");
    let (code, text) = failure(&place.command(["delete", &format!("{app}:lates")]).output().unwrap());
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains(&format!("did you mean {app}:latest? {lists}")), "{text}");
    // The tag is there, and a layer of it is not.
    server.remove("org/app", samples::image().images[0].layers[0].descriptor.digest());
    let pull = ["pull", &format!("{app}:latest"), "--platform", "linux/amd64", "--retry-max-time", "0s"];
    let (code, text) = failure(&place.command(pull).output().unwrap());
    assert_eq!(code, Some(3), "{text}");
    assert!(!text.contains("did you mean") && !text.contains(&lists), "{text}");
    let (code, text) =
        failure(&place.command(["copy", "oci:examples/sample:lates", &format!("{app}:1")]).output().unwrap());
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("did you mean oci:examples/sample:latest? `plyfold tags oci:examples/sample` lists"),
        "{text}"
    );
    let tags = place.command(["tags", "oci:examples/sample"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&tags.stdout), "localhost/sample:latest\n");
}

/// Mistakes of the command line have the exit code of usage.
#[test]
fn mistakes_of_the_command_line_exit_2() {
    let place = Place::new();
    let layer = |name: &'static str| {
        samples::of_layers(name, &[LayerBuilder::new().file(name, 0o644, b"x").finish()])
    };
    let (one, two) = (layer("one"), layer("two"));
    let layout = place.path("layout");
    fs::create_dir(&layout).unwrap();
    let names = [("a.example/app:1".to_owned(), &one), ("a.example/app:2".to_owned(), &two)];
    samples::write_layout(Path::new(&layout), &names).unwrap();
    let empty = place.path("empty.pem");
    fs::write(&empty, "").unwrap();
    for (line, said) in [
        ("pull oci:{}/layout", "matches several images"),
        ("copy oci:examples/sample:latest oci-archive:/dev/null:1", "not a regular file"),
        ("tags docker-archive:x.tar -o ca=x", "ca"),
        ("tags registry.invalid/app -o ca={}/none.pem", "{}/none.pem\" cannot be read"),
        ("tags registry.invalid/app -o ca={}/empty.pem", "holds no certificate"),
        ("tags registry.invalid/app -o client-cert={}/none.pem", "{}/none.pem\" cannot be read"),
        ("tags registry.invalid/app -o plain-http=[", "HOST[:PORT]"),
        ("tags registry.invalid/app -o https=http://registry.invalid", "HOST[:PORT]"),
        ("tags registry.invalid/app -o trusted-realm=a/b", "HOST[:PORT]"),
        ("tags registry.invalid/app -o hosts-dir=/dev/null", "/dev/null is not a directory"),
        ("tags registry.invalid/app -o hosts-dir={}/none", "{}/none is not a directory"),
        ("disk --size 0 --out {}/d", "64 MiB to 16 TiB"),
        ("disk --size 99999999999999999999 --out {}/d", "64 MiB to 16 TiB"),
        ("disk --size 20000G --out {}/d", "64 MiB to 16 TiB"),
        ("umount x", "umount"),
        ("system prune", "`plyfold gc`"),
        ("image ls", "`plyfold list`"),
        ("restart x", "plyfold neither builds images nor runs them"),
    ] {
        let place_in = |text: &str| text.replace("{}", place.dir.path().to_str().unwrap());
        let words: Vec<String> = line.split(' ').map(place_in).collect();
        let (code, text) = failure(&place.command(&words).output().unwrap());
        assert_eq!(code, Some(2), "{line}: {text}");
        assert!(text.contains(&place_in(said)), "{line}: {text}");
        assert!(!text.contains("unrecognized subcommand"), "{line}: {text}");
    }
}

/// One line of plain words, and what to do in the hint.
#[test]
fn mistakes_of_the_command_line_are_documents_in_json() {
    let place = Place::new();
    for (line, said, hint) in [
        ("verity x --appendd", "unexpected argument '--appendd'", "'--append'"),
        ("verity x --append --hash-tree y", "cannot be used with", "plyfold verity --help"),
        ("cat", "required arguments", "plyfold cat --help"),
        ("verity x --hash-tree", "a value is required", "plyfold verity --help"),
        ("verity x --data-block-size many", "invalid value 'many'", "plyfold verity --help"),
    ] {
        let output = place.command(line.split(' ').chain(["--json"])).output().unwrap();
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        let (message, found) =
            (error["message"].as_str().unwrap(), error["hint"].as_str().unwrap_or_default());
        assert_eq!((output.status.code(), &error["kind"]), (Some(2), &"config".into()), "{line}: {error}");
        assert!(message.contains(said) && found.contains(hint), "{line}: {error}");
        for part in ["\n", "Usage", "For more information"] {
            assert!(!message.contains(part) && !found.contains('\n'), "{line}: {error}");
        }
    }
}

/// Also what is no result, such as help, has to arrive.
#[test]
fn help_that_cannot_be_written_is_an_error() {
    let place = Place::new();
    for arguments in [&["--help"][..], &["--version"], &["help"], &["pull", "--help"], &["pull", "-h"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = place.command(arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let (code, said) = failure(&output);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(said.contains("hint: the disk is full"), "{arguments:?}: {said}");
    }
}

/// A program of another name has that name in its examples, once, also where it begins as this one's.
#[test]
fn examples_have_the_name_of_the_program() {
    let place = Place::new();
    let program = place.path("plyfold-u");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_plyfold"), &program).unwrap();
    for (verb, example) in [
        (&["materialize"][..], "plyfold-u materialize "),
        (&["gc"], "plyfold-u gc --dry-run"),
        (&["snapshot", "save"], "plyfold-u snapshot save "),
        (&["completions"], "> /etc/bash_completion.d/plyfold-u\n"),
    ] {
        let output = std::process::Command::new(&program).args(verb).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(example) && !help.contains("plyfold-u-u"), "{help}");
        assert!(!help.contains("  plyfold "), "{help}");
    }
}

/// The value of an option is completed by the values that it may have, never by names of images.
#[test]
fn values_of_options_complete_a_line() {
    let place = Place::new();
    place.run("pull oci:examples/sample:latest --platform linux/amd64 -q");
    let offered = |words: &[&str]| {
        let output = place.command(["names-for-completion", "--"].iter().chain(words)).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let forms = "erofs\nerofs-layers\nerofs-merged\nerofs-tar\next4\ngpt\nraw\nvmdk\nvmdk-gpt\nvmdk-stream\n";
    assert_eq!(offered(&["materialize", "--as", ""]), forms);
    assert_eq!(offered(&["materialize", "x", "--as", "erofs-m"]), "erofs-merged\n");
    assert_eq!(offered(&["layer", "--as", ""]), "erofs\nerofs-layers\nerofs-tar\next4\n");
    assert_eq!(offered(&["materialize", "--as=v"]), "vmdk\nvmdk-gpt\nvmdk-stream\n");
    assert_eq!(offered(&["pull", "--policy", ""]), "always\nif-missing\nnever\n");
    for words in [
        &["materialize", "--out", ""][..],
        &["materialize", "--out="],
        &["--store", ""],
        &["pull", "-o", ""],
        &["pull", "--platform", ""],
        &["gc", "--budget", ""],
    ] {
        assert_eq!(offered(words), "", "{words:?}");
    }
    assert_eq!(offered(&["materialize", "--as", "vmdk", ""]), "localhost/sample:latest\n");
    assert_eq!(offered(&["pull", "-o", "a=b", "--quiet", "l"]), "localhost/sample:latest\n");
}

/// Space that cannot be freed is reported, with what needs it.
#[test]
fn a_budget_that_is_missed_is_told() {
    let place = Place::new();
    place.run("pull oci:examples/sample:latest --platform linux/amd64 -q");
    let said = place.run("gc --budget 0 --grace 1h");
    assert!(said.contains("[exit 0]"), "{said}");
    assert!(said.contains("warning: ") && said.contains("more than the budget of 0 B"), "{said}");
    assert!(said.contains("within the grace"), "{said}");
    place.run("pin localhost/sample");
    let said = place.run("gc --budget 0");
    assert!(said.contains("more than the budget of 0 B: ") && said.contains("pinned"), "{said}");
    let output = place.command(["gc", "--budget", "1K", "--json"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let missed = &document["missed"];
    assert_eq!(missed["bytes"].as_u64().unwrap(), document["kept"].as_u64().unwrap() - 1024, "{document}");
    assert_eq!(missed["pinned"], document["kept"], "{document}");
    assert_eq!((missed["leased"].as_u64(), missed["recent"].as_u64()), (Some(0), Some(0)), "{document}");
    // One that is met has nothing to tell.
    let output = place.command(["gc", "--budget", "1G", "--json"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["missed"], Value::Null, "{document}");
}

/// A listing is complete, or it is an error.
#[test]
fn listings_are_never_short_without_a_word() {
    let server = FaultServer::start().unwrap();
    for tag in ["1", "2", "3"] {
        server.put("org/app", tag, &samples::image());
    }
    let place = Place::new();
    let tags = || place.command(["tags", &format!("{}/org/app", server.host())]).output().unwrap();
    for (body, said) in [
        (r#"{"tags":["1","\u001b[31mx"]}"#, r"\u{1b}[31mx"),
        (r#"{"tags":["1",""]}"#, "a tag that is not valid"),
        (r#"{"tags":[null]}"#, "a tag that is not valid"),
    ] {
        server.clear_scripts();
        server.script(On::target("tags/list"), [Fault::Body(body.into())]);
        let (code, text) = failure(&tags());
        assert_eq!(code, Some(5), "{body}: {text}");
        assert!(text.contains(said) && !text.contains('\u{1b}'), "{body}: {text}");
    }
    // An empty list of links (RFC 9110 5.6.1) links to nothing; what comes behind the last name is asked for.
    server.clear_scripts();
    let empty = [Fault::Body(r#"{"tags":["1"]}"#.into()), Fault::Header("Link", Some(String::new()))];
    server.script(On::target("tags/list").times(1), empty);
    let output = tags();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n2\n3\n", "{output:?}");
}

/// An answer that is the same each time is asked for once.
#[test]
fn what_stays_wrong_is_not_tried_again() {
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &samples::image());
    let place = Place::new();
    let long = format!("http://{}/{}", server.host(), "x".repeat(70_000));
    for (fault, said) in [
        (Fault::Redirect(307, long), "a URL that no request can hold"),
        (Fault::Header("X-Long", Some("x".repeat(2 << 20))), "header fields"),
    ] {
        server.clear_scripts();
        server.clear_requests();
        server.script(On::target("tags/list"), [fault]);
        let (code, text) =
            failure(&place.command(["tags", &format!("{}/org/app", server.host())]).output().unwrap());
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(said), "{text}");
        let asked = server.requests().iter().filter(|request| request.target.contains("tags/list")).count();
        assert_eq!(asked, 1, "{text}");
    }
}

/// A file that the file system cannot hold is refused with its limit.
#[test]
fn a_disk_that_is_too_large_for_its_place_names_the_limit() {
    let place = Place::new();
    let mut disk = place.command(["disk", "--size", "16T", "--out", &place.path("disk.ext4")]);
    let output = disk.output().unwrap();
    let (code, text) = failure(&output);
    // Other file systems may hold it.
    if code != Some(0) {
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("no file of 16.0 TiB") && text.contains("hint: choose"), "{text}");
    }
    assert!(!text.contains("File too large\n\nhint: the disk"), "{text}");
    assert!(place.files().iter().all(|name| name == "disk.ext4"));
    // The limit of a process is one that is everywhere.
    let script = format!(
        "trap '' XFSZ; ulimit -f 100; exec {} disk --size 64M --out {}",
        env!("CARGO_BIN_EXE_plyfold"),
        place.path("small.ext4")
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let (code, text) = failure(&output);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no file of 64.0 MiB"), "{text}");
}

/// A message that compares two sizes shows two numbers.
#[test]
fn a_size_is_never_more_than_itself() {
    let place = Place::new();
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &samples::image());
    let index =
        serde_json::json!({"schemaVersion": 2, "manifests": [], "annotations": {"x": "x".repeat(4 << 20)}});
    let layout = place.path("layout");
    fs::create_dir(&layout).unwrap();
    fs::write(format!("{layout}/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let big = index.to_string();
    let blob = plyfold::digest::sha256(big.as_bytes());
    fs::create_dir_all(format!("{layout}/blobs/sha256")).unwrap();
    fs::write(format!("{layout}/blobs/sha256/{}", blob.digest()), &big).unwrap();
    let top = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "size": big.len(), "digest": blob.to_string(),
        "annotations": {"org.opencontainers.image.ref.name": "big"}}]});
    fs::write(format!("{layout}/index.json"), top.to_string()).unwrap();
    let (_, text) = failure(&place.command(["pull", &format!("oci:{layout}:big")]).output().unwrap());
    assert!(text.contains("4194304") && text.contains(&big.len().to_string()), "{text}");
}
