//! What is held until it is dropped.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A right that a cache grants until the last clone is dropped or the process ends: protection of content from
/// [collection](super::CacheProvider::collect), or the [right](super::CacheProvider::single_flight) to do some work.
#[derive(Clone, Default)]
pub struct Lease(Option<Arc<dyn Any + Send + Sync>>);

impl Lease {
    /// A lease that ends when `held` is dropped.
    pub fn new(held: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(held)))
    }

    /// A lease of nothing, from a cache that removes nothing by itself.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether it is a [lease of nothing](Self::none).
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Lease" } else { "Lease(none)" })
    }
}
