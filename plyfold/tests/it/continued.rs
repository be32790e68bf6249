//! Copies that are killed in the middle of a blob, and go on there.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_conformance::server::{Fault, FaultServer, On};

use super::run::Place;

/// Longer than anything here takes, on a machine that is busy.
const LONG: Duration = Duration::from_secs(120);
/// Bytes of the layer, about.
const SIZE: usize = 32 << 20;

/// The bytes of the largest file below a folder.
fn largest(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => largest(&entry.path()),
        found => found.map_or(0, |found| found.len()),
    };
    entries.filter_map(Result::ok).map(size).max().unwrap_or(0)
}

/// What no compression makes smaller (xorshift, Marsaglia 2003).
fn noise() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(SIZE);
    while bytes.len() < SIZE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

#[test]
fn what_is_killed_in_the_middle_of_a_blob_goes_on_there() {
    let sample = samples::of_layers("large", &[LayerBuilder::new().file("noise", 0o644, &noise()).finish()]);
    let layer = &sample.images[0].layers[0].descriptor;
    let (server, place) = (FaultServer::start().unwrap(), Place::new());
    server.put("org/app", "1", &sample);
    let image = format!("{}/org/app:1", server.host());
    let list = place.path("list.toml");
    fs::write(&list, format!("version = 1\n[[image]]\nname = \"{image}\"\n")).unwrap();
    let path = |name: &str| place.path(&format!("{name}/it"));
    let half = SIZE as u64 / 2;
    for (name, verb, source, target) in [
        ("layout", "copy", &image, format!("oci:{}:1", path("layout"))),
        ("archive", "copy", &image, format!("oci-archive:{}:1", path("archive"))),
        ("dir", "copy", &image, format!("dir:{}", path("dir"))),
        ("synced", "sync", &list, format!("oci:{}", path("synced"))),
        ("packed", "sync", &list, format!("oci-archive:{}", path("packed"))),
    ] {
        let folder = place.dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        server.script(On::blob(layer.digest()), [Fault::StallAt(half)]);
        let run = [verb, source, &target, "-q"];
        let mut command = place.command(run);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let start = Instant::now();
        // A writer has up to a MiB in its memory.
        while largest(&folder) < half - (5 << 18) {
            assert!(start.elapsed() < LONG, "{name}: {} bytes have arrived", largest(&folder));
            assert!(child.try_wait().unwrap().is_none(), "{name}: it has ended");
            sleep(Duration::from_millis(1));
        }
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        server.clear_scripts();
        server.clear_requests();
        let output = place.command(run).output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        let read = server.served(layer.digest());
        let missing = layer.size() - half;
        assert!(read.bytes <= missing + layer.size() / 20, "{name}: {read:?} of {missing} bytes");
        let there = largest(&folder);
        assert!(there >= layer.size(), "{name}: {there} bytes");
        server.clear_requests();
    }
}
