//! The conformance suite of plyfold backends and materializers.
