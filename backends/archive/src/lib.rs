//! docker-archive and oci-archive tar files, as a plyfold backend.
