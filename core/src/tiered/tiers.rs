//! The two tiers.

use crate::cache::CacheProvider;
use crate::{Error, ErrorKind};

use super::far::Far;

/// A cache of this machine in front of another one, such as a bucket that a fleet of machines shares.
///
/// What is read and is in the far tier alone is stored in the near one in the same pass, verified. What is stored goes to both:
/// to the near tier first, and from there, as it was proved, to the far one. So a blob is downloaded once, and a layer is
/// converted once, for all machines: the right to do either is that of the far tier, too.
///
/// A name that the near tier has is answered by it, whatever it stands for in the far one: no request is made for an image
/// that is here. [`PullPolicy::Always`](crate::PullPolicy) asks where the image comes from, as without a far tier. A name that the near
/// tier lacks is looked for in the far one.
///
/// | method | near tier | far tier |
/// |---|---|---|
/// | `stat`, `open`, `find_descriptor`, `find_artifact` | first | where the near one has nothing |
/// | `ingest`, `artifact`, `single_flight`, `lease` | first | the same right, when something is missing here |
/// | `update` | second: what it has the content of | first |
/// | `list`, `list_page`, `pins` | both; what a name stands for is said by the near one | |
/// | `usage`, `collect`, `verify`, `partial`, `free`, `layout`, `scratch`, `is_read_only` | alone | its own, by itself |
/// | `settle` | first | second |
///
/// When the far tier does not answer, it is not asked for half a minute, with a warning of `tracing`, and the near tier is used alone.
/// It is no error that something could not be published there. Every other error of it is returned, but where the near tier
/// has done what was asked.
///
/// ```
/// use plyfold_core::memory::MemoryCache;
/// use plyfold_core::{CacheProvider, Tiered};
///
/// # fn main() -> plyfold_core::Result<()> {
/// let (near, far) = (MemoryCache::new()?, MemoryCache::new()?);
/// let cache: Box<dyn CacheProvider> = Box::new(Tiered::new(Box::new(near), Box::new(far)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Tiered {
    pub(super) near: Box<dyn CacheProvider>,
    pub(super) far: Far,
}

impl Tiered {
    /// `near` in front of `far`.
    pub fn new(near: Box<dyn CacheProvider>, far: Box<dyn CacheProvider>) -> Self {
        Self { near, far: Far::new(far) }
    }

    /// The tier of this machine.
    pub fn near(&self) -> &dyn CacheProvider {
        &*self.near
    }

    /// The tier behind it.
    pub fn far(&self) -> &dyn CacheProvider {
        self.far.cache()
    }
}

/// Whether content is missing, and no tier has failed.
pub(super) fn is_missing(error: &Error) -> bool {
    *error.kind() == ErrorKind::NotFound
}
