//! A command line under measurement.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::result::Result;

/// A command line, and the files and folders that it makes.
#[derive(Clone)]
pub(crate) struct Program {
    words: Vec<OsString>,
    outs: Vec<PathBuf>,
    before: Vec<Program>,
}

/// What one run takes, or the medians of several. All but the time comes from GNU `time`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Cost {
    /// Seconds.
    pub(crate) wall: f64,
    /// Seconds, of all cores.
    pub(crate) cpu: Option<f64>,
    /// Peak memory of the largest process, in MiB.
    pub(crate) memory: Option<f64>,
    /// Bytes that were written to a disk, or will be, in MB; on tmpfs none.
    pub(crate) written: Option<f64>,
}

impl Program {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self { words: vec![program.as_ref().to_owned()], outs: Vec::new(), before: Vec::new() }
    }

    /// A script for the shell, with words as `$1` and so on.
    pub(crate) fn shell(script: &str) -> Self {
        Self::new("sh").arg("-c").arg(script).arg("sh")
    }

    pub(crate) fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    pub(crate) fn args(self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        words.into_iter().fold(self, Self::arg)
    }

    /// An argument that names an output, which is removed before each run.
    pub(crate) fn out(self, file: &Path) -> Self {
        self.out_as("", file)
    }

    /// As [`Program::out`], with something in front of the name.
    pub(crate) fn out_as(self, prefix: &str, file: &Path) -> Self {
        let mut word = OsString::from(prefix);
        word.push(file);
        self.makes(file).arg(word)
    }

    /// An output that no argument names.
    pub(crate) fn makes(mut self, file: &Path) -> Self {
        self.outs.push(file.to_owned());
        self
    }

    /// Something that runs before each run, after its outputs are removed, and is not measured.
    pub(crate) fn after(mut self, before: Self) -> Self {
        self.before.push(before);
        self
    }

    /// Removes its outputs.
    pub(crate) fn clear(&self) -> Result<()> {
        for out in &self.outs {
            let removed = if out.is_dir() { fs::remove_dir_all(out) } else { fs::remove_file(out) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// What it is called with, the program first.
    pub(crate) fn words(&self) -> &[OsString] {
        &self.words
    }

    /// Runs it once.
    pub(crate) fn run(&self) -> Result<Cost> {
        self.clear()?;
        self.before.iter().try_for_each(|before| before.run().map(drop))?;
        let (report, errors) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
        let mut words = self.words.iter();
        let mut command = if Path::new("/usr/bin/time").exists() {
            let mut time = Command::new("/usr/bin/time");
            time.args(["-f", "%U %S %M %O", "-o"]).arg(report.path()).args(words);
            time
        } else {
            let mut plain = Command::new(words.next().ok_or("a program has a name")?);
            plain.args(words);
            plain
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.reopen()?);
        let start = Instant::now();
        let status = command.status()?;
        let wall = start.elapsed().as_secs_f64();
        if !status.success() {
            let errors = fs::read_to_string(errors.path()).unwrap_or_default();
            return Err(format!("{}: {status}\n{errors}", self.words.join(OsStr::new(" ")).display()).into());
        }
        let report = fs::read_to_string(report.path())?;
        let numbers: Vec<f64> = report.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        Ok(match numbers[..] {
            [user, system, kib, blocks] => Cost {
                wall,
                cpu: Some(user + system),
                memory: Some(kib / 1024.0),
                written: Some(blocks * 512.0 / 1e6),
            },
            _ => Cost { wall, ..Cost::default() },
        })
    }

    /// Its standard output, of a run that is not measured.
    pub(crate) fn output(&self) -> Result<Vec<u8>> {
        let output = Command::new(&self.words[0]).args(&self.words[1..]).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!(
                "{}: {}\n{errors}",
                self.words.join(OsStr::new(" ")).display(),
                output.status
            )
            .into());
        }
        Ok(output.stdout)
    }
}

impl Cost {
    /// The medians of several runs.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |value: fn(&Self) -> Option<f64>| median(runs.iter().filter_map(value).collect());
        Self {
            wall: of(|run| Some(run.wall)).unwrap_or_default(),
            cpu: of(|run| run.cpu),
            memory: of(|run| run.memory),
            written: of(|run| run.written),
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_removed_and_failures_have_their_reason() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let once = Program::shell("set -o noclobber; echo > \"$1\"").out(&out);
        once.run().unwrap();
        assert!(once.run().unwrap().wall > 0.0);
        let error = Program::shell("echo because >&2; exit 3").run().unwrap_err().to_string();
        assert!(error.contains("because"), "{error}");
    }

    #[test]
    fn a_median_is_that_of_each_value() {
        let run = |wall, cpu| Cost { wall, cpu, ..Cost::default() };
        let found = Cost::median(&[run(3.0, Some(1.0)), run(1.0, None), run(2.0, Some(5.0))]);
        let expected = Cost { wall: 2.0, cpu: Some(5.0), ..Cost::default() };
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    }
}
