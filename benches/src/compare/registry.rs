//! A registry on this machine, by docker-registry, with a folder of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::result::Result;

/// It ends with this value.
pub(crate) struct Registry {
    process: Child,
    pub(crate) host: String,
}

/// How long it may take until it answers.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

impl Registry {
    pub(crate) fn start(program: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        // Free a moment ago, and most likely still so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let host = format!("127.0.0.1:{port}");
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {host}\n  secret: bench\n",
            folder.display()
        );
        fs::write(&config, text)?;
        let log = fs::File::create(folder.join("log"))?;
        let mut serve = Command::new(program);
        serve.arg("serve").arg(&config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut registry = Self { process: serve.spawn()?, host };
        let start = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            if registry.process.try_wait()?.is_some() || start.elapsed() > STARTS_WITHIN {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Err(format!("docker-registry does not answer: {log}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
