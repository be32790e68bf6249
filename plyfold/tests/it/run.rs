//! Whole runs of the program, as text that can be compared.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::baseline;

/// What a run has said with `--json`.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) document: Value,
    pub(crate) error: Value,
    /// How many.
    pub(crate) warnings: usize,
}

impl Told {
    /// Whether it has failed by an error of this kind, with a hint.
    pub(crate) fn is_refused(&self, kind: &str) -> bool {
        self.code != Some(0) && self.error["kind"] == kind && self.error["hint"].is_string()
    }
}

/// A place to run the program in: a store, and a directory for its output.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    /// Servers, whose ports are chance.
    pub(crate) hosts: Vec<String>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), hosts: Vec::new() }
    }

    /// A path in the directory for output.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// The program with arguments, in the workspace's root, on a machine that is the same everywhere.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plyfold"));
        command
            .args(arguments)
            .current_dir(baseline::root())
            .env_clear()
            .env("PLYFOLD_STORE", self.dir.path().join("store"))
            .stdin(Stdio::null());
        command
    }

    /// Runs it: the line, the exit code, and what it wrote. `{}` stands for the directory for output.
    pub(crate) fn run(&self, line: &str) -> String {
        self.run_fed(line, b"")
    }

    /// The same with something on standard input.
    pub(crate) fn run_fed(&self, line: &str, input: &[u8]) -> String {
        let place = |word: &str| word.replace("{}", self.dir.path().to_str().unwrap());
        let host =
            |word: String| self.hosts.first().map_or(word.clone(), |host| word.replace("HOST:PORT", host));
        let arguments = line.split(' ').map(|word| host(place(word)));
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        if let Some(mut stdin) = child.stdin.take() {
            // It may end without having read all.
            let _ = stdin.write_all(input);
        }
        let output = child.wait_with_output().unwrap();
        let mut parts = vec![format!("$ plyfold {line}\n[exit {}]\n", output.status.code().unwrap_or(-1))];
        for (name, bytes) in [("out", &output.stdout), ("err", &output.stderr)] {
            if !bytes.is_empty() {
                parts.push(format!("-- {name}\n{}", self.filtered(bytes)));
            }
        }
        parts.concat()
    }

    /// Runs it with `--json`: what its documents and events say.
    pub(crate) fn told(&self, line: &str) -> Told {
        let line = format!("{line} --json").replace("{}", self.dir.path().to_str().unwrap());
        let host =
            |word: &str| self.hosts.first().map_or(word.to_owned(), |host| word.replace("HOST:PORT", host));
        let output = self.command(line.split_whitespace().map(host)).output().unwrap();
        let events = output.stderr.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events: Vec<Value> = events.map(|line| serde_json::from_slice(line).unwrap()).collect();
        Told {
            code: output.status.code(),
            document: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            warnings: events.iter().filter(|event| event["event"] == "warning").count(),
            error: events.into_iter().rfind(|event| event["kind"].is_string()).unwrap_or_default(),
        }
    }

    /// The file names below the directory for output, temporary ones among them; without those in the store, and without
    /// the record that every set has.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut pending = vec![self.dir.path().to_owned()];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.dir.path()).unwrap().display().to_string();
                match path.is_dir() {
                    _ if name == "store" || name.ends_with("/.plyfold-image") => {}
                    true => pending.push(path),
                    false => names.push(name),
                }
            }
        }
        names.sort();
        names
    }

    fn filtered(&self, bytes: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(bytes).replace(self.dir.path().to_str().unwrap(), "{}");
        for host in &self.hosts {
            text = text.replace(host, "HOST:PORT");
        }
        // When an image was used is chance, too.
        let text: String = text.split_inclusive('\n').map(timeless).collect();
        // How often progress is reported depends on timing.
        let text: String =
            text.split_inclusive('\n').filter(|line| !line.contains(r#""event":"blob-progress""#)).collect();
        // What is read first, and how often that is reported, depends on timing, too.
        let mut lines: Vec<String> =
            text.split_inclusive('\n').map(|line| numberless(line, r#""read":"#)).collect();
        lines.dedup_by(|line, before| line == before && line.contains(r#""event":"verify-progress""#));
        let text = lines.concat();
        // Layers are fetched and converted at once: which is done first is chance.
        let (mut progress, rest): (Vec<&str>, Vec<&str>) =
            text.split_inclusive('\n').partition(|line| is_progress(line));
        progress.sort_unstable();
        progress.concat() + &rest.concat()
    }
}

/// A line of JSON without the number behind this key.
fn numberless(line: &str, key: &str) -> String {
    match line.split_once(key) {
        Some((before, number)) => {
            let rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}{key}SOME{rest}")
        }
        None => line.to_owned(),
    }
}

/// A line of JSON without the time that it tells.
fn timeless(line: &str) -> String {
    match line.split_once(r#""used": "#) {
        Some((before, time)) => {
            let rest = time.trim_start_matches(|c: char| c.is_ascii_digit());
            format!(r#"{before}"used": TIME{rest}"#)
        }
        None => line.to_owned(),
    }
}

fn is_progress(line: &str) -> bool {
    let concurrent = ["blob-done", "blob-opened", "blob-started", "converted", "layer-done"];
    if concurrent.iter().any(|event| line.contains(&format!(r#""event":"{event}""#))) {
        return true;
    }
    let (digest, rest) = line.split_once(' ').unwrap_or_default();
    digest.len() == 12
        && digest.bytes().all(|c| c.is_ascii_hexdigit())
        && ["copied", "fetched", "converted", "is "].iter().any(|word| rest.starts_with(word))
}

/// Compares runs with the file of that name.
pub(crate) fn check(name: &str, runs: &[String]) {
    let path = Path::new("plyfold/tests/it/runs").join(name).with_extension("txt");
    baseline::check(path, runs.join("\n").as_bytes());
}

/// The exit code and standard error, for runs whose text is not the same everywhere.
pub(crate) fn failure(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
