//! A command with a time limit, and what it said.

use std::ffi::OsStr;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use plyfold_core::{Error, ErrorKind, Result};

use super::need;
use super::verdict::Failure;

/// How much of a command's output is kept, in bytes.
const KEPT: u64 = 4 << 20;

/// A command to run: found as [`Need::Tool`](super::Need) finds it, in the C locale, without input, and killed
/// when it takes longer than its limit (10 minutes).
#[derive(Debug)]
pub struct Run {
    name: String,
    command: Command,
    limit: Duration,
}

impl Run {
    /// The command `name`, without arguments yet.
    ///
    /// # Panics
    /// In a [`Check`](super::Check) whose needs do not declare the program: such a test passes only on a machine that
    /// happens to have it. Programs named by a path, and those that POSIX has (`chmod`, `chown`, `cp`, `sh`), need no
    /// declaration.
    pub fn new(name: &str) -> Self {
        need::assert_declared(name);
        let mut command = Command::new(need::find(name).unwrap_or_else(|| name.into()));
        // What it starts finds programs where it was found.
        command.env("LC_ALL", "C").env("PATH", need::path()).stdin(Stdio::null());
        Self { name: name.to_owned(), command, limit: Duration::from_secs(600) }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets how long it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end, whatever its exit status.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) when there is no such program, [`Timeout`](ErrorKind::Timeout) when it
    /// was killed at its limit, [`Io`](ErrorKind::Io).
    pub fn output(mut self) -> Result<Captured> {
        // Files instead of pipes: whatever the command writes, it never waits for a reader.
        let files = (tempfile::tempfile()?, tempfile::tempfile()?);
        self.command.stdout(files.0.try_clone()?).stderr(files.1.try_clone()?);
        let child = self.command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::not_found(format!("there is no program {}", self.name)),
            _ => Error::io(format!("starting {}", self.name), error),
        })?;
        let status = self.wait(child)?;
        let text = |mut file: std::fs::File| -> Result<String> {
            let mut bytes = Vec::new();
            file.rewind()?;
            file.take(KEPT).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (stdout, stderr) = (text(files.0)?, text(files.1)?);
        Ok(Captured { command: format!("{:?}", self.command), status, stdout, stderr })
    }

    /// Runs it, and treats any exit status but 0 as a rejection of the input.
    ///
    /// # Errors
    /// The errors of [`output`](Self::output), and all that the command said.
    pub fn success(self) -> Result<Captured, Failure> {
        let captured = self.output()?;
        if captured.status.success() { Ok(captured) } else { Err(Failure::new(captured)) }
    }

    fn wait(&self, mut child: Child) -> Result<ExitStatus> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > self.limit {
                child.kill()?;
                child.wait()?;
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("{} took longer than {:?}", self.name, self.limit),
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// What a command said.
#[derive(Clone, Debug)]
pub struct Captured {
    command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// The first 4 MiB of its standard output; what is not UTF-8 is replaced.
    pub stdout: String,
    /// The first 4 MiB of its standard error output; what is not UTF-8 is replaced.
    pub stderr: String,
}

impl std::fmt::Display for Captured {
    /// The command, how it ended, and both outputs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}\n{}{}", self.command, self.status, self.stdout, self.stderr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Run {
        Run::new("sh").args(["-c", script])
    }

    #[test]
    fn output_of_any_size_is_taken() {
        let captured = shell("head -c 9000000 /dev/zero; echo said >&2; exit 3").output().unwrap();
        assert_eq!((captured.stdout.len() as u64, captured.stderr.as_str()), (KEPT, "said\n"));
        assert_eq!(captured.status.code(), Some(3));
    }

    #[test]
    fn a_verdict_a_missing_program_and_a_hang_are_told_apart() {
        assert!(
            format!("{:?}", shell("echo bad; false").success().unwrap_err())
                .ends_with("exit status: 1\nbad\n")
        );
        assert_eq!(Run::new("plyfold-no-such-tool").output().unwrap_err().kind(), &ErrorKind::NotFound);
        let hang = shell("exec sleep 60").limit(Duration::from_millis(50));
        assert_eq!(hang.output().unwrap_err().kind(), &ErrorKind::Timeout);
    }
}
