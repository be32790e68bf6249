//! VMDK descriptors that join several extents into one disk.
