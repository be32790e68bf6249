//! What is to be saved.

use std::path::{Path, PathBuf};

/// The disks in a folder that are to be saved. A path is one of disks that nothing has open.
#[derive(Clone, Debug)]
pub struct DisksToSave {
    pub(super) folder: PathBuf,
    pub(super) live: bool,
}

impl DisksToSave {
    /// Also saves a disk that another program or the kernel has open, as a power cut would leave it. What has it open must not
    /// write to it meanwhile: a disk that changes while it is read is an error.
    #[must_use]
    pub fn live(mut self, live: bool) -> Self {
        self.live = live;
        self
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for DisksToSave {
    fn from(folder: &P) -> Self {
        Self { folder: folder.as_ref().to_owned(), live: false }
    }
}
