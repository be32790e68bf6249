//! What every reader of answers needs: header fields, the first bytes of a body, and marks of where an answer comes from.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plyfold_core::{Digest, MediaType, digest};
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

/// How long to wait for the body of an error.
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);

/// Marks an answer of a mirror: other hosts can still be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mirrored;

/// Marks an answer of a host that the registry has redirected the request to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Redirected;

/// What was sent as `Authorization`: an answer may repeat it.
#[derive(Clone, Debug)]
pub(crate) struct Sent(pub(crate) Option<HeaderValue>);

impl Sent {
    /// The text of an answer without the secrets that were sent.
    pub(crate) fn redacted(&self, text: &str) -> String {
        let sent = self.0.as_ref().and_then(|value| value.to_str().ok()?.split_once(' '));
        let Some((_, secret)) = sent else { return text.to_owned() };
        let pair = STANDARD.decode(secret).ok().and_then(|pair| String::from_utf8(pair).ok());
        let password = pair.as_deref().and_then(|pair| pair.split_once(':')).map_or(secret, |(_, word)| word);
        [secret, password]
            .iter()
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"))
    }
}

/// The errors of the mirrors that were asked before the registry, for its error's context.
#[derive(Clone, Debug)]
pub(crate) struct Failures(pub(crate) String);

/// The text of a header, if there is one and it is text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The first `limit` bytes of a body, for messages; less when it is truncated or times out.
pub(crate) async fn head_of_body(mut response: Response, limit: usize) -> Vec<u8> {
    let mut content = Vec::new();
    let reading = async {
        while content.len() < limit {
            let Ok(Some(chunk)) = response.chunk().await else { break };
            content.extend_from_slice(&chunk[..chunk.len().min(limit - content.len())]);
        }
    };
    // Use what has been received by then.
    let _ = tokio::time::timeout(ERROR_BODY_TIME, reading).await;
    content
}

/// `Content-Type` without its parameters.
pub(crate) fn media_type(response: &Response) -> Option<MediaType> {
    let text = text(response.headers(), CONTENT_TYPE.as_str())?;
    Some(MediaType::from(text.split(';').next().unwrap_or_default().trim()))
}

/// The digest that an answer states in place of this one. A digest of another algorithm says nothing about it:
/// registries answer sha256 to a sha512 request.
pub(crate) fn other_digest(response: &Response, digest: &Digest) -> Option<Digest> {
    stated_digest(response).filter(|stated| stated.algorithm() == digest.algorithm() && stated != digest)
}

/// `Docker-Content-Digest`, if it is a digest that can be checked.
pub(crate) fn stated_digest(response: &Response) -> Option<Digest> {
    digest::parse(text(response.headers(), "docker-content-digest")?).ok()
}
