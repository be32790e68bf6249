//! C, K and D on caches that are OCI layout directories: what other tools see of them, and what they leave there.

mod damage;
mod forms;
mod place;
mod pushes;
mod reading;
mod setup;
mod strict;
mod tools;

use self::damage::{
    corrupt_index_quarantined_not_destroyed, index_old_or_new_never_torn, stale_lock_of_dead_owner_recovered,
    stale_temps_reclaimed_not_live_ones, unknown_files_and_fields_preserved,
    unsupported_layout_version_refused,
};
use self::pushes::{
    a_pushed_name_waits_for_all_that_it_needs, deletion_leaves_what_is_leased,
    push_beside_collection_leaves_whole_images,
};
use self::reading::read_only_directory_usable;
use self::tools::{
    foreign_layout_by_skopeo_crane_docker_readable, our_layout_readable_by_skopeo_crane_regctl,
};
use crate::LayoutFixture;
use crate::rule::rules;

rules! {
    $ __layout_rules of dyn LayoutFixture;
    "C 69" foreign_layout_by_skopeo_crane_docker_readable:
        "a layout as any tool writes it is read: each image by its name, verified; as a cache it is used in place",
    "C 70" our_layout_readable_by_skopeo_crane_regctl:
        "a reader that knows the specification alone finds every name and every byte, and nothing else among the blobs",
    "C 71" unknown_files_and_fields_preserved:
        "files, fields and entries that the cache does not know survive what it writes",
    "C 72" unsupported_layout_version_refused:
        "a layout of another major version, or of one that cannot be read, is refused, and nothing in it changes",
    "C 73" read_only_directory_usable:
        "reading changes nothing in the directory, and needs no right to write there",
    "C 74" corrupt_index_quarantined_not_destroyed:
        "a damaged index.json is an error and is kept, until a repair quarantines it unchanged",
    "D 128" index_old_or_new_never_torn:
        "a reader of index.json beside writers reads a complete document with every name that was reported as set",
    "D 130" stale_temps_reclaimed_not_live_ones:
        "leftovers of killed writers are removed on request, files of running writers are kept",
    "D 131" stale_lock_of_dead_owner_recovered:
        "a lock ends with its process: what a killed process held is free at once",
    "K 180" push_beside_collection_leaves_whole_images:
        "a push beside collections leaves a whole image, also of blobs that were here before and had no name",
    "K 181" a_pushed_name_waits_for_all_that_it_needs:
        "a pushed tag is set only when everything is here that its manifest or index leads to",
    "K 182" deletion_leaves_what_is_leased:
        "deleting by digest removes names, and never content that a lease protects or leads to",
}
