//! A registry on the loopback interface that is honest until a script tells it otherwise.
//!
//! It speaks the distribution API over plain HTTP/1.1: manifests, blobs with ranges, tags and catalog with Link
//! paging, referrers, pushes, mounts, deletes, Basic and Bearer authentication. Every request is logged, so that
//! a test can say "one download". Scripts of [`Fault`]s break single answers.
//!
//! ```
//! use plyfold_conformance::samples;
//! use plyfold_conformance::server::{Fault, FaultServer, On};
//!
//! let server = FaultServer::start()?;
//! let sample = samples::image();
//! server.put("library/app", "1.2", &sample);
//! // The first download of the bottom layer is truncated after 100 bytes.
//! let layer = sample.images[0].layers[0].descriptor.digest();
//! server.script(On::blob(layer).times(1), [Fault::TruncateAt(100)]);
//!
//! let reference = format!("{}/library/app:1.2", server.host());
//! // … pull `reference` with the client under test; afterwards:
//! assert_eq!(server.served(layer).requests, 0);
//! # drop(reference);
//! # Ok::<(), std::io::Error>(())
//! ```

mod api;
mod auth;
mod content;
mod fault;
mod http;
mod state;

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use plyfold_core::Digest;

use self::auth::Tokens;
pub use self::auth::{Auth, Login};
use self::content::{Stored, fallback_tag, key};
pub use self::fault::{Fault, On};
use self::fault::{Scripts, distorted};
use self::http::{Request, Response, Step};
use self::state::State;
pub use self::state::{Exchange, Options};
use crate::samples::Sample;

/// How often and how much of one digest went out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Served {
    /// GET requests.
    pub requests: usize,
    /// Bytes of bodies.
    pub bytes: u64,
}

/// The server. Dropping it closes every connection.
#[derive(Debug)]
pub struct FaultServer {
    shared: Arc<Shared>,
    host: String,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    closed: bool,
    accepted: u64,
    open: BTreeMap<u64, TcpStream>,
}

impl FaultServer {
    /// A complete, open and empty registry on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the loopback interface gives no port.
    pub fn start() -> io::Result<Self> {
        Self::with(Options::default())
    }

    /// A registry with these abilities.
    ///
    /// # Errors
    /// As [`FaultServer::start`].
    pub fn with(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let state = State {
            host: host.clone(),
            options,
            repositories: BTreeMap::new(),
            uploads: BTreeMap::new(),
            scripts: Scripts::default(),
            tokens: Tokens::default(),
            log: Vec::new(),
            forgotten: 0,
            busy: 0,
            busiest: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), connections: Mutex::default() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept(&listener));
        Ok(Self { shared, host })
    }

    /// `127.0.0.1:PORT`, as it stands in references.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Stores a sample, tags its top document, and keeps the referrers that it brings.
    pub fn put(&self, repository: &str, tag: &str, sample: &Sample) {
        for blob in &sample.blobs {
            let (digest, bytes) = (blob.descriptor.digest(), blob.bytes.clone());
            if blob.is_manifest() {
                self.put_manifest(repository, digest, blob.descriptor.media_type().as_ref(), bytes);
            } else {
                self.put_blob(repository, digest, bytes);
            }
        }
        self.tag(repository, tag, sample.top.digest());
        let mut state = self.shared.state();
        if !state.options.referrers {
            let subjects: Vec<_> =
                sample.blobs.iter().filter_map(|blob| content::subject(&blob.bytes)).collect();
            for subject in subjects {
                let repository = state.repository(repository);
                let bytes = repository.referrers(&subject, None);
                let digest = plyfold_core::digest::sha256(&bytes).to_string();
                let media_type = "application/vnd.oci.image.index.v1+json".to_owned();
                repository.manifests.insert(digest.clone(), Stored { media_type, bytes });
                repository.tags.insert(fallback_tag(&subject), digest);
            }
        }
    }

    /// Stores bytes under a digest, whether it is theirs or not.
    pub fn put_blob(&self, repository: &str, digest: &Digest, bytes: Bytes) {
        self.shared.state().repository(repository).blobs.insert(key(digest), bytes);
    }

    /// Stores a manifest under a digest, whether it is its own or not.
    pub fn put_manifest(&self, repository: &str, digest: &Digest, media_type: &str, bytes: Bytes) {
        let stored = Stored { media_type: media_type.to_owned(), bytes };
        self.shared.state().repository(repository).manifests.insert(key(digest), stored);
    }

    /// Points a tag at a manifest.
    pub fn tag(&self, repository: &str, tag: &str, digest: &Digest) {
        self.shared.state().repository(repository).tags.insert(tag.to_owned(), key(digest));
    }

    /// The digest that a tag points at.
    pub fn tagged(&self, repository: &str, tag: &str) -> Option<String> {
        self.shared.state().repositories.get(repository)?.tags.get(tag).cloned()
    }

    /// The bytes of a blob or manifest that the server holds.
    pub fn content(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        let state = self.shared.state();
        let (repository, key) = (state.repositories.get(repository)?, key(digest));
        let manifest = repository.manifests.get(&key).map(|stored| stored.bytes.clone());
        manifest.or_else(|| repository.blobs.get(&key).cloned())
    }

    /// Takes a blob or manifest away.
    pub fn remove(&self, repository: &str, digest: &Digest) {
        let mut state = self.shared.state();
        let (repository, key) = (state.repository(repository), key(digest));
        repository.blobs.remove(&key);
        repository.manifests.remove(&key);
    }

    /// Distorts the answers to certain requests. Of several scripts that apply to a request the oldest is taken.
    pub fn script(&self, on: On, faults: impl IntoIterator<Item = Fault>) {
        self.shared.state().scripts.add(on, faults.into_iter().collect());
    }

    /// Forgets all scripts: the server is honest again.
    pub fn clear_scripts(&self) {
        self.shared.state().scripts.clear();
    }

    /// Changes what the server can do.
    pub fn configure(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.shared.state().options);
    }

    /// Makes every token that was handed out invalid.
    pub fn revoke_tokens(&self) {
        self.shared.state().tokens.revoke();
    }

    /// All requests so far, oldest first.
    pub fn requests(&self) -> Vec<Exchange> {
        self.shared.state().log.clone()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        let mut state = self.shared.state();
        state.forgotten += state.log.len();
        state.log.clear();
    }

    /// How much of a digest's content went out, as blob or as manifest by digest.
    pub fn served(&self, digest: &Digest) -> Served {
        let key = key(digest);
        let state = self.shared.state();
        let gets =
            state.log.iter().filter(|exchange| exchange.method == "GET" && exchange.target.ends_with(&key));
        gets.fold(Served::default(), |served, exchange| Served {
            requests: served.requests + 1,
            bytes: served.bytes + exchange.sent,
        })
    }

    /// How many connections clients have made.
    pub fn connections(&self) -> u64 {
        self.shared.connections().accepted
    }

    /// The highest number of requests that were answered at the same time.
    pub fn busiest(&self) -> usize {
        self.shared.state().busiest
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        let mut connections = self.shared.connections();
        connections.closed = true;
        for stream in connections.open.values() {
            // The peer may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread, which then sees `closed`.
        let _ = TcpStream::connect(&self.host);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let Ok(handle) = stream.try_clone() else { continue };
            let mut connections = self.connections();
            if connections.closed {
                return;
            }
            connections.accepted += 1;
            let id = connections.accepted;
            connections.open.insert(id, handle);
            drop(connections);
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                // A client that goes away in the middle is no fault of the server.
                let _ = shared.serve(stream);
                shared.connections().open.remove(&id);
            });
        }
    }

    /// Answers requests on one connection until it closes.
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader)? {
            let (entry, response) = self.state().receive(&request);
            let Some(response) = response else {
                self.state().busy -= 1;
                return Ok(());
            };
            let mut busy = true;
            let reusable = response.send(&mut writer, request.method == "HEAD", |step| {
                let mut state = self.state();
                match step {
                    Step::Bytes(count) => {
                        let index = entry.checked_sub(state.forgotten);
                        if let Some(exchange) = index.and_then(|index| state.log.get_mut(index)) {
                            exchange.sent += count;
                        }
                    }
                    Step::Last => {
                        state.busy -= 1;
                        busy = false;
                    }
                }
            });
            if busy {
                self.state().busy -= 1;
            }
            let close = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            if !reusable? || close {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl State {
    /// Logs a request and decides its answer; `None` closes the connection.
    fn receive(&mut self, request: &Request) -> (usize, Option<Response>) {
        self.busy += 1;
        self.busiest = self.busiest.max(self.busy);
        let mut heard = request.clone();
        let faults = self.scripts.take(&mut heard);
        if faults.iter().any(|fault| matches!(fault, Fault::TokenExpiry)) {
            self.tokens.revoke();
        }
        let honest = self.answer(&heard);
        let response = distorted(&faults, honest);
        self.log.push(Exchange {
            method: request.method.clone(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            status: response.as_ref().map_or(0, |response| response.status),
            sent: 0,
        });
        (self.forgotten + self.log.len() - 1, response)
    }
}
