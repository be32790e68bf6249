//! What goes wrong with a daemon.

use hyper::StatusCode;
use plyfold_core::{Error, ErrorKind, printable};

plyfold_core::fault! {
    /// What is wrong with a Docker daemon, or its answers.
    pub enum DaemonFault;
    Closed => (Unavailable, "the daemon closed the connection before the end of its answer"),
    Denied(String) => (Denied, "this user may not use the daemon's socket {0}",
        "it is for root and the members of its group, which is docker on most machines"),
    Digest(String) => (Config, "{0} has a digest, which a daemon does not choose images by",
        "write docker-daemon:NAME[:TAG], or docker-daemon:sha256:HEX for an image by its ID"),
    Garbled => (Corrupt, "the answer is not that of a Docker daemon"),
    Host(String) => (Unsupported, "the daemon {0} is reached by something else than a Unix socket on this machine",
        "`docker save` writes an archive there, which docker-archive: reads"),
    Id(String) => (Config, "{0} is no image ID",
        "write docker-daemon:sha256:HEX with all 64 digits, as `docker image inspect` shows them"),
    NoDaemon(String) => (Unavailable, "no Docker daemon answers at {0}"),
    Other(String, String) => (Corrupt, "the daemon was asked for the image {0} and has saved {1}"),
    Refused(String) => (Unsupported, "the daemon does not take the image: {0}"),
    Silent(u64) => (Timeout, "the daemon has not answered for {0} s"),
    Zstd(String) => (Unsupported, "the daemon does not take the image, which has layers compressed by zstd: {0}",
        "Docker before version 23 reads no zstd: an archive in the form before Docker 25 has expanded layers"),
}

/// The error of an answer that is none of success, with what the daemon says.
pub(super) fn of_status(status: StatusCode, message: &str) -> Error {
    let kind = match status {
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unavailable,
        status if status.is_client_error() => ErrorKind::Config,
        status if status.is_server_error() => ErrorKind::Unavailable,
        _ => return DaemonFault::Garbled.into(),
    };
    // The same question has the same answer: a daemon is no place of many hosts.
    Error::new(kind, format!("the daemon answers {}: {}", status.as_u16(), printable(message)))
        .with_attempts(2)
}
