//! A daemon of the tests: HTTP/1.1 on a Unix socket, as right or wrong as a test wants it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use plyfold_archive::{Daemon, DaemonConfig};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// How an answer in chunks begins.
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What the daemon does with a request.
pub(crate) enum Answer {
    /// A body of a known length.
    Body(Vec<u8>),
    /// A body in chunks, with its end.
    Chunked(Vec<u8>),
    /// A body in chunks, and no end: the connection closes.
    Cut(Vec<u8>),
    /// A body in chunks, and then nothing.
    Stalled(Vec<u8>),
    /// A status, and a message as a daemon writes it.
    Error(u16, &'static str),
    /// Bytes that need not be HTTP.
    Raw(Vec<u8>),
    /// Nothing, with the connection open.
    Silence,
}

type Handler = dyn Fn(&str, Vec<u8>) -> Answer + Send + Sync;

pub(crate) struct Fake {
    folder: TempDir,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Fake {
    /// Answers requests (`GET /path`) with their bodies.
    pub(crate) fn start(handler: impl Fn(&str, Vec<u8>) -> Answer + Send + Sync + 'static) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let (requests, handler): (Arc<Mutex<Vec<String>>>, Arc<Handler>) =
            (Arc::default(), Arc::new(handler));
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
                tokio::spawn(async move {
                    // A client may go at any time.
                    let _ = serve(stream, handler, &seen).await;
                });
            }
        });
        Self { folder, requests, task }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    pub(crate) fn daemon(&self) -> Daemon {
        daemon(&self.socket())
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Takes the daemon away.
    pub(crate) fn end(&self) {
        self.task.abort();
        std::fs::remove_file(self.socket()).unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn daemon(socket: &Path) -> Daemon {
    let config = DaemonConfig { socket: Some(socket.to_owned()), timeout: 1, ..DaemonConfig::default() };
    Daemon::new(&config).unwrap()
}

async fn serve(stream: UnixStream, handler: Arc<Handler>, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase().replace("%5b", "[").replace("%5d", "]");
    let request: Vec<&str> = head.split(' ').take(2).collect();
    let request = format!("{} {}", request[0].to_ascii_uppercase(), request[1]);
    let body =
        if head.contains("transfer-encoding: chunked") { chunked(&mut stream).await? } else { Vec::new() };
    seen.lock().unwrap().push(request.clone());
    let mut out = stream.into_inner();
    // One that takes its time keeps no thread of the runtime.
    let answer = tokio::task::spawn_blocking(move || handler(&request, body)).await.unwrap();
    match answer {
        Answer::Body(body) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            out.write_all(&[head.as_bytes(), &body].concat()).await
        }
        Answer::Chunked(body) => {
            out.write_all(&[CHUNKED.as_bytes(), &chunks(&body), b"0\r\n\r\n"].concat()).await
        }
        Answer::Cut(body) => out.write_all(&[CHUNKED.as_bytes(), &chunks(&body)].concat()).await,
        Answer::Stalled(body) => {
            out.write_all(&[CHUNKED.as_bytes(), &chunks(&body)].concat()).await?;
            std::future::pending().await
        }
        Answer::Error(status, message) => {
            let body = serde_json::json!({ "message": message }).to_string();
            let head = format!("HTTP/1.1 {status} No\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            out.write_all(head.as_bytes()).await
        }
        Answer::Raw(bytes) => out.write_all(&bytes).await,
        Answer::Silence => std::future::pending().await,
    }
}

fn chunks(body: &[u8]) -> Vec<u8> {
    let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
    body.chunks(1000).flat_map(chunk).collect()
}

async fn chunked(stream: &mut BufReader<UnixStream>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
