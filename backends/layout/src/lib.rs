//! OCI layout directories, as a plyfold backend and store.
