//! A bucket on this machine, by the S3 service that `.ci/services` builds for the tests.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::program::Program;
use crate::result::Result;

/// It ends with this value.
pub(crate) struct Bucket {
    process: Child,
    endpoint: String,
    objects: PathBuf,
}

/// What it wants of its users.
const KEY: &str = "bench";

impl Bucket {
    pub(crate) fn start(program: &Path, folder: &Path) -> Result<Self> {
        let objects = folder.join("bucket");
        fs::create_dir_all(&objects)?;
        let mut serve = Command::new(program);
        serve.arg(folder).arg(KEY).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = serve.spawn()?;
        let output = process.stdout.take().ok_or("the service has no output")?;
        let mut port = String::new();
        BufReader::new(output).read_line(&mut port)?;
        if port.trim().is_empty() {
            process.wait()?;
            return Err(format!("{} does not start", program.display()).into());
        }
        Ok(Self { process, endpoint: format!("http://127.0.0.1:{}", port.trim()), objects })
    }

    /// The same command line with the service in its environment.
    pub(crate) fn env(&self) -> Program {
        Program::new("env").args([
            "AWS_ALLOW_HTTP=true",
            "AWS_REGION=us-east-1",
            &format!("AWS_ACCESS_KEY_ID={KEY}"),
            &format!("AWS_SECRET_ACCESS_KEY={KEY}"),
            &format!("AWS_ENDPOINT_URL={}", self.endpoint),
        ])
    }

    /// Removes all objects.
    pub(crate) fn emptied(&self) -> Program {
        Program::shell("rm -rf \"$1\" && mkdir \"$1\"").arg(&self.objects)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
