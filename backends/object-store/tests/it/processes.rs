//! Several processes on one bucket: this test binary runs itself, and its parent has the service.

mod killed;
mod names;
mod pulls;
mod stopped;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use plyfold_core::{CacheProvider as _, Ingest};
use plyfold_object_store::ObjectStoreCache;

use crate::content::blob;
use crate::front::{self, Front};

/// Set for a child: where the service is.
const ENDPOINT: &str = "PLYFOLD_TEST_ENDPOINT";
/// Set for a child: its number.
const NUMBER: &str = "PLYFOLD_TEST_NUMBER";
/// Set for a child that pulls: the registry.
const HOST: &str = "PLYFOLD_TEST_HOST";

/// This program again, as the child of a number that runs one of these tests.
fn child(test: &str, service: &Front, number: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("processes::{test}"), "--nocapture", "--test-threads=1"]);
    command.env(ENDPOINT, service.endpoint()).env(NUMBER, number.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The cache and the number of this process, when it is a child. It is killed when its parent ends.
async fn as_child() -> Option<(ObjectStoreCache, usize)> {
    let number = std::env::var(NUMBER).ok()?.parse().unwrap();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let config = front::config(&std::env::var(ENDPOINT).unwrap());
    Some((ObjectStoreCache::open(front::URI, &config).await.unwrap(), number))
}

/// Runs children at once; what they say.
fn run(commands: impl IntoIterator<Item = Command>) -> Vec<String> {
    // All of them run before the first is waited for.
    let running: Vec<_> = commands.into_iter().map(Running::start).collect();
    running.into_iter().map(Running::said).collect()
}

/// A child that is killed when its test ends.
struct Running {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// What it has said, when it has ended well.
    fn said(mut self) -> String {
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "a child failed: {said}");
        said
    }

    /// Waits until it says this.
    fn wait_for(&mut self, word: &str) {
        let mut said = String::new();
        while !said.contains(word) {
            assert_ne!(self.said.read_line(&mut said).unwrap(), 0, "a child has ended: {said}");
        }
    }

    /// Lets it go on where it [waits](wait).
    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says something to the parent.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn say(word: &str) {
    println!("\n{word}");
}

/// Says that this child holds what it is to hold, and waits for its parent.
async fn wait() {
    say("HOLDING");
    let read = || std::io::stdin().read_line(&mut String::new());
    tokio::task::spawn_blocking(read).await.unwrap().unwrap();
}

/// The right to write a blob.
async fn begin(cache: &ObjectStoreCache, content: &[u8]) -> Box<dyn plyfold_core::BlobWriter> {
    let Ingest::Vacant(mut writer) = cache.ingest(&blob(content)).await.unwrap() else {
        panic!("it was never stored")
    };
    writer.write(content.to_vec().into()).await.unwrap();
    writer
}
