//! The manual: why things are as they are, next to the code that they are about.
//!
//! Pages describe the code as it is. A change that makes a page wrong changes the page.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("uris.md")]
pub mod uris {}

#[doc = include_str!("names.md")]
pub mod names {}

#[doc = include_str!("registries.md")]
pub mod registries {}

#[doc = include_str!("store.md")]
pub mod store {}

#[doc = include_str!("fleet.md")]
pub mod fleet {}

#[doc = include_str!("outputs.md")]
pub mod outputs {}

#[doc = include_str!("transfers.md")]
pub mod transfers {}

#[doc = include_str!("sync.md")]
pub mod sync {}

#[doc = include_str!("command.md")]
pub mod command {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("add-a-backend.md")]
pub mod add_a_backend {}

#[doc = include_str!("add-a-cache.md")]
pub mod add_a_cache {}

#[doc = include_str!("add-a-materializer.md")]
pub mod add_a_materializer {}
