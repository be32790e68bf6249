//! plyfold.
