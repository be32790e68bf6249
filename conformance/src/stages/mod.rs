//! Stages for the media that many backends read. A backend's test hands in how it opens such a medium.

mod memory;

pub use memory::Memory;
pub(crate) use memory::fill;
