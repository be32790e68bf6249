//! Layers: every dialect of tar, every compression, and every way to get them wrong.

mod accepted;
mod archive;
mod dialects;
mod files;
mod flatten;
mod hostile;
mod merged;
mod peers;
mod random;
mod sources;
mod streams;
