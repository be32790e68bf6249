//! Stages for the media that many backends read. A backend's test hands in how it opens such a medium:
//!
//! ```no_run
//! use plyfold_conformance::stages::Server;
//! # use plyfold_core::{memory::MemoryRegistry, ImageRegistry};
//! # async fn connect(_host: String) -> plyfold_core::Result<Box<dyn ImageRegistry>> {
//! #     Ok(Box::new(MemoryRegistry::new("")))
//! # }
//!
//! plyfold_conformance::registry_suite!(Server::new(connect));
//! ```

mod file;
mod memory;
mod server;

use std::fmt;
use std::future::Future;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use plyfold_core::{ImageRegistry, Result};

pub use self::file::{DockerArchive, Form, Layout, OciArchive};
pub use self::memory::Memory;
pub(crate) use self::memory::fill;
pub use self::server::Server;

/// How the backend under test opens a medium at `M`: a path, or a host.
pub(crate) struct Opener<M>(Box<Open<M>>);

type Open<M> = dyn Fn(M) -> BoxFuture<'static, Result<Box<dyn ImageRegistry>>> + Send + Sync;

impl<M> Opener<M> {
    pub(crate) fn new<F>(open: impl Fn(M) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Box<dyn ImageRegistry>>> + Send + 'static,
    {
        Self(Box::new(move |medium| open(medium).boxed()))
    }

    /// The opened backend.
    ///
    /// # Panics
    /// When it does not open: the suite's media are sound.
    pub(crate) async fn open(&self, medium: M) -> Box<dyn ImageRegistry> {
        (self.0)(medium).await.unwrap_or_else(|error| panic!("the backend does not open: {error}"))
    }
}

impl<M> fmt::Debug for Opener<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}
