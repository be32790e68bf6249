//! Where the next page of a listing is: `Link` (RFC 8288) as registries send it.

use plyfold_core::{Error, Result};
use reqwest::header::LINK;
use reqwest::{Response, Url};

/// The next page that an answer links to, on the scheme, host and port that the answer came from.
///
/// # Errors
/// [`Corrupt`](plyfold_core::ErrorKind::Corrupt) for a link that cannot be read or leads to another host: without it
/// the listing would end too early and look complete.
pub(crate) fn next_link(response: &Response) -> Result<Option<Url>> {
    for value in response.headers().get_all(LINK) {
        let text = value.to_str().map_err(|_| unreadable("it is not ASCII"))?;
        if let Some(target) = next_target(text).map_err(unreadable)? {
            return resolved(response.url(), target).map(Some);
        }
    }
    Ok(None)
}

/// Whether an answer has links, and none among them.
pub(crate) fn has_no_links(response: &Response) -> bool {
    let mut values = response.headers().get_all(LINK).iter().peekable();
    values.peek().is_some()
        && values.all(|value| value.as_bytes().iter().all(|c| matches!(c, b',' | b' ' | b'\t')))
}

fn resolved(page: &Url, target: &str) -> Result<Url> {
    let mut next = page.join(target).map_err(|_| unreadable("its target is not a URL"))?;
    // A registry behind a proxy that terminates TLS may write http links. The scheme of the request is kept.
    let is_http = matches!(next.scheme(), "http" | "https");
    if !is_http || next.host() != page.host() || next.port() != page.port() {
        return Err(Error::corrupt("the registry's link to the next page leads to another host"));
    }
    next.set_scheme(page.scheme()).map_err(|()| unreadable("its scheme is not http"))?;
    Ok(next)
}

fn unreadable(why: &str) -> Error {
    Error::corrupt(format!("the registry's link to the next page cannot be read: {why}"))
}

/// The first target whose relation is `next`. A link that states no relation counts as one, and so does a target
/// without its angle brackets: both are in the field, and listings have no other links.
fn next_target(value: &str) -> Result<Option<&str>, &'static str> {
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            return Ok(None);
        }
        let (target, after) = match rest.strip_prefix('<') {
            Some(bracketed) => bracketed.split_once('>').ok_or("a bracket is not closed")?,
            None => rest.split_at(rest.find(';').unwrap_or(rest.len())),
        };
        let target = target.trim();
        if target.is_empty() || target.contains([' ', '\t', '<', '>', '"']) {
            return Err("its target is not a URL");
        }
        let (relations, next) = relations(after)?;
        if relations.is_none_or(has_next) {
            return Ok(Some(target));
        }
        rest = next;
    }
}

fn has_next(relations: &str) -> bool {
    relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"))
}

/// The value of the first `rel` among a link's parameters (RFC 8288 3.3: later ones are ignored), and what follows the
/// link.
fn relations(parameters: &str) -> Result<(Option<&str>, &str), &'static str> {
    let (mut found, mut rest) = (None, parameters.trim_start());
    while let Some(parameter) = rest.strip_prefix(';') {
        let end = parameter_end(parameter)?;
        let (parameter, after) = parameter.split_at(end);
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            found = found.or(Some(value.trim().trim_matches('"')));
        }
        rest = after;
    }
    if rest.is_empty() || rest.starts_with(',') {
        return Ok((found, rest));
    }
    Err("its parameters are not separated by semicolons")
}

/// Where a parameter ends: at the next semicolon or comma outside of quotes.
fn parameter_end(text: &str) -> Result<usize, &'static str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ';' | ',' if !is_quoted => return Ok(at),
            _ => {}
        }
    }
    if is_quoted { Err("a quote is not closed") } else { Ok(text.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_the_forms_of_the_field() {
        for (value, expected) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, Some("/v2/a/tags/list?last=b&n=2")),
            ("</x?a=1,2>;rel=next", Some("/x?a=1,2")),
            (r#"</first>; rel="first", </x>; title="t"; REL="next""#, Some("/x")),
            (r#"</x>; rel="last NEXT""#, Some("/x")),
            (r#"</x>; title="a, <b>; rel=\"prev\""; rel=next"#, Some("/x")),
            (r#"</x>; rel="next"; rel="prev""#, Some("/x")),
            (r#"</x> ; rel = "next" "#, Some("/x")),
            (r#"<?last=b>; rel="next""#, Some("?last=b")),
            (r#"/x?last=b; rel="next""#, Some("/x?last=b")),
            ("https://r.example/x?last=b,c;rel=next", Some("https://r.example/x?last=b,c")),
            ("</x>", Some("/x")),
            ("/x", Some("/x")),
            (r#"</x>; rel="prev""#, None),
            (r#"</x>; rel="nextish""#, None),
            (r#"/x; rel="first", </y>; rel=prev"#, None),
            (", ,", None),
            ("", None),
        ] {
            assert_eq!(next_target(value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn links_that_cannot_be_read_are_errors() {
        for value in
            ["<", "</x; rel=next", "<>; rel=next", r#"</x>; rel="next"#, "</x> rel=next", "a b; rel=next"]
        {
            assert!(next_target(value).is_err(), "{value}");
        }
    }

    #[test]
    fn the_next_page_is_on_the_host_of_this_one() {
        let page = Url::parse("https://r.example:5000/v2/a/tags/list?n=2").unwrap();
        let next = |target: &str| resolved(&page, target).ok().map(|url| url.to_string());
        let there = Some("https://r.example:5000/v2/a/tags/list?last=b".to_owned());
        for target in ["?last=b", "/v2/a/tags/list?last=b", "http://r.example:5000/v2/a/tags/list?last=b"] {
            assert_eq!(next(target), there, "{target}");
        }
        for target in ["https://r.example/v2/a/tags/list?last=b", "//other:5000/x", "ftp://r.example:5000/x"]
        {
            assert_eq!(next(target), None, "{target}");
        }
    }
}
