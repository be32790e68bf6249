//! What a terminal shows.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plyfold::Digest;
use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use plyfold_conformance::server::{Fault, FaultServer, On};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::run::Place;

const SIZE: u64 = 4 << 20;
const COLUMNS: u16 = 80;

/// A pull that goes on tells how fast it is now, in lines that fit.
#[test]
fn bars_fit_and_tell_the_speed() {
    let scene = Scene::new(1);
    let layer = scene.layer(0);
    let mut child = Running(scene.pull().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let start = Instant::now();
    while scene.server.served(layer).bytes < SIZE / 2 {
        assert!(start.elapsed() < Duration::from_secs(60), "the pull does not move");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.0.kill().unwrap();
    child.0.wait().unwrap();

    let (mut child, mut screen) = scene.on_a_terminal();
    let shown = rest_of(&mut screen);
    assert!(child.0.wait().unwrap().success());
    assert!(shown.contains("resumes after"), "{shown:?}");
    let drawn = drawn(&shown, " of 4.0 MiB");
    assert!(
        drawn.iter().any(|line| line.contains(&format!(", from http://{}", scene.server.host())[..20])),
        "{shown:?}"
    );
    for line in drawn {
        assert!(line.chars().count() <= usize::from(COLUMNS), "{line:?}");
        assert!(!line.contains("GiB/s"), "what was here before is no speed: {line:?}");
    }
}

/// Several layers have one more bar for all of them, with a speed and the time that is left.
#[test]
fn a_total_fits_a_narrow_terminal() {
    let scene = Scene::new(3);
    let (mut child, mut screen) = scene.on_a_terminal();
    let shown = rest_of(&mut screen);
    assert!(child.0.wait().unwrap().success());
    // The bars are written one behind the other, each as wide as the terminal.
    let total = drawn(&shown, "total  ").into_iter().map(|line| &line[line.find("total  ").unwrap()..]);
    let total: Vec<&str> = total.collect();
    assert!(!total.is_empty(), "{shown:?}");
    assert!(total.iter().any(|line| line.contains(" of 12.0 MiB, ") && line.contains("iB/s, ")), "{total:?}");
    for line in total {
        assert!(line.chars().count() <= usize::from(COLUMNS), "{line:?}");
    }
    let left = on_screen(&shown);
    assert!(!left.iter().any(|line| line.contains("iB/s, ")), "{left:#?}");
}

/// An interrupt leaves one line, which says what is kept, and no bar; also when it is typed, which a terminal shows.
#[test]
fn an_interrupt_leaves_one_line() {
    let by_signal = |child: &Child, _: &mut File| {
        kill_process(Pid::from_child(child), Signal::INT).unwrap();
    };
    let typed = |_: &Child, screen: &mut File| screen.write_all(b"\x03").unwrap();
    let lines = interrupted(by_signal);
    assert!(!lines.iter().any(|line| line.contains("iB/s, ")), "{lines:#?}");
    let said = lines.iter().rfind(|line| !line.is_empty()).unwrap();
    let said = said.strip_prefix("error: interrupted; ").expect(said);
    let (size, rest) = said.split_once(" MiB are kept").expect(said);
    assert!((1.0..=8.0).contains(&size.parse::<f64>().unwrap()), "{said}");
    assert_eq!(rest, ", and the same command resumes there");
    // A bar that is being written when the key is pressed stands below what the terminal shows of the key.
    let mut attempts = (0..4).map(|_| interrupted(typed));
    let is_clear =
        |lines: &Vec<String>| !lines.iter().any(|line| line.contains("iB/s, ") || line.contains("^C"));
    assert!(attempts.any(|lines| is_clear(&lines)), "a bar is left");
}

/// What is on a terminal after a pull was interrupted in the middle.
fn interrupted(how: impl Fn(&Child, &mut File)) -> Vec<String> {
    let scene = Scene::new(2);
    let (mut child, mut screen) = scene.on_a_terminal();
    let mut shown = scene.first_half(&mut screen);
    how(&child.0, &mut screen);
    while more_of(&mut screen, &mut shown) {}
    assert!(!child.0.wait().unwrap().success());
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("iB/s, "), "bars were drawn: {shown:?}");
    on_screen(&shown)
}

/// An interrupt before the registry has answered leaves the lines above the bar as they are.
#[test]
fn an_interrupt_before_the_answer_leaves_what_was_told() {
    let scene = Scene::new(1);
    scene.server.clear_scripts();
    scene.server.script(On::blob(scene.layer(0)), [Fault::Delay(Duration::from_secs(10))]);
    let (mut child, mut screen) = scene.on_a_terminal();
    let start = Instant::now();
    while scene.server.served(scene.layer(0)).requests == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "the layer is not asked for");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The event before the request is shown at about the same time.
    std::thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_child(&child.0), Signal::INT).unwrap();
    let shown = rest_of(&mut screen);
    assert!(!child.0.wait().unwrap().success());
    let lines = on_screen(&shown);
    let lines: Vec<&String> = lines.iter().filter(|line| !line.is_empty()).collect();
    let [told, said] = lines[..] else { panic!("{lines:#?}") };
    assert!(told.contains("/org/app:1 is ") && told.ends_with(" MiB"), "{lines:#?}");
    assert_eq!(said, "error: interrupted");
}

/// A warning is written above the bars, and an error takes the place of them.
#[test]
fn a_warning_and_an_error_leave_no_bar() {
    let scene = Scene::new(2);
    scene.server.clear_scripts();
    let slow = Fault::Pace(64 << 10, Duration::from_millis(20));
    let on = |layer| On::blob(scene.layer(layer)).method("GET");
    scene.server.script(on(1).times(1), [Fault::Status(503)]);
    scene.server.script(on(1), [slow]);
    scene.server.script(on(0), [Fault::Status(403), Fault::Delay(Duration::from_secs(3))]);
    let (mut child, mut screen) = scene.on_a_terminal();
    let shown = rest_of(&mut screen);
    assert!(!child.0.wait().unwrap().success());
    assert!(!drawn(&shown, " of 4.0 MiB").is_empty(), "{shown:?}");
    let lines = on_screen(&shown);
    assert!(!lines.iter().any(|line| line.contains("iB/s, ")), "{lines:#?}");
    for word in [" is ", "warning: ", "error: "] {
        assert_eq!(lines.iter().filter(|line| line.contains(word)).count(), 1, "{word}: {lines:#?}");
    }
}

/// A terminal that has no escape sequences gets none.
#[test]
fn a_dumb_terminal_gets_no_escape_sequences() {
    let scene = Scene::new(2);
    let (mut child, mut screen) = scene.started_by(&["env", "TERM=dumb"]);
    let start = Instant::now();
    while scene.server.served(scene.layer(0)).bytes < SIZE / 2 {
        assert!(start.elapsed() < Duration::from_secs(60), "the pull does not move");
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_process(Pid::from_child(&child.0), Signal::INT).unwrap();
    let shown = rest_of(&mut screen);
    assert!(!child.0.wait().unwrap().success());
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert!(shown.contains("\nerror: interrupted; "), "{shown:?}");
}

/// A terminal that is closed ends a pull by a signal; a pull that ignores the signal goes on.
#[test]
fn a_closed_terminal_is_no_failure() {
    let status = |by: &[&str]| {
        let scene = Scene::new(2);
        let (mut child, mut screen) = scene.started_by(by);
        scene.first_half(&mut screen);
        drop(screen);
        child.0.wait().unwrap()
    };
    let ended = status(&["env", "TERM=xterm"]);
    assert_eq!(ended.signal(), Some(Signal::HUP.as_raw()), "{ended}");
    let went_on = status(&["sh", "-c", "trap '' HUP; TERM=xterm exec \"$@\"", "sh"]);
    assert!(went_on.success(), "{went_on}");
}

/// A list and an image fit a terminal of 80 columns, however long their names and values.
#[test]
fn lists_fit() {
    let place = Place::new();
    place.run("pull oci:examples/sample:latest --platform linux/amd64 -q");
    place.run("tag localhost/sample registry.of-a-long-name.example:5000/a/repository/deep/within:1.2.3");
    for arguments in [&["list"][..], &["inspect", "localhost/sample", "--platform", "linux/amd64"]] {
        let (mut screen, terminal) = terminal();
        let mut command = place.command(arguments);
        command.stdout(terminal);
        let mut child = Running(command.spawn().unwrap());
        drop(command);
        let shown = rest_of(&mut screen);
        assert!(child.0.wait().unwrap().success());
        assert!(shown.lines().count() > 2, "{shown}");
        for line in shown.lines() {
            assert!(line.chars().count() <= usize::from(COLUMNS), "{line:?}");
        }
    }
}

/// A slow registry with an image, and a store.
struct Scene {
    place: Place,
    server: FaultServer,
    sample: Sample,
}

impl Scene {
    fn new(layers: usize) -> Self {
        let content = |layer: usize| {
            let mut content = vec![0; SIZE as usize - 3 * 512];
            for (at, byte) in content.iter_mut().enumerate() {
                *byte = (at * (7 + layer) + at / 251) as u8;
            }
            LayerBuilder::new().file("f", 0o644, &content).finish()
        };
        let sample = samples::of_layers("slow", &(0..layers).map(content).collect::<Vec<_>>());
        let server = FaultServer::start().unwrap();
        server.put("org/app", "1", &sample);
        for layer in &sample.images[0].layers {
            let slow = Fault::Pace(64 << 10, Duration::from_millis(20));
            server.script(On::blob(layer.descriptor.digest()), [slow]);
        }
        Self { place: Place::new(), server, sample }
    }

    fn layer(&self, index: usize) -> &Digest {
        self.sample.images[0].layers[index].descriptor.digest()
    }

    fn pull(&self) -> Command {
        let image = format!("{}/org/app:1", self.server.host());
        self.place.command(["pull", &image, "--platform", "linux/amd64"])
    }

    /// The program on a terminal of its own, which sends it what is typed as signals.
    fn on_a_terminal(&self) -> (Running, File) {
        self.started_by(&["env", "TERM=xterm"])
    }

    /// The same, started by a program that becomes it.
    fn started_by(&self, by: &[&str]) -> (Running, File) {
        let (screen, terminal) = terminal();
        let pull = self.pull();
        let mut command = Command::new("setsid");
        // The tests may be run with signals ignored, as by `nohup`.
        command.args(["--ctty", "env", "--default-signal=HUP,INT,TERM"]);
        command.args(by).arg(pull.get_program()).args(pull.get_args());
        command.envs(pull.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(terminal.try_clone().unwrap()).stdout(Stdio::null()).stderr(terminal);
        // The terminal's other end has no writer but the child when this command is gone.
        (Running(command.spawn().unwrap()), screen)
    }

    /// What the terminal shows until half of the first layer was sent.
    fn first_half(&self, screen: &mut File) -> Vec<u8> {
        let mut shown = Vec::new();
        while self.server.served(self.layer(0)).bytes < SIZE / 2 {
            assert!(more_of(screen, &mut shown), "{}", String::from_utf8_lossy(&shown));
        }
        shown
    }
}

/// What a terminal of 80 columns shows, and the terminal.
fn terminal() -> (File, File) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let path = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    let terminal = File::options().read(true).write(true).open(path).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (File::from(controller), terminal)
}

/// Adds what a terminal shows next, in bytes: a read can end inside a character. Whether there was more.
fn more_of(screen: &mut File, shown: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 4096];
    // Linux returns EIO to the reader of a terminal that no process has open.
    let count = screen.read(&mut bytes).unwrap_or(0);
    shown.extend_from_slice(&bytes[..count]);
    count > 0
}

fn rest_of(screen: &mut File) -> String {
    let mut shown = Vec::new();
    while more_of(screen, &mut shown) {}
    String::from_utf8_lossy(&shown).into_owned()
}

/// The lines with this text, as they were drawn.
fn drawn<'a>(shown: &'a str, text: &str) -> Vec<&'a str> {
    let lines = shown.split(['\r', '\n', '\u{1b}']).filter(|line| line.contains(text));
    lines.map(|line| line.strip_prefix("[2K").unwrap_or(line)).collect()
}

/// What is on a terminal of 80 columns, and rows without end, after all that was written to it.
fn on_screen(shown: &str) -> Vec<String> {
    let (mut rows, mut row, mut column): (Vec<Vec<char>>, usize, usize) = (Vec::new(), 0, 0);
    let mut rest = shown.chars();
    while let Some(c) = rest.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{1b}' => {
                assert_eq!(rest.next(), Some('['));
                let mut sequence = String::new();
                while !sequence.ends_with(|c: char| c.is_ascii_alphabetic()) {
                    sequence.push(rest.next().unwrap());
                }
                let (count, what) = sequence.split_at(sequence.len() - 1);
                let count = count.parse().unwrap_or(1);
                match what {
                    "A" => row = row.saturating_sub(count),
                    "B" => row += count,
                    "K" if count == 2 => rows.get_mut(row).into_iter().for_each(Vec::clear),
                    "K" => rows.get_mut(row).into_iter().for_each(|row| row.truncate(column)),
                    "m" => {}
                    other => panic!("an escape sequence that this terminal does not know: {other:?}"),
                }
            }
            c => {
                // The cursor waits behind the last column for what comes next.
                if column == usize::from(COLUMNS) {
                    (row, column) = (row + 1, 0);
                }
                if rows.len() <= row {
                    rows.resize(row + 1, Vec::new());
                }
                if rows[row].len() <= column {
                    rows[row].resize(column + 1, ' ');
                }
                rows[row][column] = c;
                column += 1;
            }
        }
    }
    rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
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
