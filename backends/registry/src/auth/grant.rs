//! What a request is allowed with: an `Authorization` header, and for how long.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plyfold_core::{Credential, Error, ErrorKind, Result, Secret};
use reqwest::header::HeaderValue;

/// An `Authorization` header and when it ends.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) header: HeaderValue,
    pub(super) until: Option<Instant>,
}

impl Grant {
    pub(super) fn is_valid(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

/// What Docker stores as a user name and a password: the user `<token>` has an identity token.
pub(super) fn login(user: Secret, password: Secret) -> Credential {
    match user.reveal() {
        "<token>" => Credential::IdentityToken(password),
        _ => Credential::Basic(user, password),
    }
}

pub(super) fn basic(user: &Secret, password: &Secret) -> Result<HeaderValue> {
    if user.reveal().contains(':') {
        return Err(Error::config("a user name with a colon cannot be sent (RFC 7617 2)"));
    }
    let pair = STANDARD.encode(format!("{}:{}", user.reveal(), password.reveal()));
    header(&format!("Basic {pair}"))
}

pub(super) fn bearer(token: &Secret) -> Result<HeaderValue> {
    header(&format!("Bearer {}", token.reveal()))
}

fn header(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::new(ErrorKind::Auth, "a token has characters that no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_marked_as_secret() {
        let value = basic(&Secret::new("me"), &Secret::new("pw")).unwrap();
        assert_eq!(value.as_bytes(), b"Basic bWU6cHc=");
        assert!(!format!("{value:?}").contains("bWU6cHc"));
        assert!(basic(&Secret::new("a:b"), &Secret::new("pw")).is_err());
        assert!(bearer(&Secret::new("to\nken")).is_err());
    }
}
