//! Archives that come as a stream.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::pin::pin;

use plyfold_core::{Error, PullOptions, PulledImage, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::Images;
use crate::blocking::blocking;
use crate::durable::temporary_file;

/// Bytes that are read before they are written.
const PART: u64 = 1 << 20;

impl Images {
    /// As [`load`](Self::load), of an archive that comes from a socket, a pipe or a program. It is written to a file
    /// without a name first, in the [scratch folder](Self::with_scratch), the cache's own or that of the system, because the
    /// readers of archives need to seek; the room there is the only bound. Dropping the future ends it.
    ///
    /// # Errors
    /// As [`Images::load`]; [`Io`](crate::ErrorKind::Io) with the error of `archive`;
    /// [`Config`](crate::ErrorKind::Config) without the feature `archive`.
    pub async fn load_from(
        &self,
        archive: impl AsyncRead + Send,
        options: PullOptions,
    ) -> Result<Vec<PulledImage>> {
        let operation = options.progress.operation();
        let file = spooled(archive, self.temporary()).await?;
        operation.hand_over();
        // The file has no other name, and is read while it is open here.
        let loaded = self.load(&format!("docker-archive:/proc/self/fd/{}", file.as_raw_fd()), options).await;
        drop(file);
        loaded
    }

    /// The folder for files that other processes may share, if one is known.
    pub(crate) fn scratch(&self) -> Option<PathBuf> {
        self.scratch.clone().or_else(|| self.cache.scratch())
    }

    /// Where files without a name go: a cache that cannot be written has no folder of its own.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.scratch().unwrap_or_else(std::env::temp_dir)
    }
}

/// All of a stream in a file without a name.
async fn spooled(archive: impl AsyncRead + Send, folder: PathBuf) -> Result<File> {
    let mut file = blocking(move |_| temporary_file(&folder)).await?;
    let (mut archive, mut part) = (pin!(archive), Vec::new());
    loop {
        let read = archive.as_mut().take(PART).read_to_end(&mut part).await;
        if read.map_err(|e| Error::io("reading the archive", e))? == 0 {
            return Ok(file);
        }
        (file, part) = blocking(move |_| {
            file.write_all(&part).map_err(|e| Error::io("writing the archive to a temporary file", e))?;
            part.clear();
            Ok((file, part))
        })
        .await?;
    }
}
