//! `WWW-Authenticate` (RFC 9110 11.6.1): what a registry asks for.

use plyfold_core::{Error, Result};
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use crate::fault::ChallengeFault;

/// What to answer a 401 with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Challenge {
    /// User name and password on every request.
    Basic,
    /// A token from `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The strongest challenge that we can answer: Bearer before Basic, whatever their order.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let text = value.to_str().map_err(|_| invalid("it is not text"))?;
            let challenges = http_auth::parse_challenges(text).map_err(|_| invalid("it does not parse"))?;
            for challenge in challenges {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    return Self::bearer(&challenge);
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic.ok_or_else(|| invalid("neither Basic nor Bearer is offered"))
    }

    fn bearer(challenge: &http_auth::ChallengeRef<'_>) -> Result<Self> {
        let parameter = |name: &str| {
            let mut found = challenge.params.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
            let first = found.next().map(|(_, value)| value.to_unescaped());
            // Readers disagree which of two realms counts.
            if found.next().is_some() { Err(invalid(&format!("{name} is given twice"))) } else { Ok(first) }
        };
        let realm = parameter("realm")?.ok_or_else(|| invalid("Bearer has no realm"))?;
        Ok(Self::Bearer { realm, service: parameter("service")?, scope: parameter("scope")? })
    }
}

fn invalid(why: &str) -> Error {
    ChallengeFault::Invalid(why.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        Challenge::of(&headers).ok()
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn schemes_and_parameters_in_any_form() {
        assert_eq!(of(&[r#"Basic realm="x""#]), Some(Challenge::Basic));
        assert_eq!(
            of(&[r#"Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push""#]),
            Some(bearer("https://a/t", Some("s"), Some("repository:a/b:pull,push")))
        );
        assert_eq!(
            of(&[r#"bEaReR REALM="https://a/t" ,  service=s"#]),
            Some(bearer("https://a/t", Some("s"), None))
        );
        assert_eq!(of(&[r#"Bearer realm="https://a/\"q\"""#]), Some(bearer(r#"https://a/"q""#, None, None)));
    }

    #[test]
    fn bearer_wins_wherever_it_stands() {
        let both = Some(bearer("https://a/t", None, None));
        assert_eq!(of(&[r#"Basic realm="x", Bearer realm="https://a/t""#]), both);
        assert_eq!(of(&[r#"Basic realm="x""#, r#"Bearer realm="https://a/t""#]), both);
        assert_eq!(of(&[r#"Negotiate, Bearer realm="https://a/t""#]), both);
    }

    #[test]
    fn broken_challenges_are_refused() {
        for value in [
            "",
            "Bearer",
            r#"Bearer service="s""#,
            r#"Bearer realm="https://a/t"#,
            r#"Bearer realm="https://a",realm="https://b""#,
            "Digest realm=x",
            "=,=",
        ] {
            assert_eq!(of(&[value]), None, "{value}");
        }
        assert_eq!(of(&[]), None);
    }
}
