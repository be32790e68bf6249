//! `s3s-fs`: buckets that are folders. Version 0.14.1 looks at the condition of a put before it takes the body, without a lock:
//! of puts at the same time several are made, and rule K 118 may find that.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plyfold_conformance::oracle::Failure;
use serde_json::Value;
use tempfile::TempDir;

const KEY: &str = "plyfold-oracle";

/// Attempts to start: a port that was free before may be taken by then.
const ATTEMPTS: usize = 5;

/// A service that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    port: u16,
    folder: TempDir,
    buckets: AtomicUsize,
}

impl Service {
    pub(crate) fn start() -> Result<Self, Failure> {
        let mut said = String::new();
        for _ in 0..ATTEMPTS {
            // In memory, where there is such a place.
            let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new())?;
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let child = Command::new("s3s-fs")
                .args([
                    "--access-key",
                    KEY,
                    "--secret-key",
                    KEY,
                    "--host",
                    "127.0.0.1",
                    "--port",
                    &port.to_string(),
                ])
                .arg(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            let mut service = Self { child, port, folder, buckets: AtomicUsize::new(0) };
            match service.wait() {
                Ok(()) => return Ok(service),
                Err(e) => said = e.to_string(),
            }
        }
        Err(Failure::new(format!("it does not start: {said}")))
    }

    /// Waits until it answers.
    fn wait(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(status.to_string()));
            }
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(_) => return Ok(()),
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A new bucket.
    pub(crate) fn bucket(&self) -> io::Result<String> {
        let bucket = format!("bucket-{}", self.buckets.fetch_add(1, Ordering::SeqCst));
        fs::create_dir(self.folder().join(&bucket))?;
        Ok(bucket)
    }

    /// The options that a cache is opened with.
    pub(crate) fn options(&self) -> BTreeMap<String, Value> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let options = [
            ("aws_endpoint", endpoint.as_str()),
            ("aws_access_key_id", KEY),
            ("aws_secret_access_key", KEY),
            ("aws_region", "us-east-1"),
            ("allow_http", "true"),
        ];
        options.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
