//! Requests to a daemon: HTTP/1.1 over its Unix socket, each by a connection of its own.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::future::join;
use futures_util::stream;
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use plyfold_core::blocking::blocking;
use plyfold_core::{Advice, Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::fault::{DaemonFault, of_status};
use crate::members::Member;

/// Bytes of an error's text, and of the lines that an image's arrival is reported in.
const TEXT: usize = 64 << 10;
const REPORT: usize = 4 << 20;
/// Bytes of what is said of one image, and of the list of all images.
const DOCUMENT: usize = 4 << 20;
const LIST: usize = 64 << 20;
/// Interim answers (RFC 9110 15.2) before the final one.
const INTERIMS: usize = 64;
/// How often a daemon is asked whether it is there, while an answer is waited for.
const PINGS: u32 = 4096;
/// Bytes that are sent at once.
const CHUNK: usize = 256 << 10;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A daemon.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) socket: PathBuf,
    pub(super) timeout: Duration,
}

impl Client {
    /// A small document.
    pub(super) async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.whole(self.send(Method::GET, path, nothing()).await?, DOCUMENT).await?;
        serde_json::from_slice(&body).map_err(|e| Error::from(DaemonFault::Garbled).with_source(e))
    }

    /// What `parse` makes of a long document, as it comes.
    pub(super) async fn streamed<T: Send + 'static>(
        &self,
        path: &str,
        parse: impl FnOnce(&mut dyn Read) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut answer = self.get(path).await?;
        let (chunks, received) = mpsc::channel(1);
        let sending = async move {
            let mut size = 0;
            while let Some(chunk) = answer.chunk().await? {
                size += chunk.len();
                if size > LIST {
                    return Err(too_long(LIST));
                }
                // The parser may have ended with an error.
                if chunks.send(chunk).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let parsing = blocking(move |_| parse(&mut Received { received, chunk: Bytes::new() }));
        let (sent, parsed) = join(sending, parsing).await;
        // Without its end the document is a broken one for the parser, too.
        sent.and(parsed)
    }

    /// What follows from a request, whose answer is one of success.
    pub(super) async fn get(&self, path: &str) -> Result<Answer<'_>> {
        Ok(Answer { client: self, body: self.send(Method::GET, path, nothing()).await?.into_body() })
    }

    /// Sends a file; what the daemon reports about it, line by line.
    pub(super) async fn post(&self, path: &str, file: File, size: u64) -> Result<Bytes> {
        let answer = self.send(Method::POST, path, of_file(file, size)).await?;
        self.whole(answer, REPORT).await
    }

    async fn send(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>> {
        let sending = self.request(method, path, body);
        let answer = self.patient(sending).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = self.start(answer).await;
        let said = serde_json::from_slice(&text).map(|Said { message }| message);
        let said = said.unwrap_or_else(|_| String::from_utf8_lossy(&text).trim().to_owned());
        Err(of_status(status, &said))
    }

    /// One request by a connection of its own.
    async fn request(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer, or when the answer is dropped.
        let connection = tokio::spawn(connection).abort_handle();
        let request = Request::builder().method(method).uri(path).header("host", "docker");
        let request = request.header("content-type", "application/x-tar").body(body);
        let mut request =
            request.map_err(|e| Error::new(ErrorKind::Internal, "making a request").with_source(e))?;
        let interims = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&interims);
        hyper::ext::on_informational(&mut request, move |_| {
            if seen.fetch_add(1, Ordering::Relaxed) >= INTERIMS {
                connection.abort();
            }
        });
        let answer = sender.send_request(request).await;
        match interims.load(Ordering::Relaxed) {
            0..=INTERIMS => answer.map_err(broken),
            _ => Err(DaemonFault::Garbled.into()),
        }
    }

    fn unreachable(&self, e: io::Error) -> Error {
        let socket = self.socket.display().to_string();
        if e.kind() == io::ErrorKind::PermissionDenied {
            return Error::from(DaemonFault::Denied(socket)).with_source(e);
        }
        let error = Error::from(DaemonFault::NoDaemon(socket)).with_source(e).with_attempts(1);
        error.with_advice(Advice::options("start it, or name its socket by {}", [("socket", "PATH")]))
    }

    /// Waits for the daemon as long as it is there.
    async fn patient<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        for _ in 0..PINGS {
            match tokio::time::timeout(self.timeout, &mut work).await {
                Ok(outcome) => return outcome,
                Err(_) => self.ping().await?,
            }
        }
        Err(DaemonFault::Silent(self.timeout.as_secs() * u64::from(PINGS)).into())
    }

    /// Whether it is there: whatever it answers.
    async fn ping(&self) -> Result<()> {
        let asked = self.request(Method::GET, "/_ping", nothing());
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Error::from(DaemonFault::Silent(self.timeout.as_secs())).with_attempts(1)),
        }
    }

    /// The first bytes of an answer that is an error, as far as they come.
    async fn start(&self, answer: Response<Incoming>) -> Bytes {
        let mut answer = Answer { client: self, body: answer.into_body() };
        let mut text = Vec::new();
        while let (Ok(Some(chunk)), true) = (answer.chunk().await, text.len() < TEXT) {
            text.extend_from_slice(&chunk);
        }
        text.truncate(TEXT);
        text.into()
    }

    /// The whole body of a small answer.
    async fn whole(&self, answer: Response<Incoming>, limit: usize) -> Result<Bytes> {
        let mut answer = Answer { client: self, body: answer.into_body() };
        let mut whole = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            whole.extend_from_slice(&chunk);
            if whole.len() > limit {
                return Err(too_long(limit));
            }
        }
        Ok(whole.into())
    }
}

/// What an answer says that is none of success.
#[derive(serde::Deserialize)]
struct Said {
    message: String,
}

/// The body of an answer.
pub(super) struct Answer<'a> {
    client: &'a Client,
    body: Incoming,
}

impl Answer<'_> {
    /// What comes next; `None` at the end that the daemon has declared.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let body = &mut self.body;
        let next = async {
            loop {
                match body.frame().await.transpose().map_err(broken)? {
                    None => return Ok(None),
                    Some(frame) => match frame.into_data() {
                        Ok(data) if !data.is_empty() => return Ok(Some(data)),
                        _ => {}
                    },
                }
            }
        };
        self.client.patient(next).await
    }
}

/// A body as a reader, for a thread that may block.
struct Received {
    received: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for Received {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            self.chunk = self.received.blocking_recv().unwrap_or_default();
        }
        let count = buf.len().min(self.chunk.len());
        self.chunk.split_to(count).copy_to_slice(&mut buf[..count]);
        Ok(count)
    }
}

fn too_long(limit: usize) -> Error {
    Error::limit(format!("the daemon's answer has more than {limit} bytes"))
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A file as a body, read by threads that may block.
fn of_file(file: File, size: u64) -> Body {
    let file = Member::new(Arc::new(file), 0, size);
    let chunks = stream::try_unfold(0, move |at| {
        let file = file.clone();
        async move {
            let read = tokio::task::spawn_blocking(move || file.chunk(at, CHUNK)).await;
            let chunk = read.map_err(io::Error::other)??;
            let next = at + chunk.len() as u64;
            Ok((!chunk.is_empty()).then(|| (Frame::data(chunk), next)))
        }
    });
    StreamBody::new(chunks).boxed_unsync()
}

/// The error of a connection.
fn broken(e: hyper::Error) -> Error {
    let fault = if e.is_parse() { DaemonFault::Garbled } else { DaemonFault::Closed };
    Error::from(fault).with_attempts(2).with_source(e)
}
