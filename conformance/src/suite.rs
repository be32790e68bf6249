//! The macros that turn rules into tests.

/// One `#[test]` for each rule about an image registry (groups R, S, X and E) on a [`Fixture`](crate::Fixture).
///
/// ```no_run
/// plyfold_conformance::registry_suite!(plyfold_conformance::fixtures::Memory);
/// ```
#[macro_export]
macro_rules! registry_suite {
    ($fixture:expr) => {
        $crate::__registry_rules! { __tests ($crate::rules::registry(), $fixture) }
    };
}

/// One `#[test]` for each rule about a cache (groups C, K and D) on a [`CacheFixture`](crate::CacheFixture).
///
/// ```no_run
/// use async_trait::async_trait;
/// use plyfold_conformance::{CacheMedium, CacheFixture, CacheUnderTest};
/// use plyfold_core::{CacheProvider, Digest, Result, memory::MemoryCache};
///
/// struct Fresh;
///
/// /// Where the cache under test keeps things: a directory, a bucket, a database; here another cache.
/// #[derive(Debug)]
/// struct Medium(MemoryCache);
///
/// #[async_trait]
/// impl CacheFixture for Fresh {
///     async fn open(&self) -> CacheUnderTest {
///         let cache = MemoryCache::new().expect("a fresh cache opens");
///         CacheUnderTest::new(Box::new(cache.clone()), Medium(cache))
///     }
/// }
///
/// #[async_trait]
/// impl CacheMedium for Medium {
///     async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
///         Ok(Box::new(self.0.clone()))
///     }
///
///     fn damage(&self, digest: &Digest, content: &[u8]) {
///         self.0.insert_blob(digest.clone(), content.to_vec());
///     }
///
///     fn leftovers(&self) -> Vec<String> {
///         Vec::new()
///     }
/// }
///
/// plyfold_conformance::cache_suite!(Fresh);
/// ```
#[macro_export]
macro_rules! cache_suite {
    ($fixture:expr) => {
        $crate::__cache_rules! { __tests ($crate::rules::cache(), $fixture) }
    };
}

/// One `#[test]` for each rule about a cache that is an OCI layout directory (groups C, K and D) on a
/// [`LayoutFixture`](crate::LayoutFixture): what other programs see in it, and what they leave there.
///
/// ```no_run
/// use std::path::Path;
///
/// use plyfold_conformance::LayoutFixture;
/// use plyfold_core::{CacheProvider, Result, memory::MemoryCache};
///
/// struct Directories;
///
/// #[async_trait::async_trait]
/// impl LayoutFixture for Directories {
///     async fn open(&self, directory: &Path) -> Result<Box<dyn CacheProvider>> {
///         // … the cache under test, in this directory.
/// #       let _ = directory;
/// #       Ok(Box::new(MemoryCache::new()?))
///     }
/// }
///
/// plyfold_conformance::layout_suite!(Directories);
/// ```
#[macro_export]
macro_rules! layout_suite {
    ($fixture:expr) => {
        $crate::__layout_rules! { __tests ($crate::rules::layout(), $fixture) }
    };
}

/// One `#[test]` for each rule about a materializer (group M) on a [`MaterializerFixture`](crate::MaterializerFixture).
#[macro_export]
macro_rules! materializer_suite {
    ($fixture:expr) => {
        $crate::__materializer_rules! { __tests ($crate::rules::materializer(), $fixture) }
    };
}

/// One `#[test]` for each rule about registries over HTTP (group R) on an [`HttpFixture`](crate::HttpFixture).
#[macro_export]
macro_rules! http_suite {
    ($fixture:expr) => {
        $crate::__http_rules! { __tests ($crate::rules::http(), $fixture) }
    };
}

/// One `#[test]` for each hostile input on a [`Fixture`](crate::Fixture): see [`hostile`](crate::hostile).
#[macro_export]
macro_rules! hostile_suite {
    ($fixture:expr) => {
        $crate::__hostile_rows! { __tests ($crate::hostile::rows(), $fixture) }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    (($rules:expr, $fixture:expr) $($name:ident)*) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name);
            let rule = $rules.find(|rule| rule.name == name).expect("the suite has this rule");
            rule.judge(&$fixture);
        })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __checks {
    (($fixture:expr) $($name:ident)*) => {
        [$($crate::durability::check(stringify!($name), || {
            $crate::durability::judge(&$fixture, stringify!($name))
        })),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __names {
    (() $($name:ident)*) => {
        [$(stringify!($name)),*]
    };
}

/// The names of the registry rules; a test compares them with the tables in `rules`.
#[doc(hidden)]
#[macro_export]
macro_rules! __registry_rules {
    ($then:ident $arguments:tt) => {
        $crate::$then! { $arguments
            pull_by_tag_returns_exact_manifest_bytes
            pull_by_digest_verifies_against_requested_digest_not_header
            digest_header_disagrees_with_body_is_error
            missing_digest_header_is_computed
            index_bytes_verified_before_platform_selection
            child_manifest_verified_by_descriptor_digest_and_size
            tag_plus_digest_uses_digest_only
            short_names_normalise_identically_in_every_backend
            invalid_reference_rejected_before_io
            platform_exact_match_beats_compatible
            variant_matching_arm_v6_v7_v8_distinct
            no_matching_platform_lists_available
            unknown_unknown_attestations_never_selected
            descriptor_without_platform_handled
            nested_index_descends
            cyclic_or_too_deep_index_bounded
            descriptor_matches_manifest_bytes
            config_raw_bytes_hash_to_descriptor
            layers_ordered_bottom_up
            compressed_stream_hashes_to_digest_uncompressed_to_diffid
            gzip_multi_member_zstd_plain_by_magic_not_media_type
            flattened_tar_equals_overlay_of_layers
            whiteout_file_dir_opaque_including_same_layer_order
            hardlink_to_overwritten_or_deleted_target
            hardlink_target_precedes_link_in_output
            absolute_hardlink_and_symlink_targets_accepted_dotdot_refused
            xattrs_caps_devices_sparse_mtime_ns_uid_over_2_21_long_names_non_utf8_preserved
            parent_dirs_before_children_or_synthesised
            file_replaces_dir_and_dir_replaces_file
            same_descriptor_manifest_config_layers
            copy_a_to_b_preserves_digests_or_refuses
            round_trip_a_b_a_identity
            flattened_tar_identical
            multi_image_archive_enumerates_and_selects
            not_found_vs_unauthorized_vs_denied_vs_unavailable
            rate_limited_carries_delay_in_all_three_shapes
            digest_mismatch_carries_expected_actual_size
            unsupported_media_type_not_not_found
            platform_mismatch_carries_available
            read_only_backend_returns_unsupported_statically
            io_error_kept_as_source
            retryable_flag_consistent
            already_exists_is_not_failure
        }
    };
}

/// The names of the cache rules.
#[doc(hidden)]
#[macro_export]
macro_rules! __cache_rules {
    ($then:ident $arguments:tt) => {
        $crate::$then! { $arguments
            absent_is_ok_none_not_error
            put_wrong_digest_publishes_nothing
            put_wrong_size_publishes_nothing
            put_reader_error_at_end_publishes_nothing_and_leaves_no_temp
            put_existing_is_idempotent_and_repairs_corrupt_existing
            get_content_is_verified_or_flagged_raw
            find_by_tag_digest_and_child_digest
            find_scoped_to_repository
            descriptor_write_requires_name_and_replaces
            retag_keeps_other_names
            two_names_one_digest
            remove_keeps_shared_blobs
            remove_absent_is_documented_noop
            list_sorted_and_stable
            pages_of_names_add_up_to_the_list
            a_name_needs_its_content
            what_is_said_of_the_disk_is_true
            contains_means_complete_for_platform
            missing_layer_reported_by_digest
            pull_if_present_does_no_network_io
            always_pull_refreshes_moved_tag
            pull_fetches_only_missing_blobs
            adding_second_platform_keeps_index_digest
            platform_is_part_of_the_answer_on_hit
            a_pull_yields_the_image_that_was_found
            what_the_cache_cannot_read_is_not_fetched
            a_dropped_pull_tells_its_end
            index_write_create_update_replace_by_full_platform
            index_write_drops_dangling_attestations
            index_write_is_deterministic
            index_lists_platform_subset_modes_sparse_vs_rewritten
            gc_keeps_reachable_incl_nested_referrers_and_leases
            gc_skips_in_flight_ingest
            evict_is_lru_and_never_pinned
            size_counts_blob_once
            partial_downloads_are_counted_and_dropped
            a_changed_artifact_is_made_again
            a_dropped_artifact_leaves_nothing
            gc_keeps_artifacts_of_whole_images
            what_a_materializer_tells_is_kept
            two_outputs_of_one_format_do_not_exclude_each_other
            n_processes_add_n_tags_all_survive
            n_threads_same_blob_one_write
            winner_cancelled_waiter_succeeds
            reader_never_sees_partial_blob_or_index
            two_handles_one_process_exclude_each_other
            nested_write_keeps_outer_lock
            callback_reentry_no_deadlock
            lock_not_held_over_network
            gc_vs_pull_vs_remove_stress
            open_reader_survives_remove
            verification_policy_applies_on_hit
            truncated_or_bitflipped_blob_detected_on_read_and_by_fsck_and_refetched
        }
    };
}

/// The names of the rules about layout directories.
#[doc(hidden)]
#[macro_export]
macro_rules! __layout_rules {
    ($then:ident $arguments:tt) => {
        $crate::$then! { $arguments
            foreign_layout_by_skopeo_crane_docker_readable
            our_layout_readable_by_skopeo_crane_regctl
            unknown_files_and_fields_preserved
            unsupported_layout_version_refused
            read_only_directory_usable
            corrupt_index_quarantined_not_destroyed
            index_old_or_new_never_torn
            stale_temps_reclaimed_not_live_ones
            stale_lock_of_dead_owner_recovered
            push_beside_collection_leaves_whole_images
            a_pushed_name_waits_for_all_that_it_needs
            deletion_leaves_what_is_leased
        }
    };
}

/// The names of the tests of durability.
#[doc(hidden)]
#[macro_export]
macro_rules! __durability_tests {
    ($then:ident $arguments:tt) => {
        $crate::$then! { $arguments
            kill_at_every_syscall_leaves_openable_store
            every_name_comes_after_what_it_needs
            a_name_waits_for_content_that_was_here_before
            power_cut_on_ext4_loses_nothing
            power_cut_on_xfs_loses_nothing
            enospc_eio_short_write_clean_fail
            a_collection_that_is_refused_leaves_whole_images
            a_disk_of_any_size_leaves_no_trace
            a_full_disk_leaves_no_trace
        }
    };
}

/// The names of the materializer rules.
#[doc(hidden)]
#[macro_export]
macro_rules! __materializer_rules {
    ($then:ident $arguments:tt) => {
        $crate::$then! { $arguments
            same_input_same_bytes
            kernel_mount_equals_reference_tree
            fsck_is_clean
            stacked_layers_equal_flat_image
            whiteouts_and_opaque_in_overlay_form
            output_absent_after_any_error
            a_bad_layer_is_an_error_not_a_smaller_image
        }
    };
}

/// The names of the rules about HTTP.
#[doc(hidden)]
#[macro_export]
macro_rules! __http_rules {
    ($then:ident $arguments:tt) => {
        $crate::$then! { $arguments
            resume_sends_closed_range_at_exact_offset
            resume_without_accept_ranges
            status_200_to_range_restarts_from_zero
            status_206_with_wrong_content_range_rejected
            status_416_resets_partial
            resume_survives_process_restart
            partial_prefix_rehashed_before_resume
            no_progress_timeout_bounds_attempts
            retry_after_seconds_and_date_honoured_and_capped
            status_429_5xx_retried_4xx_not
            exact_attempt_count
            concurrency_bound_reached_never_exceeded
            duplicate_layer_digests_fetched_once
            content_encoding_does_not_decide
            mirror_order_then_origin_fallback
            failed_hosts_have_their_turn_again
            mirror_digest_only_policy
            credentials_never_sent_to_mirror_or_cross_origin_redirect
            identity_token_and_helper_auth_flows
            token_reused_across_blobs_and_refreshed_on_401
            challenge_scope_is_answered_as_asked
            options_of_a_host_stay_with_it
            errors_and_debug_never_contain_secrets
            tag_list_pagination_follows_link_same_host_only
            referrers_api_and_tag_fallback_equal
            head_without_body_support_falls_back_to_get
            content_type_mismatch_with_body_mediatype_rejected
        }
    };
}

/// The names of the hostile inputs.
#[doc(hidden)]
#[macro_export]
macro_rules! __hostile_rows {
    ($then:ident $arguments:tt) => {
        $crate::$then! { $arguments
            layers_and_manifests_at_once
            layers_in_another_letter_case
            duplicate_key
            duplicate_key_in_a_descriptor
            a_manifest_that_says_it_is_an_index
            an_index_child_of_another_type
            layer_longer_than_declared
            layer_of_a_petabyte
            negative_size
            fractional_size
            size_as_text
            size_of_2_to_64
            layer_with_a_flipped_bit
            layer_cut_short
            layer_of_no_bytes
            layer_with_bytes_after_its_end
            layer_that_is_not_there
            digest_that_is_a_path
            config_digest_that_is_a_path
            digest_in_upper_case
            digest_too_short
            digest_too_long
            digest_with_an_escape
            digest_with_a_newline
            digest_with_a_nul
            digest_of_an_algorithm_nobody_verifies
            diff_id_of_another_tar
            fewer_diff_ids_than_layers
            more_diff_ids_than_layers
            too_many_layers
            too_many_index_entries
            manifest_of_5_mib
            json_200_000_deep
            indexes_a_thousand_deep
            not_json_at_all
            an_empty_document
            a_document_of_blanks
            a_document_cut_short
            schema_1
            config_that_is_no_json
            config_with_a_list_for_an_object
            config_of_5_mib
            odd_user_and_environment
            attestations_before_the_image
            older_variant_for_a_newer_host
            newer_variant_for_an_older_host
            no_platform_fits
        }
    };
}
