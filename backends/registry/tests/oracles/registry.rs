//! `docker-registry` (CNCF distribution) on a free port of 127.0.0.1.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plyfold_conformance::oracle::Failure;
use plyfold_core::Digest;

pub(crate) struct DockerRegistry {
    child: Child,
    host: String,
    folder: tempfile::TempDir,
}

impl DockerRegistry {
    /// Starts one. `auth` is a line of its configuration, `tls` what stands behind `http: tls:`.
    pub(crate) fn start(auth: &str, tls: &str) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let host = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let tls = if tls.is_empty() { String::new() } else { format!(", tls: {tls}") };
        let storage = folder.path().join("storage");
        let configuration = format!(
            "version: 0.1\n\
             log: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}, \
             maintenance: {{uploadpurging: {{enabled: false}}}}}}\n\
             http: {{addr: \"{host}\", secret: notsecret{tls}}}\n{auth}\n",
            storage.display()
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, configuration)?;
        let log = folder.path().join("log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let started = Self { child, host, folder };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&started.host).is_err() {
            if Instant::now() > deadline {
                return Err(Failure::new(format!("it does not start: {}", std::fs::read_to_string(log)?)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(started)
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Where it keeps the content of a digest.
    pub(crate) fn blob_file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.digest();
        let blobs = self.folder.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
