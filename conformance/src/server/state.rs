//! What a server knows, and what it has been asked.

use std::collections::BTreeMap;

use super::auth::{Auth, Tokens};
use super::content::Repository;
use super::fault::Scripts;

/// What the server can do at all. [`Options::default`] is a complete, open registry.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent abilities of a registry")]
pub struct Options {
    /// Sends `Accept-Ranges`; ranges are honoured either way.
    pub accept_ranges: bool,
    /// Who may read and write.
    pub auth: Auth,
    /// Sends `Docker-Content-Digest` with manifests.
    pub digest_header: bool,
    /// Sends `ETag` with manifests, and takes conditional writes of them.
    pub etags: bool,
    /// Answers HEAD; otherwise 405.
    pub head: bool,
    /// The longest page of a listing.
    pub page: usize,
    /// Takes pushes and deletes; otherwise 405.
    pub push: bool,
    /// Has the referrers API; otherwise 404 and, for what [`FaultServer::put`](super::FaultServer::put) stores, the fallback tag.
    pub referrers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            accept_ranges: true,
            auth: Auth::Anonymous,
            digest_header: true,
            etags: true,
            head: true,
            page: usize::MAX,
            push: true,
            referrers: true,
        }
    }
}

/// One request and its answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// Path and query, as sent.
    pub target: String,
    /// The request's headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status of the answer; 0 when the connection was closed without one.
    pub status: u16,
    /// Bytes of the answer's body that went out.
    pub sent: u64,
}

impl Exchange {
    /// The value of a request header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) host: String,
    pub(super) options: Options,
    pub(super) repositories: BTreeMap<String, Repository>,
    pub(super) uploads: BTreeMap<String, Vec<u8>>,
    pub(super) scripts: Scripts,
    pub(super) tokens: Tokens,
    pub(super) log: Vec<Exchange>,
    /// How many exchanges [`FaultServer::clear_requests`] has taken out of `log`.
    pub(super) forgotten: usize,
    pub(super) busy: usize,
    pub(super) busiest: usize,
}
