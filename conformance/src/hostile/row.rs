//! What a hostile input is, and what it must get.

use plyfold_core::ErrorKind;

use crate::samples::Sample;

/// One hostile or odd input.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, which is the name of its test.
    pub name: &'static str,
    /// What it must get.
    pub outcome: Outcome,
    pub(super) sample: fn() -> Sample,
}

/// What an input must get.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// The image for this platform, whole.
    Image(&'static str),
    /// An error of one of these kinds.
    Refused(&'static [ErrorKind]),
    /// No image for the wanted platform.
    WrongPlatform,
}
