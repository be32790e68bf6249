//! The members of an OCI layout with Docker's list.

use serde_json::json;

use super::docker_list::DockerList;
use super::gather::Gathered;
use super::index::index_json;
use super::member::{Member, Members};
use super::options::SaveOptions;
use crate::Result;
use crate::layout_index::LAYOUT;
use crate::manifest::canonical_json;

/// The member that says what a delta lacks, and what it was made against.
pub const DELTA: &str = "plyfold-delta.json";
/// Its media type.
const DELTA_TYPE: &str = "application/vnd.plyfold.delta.v1+json";

/// What an archive of this form has.
pub(super) fn members(gathered: &Gathered, options: &SaveOptions) -> Result<Members> {
    let blobs =
        gathered.blobs.iter().map(|(path, (blob, at))| (path.clone(), Member::Blob(blob.clone(), *at)));
    let documents =
        gathered.documents.iter().map(|(path, bytes)| (path.clone(), Member::Bytes(bytes.clone())));
    let mut members: Members = blobs.chain(documents).collect();
    let mut put = |name: &str, bytes: Vec<u8>| members.insert(name.to_owned(), Member::Bytes(bytes.into()));
    put("index.json", index_json(&gathered.names));
    put("oci-layout", LAYOUT.into());
    if options.docker_list {
        let mut list = DockerList::default();
        for (name, _, raw) in &gathered.images {
            list.set(name, raw.image()?);
        }
        put("manifest.json", list.to_bytes());
    }
    if !options.since.is_empty() {
        let absent = gathered.absent.values();
        let absent: Vec<_> =
            absent.map(|blob| json!({ "digest": blob.digest(), "size": blob.size() })).collect();
        let mut since: Vec<&str> = options.since.iter().map(|base| &*base.name).collect();
        since.sort_unstable();
        let delta = json!({ "schemaVersion": 1, "mediaType": DELTA_TYPE, "since": since, "absent": absent });
        put(DELTA, canonical_json(&delta));
    }
    Ok(members)
}
