//! What a terminal shows.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_conformance::server::{Fault, FaultServer, On};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::run::Place;

const SIZE: u64 = 4 << 20;
const COLUMNS: u16 = 80;

/// A pull that goes on tells how fast it is now, in lines that fit.
#[test]
fn bars_fit_and_tell_the_speed() {
    let mut content = vec![0; SIZE as usize - 3 * 512];
    for (at, byte) in content.iter_mut().enumerate() {
        *byte = (at * 7 + at / 251) as u8;
    }
    let sample = samples::of_layers("slow", &[LayerBuilder::new().file("f", 0o644, &content).finish()]);
    let layer = sample.images[0].layers[0].descriptor.digest();
    let server = FaultServer::start().unwrap();
    server.put("org/app", "1", &sample);
    server.script(On::blob(layer), [Fault::Pace(64 << 10, Duration::from_millis(20))]);
    let place = Place::new();
    let image = format!("{}/org/app:1", server.host());
    let pull = || place.command(["pull", &image, "--platform", "linux/amd64"]);
    let mut child = Running(pull().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let start = Instant::now();
    while server.served(layer).bytes < SIZE / 2 {
        assert!(start.elapsed() < Duration::from_secs(60), "the pull does not move");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.0.kill().unwrap();
    child.0.wait().unwrap();

    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let path = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().read(true).write(true).open(path).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let mut command = pull();
    command.env("TERM", "xterm").stdout(Stdio::null()).stderr(terminal);
    let mut child = Running(command.spawn().unwrap());
    // The terminal's other end has no writer but the child now.
    drop(command);
    let (mut shown, mut bytes) = (Vec::new(), [0; 4096]);
    let mut screen = File::from(controller);
    // Linux ends the reading of a terminal that nobody has open any more by EIO.
    while let Ok(count @ 1..) = screen.read(&mut bytes) {
        shown.extend_from_slice(&bytes[..count]);
    }
    assert!(child.0.wait().unwrap().success());
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("resumes after"), "{shown:?}");
    let drawn: Vec<&str> =
        shown.split(['\r', '\n', '\u{1b}']).filter(|line| line.contains(" of 4.0 MiB")).collect();
    assert!(
        drawn.iter().any(|line| line.contains(&format!(", from http://{}", server.host())[..20])),
        "{shown:?}"
    );
    for line in drawn {
        let line = line.strip_prefix("[2K").unwrap_or(line);
        assert!(line.chars().count() <= usize::from(COLUMNS), "{line:?}");
        assert!(!line.contains("GiB/s"), "what was here before is no speed: {line:?}");
    }
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
