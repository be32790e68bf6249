//! The token server's protocol: GET with a scope (Token Authentication Specification), or POST with a refresh
//! token (`OAuth2` Token Authentication).

use std::time::{Duration, Instant};

use plyfold_core::{Credential, Error, ErrorKind, Result, Secret};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, Response, StatusCode, Url};
use serde::Deserialize;

use super::grant::{Grant, basic, bearer};
use crate::error;
use crate::fault::ChallengeFault;
use crate::policy::origin;
use crate::response::Sent;
use crate::transport::Transport;

/// Bytes of a token server's answer.
const BODY: u64 = 1 << 20;
/// Bytes of a token: what fits into the header of any server.
const TOKEN: usize = 64 << 10;
/// The lifetime of a token when the server states none, or a shorter one ("Token Response Fields").
const LIFE: u64 = 60;
/// The longest time that a token is kept; the registry checks tokens in any case.
const LONGEST_LIFE: u64 = 3600;
const CLIENT: &str = "plyfold";

/// Asks `realm` for a token. The caller has checked the realm, and that it may see `credential`.
pub(super) async fn fetch(
    transport: &Transport,
    realm: Url,
    service: Option<&str>,
    access: &str,
    credential: Option<&Credential>,
) -> Result<Grant> {
    let endpoint = origin(&realm);
    let at = |e: Error| e.with_context("token server", &endpoint);
    let request = match credential {
        Some(Credential::IdentityToken(token)) => refresh(realm, service, access, token),
        Some(Credential::Basic(user, password)) => {
            let mut request = ask(realm, service, access);
            request.headers_mut().insert(AUTHORIZATION, basic(user, password)?);
            request
        }
        _ => ask(realm, service, access),
    };
    let asked = Instant::now();
    let mut response = transport.execute(request).await.map_err(at)?;
    if response.status() != StatusCode::OK {
        if let Some(Credential::IdentityToken(token)) = credential {
            response.extensions_mut().insert(Sent(Some(bearer(token)?)));
        }
        return Err(at(refusal(response).await));
    }
    let body = transport.time_outs.document(response, BODY, "the token server's answer").await;
    // Whatever is wrong with an answer that came, authentication is what failed.
    let body = body.map_err(|e| match e.kind() {
        ErrorKind::Limit => Error::new(ErrorKind::Auth, e.message()),
        _ => e,
    });
    let (token, life) = parse(&body.map_err(at)?).map_err(at)?;
    // A tenth is subtracted for clock skew and latency.
    Ok(Grant { header: bearer(&token)?, until: Some(asked + life.mul_f32(0.9)) })
}

fn ask(realm: Url, service: Option<&str>, access: &str) -> Request {
    let mut url = realm;
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(service.map(|service| ("service", service)));
        query.extend_pairs(access.split_whitespace().map(|scope| ("scope", scope)));
    }
    let mut request = Request::new(Method::GET, url);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    request
}

fn refresh(realm: Url, service: Option<&str>, access: &str, token: &Secret) -> Request {
    let mut form = realm.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", CLIENT)
        .extend_pairs(service.map(|service| ("service", service)))
        .append_pair("scope", access)
        .append_pair("refresh_token", token.reveal());
    let body = form.query().unwrap_or_default().to_owned();
    let mut request = Request::new(Method::POST, realm);
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    *request.body_mut() = Some(body.into());
    request
}

/// A token server's refusal: rate limits and outages keep their kind, everything else is `Auth`.
async fn refusal(response: Response) -> Error {
    let error = error::status(response, "token").await;
    if error.is_retryable() {
        return error;
    }
    let message = format!("the token server refused: {}", error.message());
    Error::new(ErrorKind::Auth, message)
        .with_hint("check user name and password, and that they have not expired")
}

#[derive(Deserialize)]
struct Answer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<serde_json::Value>,
}

fn parse(body: &[u8]) -> Result<(Secret, Duration)> {
    // The parser's message could quote a token.
    let invalid = ChallengeFault::Token;
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| invalid("it is not the JSON of a token"))?;
    let token = answer.token.filter(|token| !token.reveal().is_empty());
    let token = token.or(answer.access_token).ok_or_else(|| invalid("it has no token"))?;
    let text = token.reveal();
    if text.is_empty() || text.len() > TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            invalid("its token is empty, too long, or has characters that no header can carry").into()
        );
    }
    // Servers in the field send 0 for "not set".
    let seconds = match answer.expires_in {
        None | Some(serde_json::Value::Null) => LIFE,
        Some(serde_json::Value::Number(number)) => number.as_u64().unwrap_or(LIFE),
        Some(_) => return Err(invalid("expires_in is not a number").into()),
    };
    // Less than a minute is a mistake by the specification; a token that really expires earlier gets a 401 and is
    // replaced.
    let seconds = if seconds == 0 { LIFE } else { seconds.min(LONGEST_LIFE) };
    Ok((token, Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_all_their_forms() {
        let of = |text: &str| {
            parse(text.as_bytes()).ok().map(|(token, life)| (token.reveal().to_owned(), life.as_secs()))
        };
        let token = |text: &str, life| Some((text.to_owned(), life));
        assert_eq!(of(r#"{"token":"t"}"#), token("t", 60));
        assert_eq!(of(r#"{"access_token":"a","expires_in":300}"#), token("a", 300));
        assert_eq!(
            of(r#"{"token":"t","access_token":"a","issued_at":"2020-01-01T00:00:00Z"}"#),
            token("t", 60)
        );
        assert_eq!(of(r#"{"token":"","access_token":"a"}"#), token("a", 60));
        assert_eq!(of(r#"{"token":"t","expires_in":0}"#), token("t", 60));
        assert_eq!(of(r#"{"token":"t","expires_in":2}"#), token("t", 2));
        assert_eq!(of(r#"{"token":"t","expires_in":-5}"#), token("t", 60));
        assert_eq!(of(r#"{"token":"t","expires_in":1e300}"#), token("t", 60));
        assert_eq!(of(r#"{"token":"t","expires_in":9223372036854775807}"#), token("t", LONGEST_LIFE));
        for text in [
            "",
            "token",
            "[]",
            "{}",
            r#"{"token":null}"#,
            r#"{"token":""}"#,
            r#"{"token":7}"#,
            r#"{"token":"a\nb"}"#,
            r#"{"token":"a b"}"#,
            r#"{"token":"\u00e9"}"#,
            r#"{"token":"t","expires_in":"soon"}"#,
            "<html>login</html>",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(of(&format!(r#"{{"token":"{}"}}"#, "a".repeat(TOKEN + 1))), None);
    }

    #[test]
    fn scopes_are_parameters_of_their_own() {
        let realm = Url::parse("https://auth.example/token?keep=1").unwrap();
        let request = ask(realm, Some("r.example"), "repository:a:pull,push repository:b:pull");
        assert_eq!(
            request.url().query(),
            Some("keep=1&service=r.example&scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%3Apull")
        );
    }

    #[test]
    fn refresh_tokens_go_into_the_body_alone() {
        let realm = Url::parse("https://auth.example/token").unwrap();
        let request = refresh(realm, None, "repository:a:pull", &Secret::new("s&cret"));
        assert_eq!(request.url().query(), None);
        let body = String::from_utf8(request.body().unwrap().as_bytes().unwrap().to_vec()).unwrap();
        assert!(body.ends_with("scope=repository%3Aa%3Apull&refresh_token=s%26cret"), "{body}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// A token lives for a time that a clock can count with, whatever the server says of it.
        #[test]
        fn any_expiry_is_a_life_or_an_error(
            value in "-?[0-9]{1,40}(\\.[0-9]{1,20})?(e-?[0-9]{1,4})?|null|true|\"[ !#-~]{0,10}\"|\\[\\]|\\{\\}|NaN",
        ) {
            let answer = format!(r#"{{"token":"t","expires_in":{value}}}"#);
            if let Ok((_, life)) = parse(answer.as_bytes()) {
                proptest::prop_assert!((1..=LONGEST_LIFE).contains(&life.as_secs()));
                proptest::prop_assert!(Instant::now().checked_add(life.mul_f32(0.9)).is_some());
            }
        }
    }
}
