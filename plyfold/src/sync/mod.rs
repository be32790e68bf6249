//! What is brought from many places to one: the list, the images that it names, and the report of what has changed.

pub use list::{SyncFault, SyncList};
pub use report::{SyncChange, SyncReport, SyncedName};

pub(crate) mod list;
pub(crate) mod pick;
mod report;
