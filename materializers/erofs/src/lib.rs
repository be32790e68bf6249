//! EROFS images from OCI layers: writer, merger, reader.
