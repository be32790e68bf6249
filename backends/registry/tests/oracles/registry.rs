//! `docker-registry` (CNCF distribution) on a free port of 127.0.0.1.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plyfold_conformance::oracle::Failure;
use plyfold_conformance::samples::Sample;
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
        let tls = if tls.is_empty() { String::new() } else { format!(", tls: {tls}") };
        let storage = folder.path().join("storage");
        let configuration = format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}, \
             maintenance: {{uploadpurging: {{enabled: false}}}}}}\n\
             http: {{addr: \"127.0.0.1:0\", secret: notsecret{tls}}}\n{auth}\n",
            storage.display()
        );
        let file = folder.path().join("config.yml");
        fs::write(&file, configuration)?;
        let log = folder.path().join("log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut started = Self { child, host: String::new(), folder };
        let deadline = Instant::now() + Duration::from_secs(30);
        while started.host.is_empty() {
            let said = fs::read_to_string(&log)?;
            if let Some(host) = listening(&said) {
                host.clone_into(&mut started.host);
            } else if started.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(Failure::new(format!("it does not start: {said}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(started)
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Where it keeps the content of a digest.
    pub(crate) fn blob_file(&self, digest: &Digest) -> PathBuf {
        let (algorithm, hex) = (digest.algorithm().as_ref(), digest.digest());
        self.storage().join("blobs").join(algorithm).join(&hex[..2]).join(hex).join("data")
    }

    /// Puts a sample into its storage, sound or not, under a tag.
    pub(crate) fn put(&self, repository: &str, tag: &str, sample: &Sample) -> Result<(), Failure> {
        let repository = self.storage().join("repositories").join(repository);
        let (layers, manifests) = (repository.join("_layers"), repository.join("_manifests"));
        let revisions = manifests.join("revisions");
        for blob in &sample.blobs {
            let digest = blob.descriptor.digest();
            write(&self.blob_file(digest), &blob.bytes)?;
            link(if blob.is_manifest() { &revisions } else { &layers }, digest)?;
        }
        let tag = manifests.join("tags").join(tag);
        link(&tag.join("index"), sample.top.digest())?;
        Ok(write(&tag.join("current/link"), sample.top.digest().as_ref().as_bytes())?)
    }

    fn storage(&self) -> PathBuf {
        self.folder.path().join("storage/docker/registry/v2")
    }
}

/// Where it listens, once it has said so: a port that was free before may be taken by then.
fn listening(log: &str) -> Option<&str> {
    let (host, _) = log.split_once("listening on ")?.1.split_once(['"', ','])?;
    Some(host)
}

fn link(folder: &Path, digest: &Digest) -> io::Result<()> {
    let file = folder.join(digest.algorithm().as_ref()).join(digest.digest()).join("link");
    write(&file, digest.as_ref().as_bytes())
}

fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(file.parent().unwrap_or(file))?;
    fs::write(file, content)
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
