//! The rules that the client leaves no way to keep, and why.

const STATUS: &str = "the client drops the status of an answer whose error code it does not know";
const DELAY: &str = "the client does not pass on `Retry-After`, nor the status of an unknown error code";
const MIRRORS: &str = "the client has no mirrors";

const REFUSED: &str =
    "the client drops the error code of a manifest that is refused: the kind is that of the status, 400";

pub(crate) const REGISTRY: &[(&str, &str)] = &[
    ("a_pushed_tag_waits_for_its_content", REFUSED),
    ("names_are_set_together_or_not_at_all", REFUSED),
    ("not_found_vs_unauthorized_vs_denied_vs_unavailable", STATUS),
    ("rate_limited_carries_delay_in_all_three_shapes", DELAY),
    ("retryable_flag_consistent", STATUS),
];

pub(crate) const HTTP: &[(&str, &str)] = &[
    (
        "challenge_scope_is_answered_as_asked",
        "the client asks for the scope that it expects, before any challenge",
    ),
    ("content_type_mismatch_with_body_mediatype_rejected", "the client does not pass on `Content-Type`"),
    ("credentials_never_sent_to_mirror_or_cross_origin_redirect", MIRRORS),
    (
        "errors_and_debug_never_contain_secrets",
        "it needs stored credentials; `transfers` has the part without them",
    ),
    ("exact_attempt_count", "the client asks for `/v2/` before each request for which it has no token"),
    ("failed_hosts_have_their_turn_again", MIRRORS),
    ("head_without_body_support_falls_back_to_get", "the client does not pass on the size that HEAD tells"),
    ("identity_token_and_helper_auth_flows", "the client has no credential helpers and identity tokens"),
    ("mirror_digest_only_policy", MIRRORS),
    ("mirror_order_then_origin_fallback", MIRRORS),
    ("options_of_a_host_stay_with_it", "the client has no header fields of a host"),
    ("retry_after_seconds_and_date_honoured_and_capped", DELAY),
    ("status_206_with_wrong_content_range_rejected", "the client does not pass on `Content-Range`"),
    ("status_429_5xx_retried_4xx_not", STATUS),
    ("tag_list_pagination_follows_link_same_host_only", "the client does not pass on `Link`"),
    ("token_reused_across_blobs_and_refreshed_on_401", "the client keeps a token that the registry refuses"),
];
