//! The program when it is asked to end in the middle of its work: nothing half made stays.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_conformance::server::{Fault, FaultServer, On};

use super::run::Place;

/// Longer than anything here takes, on a machine that is busy.
const LONG: Duration = Duration::from_secs(120);

/// An image whose layers take a while to convert.
fn sample() -> Sample {
    let layer = |number: usize| {
        let content: Vec<u8> = (0..6 << 20).map(|at: usize| (at * 7 + at / 251 + number) as u8).collect();
        let mut layer = LayerBuilder::new();
        for name in ["a", "b", "c"] {
            layer = layer.file(name, 0o644, &content);
        }
        layer.finish()
    };
    samples::of_layers("interrupted", &(0..3).map(layer).collect::<Vec<_>>())
}

/// What is in a folder that is no partial download, which is kept to go on from.
fn half_made(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("sha256-")).collect()
}

/// Whether something is being made of a layer.
fn is_converting(store: &Path) -> bool {
    half_made(&store.join("ingest")).iter().any(|name| Path::new(name).extension().is_some())
}

fn signal(child: &Child, name: &str) {
    // The shell's own `kill`: not every machine has the program.
    let kill = format!("kill -s {name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// Waits for something to happen while the program runs; whether it did.
fn until(child: &mut Child, happens: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if happens() {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(start.elapsed() < LONG, "nothing happens");
        sleep(Duration::from_millis(1));
    }
}

/// The program, silent, with what it needs to be ended.
fn start(place: &Place, arguments: &[&str]) -> Running {
    let program = place.command(arguments);
    // The tests may be run with signals ignored, as by `nohup`.
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP,INT,TERM").arg(program.get_program()).args(program.get_args());
    command.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(program.get_current_dir().unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

#[test]
fn materialize_leaves_nothing_half_made_when_it_is_interrupted() {
    let sample = sample();
    let mut met = 0;
    for round in 0..6 {
        let server = FaultServer::start().unwrap();
        server.put("org/app", "1", &sample);
        let place = Place::new();
        let (image, out) = (format!("{}/org/app:1", server.host()), place.path("out"));
        let store = place.dir.path().join("store");
        let platform = ["--platform", "linux/amd64"];
        let materialize = ["materialize", &image, "--as", "erofs-merged", "--out", &out];
        // While it is downloaded, and out of what is here.
        if round % 2 == 1 {
            assert!(
                place.command(["pull", &image].iter().chain(&platform)).output().unwrap().status.success()
            );
        }
        let mut child = start(&place, &[&materialize[..], &platform].concat());
        if until(&mut child.0, || is_converting(&store)) {
            sleep(Duration::from_millis(round * 7));
            signal(&child.0, if round < 3 { "INT" } else { "TERM" });
        }
        met += u32::from(!child.0.wait().unwrap().success());
        assert_eq!(half_made(&store.join("ingest")), [""; 0], "round {round}");
    }
    assert!(met > 0, "it was never interrupted");
}

/// What is to be loaded by a Docker daemon is in a folder, which the next copy to one removes.
#[test]
fn a_copy_to_a_daemon_that_is_killed_leaves_nothing_to_the_next_one() {
    let place = Place::new();
    let (socket, folder) = (place.path("docker.sock"), place.dir.path().join("tmp"));
    fs::create_dir(&folder).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    // It takes connections, and never answers.
    std::thread::spawn(move || listener.incoming().map(Result::unwrap).collect::<Vec<_>>());
    let option = format!("socket={socket}");
    let copy = || {
        let mut command =
            place.command(["copy", "oci:examples/sample:latest", "docker-daemon:app:1", "-o", &option]);
        command.env("TMPDIR", &folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    };
    let mut first = copy();
    assert!(until(&mut first.0, || half_made(&folder).len() == 1));
    let left = half_made(&folder);
    signal(&first.0, "KILL");
    first.0.wait().unwrap();
    assert_eq!(half_made(&folder), left);
    let mut second = copy();
    assert!(until(&mut second.0, || half_made(&folder).len() == 1 && half_made(&folder) != left));
    // A third one leaves that of a running one alone.
    let used = half_made(&folder);
    let mut third = copy();
    assert!(until(&mut third.0, || half_made(&folder).len() == 2));
    assert!(half_made(&folder).contains(&used[0]));
}

/// The archive is as it was, and the next copy goes on with the blobs that are complete.
#[test]
fn a_copy_into_an_archive_goes_on_after_a_kill() {
    let (sample, server, place) = (sample(), FaultServer::start().unwrap(), Place::new());
    server.put("org/app", "1", &sample);
    let (image, archive) = (format!("{}/org/app:1", server.host()), place.path("images.tar"));
    let [old, new] = ["old", "new"].map(|tag| format!("oci-archive:{archive}:{tag}"));
    assert!(place.command(["copy", "oci:examples/sample:latest", &old]).output().unwrap().status.success());
    let before = fs::read(&archive).unwrap();
    let [first, second, last] = [0, 1, 2].map(|index| &sample.images[0].layers[index].descriptor);
    server.script(On::blob(last.digest()), [Fault::StallAt(1000)]);
    let part = place.dir.path().join(".images.tar.plyfold-part");
    let copy = ["copy", &image, &new, "-q", "--platform", "linux/amd64"];
    let mut child = start(&place, &copy);
    let stored = first.size() + second.size();
    assert!(until(&mut child.0, || {
        server.served(last.digest()).requests > 0 && fs::metadata(&part).is_ok_and(|part| part.len() > stored)
    }));
    signal(&child.0, "KILL");
    child.0.wait().unwrap();
    assert!(fs::read(&archive).unwrap() == before, "the archive is as it was");
    server.clear_scripts();
    server.clear_requests();
    let output = place.command(copy).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for layer in [first, second] {
        assert_eq!(server.served(layer.digest()).requests, 0, "{} is asked for again", layer.digest());
    }
    assert!(!part.exists());
    let listed = place.command(["load", &archive, "--list", "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(text.contains("images:old") && text.contains(sample.top.digest().as_ref()), "{text}");
}

/// The other layers are being converted when one turns out to be wrong.
#[test]
fn materialize_leaves_nothing_half_made_when_it_fails() {
    let sample = sample();
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &sample);
    let last = &sample.images[0].layers[2].descriptor;
    server.script(On::blob(last.digest()), [Fault::Flip(1000)]);
    for _ in 0..3 {
        let place = Place::new();
        let (image, out) = (format!("{}/org/app:1", server.host()), place.path("out"));
        let arguments = ["materialize", &image, "--out", &out, "--platform", "linux/amd64", "-q"];
        assert!(!place.command(arguments).output().unwrap().status.success());
        assert_eq!(half_made(&place.dir.path().join("store/ingest")), [""; 0]);
        assert_eq!(place.files(), [""; 0]);
    }
}

/// A tar that stops to come, and files that take a while to write.
#[test]
fn outputs_leave_nothing_half_made_when_they_are_interrupted() {
    let content = vec![7; 40 << 20];
    let tar = LayerBuilder::new().file("f", 0o644, &content).finish();
    let sample = samples::of_layers("written", std::slice::from_ref(&tar));
    let place = Place::new();
    let layout = place.dir.path().join("store/layout");
    fs::create_dir_all(&layout).unwrap();
    samples::write_layout(&layout, &[("localhost/layout:1".to_owned(), &sample)]).unwrap();
    fs::write(place.dir.path().join("store/layer.tar"), &tar).unwrap();
    let (image, input) = (format!("oci:{}:1", layout.display()), place.path("store/layer.tar"));
    let out = place.path("out");
    let images = place.path("store/images");
    let export = ["--store", &images, "export", &image, "--out", &out, "--platform", "linux/amd64"];
    let layer = ["layer", &input, "--out", &out];
    let silent = ["layer", "-", "--out", &out];
    for (arguments, name) in [(&export[..], "INT"), (&layer, "TERM"), (&silent, "INT"), (&silent, "HUP")] {
        // A fast machine may be done before the file is seen.
        let being_written = || {
            let mut child = start(&place, arguments);
            let makes = || place.files().iter().any(|name| name.contains(".plyfold-"));
            until(&mut child.0, makes).then_some(child)
        };
        let met = std::iter::repeat_with(being_written).take(20).flatten().next();
        let mut child = met.unwrap_or_else(|| panic!("{arguments:?} makes no file"));
        // Its end would be an end of the tar, and the file then complete.
        let input = child.0.stdin.take();
        signal(&child.0, name);
        let ended = child.0.wait().unwrap();
        drop(input);
        let left = place.files();
        assert!(left.is_empty() || (ended.success() && left == ["out"]), "{arguments:?}: {left:?}");
        let _ = fs::remove_file(&out);
    }
}

/// A write beyond the limit of the shell is an error, and no end by `SIGXFSZ`.
#[test]
fn a_limit_on_the_size_of_files_leaves_nothing_half_made() {
    let place = Place::new();
    let tar = LayerBuilder::new().file("f", 0o644, &vec![7; 4 << 20]).finish();
    fs::create_dir(place.path("in")).unwrap();
    fs::write(place.path("in/layer.tar"), tar).unwrap();
    let (input, out) = (place.path("in/layer.tar"), place.path("out"));
    let limited = ["-c", "ulimit -f 1000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_plyfold")];
    let run = Command::new("sh").args(limited).args(["layer", &input, "--out", &out]).output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code().is_some_and(|code| code > 0), "{:?}: {said}", run.status);
    assert!(said.contains("`ulimit -f`"), "{said}");
    assert_eq!(place.files(), ["in/layer.tar"]);
}

/// What a killed run has left beside an output goes with the next run that writes there; what a run that lives is writing,
/// and what is not ours, stays.
#[test]
fn what_killed_runs_left_goes_with_the_next() {
    let place = Place::new();
    let out = place.path("out");
    let writing = || {
        let before = place.files();
        let mut child = start(&place, &["layer", "-", "--out", &out]);
        assert!(
            until(&mut child.0, || place.files().iter().any(|name| !before.contains(name))),
            "it makes a file"
        );
        child
    };
    let mut dead = writing();
    dead.0.kill().unwrap();
    dead.0.wait().unwrap();
    let left = place.files();
    assert!(left.len() == 1 && left[0].starts_with(".plyfold-tmp-"), "{left:?}");
    let mut alive = writing();
    // The new file is there before the old one goes.
    assert!(until(&mut alive.0, || !place.files().contains(&left[0])));
    let kept = place.files();
    assert!(kept.len() == 1 && kept != left, "{left:?}, then {kept:?}");
    fs::write(place.path("other"), "").unwrap();
    fs::hard_link(place.path("other"), place.path(".plyfold-tmp-linked")).unwrap();
    // What users keep there, and what sets do.
    let kept_names = [".plyfold-image", ".plyfold-notes", ".plyfold-set", ".plyfold-tmp-notes", "other"];
    for name in kept_names {
        fs::write(place.path(name), "").unwrap();
    }
    let disk = ["disk", "--size", "64M", "--out", &place.path("disk.ext4")];
    assert!(place.command(disk).output().unwrap().status.success());
    let mut expected = vec![".plyfold-tmp-linked", &kept[0], "disk.ext4"];
    expected.extend(kept_names);
    expected.sort_unstable();
    assert_eq!(place.files(), expected);
    drop(alive);
}

/// A save or a load that is killed leaves nothing that looks like its result, and nothing in the way of the next one.
#[test]
fn a_killed_snapshot_leaves_nothing_half_made() {
    type Begun<'a> = &'a dyn Fn() -> bool;
    let place = Place::new();
    let run = |arguments: &[&str]| place.command(arguments).output().unwrap();
    let (vm, saved, out) = (place.path("vm"), place.path("saved"), place.path("out"));
    let sample = ["materialize", "oci:examples/sample:latest", "--platform", "linux/amd64", "-q"];
    assert!(
        run(&[&sample[..], &["--as", "vmdk", "--upper", "256M", "--out", &vm]].concat()).status.success()
    );
    let upper = fs::File::options().write(true).open(Path::new(&vm).join("upper.ext4")).unwrap();
    let data: Vec<u8> = (0..48 << 20).map(|at: usize| (at * 7 + at / 251 + 1) as u8).collect();
    std::os::unix::fs::FileExt::write_all_at(&upper, &data, 100 << 20).unwrap();
    let ingest = place.dir.path().join("store/ingest");
    let is_staged = || place.files().iter().any(|name| name.starts_with(".plyfold-set-"));
    let is_stored = || fs::read_dir(&ingest).is_ok_and(|names| names.count() > 0);
    let lines: [(&[&str], &str, Begun<'_>); 3] = [
        (&["snapshot", "save", &vm, "--out", &saved], "saved", &is_staged),
        (&["snapshot", "save", &vm, "state:1"], "state", &is_stored),
        (&["snapshot", "load", &saved, "--out", &out], "out", &is_staged),
    ];
    for (arguments, name, is_begun) in lines {
        let mut met = 0;
        for round in 0..20 {
            let mut child = start(&place, arguments);
            if until(&mut child.0, is_begun) {
                sleep(Duration::from_millis(round * 5));
                child.0.kill().unwrap();
            }
            if child.0.wait().unwrap().success() {
                // It was faster. Done again, it meets what it has made.
                let _ = fs::remove_dir_all(place.path(name));
                run(&["remove", "state:1"]);
                continue;
            }
            met += 1;
            assert!(!Path::new(&place.path(name)).exists(), "round {round}: {arguments:?}");
            let listed = run(&["snapshot", "list", "--json"]).stdout;
            assert_eq!(String::from_utf8_lossy(&listed).trim(), "[]", "round {round}: {arguments:?}");
            if met == 4 {
                break;
            }
        }
        assert!(met > 0, "{arguments:?} was never killed");
        let output = run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!place.files().iter().any(|name| name.starts_with(".plyfold-")), "{:?}", place.files());
        if name == "state" {
            assert!(run(&["snapshot", "verify", "state:1"]).status.success());
            assert!(run(&["snapshot", "rm", "state:1"]).status.success());
            assert!(run(&["gc", "--partial"]).status.success());
            assert!(!is_stored(), "{:?}", half_made(&ingest));
        }
    }
    for name in ["merged.erofs", "upper.ext4"] {
        let [old, new] = [&vm, &out].map(|folder| fs::read(Path::new(folder).join(name)).unwrap());
        assert!(old == new, "{name}");
    }
}

/// Standard input that is an archive has no name anywhere, so that nothing of it can stay.
#[test]
fn a_killed_load_leaves_no_archive() {
    let place = Place::new();
    let spool = place.path("spool");
    fs::create_dir(&spool).unwrap();
    let mut command = place.command(["load", "-"]);
    command.env("TMPDIR", &spool).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Running(command.spawn().unwrap());
    let mut stdin = child.0.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &vec![0; 1 << 20]).unwrap();
    let reads = || {
        let open = fs::read_dir(format!("/proc/{}/fd", child.0.id())).unwrap().flatten();
        let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.filter(|target| target.starts_with(&spool)).count() > 0
    };
    let begun = Instant::now();
    while !reads() {
        assert!(begun.elapsed() < LONG, "nothing is read");
        sleep(Duration::from_millis(1));
    }
    let named: Vec<_> = fs::read_dir(&spool).unwrap().flatten().collect();
    assert!(named.is_empty(), "{named:?}");
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 0);
}

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This process holds the lock on the folder, as one that publishes a set there.
#[test]
fn materialize_waits_while_another_process_publishes_to_the_same_folder() {
    let place = Place::new();
    let (one, out) = (place.path("one"), place.path("out"));
    let sample = ["materialize", "oci:examples/sample:latest", "--platform", "linux/amd64", "-q"];
    let with = |format, out| [&sample[..], &["--as", format, "--out", out]].concat();
    // What is to be made is in the store already.
    assert!(place.command(with("vmdk", &one)).output().unwrap().status.success());
    fs::create_dir(&out).unwrap();
    fs::write(Path::new(&out).join("mine"), "mine").unwrap();
    let lock = fs::File::open(&out).unwrap();
    lock.lock().unwrap();
    let mut killed = start(&place, &with("erofs-layers", &out));
    let mut waits = start(&place, &with("vmdk", &out));
    sleep(Duration::from_secs(2));
    assert_eq!(half_made(Path::new(&out)), ["mine"], "its names are not touched");
    assert!(waits.0.try_wait().unwrap().is_none() && killed.0.try_wait().unwrap().is_none());
    signal(&killed.0, "TERM");
    assert!(!killed.0.wait().unwrap().success());
    drop(lock);
    assert!(waits.0.wait().unwrap().success());
    let mut names = half_made(Path::new(&one));
    names.push("mine".to_owned());
    let mut there = half_made(Path::new(&out));
    names.sort();
    there.sort();
    assert_eq!(there, names);
}
