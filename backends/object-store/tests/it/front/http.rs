//! HTTP/1.1, as much of it as `object_store` sends.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};

use bytes::Bytes;
use url::Url;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, as sent.
    pub(crate) target: String,
    /// The path, decoded, without the name of the bucket.
    pub(crate) key: String,
    pub(crate) body: Bytes,
    headers: HashMap<String, String>,
    query: HashMap<String, String>,
}

impl Request {
    /// The next one on a connection.
    pub(super) fn read(connection: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            connection.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        connection.read_exact(&mut body)?;
        let url = Url::parse(&format!("http://service{target}")).unwrap();
        let path = decoded(url.path());
        let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key).to_owned();
        let query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        Ok(Some(Self { method, target, key, body: body.into(), headers, query }))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// Whether it writes this kind of object, such as `names`.
    pub(crate) fn writes(&self, folder: &str) -> bool {
        self.method == "PUT" && self.key.contains(&format!("a/fleet/{folder}/"))
    }
}

/// Text with `%XX`.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// An answer.
#[derive(Debug)]
pub(super) struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Response {
    pub(super) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A refusal, as S3 words it.
    pub(super) fn failed(status: u16, code: &str) -> Self {
        Self::new(status, format!("<Error><Code>{code}</Code><Message>of the test</Message></Error>"))
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} answer\r\ncontent-length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head + "\r\n"
    }

    pub(super) fn send(&self, connection: &mut impl Write, method: &str) -> io::Result<()> {
        let body: &[u8] = if method == "HEAD" { &[] } else { &self.body };
        connection.write_all(&[self.head().as_bytes(), body].concat())
    }

    /// The first half of it.
    pub(super) fn half(&self) -> Vec<u8> {
        let mut answer = [self.head().as_bytes(), &self.body].concat();
        let end = answer.len() - self.body.len().div_ceil(2);
        answer.truncate(if self.body.is_empty() { end / 2 } else { end });
        answer
    }
}
