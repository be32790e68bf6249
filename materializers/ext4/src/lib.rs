//! ext4 disks without mkfs: an empty overlay upper.
