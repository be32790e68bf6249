//! The program and the files that people meet first, as they are.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod any_cache;
mod baseline;
mod command;
mod disks;
mod ext4;
mod faulty_cache;
mod files;
mod floors;
mod formats;
mod forms_refused;
mod hash_trees;
mod hostile_sets;
mod interrupted;
mod library;
mod linked;
mod login;
mod losses;
mod memory;
mod names;
mod native;
mod no_flags;
mod no_platform;
mod no_text;
mod non_exhaustive;
mod patch;
mod places;
mod provider;
mod public_types;
mod readme;
mod registry;
mod run;
mod sample;
mod seeds;
mod sets;
mod snapshots;
mod snapshots_in_use;
mod snapshots_of_changed_files;
mod tenants;
mod terminal;
mod threads;
mod usage;
mod verified_disks;
mod words;
mod wrong_options;
