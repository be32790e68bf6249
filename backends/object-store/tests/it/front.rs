//! S3 on a port of this machine, in front of objects in memory: the way of a node to its service, with what can go wrong on it.

mod fault;
mod http;
mod s3;

use std::io::{self, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use object_store::memory::InMemory;
use plyfold_core::Result;
use plyfold_object_store::{Config, ObjectStoreCache};
use tokio::runtime::Runtime;

use http::{Request, Response};
use s3::Uploads;

pub(crate) use fault::{Fault, Gate};

/// Where caches are in every such service.
pub(crate) const URI: &str = "s3://bucket/a/fleet";

/// What the objects in memory are asked on.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Decides for each request what goes wrong with it.
type Plan = Box<dyn FnMut(&Request) -> Option<Fault> + Send>;

/// A service that runs until it is dropped.
pub(crate) struct Front {
    shared: Arc<Shared>,
    endpoint: String,
}

struct Shared {
    memory: Arc<InMemory>,
    uploads: Uploads,
    /// Seconds by which its dates differ from the clock of this machine.
    skew: i64,
    plan: Mutex<Plan>,
    log: Mutex<Vec<(String, String)>>,
    is_closed: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Front {
    /// A service with these objects.
    pub(crate) fn of(memory: &Arc<InMemory>) -> Self {
        Self::skewed(memory, 0)
    }

    /// The same, whose clock is so many seconds ahead.
    pub(crate) fn skewed(memory: &Arc<InMemory>, skew: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            memory: memory.clone(),
            uploads: Uploads::default(),
            skew,
            plan: Mutex::new(Box::new(|_| None)),
            log: Mutex::default(),
            is_closed: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let accepting = shared.clone();
        thread::spawn(move || accepting.accept(&listener));
        Self { shared, endpoint }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What goes wrong from now on.
    pub(crate) fn plan(&self, plan: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
        *self.shared.plan.lock().unwrap() = Box::new(plan);
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn heal(&self) {
        self.plan(|_| None);
    }

    /// Methods and targets of the requests so far.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How a cache is opened here.
    pub(crate) fn config(&self) -> Config {
        config(&self.endpoint)
    }

    pub(crate) async fn cache(&self) -> Result<ObjectStoreCache> {
        ObjectStoreCache::open(URI, &self.config()).await
    }
}

/// How a cache is opened at an endpoint: rights expire soon, and a connection without an answer is given up soon.
pub(crate) fn config(endpoint: &str) -> Config {
    let options = [
        ("aws_endpoint", endpoint),
        ("aws_access_key_id", "key"),
        ("aws_secret_access_key", "key"),
        ("aws_region", "us-east-1"),
        ("allow_http", "true"),
        ("read_timeout", "400 ms"),
    ];
    let service = options.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    Config { lease_seconds: 2, service, ..Config::default() }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        for connection in self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Its client may have gone.
            let _ = connection.shutdown(Shutdown::Both);
        }
        // The thread that accepts sees it.
        let _ = TcpStream::connect(self.endpoint.trim_start_matches("http://"));
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for connection in listener.incoming() {
            if self.is_closed.load(Ordering::SeqCst) {
                return;
            }
            let Ok(connection) = connection else { continue };
            self.connections.lock().unwrap().extend(connection.try_clone());
            let shared = self.clone();
            // A client that goes away is no failure of the service.
            thread::spawn(move || shared.serve(connection).unwrap_or_default());
        }
    }

    fn serve(self: &Arc<Self>, mut connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        let mut reader = BufReader::new(connection.try_clone()?);
        while let Some(request) = Request::read(&mut reader)? {
            self.log.lock().unwrap().push((request.method.clone(), request.target.clone()));
            let fault = (self.plan.lock().unwrap())(&request);
            let Some(fault) = fault else {
                self.answer(&request).send(&mut connection, &request.method)?;
                continue;
            };
            if !self.fail(fault, request, &mut connection)? {
                return connection.shutdown(Shutdown::Both);
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> Response {
        RUNTIME.block_on(s3::answer(&self.memory, &self.uploads, self.skew, request))
    }

    /// Whether the connection stays open.
    fn fail(
        self: &Arc<Self>,
        fault: Fault,
        request: Request,
        connection: &mut TcpStream,
    ) -> io::Result<bool> {
        let method = request.method.clone();
        match fault {
            Fault::Delayed(gate) => {
                gate.pass();
                self.answer(&request).send(connection, &method)?;
            }
            Fault::FailedAfter => {
                self.answer(&request);
                Response::failed(500, "InternalError").send(connection, &method)?;
            }
            Fault::Lost => {
                self.answer(&request);
                return Ok(false);
            }
            Fault::Reset => return Ok(false),
            Fault::Said(status, code) => Response::failed(status, code).send(connection, &method)?,
            Fault::Silent => {
                thread::sleep(Duration::from_secs(90));
                return Ok(false);
            }
            Fault::Unanswered => {
                self.answer(&request);
                thread::sleep(Duration::from_secs(1));
                return Ok(false);
            }
            Fault::Stalled => {
                thread::sleep(Duration::from_secs(1));
                return Ok(false);
            }
            Fault::Slow => {
                let half = self.answer(&request).half();
                for part in half.chunks(half.len() / 15) {
                    connection.write_all(part)?;
                    thread::sleep(Duration::from_millis(200));
                }
                return Ok(false);
            }
            Fault::Truncated => {
                connection.write_all(&self.answer(&request).half())?;
                return Ok(false);
            }
            Fault::Twice => {
                self.answer(&request);
                self.answer(&request).send(connection, &method)?;
            }
            Fault::TwiceLate(after) => {
                self.answer(&request).send(connection, &method)?;
                let shared = self.clone();
                thread::spawn(move || {
                    thread::sleep(after);
                    shared.answer(&request);
                });
            }
        }
        Ok(true)
    }
}
