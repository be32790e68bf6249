//! What a machine says beside the terminal: pipes and a socket that QEMU inherits.

use std::collections::VecDeque;
use std::io::{self, PipeWriter, Read, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use tokio::sync::oneshot;

/// How much of the end of a channel is kept, in bytes.
const KEPT: usize = 64 << 10;
/// The longest wait for a channel once QEMU has ended: a process that it has started may still have the other end.
const PATIENCE: Duration = Duration::from_secs(2);
/// After this QEMU tells its events (`docs/interop/qmp-spec.rst`, 4 "Capabilities Negotiation").
const BEGIN: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n";

/// A channel on which QEMU writes, and the end of what it has written.
pub(super) struct Channel {
    /// QEMU's end, until QEMU has it.
    theirs: OwnedFd,
    kept: Arc<Mutex<VecDeque<u8>>>,
    ended: oneshot::Receiver<()>,
}

impl Channel {
    /// A pipe.
    pub(super) fn pipe() -> io::Result<Self> {
        let (reader, writer): (_, PipeWriter) = io::pipe()?;
        Self::of(reader, writer.into())
    }

    /// A socket for QEMU's monitor in JSON, which is asked for events.
    pub(super) fn of_events() -> io::Result<Self> {
        let (mut ours, theirs) = UnixStream::pair()?;
        ours.write_all(BEGIN)?;
        Self::of(ours, theirs.into())
    }

    fn of(mut reader: impl Read + Send + 'static, theirs: OwnedFd) -> io::Result<Self> {
        inherited(&theirs)?;
        let kept: Arc<Mutex<VecDeque<u8>>> = Arc::default();
        let (done, ended) = oneshot::channel();
        let end = kept.clone();
        thread::Builder::new().name("plyfold-machine".to_owned()).spawn(move || {
            let mut buffer = vec![0; 4096];
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => keep(&end, &buffer[..count]),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            let _ = done.send(());
        })?;
        Ok(Self { theirs, kept, ended })
    }

    /// The number that QEMU has it by.
    pub(super) fn number(&self) -> i32 {
        self.theirs.as_raw_fd()
    }

    /// The end of what QEMU has written, once it has ended.
    pub(super) async fn end(self) -> Vec<u8> {
        // Else this process would wait for itself.
        drop(self.theirs);
        let _ = tokio::time::timeout(PATIENCE, self.ended).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().copied().collect()
    }
}

fn keep(end: &Mutex<VecDeque<u8>>, bytes: &[u8]) {
    let mut kept = end.lock().unwrap_or_else(PoisonError::into_inner);
    kept.extend(bytes);
    let beyond = kept.len().saturating_sub(KEPT);
    kept.drain(..beyond);
}

/// Lets the processes that are started from now on have it.
fn inherited(end: &impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfd(end, FdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn the_end_of_what_a_program_writes_is_kept() {
        let channel = Channel::pipe().unwrap();
        let script = format!("exec >/proc/self/fd/{}; yes | head -c 200000; printf end", channel.number());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        let end = channel.end().await;
        assert!(end.len() == KEPT && end.ends_with(b"y\nend"), "{}", end.len());
    }

    #[tokio::test]
    async fn a_process_that_keeps_its_end_is_not_waited_for() {
        let channel = Channel::pipe().unwrap();
        let other = File::from(channel.theirs.try_clone().unwrap());
        (&other).write_all(b"so far").unwrap();
        assert_eq!(channel.end().await, b"so far");
    }
}
