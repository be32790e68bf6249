//! Just enough of an HTTP/1.1 client: one request for each connection.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use plyfold_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A request for `http://host/target`.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) host: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// Who is asked in the host's place.
    pub(super) proxy: Option<String>,
}

impl Request {
    pub(super) fn new(method: &'static str, host: &str, target: impl Into<String>) -> Self {
        let (host, target) = (host.to_owned(), target.into());
        Self { method, host, target, headers: Vec::new(), body: Bytes::new(), proxy: None }
    }

    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sends it and reads the head of the answer.
    pub(super) async fn send(&self) -> Result<Response> {
        let broken = |e: std::io::Error| {
            Error::new(ErrorKind::Unavailable, format!("the connection broke: {e}"))
                .with_endpoint(format!("http://{}", self.host))
        };
        let whole = self.proxy.as_ref().map(|_| format!("http://{}", self.host)).unwrap_or_default();
        let mut head = format!("{} {whole}{} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.headers {
            head.extend([name, ": ", value.as_str(), "\r\n"]);
        }
        let length = self.body.len().to_string();
        head.extend(["Content-Length: ", &length, "\r\nConnection: close\r\n\r\n"]);
        let peer = self.proxy.as_ref().unwrap_or(&self.host);
        let mut stream = BufReader::new(TcpStream::connect(peer).await.map_err(broken)?);
        stream.write_all(head.as_bytes()).await.map_err(broken)?;
        stream.write_all(&self.body).await.map_err(broken)?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.map_err(broken)? == 0 {
                return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
        let headers =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Ok(Response { host: self.host.clone(), is_head: self.method == "HEAD", status, headers, stream })
    }
}

/// The head of an answer, and the connection that its body comes from.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) host: String,
    is_head: bool,
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    stream: BufReader<TcpStream>,
}

impl Response {
    /// The value of a header, by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as it comes, bounded by its announced length.
    pub(super) fn body(self) -> BoxStream<'static, Result<Bytes>> {
        let length = self.header("content-length").and_then(|text| text.parse::<u64>().ok());
        let left = if self.is_head { Some(0) } else { length };
        let is_chunked = self.header("transfer-encoding").is_some();
        let state = (self.stream, left, is_chunked, self.host);
        stream::try_unfold(state, |(mut stream, left, is_chunked, host)| async move {
            let cut = || {
                Error::new(ErrorKind::Unavailable, "the body broke off")
                    .with_endpoint(format!("http://{host}"))
            };
            if left == Some(0) {
                return Ok(None);
            }
            if is_chunked {
                let Some(chunk) = chunk(&mut stream).await.ok_or_else(cut)? else { return Ok(None) };
                return Ok(Some((chunk, (stream, left, is_chunked, host))));
            }
            let room = usize::try_from(left.unwrap_or(u64::MAX)).unwrap_or(usize::MAX).min(64 << 10);
            let mut bytes = BytesMut::zeroed(room);
            let count = stream.read(&mut bytes).await.map_err(|_| cut())?;
            if count == 0 {
                return if left.is_some() { Err(cut()) } else { Ok(None) };
            }
            bytes.truncate(count);
            let left = left.map(|left| left - count as u64);
            Ok(Some((bytes.freeze(), (stream, left, is_chunked, host))))
        })
        .boxed()
    }

    /// The whole body, at most 4 MiB of it.
    pub(super) async fn document(self) -> Result<Bytes> {
        let mut body = self.body();
        let mut whole = BytesMut::new();
        while let Some(chunk) = body.next().await {
            whole.extend_from_slice(&chunk?);
            if whole.len() > 4 << 20 {
                return Err(Error::limit("the document is too long"));
            }
        }
        Ok(whole.freeze())
    }

    /// What a status other than success means.
    pub(super) fn error(&self, what: &str) -> Error {
        let kind = match self.status {
            401 => ErrorKind::Auth,
            403 => ErrorKind::Denied,
            404 => ErrorKind::NotFound,
            429 => ErrorKind::RateLimited { retry_after: self.retry_after() },
            500.. => ErrorKind::Unavailable,
            _ => ErrorKind::Unsupported,
        };
        let error = Error::new(kind, format!("{what}: status {}", self.status))
            .with_endpoint(format!("http://{}", self.host))
            .with_context("status", self.status);
        match self.retry_after() {
            Some(delay) => error.with_retry_after(delay),
            None => error,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?;
        let date = || httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok();
        text.parse().ok().map(Duration::from_secs).or_else(date)
    }
}

/// One chunk (RFC 9112 7.1), and `None` at the last; nothing at all when the connection ends before.
async fn chunk(stream: &mut BufReader<TcpStream>) -> Option<Option<Bytes>> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|count| *count > 0)?;
    let size = usize::from_str_radix(line.trim(), 16).ok().filter(|size| *size <= 1 << 20)?;
    let mut bytes = BytesMut::zeroed(size);
    stream.read_exact(&mut bytes).await.ok()?;
    stream.read_line(&mut line).await.ok()?;
    Some((size > 0).then(|| bytes.freeze()))
}
