//! Every verb, every kind of failure, as the user sees them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plyfold::layer::{LayerOptions, LayerTar};
use plyfold_conformance::samples::{self, LayerBuilder, docker_archive, oci_archive};
use plyfold_conformance::server::{Auth, Fault, FaultServer, Login, On, Options};
use serde_json::Value;

use super::baseline;
use super::run::{Place, check, failure};

/// The verbs that a help lists, without `help` itself.
fn verbs(help: &str) -> Vec<String> {
    let (_, commands) = help.split_once("\nCommands:\n").unwrap();
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let verbs = lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    verbs.filter(|verb| verb != "help").collect()
}

#[test]
fn help() {
    let place = Place::new();
    let mut runs = vec![place.run("--help")];
    let verbs = verbs(&runs[0]);
    runs.extend(verbs.iter().map(|verb| place.run(&format!("{verb} --help"))));
    let at = verbs.iter().position(|verb| verb == "snapshot").unwrap();
    let of_snapshot = self::verbs(&runs[at + 1]);
    runs.extend(of_snapshot.iter().map(|verb| place.run(&format!("snapshot {verb} --help"))));
    check("help", &runs);
}

#[test]
fn an_image_comes_and_goes() {
    let place = Place::new();
    let lines = [
        "list",
        "pull oci:examples/sample:latest --platform linux/amd64",
        "pull oci:examples/sample:latest --platform linux/amd64 -v",
        "pull oci:examples/sample:latest --platform linux/amd64 --force -q",
        "pull oci:examples/sample:latest --platform linux/arm64 --json",
        "list",
        "list --json",
        "inspect localhost/sample --platform linux/amd64",
        "inspect localhost/sample --platform linux/amd64 --json",
        "inspect localhost/sample --no-trunc --platform linux/amd64",
        "inspect localhost/sample --raw",
        "inspect localhost/sampel",
        "list --no-trunc",
        "tag localhost/sample a.example/other:2 --json",
        "tag localhost/sample app",
        "tag localhost/sample oci:app:1",
        "tag localhost/simple app",
        "images",
        "rmi app a.example/other:2",
        "ls localhost/sample",
        "verify localhost/sample:lates",
        "push localhost/sample:lates registry.invalid/app",
        "remove localhost/sample:lates",
        "rm localhost/sample",
        "list",
        "pull oci:examples/sample:latest --platform linux/amd64 -q",
        "remove localhost/sample",
        "remove localhost/sample",
        "inspect localhost/sample",
    ];
    check("store", &lines.map(|line| place.run(line)));
}

/// Not what was asked for, which without `--platform` is the machine's: documents of two machines are the same.
#[test]
fn documents_say_which_platform_an_image_was_made_for() {
    let place = Place::new();
    let out = place.path("vm");
    let lines = [
        "pull oci:examples/sample:latest --platform linux/amd64/v3".to_owned(),
        format!("materialize localhost/sample --platform linux/amd64/v2 --as erofs --out {out}"),
        "inspect localhost/sample --platform linux/amd64/v3".to_owned(),
        format!("snapshot save {out} state:1"),
        // It has no configuration.
        "pull state:1 --platform linux/amd64/v3".to_owned(),
    ];
    let platforms = lines.map(|line| {
        let output = place.command(line.split(' ').chain(["--json"])).output().unwrap();
        assert!(output.status.success(), "{line}: {}", failure(&output).1);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let image = document.get("image").unwrap_or(&document);
        image["platform"].as_str().map(str::to_owned)
    });
    let amd64 = Some("linux/amd64".to_owned());
    assert_eq!(platforms, [amd64.clone(), amd64.clone(), amd64.clone(), amd64, None]);
}

#[test]
fn what_nothing_needs_goes() {
    let place = Place::new();
    let lines = [
        "gc",
        "pull oci:examples/sample:latest --platform linux/amd64 -q",
        "load {}/app.tar --platform linux/amd64 -q",
        "pin localhost/sample a.example/app:1",
        "unpin localhost/sample",
        "pin localhost/sample a.example/none:1",
        "list",
        "gc --budget 0 --dry-run",
        "gc --budget 0 --grace 1h",
        "gc --budget 0",
        "list",
        "remove a.example/app:1 a.example/none:1",
        "remove a.example/app:1 a.example/app:1",
        "list",
        "gc --dry-run --json",
        "gc --json -q",
        "list --json",
        "gc --grace 1w",
        "gc --budget lots",
    ];
    let image = samples::of_layers("app", &[LayerBuilder::new().file("a", 0o644, b"a").finish()]);
    fs::write(place.path("app.tar"), oci_archive(&[("a.example/app:1".to_owned(), &image)])).unwrap();
    check("gc", &lines.map(|line| place.run(line)));
}

#[test]
fn a_store_is_verified_and_repaired() {
    let place = Place::new();
    let pull = "pull oci:examples/sample:latest --platform linux/amd64 -q";
    let run = |lines: &[&str]| lines.iter().map(|line| place.run(line)).collect::<Vec<_>>();
    let mut runs = run(&[pull, "verify", "verify localhost/sample --json", "verify nobody"]);
    let layer = "store/blobs/sha256/617e415ce3fed1cb433e84f0ff90f87445ab66413e9e87c35d48b8c9ffbfeda4";
    fs::remove_file(place.path(layer)).unwrap();
    fs::write(place.path(layer), "torn").unwrap();
    let damaged = ["verify", "verify --repair --json", "verify", "verify --json -q", pull, "verify --repair"];
    runs.extend(run(&damaged));
    fs::write(place.path("store/index.json"), "torn").unwrap();
    runs.extend(run(&["list", "verify", "verify --repair", "list"]));
    check("verify", &runs);
}

#[test]
fn an_index_is_kept_with_each_gzip_layer() {
    let place = Place::new();
    let pull = "pull oci:examples/sample:latest --platform linux/amd64 -q --index";
    let run = |lines: &[&str]| lines.iter().map(|line| place.run(line)).collect::<Vec<_>>();
    let mut runs = run(&[pull, "verify", "gc", "list", pull]);
    let folders = fs::read_dir(place.path("store/artifacts/gzip-index-v1/sha256")).unwrap();
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    let indexes: Vec<_> =
        files.iter().filter(|file| file.extension().is_some_and(|e| e == "gzindex")).collect();
    assert!(!indexes.is_empty(), "{files:?}");
    for index in indexes {
        fs::remove_file(index).unwrap();
        fs::write(index, "torn").unwrap();
    }
    runs.extend(run(&["verify", "verify --repair", pull, "verify", "remove localhost/sample", "gc", "list"]));
    check("indexes", &runs);
}

#[test]
fn what_broken_work_leaves_is_told_and_dropped() {
    let place = Place::new();
    let pulled = place.run("pull oci:examples/sample:latest --platform linux/amd64 -q");
    let leave = |folder: String, file: &str, content: &str| {
        let folder = place.path(&format!("store/{folder}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(format!("{folder}/{file}"), content).unwrap();
    };
    let digests = ["one", "two"].map(|text| plyfold::digest::sha256(text.as_bytes()));
    for (digest, content) in digests.iter().zip(["a part", "another part"]) {
        leave("ingest".to_owned(), &format!("sha256-{}", digest.digest()), content);
    }
    // Killed between a block device and its checksum.
    let hex = digests[0].digest();
    let folder = format!("artifacts/erofs-layers-v1/sha256/{}", &hex[..2]);
    leave(folder, &format!("{hex}.erofs"), "half of it");
    let lines = [
        "list",
        "list --json",
        "verify",
        "verify --json -q",
        "gc --dry-run",
        "gc --partial --dry-run",
        "verify --repair",
        "gc",
        "gc --partial --json",
        "list",
        "gc --partial",
    ];
    let runs: Vec<_> = std::iter::once(pulled).chain(lines.map(|line| place.run(line))).collect();
    check("broken_work", &runs);
}

#[test]
fn raw_is_the_bytes_as_they_were_received() {
    let place = Place::new();
    place.run("pull oci:examples/sample");
    let index = fs::read(baseline::root().join("examples/sample/index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let output = place.command(["inspect", "--raw", "localhost/sample"]).output().unwrap();
    assert_eq!(plyfold::digest::sha256(&output.stdout).as_ref(), digest);
}

#[test]
fn archives() {
    let place = Place::new();
    let image = samples::image();
    let named = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), &image)).collect::<Vec<_>>();
    fs::write(place.path("docker.tar"), docker_archive(&named(&["a.example/app:1", "a.example/app:2"])))
        .unwrap();
    fs::write(place.path("oci.tar"), oci_archive(&named(&["b.example/app:1"]))).unwrap();
    let newer = samples::no_layers();
    let newer = ["a.example/app:1", "a.example/app:3"].map(|name| (name.to_owned(), &newer));
    fs::write(place.path("newer.tar"), docker_archive(&newer)).unwrap();
    let mut part = image.clone();
    part.blobs.retain(|blob| blob.descriptor != image.images[0].layers[0].descriptor);
    fs::write(place.path("part.tar"), oci_archive(&[("c.example/app:1".to_owned(), &part)])).unwrap();
    let lines = [
        "load {}/docker.tar --list",
        "load {}/docker.tar --platform linux/amd64",
        "load {}/part.tar",
        "load {}/oci.tar --platform linux/amd64 -q",
        "load {}/part.tar -q",
        "load oci-archive:{}/oci.tar:b.example/app:1 --platform linux/amd64 --json",
        "load examples/sample --platform linux/amd64 -q",
        "load examples/sample --list --json",
        "load {}/newer.tar --keep-names -q",
        "load {}/newer.tar --image a.example/app:3 --image @0 -q",
        "load {}/docker.tar -q --json",
        "list",
        "pull docker-archive:{}/docker.tar",
    ];
    check("load", &lines.map(|line| place.run(line)));
}

#[test]
fn a_root_file_system_as_one_tar() {
    let place = Place::new();
    let image = "export oci:examples/sample --platform linux/amd64";
    let lines = [
        format!("{image} --out {{}}/rootfs.tar"),
        format!("{image} --out {{}}/again.tar --json"),
        format!("{image} --out {{}}/nope/rootfs.tar"),
    ];
    check("export", &lines.each_ref().map(|line| place.run(line)));
    let tar = fs::read(place.path("rootfs.tar")).unwrap();
    assert!(tar == fs::read(place.path("again.tar")).unwrap());
    let mut layer = LayerTar::new(std::io::Cursor::new(tar), LayerOptions::default()).unwrap();
    let mut names = Vec::new();
    while let Some(entry) = layer.next_entry().unwrap() {
        names.push(entry.path.to_string());
    }
    // The whiteout has done its work, and is gone; the second name of a file is behind the first.
    assert_eq!(names, ["/", "/bin", "/bin/hello", "/bin/hi", "/etc", "/etc/motd"]);
}

#[test]
fn failures() {
    let place = Place::new();
    fs::write(place.path("text"), "not an archive").unwrap();
    fs::write(place.path("cut.tar.gz"), &samples::gzip(&[&[0; 10240]])[..5000]).unwrap();
    fs::create_dir(place.path("dir")).unwrap();
    let lines = [
        "pull oci:examples/sample --policy never --platform linux/amd64",
        // Usage.
        "pull",
        "pull --json",
        "mount alpine",
        "archive alpine --json",
        "materialise alpine",
        "pull s3://bucket/image",
        "pull s3://bucket/image --json",
        "pull UPPER",
        "pull oci:examples/sample -o depth=3",
        "pull oci:examples/sample -o depth",
        "pull oci:examples/sample -o follow-symlinks=yes",
        "tags localhost:1/org/app -o plain-http=true",
        "login https://localhost:1 -u me --password-stdin",
        "pull oci:examples/sample --platform linux",
        "pull examples/sample",
        "disk --size 8GB --out {}/disk.ext4",
        "disk --size 1M --out {}/disk.ext4",
        "disk --size 64M --out {}/dir",
        "layer {}/dir --out {}/layer.erofs",
        "materialize oci:examples/sample --as vmdk --upper 3 --out {}/vmdk",
        "materialize oci:examples/sample --as vmdk --mode 640 --out {}/vmdk",
        "materialize oci:examples/sample --as vmdk --copy --mode 4755 --out {}/vmdk",
        "materialize oci:examples/sample --as vmdk --copy --owner nobody-has-this --out {}/vmdk",
        "materialize oci:examples/sample --as vmdk --platform linux/amd64 --out {}/text -q",
        // Not found.
        "pull oci:examples/sample:nope",
        "pull oci:{}/nope:latest",
        "pull oci:examples/sample --platform linux/s390x",
        "pull oci:examples/sample --platform linux/s390x --json",
        "load {}/nope.tar",
        "load registry:localhost:1/org/app:1",
        "layer {}/nope.tar --out {}/layer.erofs",
        "disk --size 64M --out {}/nope/disk.ext4",
        // Corrupt.
        "load {}/text",
        "layer {}/text --out {}/layer.erofs",
        "layer {}/cut.tar.gz --out {}/layer.erofs",
        "load {}/dir",
    ];
    check("failures", &lines.map(|line| place.run(line)));
    assert_eq!(place.files(), ["cut.tar.gz", "text"]);
}

#[test]
fn a_registry_and_its_failures() {
    let server =
        FaultServer::with(Options { auth: Auth::Basic(Login::new("me", "secret")), ..Options::default() })
            .unwrap();
    server.put("org/app", "1", &samples::image());
    let mut place = Place::new();
    // The first port is taken, the second was just released: nothing listens there.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    place.hosts = vec![server.host().to_owned()];
    let login = "-o username=me -o password=secret --platform linux/amd64";
    let lines = [
        format!("pull HOST:PORT/org/app:1 {login} -q"),
        format!("pull HOST:PORT/org/app:none {login}"),
        format!("pull HOST:PORT/org/app:none {login} --json"),
        format!("snapshot verify HOST:PORT/org/app:none {login}"),
        "pull HOST:PORT/org/app:1 --platform linux/amd64 --policy never".to_owned(),
        "remove HOST:PORT/org/app:1".to_owned(),
        "pull HOST:PORT/org/app:1 --platform linux/amd64".to_owned(),
        "pull HOST:PORT/org/app:1 -o username=me -o password=wrong".to_owned(),
    ];
    let mut runs: Vec<String> = lines.iter().map(|line| place.run(line)).collect();
    place.hosts = vec![closed];
    runs.push(place.run("pull HOST:PORT/org/app:1"));
    check("registry", &runs);
}

#[test]
fn an_interrupted_download_leaves_a_store_that_goes_on() {
    let (server, sample) = (FaultServer::start().unwrap(), samples::image());
    server.put("org/app", "1", &sample);
    server.script(On::blob(sample.images[0].layers[0].descriptor.digest()), [Fault::StallAt(100)]);
    let place = Place::new();
    let (image, out) = (format!("{}/org/app:1", server.host()), place.path("vmdk"));
    let arguments = ["materialize", &image, "--as", "vmdk", "--out", &out, "--platform", "linux/amd64"];
    let mut child = place.command(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    // The other layer is here: this one hangs.
    assert!(said.any(|line| line.ends_with("converted")));
    interrupt(&child);
    // The header of a stalled layer, and the layer that has come.
    let last = said.last().unwrap();
    assert!(last.starts_with("error: interrupted; "), "{last}");
    assert!(last.ends_with("B are kept, and the same command resumes there"), "{last}");
    assert_eq!(child.wait().unwrap().signal(), Some(SIGINT));
    assert_eq!(place.files(), [""; 0]);
    server.clear_scripts();
    let output = place.command(arguments).output().unwrap();
    assert!(output.status.success(), "{:?}", failure(&output));
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let place = Place::new();
    let output = place.command(["load", "\u{1b}[31m\u{7}red"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(!output.stderr.iter().any(|c| c.is_ascii_control() && *c != b'\n'), "{:?}", failure(&output));
}

#[test]
fn a_closed_standard_output_is_no_failure() {
    let place = Place::new();
    let mut child =
        place.command(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_standard_output_that_cannot_be_written_is() {
    let place = Place::new();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = place.command(["backends"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let (code, said) = failure(&output);
    assert_eq!(code, Some(1));
    assert!(said.contains("hint: the disk is full"), "{said}");
}

#[test]
fn an_interrupt_leaves_nothing() {
    let place = Place::new();
    let mut child = place
        .command(["layer", "-", "--out", &place.path("layer.erofs")])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe stays open: without the interrupt this would never end.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[0; 512]).unwrap();
    while place.files().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    // A shell's loop would go on after any exit code.
    assert_eq!(output.status.signal(), Some(SIGINT));
    assert_eq!(failure(&output), (None, "error: interrupted\n".to_owned()));
    assert_eq!(place.files(), [""; 0]);
}

const SIGINT: i32 = 2;

fn interrupt(child: &Child) {
    // The shell's own `kill`: not every machine has the program.
    let kill = Command::new("sh").args(["-c", "kill -INT $0", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

#[test]
fn completions_name_every_verb() {
    let place = Place::new();
    let verbs = verbs(&place.run("--help"));
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = place.command(["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        let asks = ["bash", "fish", "zsh"].contains(&shell);
        assert_eq!(script.contains("names-for-completion"), asks, "{shell} asks for the names of images");
        for verb in &verbs {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
}

#[test]
fn the_json_of_backends_lists_what_is_linked() {
    let place = Place::new();
    let output = place.command(["backends", "--json"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let schemes: Vec<&str> = document
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|backend| backend["schemes"].as_array().unwrap())
        .map(|scheme| scheme.as_str().unwrap())
        .collect();
    for scheme in ["docker", "docker-archive", "oci", "oci-archive", "registry"] {
        assert!(schemes.contains(&scheme), "{schemes:?}");
    }
    let oci = document.as_array().unwrap().iter().find(|backend| backend["schemes"][0] == "oci").unwrap();
    assert_eq!(oci["options"], "follow-symlinks=true");
    assert!(place.run("backends").contains("follow-symlinks=true"));
}

#[test]
fn a_place_on_this_machine_lists_full_names_and_an_archive_deletes_nothing() {
    let place = Place::new();
    let tag = "[exit 0]\n-- out\nlocalhost/sample:latest\n";
    for image in ["oci:examples/sample", "oci:examples/sample:latest"] {
        let text = place.run(&format!("tags {image}"));
        assert!(text.contains(tag), "{text}");
    }
    let text = place.run("tags oci:examples/sample:latest --json");
    assert!(text.contains("\"localhost/sample:latest\""), "{text}");
    let text = place.run("delete docker-archive:o.tar:app:1");
    assert!(text.contains("[exit 1]") && text.contains("this backend cannot delete images"), "{text}");
}

#[test]
fn formats_take_options_and_others_are_refused() {
    let place = Place::new();
    let output = place.command(["formats", "--json"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let named: Vec<(&str, &str)> = document
        .as_array()
        .unwrap()
        .iter()
        .map(|format| (format["name"].as_str().unwrap(), format["input"].as_str().unwrap()))
        .collect();
    let expected = [
        ("erofs", "image"),
        ("erofs-layers", "layer"),
        ("erofs-merged", "erofs-layers"),
        ("erofs-tar", "layer"),
        ("ext4", "image"),
        ("gpt", "erofs-merged"),
        ("raw", "erofs-merged"),
        ("vmdk", "erofs-merged"),
        ("vmdk-gpt", "erofs-merged"),
        ("vmdk-stream", "raw"),
    ];
    assert_eq!(named, expected);
    assert_eq!(document[2]["outputs"][0]["role"], "image");
    assert!(place.run("formats").contains("block-size=BYTES"));
    let sample = "materialize oci:examples/sample:latest --platform linux/amd64 --out {}/out -q";
    for (arguments, said) in [
        ("--as cpio", "invalid value 'cpio' for '--as <FORMAT>'"),
        ("--as vmdk -m depth=3", "there is no option `depth`: there are `split` and `verity`"),
        ("--as erofs -m uuid=7", "\"7\" is no UUID"),
        ("--as erofs -m mtime=soon", "invalid"),
        ("--as vmdk-stream -m of=ext4", "of is one of erofs, gpt and raw"),
        ("--as vmdk-stream -m level=10", "there are 1 to 9"),
        ("--as raw -m block-size=100", "512, 1024, 2048 or 4096"),
        ("--as erofs-layers -m block-size=100", "512, 1024, 2048 or 4096"),
        ("--as erofs-layers -m block-size", "format: erofs-layers"),
        ("--as erofs-layers -m block-size", "hint: write KEY=VALUE"),
        (
            "--as erofs-layers -m block-size=1 -m block-size=2",
            "invalid option `block-size`: it takes one value, and is given 2",
        ),
        ("--as erofs-layers -m block-size=x", "\"x\" is not a whole number"),
    ] {
        let text = place.run(&format!("{sample} {arguments}"));
        assert!(text.contains("[exit 2]") && text.contains(said), "{arguments}: {text}");
    }
    assert_eq!(place.files(), [""; 0]);
    let layer = || fs::read(place.path("out/layer-00.erofs")).unwrap();
    place.run(&format!("{sample} --as erofs-layers"));
    let usual = layer();
    // The superblock's `blkszbits`, at 1024 + 12.
    let text = place.run(&format!("{sample} --as erofs-merged -m block-size=512 -m label=root"));
    assert!(text.contains("[exit 0]"), "{text}");
    assert_eq!((usual[1036], layer()[1036]), (12, 9));
    let merged = fs::read(place.path("out/merged.erofs")).unwrap();
    assert_eq!((merged[1036], &merged[1024 + 64..1024 + 68]), (9, &b"root"[..]));
    let options = "-m mtime=258 -m uuid=01020304-0506-0708-090a-0b0c0d0e0f10";
    let text = place.run(&format!("{sample} --as erofs {options}"));
    assert!(text.contains("[exit 0]"), "{text}");
    let flat = fs::read(place.path("out/rootfs.erofs")).unwrap();
    let uuid: Vec<u8> = (1..=16).collect();
    assert_eq!((&flat[1024 + 24..1024 + 28], &flat[1024 + 48..1024 + 64]), (&[2, 1, 0, 0][..], &*uuid));
    // The layers that the set before had are gone, and nothing else is made.
    let entries = fs::read_dir(place.path("out")).unwrap();
    let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".plyfold-image", ".plyfold-set", "rootfs.erofs"]);
}
