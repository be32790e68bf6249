//! OCI distribution registries over HTTP, as a plyfold backend.
