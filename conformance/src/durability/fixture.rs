//! The cache that is judged, and what is in its directory.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use plyfold_core::{CacheProvider, Result};

/// Opens caches that are OCI layout directories: what `durability` in [`oracle_tests!`](crate::oracle_tests) judges.
#[async_trait]
pub trait DurabilityFixture: Send + Sync {
    /// A handle on the cache in `directory`, which is made when there is none.
    ///
    /// # Errors
    /// Those of opening the cache.
    async fn open(&self, directory: &Path) -> Result<Box<dyn CacheProvider>>;

    /// What a file or folder is for, by its path in the cache's directory. [`Role::Content`] for what layouts have.
    fn role(&self, path: &Path) -> Role;

    /// Which one it is, in a test binary that has several.
    fn name(&self) -> String {
        String::new()
    }

    /// The most threads of tokio's blocking pool that a pull takes which does one thing after another: one for the
    /// pull, and one more for a cache that writes a blob on such a thread meanwhile.
    ///
    /// strace counts each thread's calls for itself. A cache that needs one thread alone, beside threads of its own
    /// for each blob, is struck at every single call, and the suite sees to it.
    fn blocking_threads(&self) -> usize {
        2
    }

    /// As [`Fixture::not_judged`](crate::Fixture::not_judged), of the tests of durability.
    fn not_judged(&self) -> &'static [&'static str] {
        &[]
    }
}

/// What a file in a cache's directory is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Role {
    /// It stays, is never written where it can be seen, and is there again whenever the same work is done.
    Content,
    /// It may be there or not, whatever is in it, such as a file to lock.
    Lock,
    /// As [`Role::Lock`], and the cache works without it: a failure to write it is no failure.
    Note,
    /// As [`Role::Content`], and with it the artifact at this path is taken for complete. Where artifacts are complete
    /// as soon as they have their names, that is the file's own path.
    Checksum(PathBuf),
    /// It is there for a moment, or until an unfinished download goes on: after a failure it is not.
    Temporary,
}
