//! Statements, and what is around them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::fault::{AttestationFault, limits};
use crate::{Digest, Error, Result, digest};

/// The type of statements in envelopes (in-toto attestation framework, `spec/v1/envelope.md`).
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// What the type of a statement begins with; `v0.1` and `v1` have the same fields.
const STATEMENT: &str = "https://in-toto.io/Statement/";
const SPDX: &str = "https://spdx.dev/Document";
const CYCLONE_DX: &str = "https://cyclonedx.org/bom";

/// What a statement says.
pub(super) struct Unwrapped {
    pub(super) predicate: Bytes,
    pub(super) subjects: Vec<Digest>,
    /// It does not say what it is about.
    pub(super) is_open: bool,
}

/// A media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Whether content of this type attests to something.
pub(super) fn is_content(media_type: &str) -> bool {
    let name = essence(media_type);
    name == IN_TOTO
        || name == "application/vnd.dsse.envelope.v1+json"
        || name.starts_with("application/vnd.dev.sigstore.bundle")
        || type_of(name).is_some()
}

/// The type that a plain document of a media type has as a predicate: those of IANA and of `cosign attach sbom`.
pub(super) fn type_of(media_type: &str) -> Option<&'static str> {
    match essence(media_type) {
        "application/spdx+json" | "spdx+json" | "text/spdx" | "text/spdx+json" | "text/spdx+xml" => {
            Some(SPDX)
        }
        "application/vnd.cyclonedx" | "application/vnd.cyclonedx+json" | "application/vnd.cyclonedx+xml" => {
            Some(CYCLONE_DX)
        }
        _ => None,
    }
}

/// Whether a plain document of this type is not JSON.
pub(super) fn is_text(media_type: &str) -> bool {
    let name = essence(media_type);
    name == "text/spdx" || name.ends_with("+xml")
}

/// The predicate out of all that is around it: a bundle of sigstore, an envelope (DSSE), a statement. An SBOM without a
/// statement is its own predicate.
pub(super) fn unwrapped(content: &[u8]) -> Result<Unwrapped> {
    let document = match opened(content)? {
        Opened::Document(document) => document,
        Opened::Other(why) => return Err(invalid(why)),
    };
    let outer = parsed(&document)?;
    if let Some(kind) = outer.plain() {
        return match kind {
            Plain::Document => {
                let predicate = document.into_owned().into();
                Ok(Unwrapped { predicate, subjects: Vec::new(), is_open: true })
            }
            Plain::Unknown => Err(invalid("neither a statement of in-toto nor an SBOM")),
        };
    }
    let Some(predicate) = outer.predicate else { return Err(invalid("the statement has no predicate")) };
    let subjects = outer.subject.unwrap_or_default();
    let is_open = subjects.is_empty();
    let subjects = subjects.iter().flat_map(|subject| subject.digest.iter().flatten());
    // Of algorithms that no image is named by, and of other things than content, such as a commit.
    let subjects = subjects.filter_map(|(algorithm, hex)| digest::parse(&format!("{algorithm}:{hex}")).ok());
    Ok(Unwrapped {
        predicate: Bytes::copy_from_slice(predicate.get().as_bytes()),
        subjects: subjects.collect(),
        is_open,
    })
}

/// The type of the predicate; `None` for another thing than an attestation.
pub(super) fn predicate_type(content: &[u8]) -> Result<Option<String>> {
    let Opened::Document(document) = opened(content)? else { return Ok(None) };
    let outer = parsed(&document)?;
    Ok(match outer.plain() {
        None => match outer.predicate_type {
            Some(name) if name.len() > limits::TYPE => return Err(long()),
            Some(name) => Some(name.into_owned()),
            None => return Err(invalid("the statement has no type of its predicate")),
        },
        Some(_) if outer.bom_format.is_some() => Some(CYCLONE_DX.to_owned()),
        Some(Plain::Document) => Some(SPDX.to_owned()),
        Some(Plain::Unknown) => None,
    })
}

/// What is said of the name of a type that is too long.
pub(super) fn long() -> Error {
    AttestationFault::Many(format!("the name of a type has more than {} bytes", limits::TYPE)).into()
}

/// What is in the envelopes.
enum Opened<'a> {
    Document(Cow<'a, [u8]>),
    /// Another thing than an attestation, and what it is.
    Other(String),
}

/// The document in the envelopes.
fn opened(content: &[u8]) -> Result<Opened<'_>> {
    let outer = parsed(content)?;
    let bundled = outer.dsse_envelope.map(|raw| parsed(raw.get().as_bytes())).transpose()?;
    let is_bundle = bundled.is_some() || outer.verification_material.is_some();
    let envelope = match bundled {
        Some(inner) => (inner.payload_type, inner.payload),
        None if is_bundle => {
            return Ok(Opened::Other("the bundle has a signature, and no statement".to_owned()));
        }
        None if outer.payload.is_some() && outer.payload_type.is_some() => {
            (outer.payload_type, outer.payload)
        }
        None => return Ok(Opened::Document(Cow::Borrowed(content))),
    };
    let (Some(payload_type), Some(payload)) = envelope else {
        return Err(invalid("the envelope has no payload"));
    };
    if essence(&payload_type) != IN_TOTO {
        return Ok(Opened::Other(format!("the envelope has a payload of the type {payload_type:.80}")));
    }
    let payload = decoded(&payload).ok_or_else(|| invalid("the payload of the envelope is not base64"))?;
    Ok(Opened::Document(Cow::Owned(payload)))
}

/// Base64 of both alphabets, as the specification of DSSE allows.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabets = [STANDARD, URL_SAFE];
    alphabets.iter().find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
}

/// The fields of all forms. Repeated ones are an error: two readers would see two documents.
#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(rename = "_type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(rename = "bomFormat", borrow)]
    bom_format: Option<&'a RawValue>,
    /// The context of SPDX 3.
    #[serde(rename = "@context", borrow)]
    context: Option<&'a RawValue>,
    #[serde(rename = "dsseEnvelope", borrow)]
    dsse_envelope: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<Cow<'a, str>>,
    #[serde(rename = "payloadType", borrow)]
    payload_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    predicate: Option<&'a RawValue>,
    #[serde(rename = "predicateType", borrow)]
    predicate_type: Option<Cow<'a, str>>,
    #[serde(rename = "spdxVersion", borrow)]
    spdx_version: Option<&'a RawValue>,
    subject: Option<Vec<Subject>>,
    #[serde(rename = "verificationMaterial", borrow)]
    verification_material: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Option<BTreeMap<String, String>>,
}

/// What is no statement.
enum Plain {
    /// An SBOM.
    Document,
    Unknown,
}

impl Outer<'_> {
    /// What it is if it is no statement.
    fn plain(&self) -> Option<Plain> {
        if self.kind.as_ref().is_some_and(|kind| kind.starts_with(STATEMENT)) {
            return None;
        }
        let is_spdx3 = self.context.is_some_and(|context| context.get().contains("://spdx.org/"));
        let is_sbom = is_spdx3 || self.spdx_version.is_some() || self.bom_format.is_some();
        Some(if is_sbom { Plain::Document } else { Plain::Unknown })
    }
}

fn parsed(json: &[u8]) -> Result<Outer<'_>> {
    serde_json::from_slice(json).map_err(invalid)
}

#[expect(clippy::needless_pass_by_value, reason = "made for `map_err`")]
fn invalid(why: impl ToString) -> Error {
    AttestationFault::Statement(why.to_string()).into()
}
