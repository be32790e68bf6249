//! Layers: every dialect of tar, every compression, and every way to get them wrong.

mod archive;
mod dialects;
mod flatten;
mod hostile;
mod random;
mod streams;
