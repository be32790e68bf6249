//! Just enough HTTP/1.1 (RFC 9112) to be honest, written by hand because a library would not let us break it.

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;

/// A request head longer than this is refused.
const HEAD: u64 = 64 << 10;

/// How long the bytes before a reset have to arrive.
const DELIVERY: Duration = Duration::from_millis(20);

/// One request, its body read to the end.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// The request target as sent.
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Reads one request; `None` when the client has closed the connection.
    pub(super) fn read(stream: &mut io::BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut head = stream.take(HEAD);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(io::Error::other(format!("not a request line: {line:?}")));
        };
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request = Self { method, target, headers, body: Vec::new() };
        if request.header("expect").is_some() {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        request.body = request.read_body(stream)?;
        Ok(Some(request))
    }

    fn read_body(&self, stream: &mut io::BufReader<TcpStream>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if self.header("transfer-encoding").is_some() {
            loop {
                let mut line = String::new();
                stream.take(HEAD).read_line(&mut line)?;
                let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
                stream.take(size).read_to_end(&mut body)?;
                line.clear();
                stream.take(HEAD).read_line(&mut line)?;
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        let length: u64 = self.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        stream.take(length).read_to_end(&mut body)?;
        Ok(body)
    }

    /// The value of a header, by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The target's path. A proxy is sent the whole URL, which every server takes (RFC 9112 3.2.2).
    pub(super) fn path(&self) -> &str {
        let path = self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path);
        let rest = path.strip_prefix("http://").and_then(|rest| Some(&rest[rest.find('/')?..]));
        rest.unwrap_or(path)
    }

    /// A query parameter, decoded.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        parameter(query, name)
    }

    /// A field of a form body, decoded.
    pub(super) fn form(&self, name: &str) -> Option<String> {
        parameter(std::str::from_utf8(&self.body).ok()?, name)
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| percent_decoded(value))
}

fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().replace('+', " ").into_bytes();
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(part[2..].replace('+', " ").bytes());
            }
            None => bytes.extend(format!("%{part}").bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is about to go out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Bytes(u64),
    /// All of it: what follows is no work of the server's.
    Last,
}

/// How the body's end is marked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    Chunked,
    /// HTTP/1.0: the connection's end is the body's end.
    Close,
    Length,
}

/// How the body is truncated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Complete,
    /// Zero bytes without end after the body.
    Endless,
    ResetAt(u64),
    StallAt(u64),
    TruncateAt(u64),
}

/// One response, and how it goes over the wire.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    pub(super) framing: Framing,
    pub(super) end: End,
    pub(super) delay: Duration,
    /// Bytes at a time, and the pause after each.
    pub(super) pace: Option<(usize, Duration)>,
}

impl Response {
    pub(super) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            framing: Framing::Length,
            end: End::Complete,
            delay: Duration::ZERO,
            pace: None,
        }
    }

    /// An error in the distribution specification's form ("Error Codes").
    pub(super) fn error(status: u16, code: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{code}"}}]}}"#);
        Self::new(status, body).with("Content-Type", "application/json")
    }

    /// Sets a header, in place of one of the same name.
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sends it; whether the connection can be used again. `count` hears of every step before it is taken, so
    /// that a client that has everything finds everything counted.
    pub(super) fn send(
        &self,
        stream: &mut TcpStream,
        head_only: bool,
        mut count: impl FnMut(Step),
    ) -> io::Result<bool> {
        std::thread::sleep(self.delay);
        let has_body = !head_only && self.status != 204 && self.status != 304;
        let (piece, pause) = self.pace.unwrap_or((64 << 10, Duration::ZERO));
        // A client may go on as soon as it has the head, and never read what is small.
        let is_short = !has_body || self.body.len() <= piece;
        if is_short {
            count(Step::Last);
        }
        stream.write_all(self.head(head_only).as_bytes())?;
        if !has_body {
            return Ok(true);
        }
        let stop = match self.end {
            End::Complete | End::Endless => None,
            End::ResetAt(at) | End::StallAt(at) | End::TruncateAt(at) => Some(at),
        };
        let size = self.body.len() as u64;
        let limit = usize::try_from(stop.unwrap_or(size).min(size)).unwrap_or(usize::MAX);
        let mut left = limit;
        for piece in self.body[..limit].chunks(piece) {
            left -= piece.len();
            count(Step::Bytes(piece.len() as u64));
            if left == 0 && !is_short {
                count(Step::Last);
            }
            self.piece(stream, piece)?;
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
        match self.end {
            End::Complete => {
                if self.framing == Framing::Chunked {
                    stream.write_all(b"0\r\n\r\n")?;
                }
                return Ok(self.framing != Framing::Close);
            }
            // Ends when the client, or the server's end, closes the connection.
            End::Endless => while self.piece(stream, &[0; 4096]).is_ok() {},
            End::StallAt(_) => while stream.read(&mut [0; 64])? > 0 {},
            End::ResetAt(_) => {
                // A reset throws away what is still on its way: what is counted is to have arrived.
                std::thread::sleep(DELIVERY);
                rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO))?;
            }
            End::TruncateAt(_) => {}
        }
        Ok(false)
    }

    fn piece(&self, stream: &mut TcpStream, piece: &[u8]) -> io::Result<()> {
        if self.framing == Framing::Chunked {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        }
        stream.write_all(piece)?;
        if self.framing == Framing::Chunked {
            stream.write_all(b"\r\n")?;
        }
        Ok(())
    }

    fn head(&self, head_only: bool) -> String {
        let version = if self.framing == Framing::Close { "1.0" } else { "1.1" };
        let mut lines = vec![format!("HTTP/{version} {} {}", self.status, reason(self.status))];
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        let has_length = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        match self.framing {
            Framing::Chunked if !head_only => lines.push("Transfer-Encoding: chunked".to_owned()),
            Framing::Close if !head_only => lines.push("Connection: close".to_owned()),
            _ if has_length => {}
            _ => lines.push(format!("Content-Length: {}", self.body.len())),
        }
        lines.join("\r\n") + "\r\n\r\n"
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200..=299 => "OK",
        300..=399 => "Elsewhere",
        400..=499 => "Client Error",
        _ => "Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter("a=1&digest=sha256%3Aab+c%zz", "digest").unwrap(), "sha256:ab c%zz");
        assert_eq!(parameter("a=1", "b"), None);
    }
}
