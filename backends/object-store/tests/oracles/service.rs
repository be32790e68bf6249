//! Object storage on ports of this machine. `.ci/services` installs the programs.
//!
//! The S3 service is `s3s-fs` behind a lock for each object (`tests/s3-service`): by itself version 0.14.1 looks at the condition
//! of a put before it takes the body, without a lock, and `tests/s3-service/compare` shows that of two puts at the same time, each
//! on the condition that the object is absent, both are made.

use std::io::{self, BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzureBuilder};
use object_store::client::{
    ClientOptions, HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector,
    SpawnedReqwestConnector,
};
use plyfold_conformance::oracle::Failure;
use plyfold_object_store::Config;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Of the S3 service.
const KEY: &str = "plyfold-oracle";
/// What every Azurite has.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Attempts to start: a port that was free before may be taken by then.
const ATTEMPTS: usize = 5;

/// A kind of service.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Azure,
    S3,
}

/// A service, which runs until it is dropped by the process that has started it.
#[derive(Debug)]
pub(crate) struct Service {
    kind: Kind,
    port: u16,
    own: Option<(Child, TempDir)>,
    buckets: AtomicUsize,
    /// Requests past the cache are made here: connections belong to a runtime.
    runtime: Runtime,
}

impl Service {
    pub(crate) fn start(kind: Kind) -> Result<Self, Failure> {
        let mut said = String::new();
        for _ in 0..ATTEMPTS {
            // In memory, where there is such a place.
            let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new())?;
            let (mut child, port) = match kind {
                Kind::Azure => azure(&folder)?,
                Kind::S3 => s3(&folder)?,
            };
            match wait(&mut child, port) {
                Ok(()) => return Self::of(kind, port, Some((child, folder))),
                Err(e) => said = e.to_string(),
            }
        }
        Err(Failure::new(format!("it does not start: {said}")))
    }

    /// One that the parent of this process has started.
    pub(crate) fn at(kind: Kind, port: u16) -> Result<Self, Failure> {
        Self::of(kind, port, None)
    }

    fn of(kind: Kind, port: u16, own: Option<(Child, TempDir)>) -> Result<Self, Failure> {
        Ok(Self { kind, port, own, buckets: AtomicUsize::new(0), runtime: Runtime::new()? })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn endpoint(&self) -> String {
        match self.kind {
            Kind::Azure => format!("http://127.0.0.1:{}/{ACCOUNT}", self.port),
            Kind::S3 => format!("http://127.0.0.1:{}", self.port),
        }
    }

    /// A new bucket.
    pub(crate) async fn bucket(&self) -> io::Result<String> {
        let bucket = format!("bucket-{}", self.buckets.fetch_add(1, Ordering::SeqCst));
        match self.kind {
            Kind::Azure => self.container(&bucket).await?,
            Kind::S3 => {
                let folder = self.own.as_ref().map(|(_, folder)| folder.path().join(&bucket));
                std::fs::create_dir(folder.ok_or(io::ErrorKind::NotFound)?)?;
            }
        }
        Ok(bucket)
    }

    /// `Create Container` of the REST API of Blob storage.
    async fn container(&self, name: &str) -> io::Result<()> {
        let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true));
        let client = client.map_err(io::Error::other)?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = "PUT".parse().map_err(io::Error::other)?;
        let uri = format!("{}/{name}?restype=container", self.endpoint());
        *request.uri_mut() = uri.parse().map_err(io::Error::other)?;
        request.headers_mut().insert("content-length", 0.into());
        let key = AzureAccessKey::try_new(ACCOUNT_KEY).map_err(io::Error::other)?;
        let credential = AzureCredential::AccessKey(key);
        AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).map_err(io::Error::other)?;
        let answer = client.execute(request).await.map_err(io::Error::other)?;
        if answer.status().is_success() { Ok(()) } else { Err(io::Error::other(answer.status().to_string())) }
    }

    /// Where a cache in a bucket is.
    pub(crate) fn uri(&self, bucket: &str, prefix: &str) -> String {
        let scheme = match self.kind {
            Kind::Azure => "az",
            Kind::S3 => "s3",
        };
        format!("{scheme}://{bucket}/{prefix}")
    }

    /// How a cache is opened.
    pub(crate) fn config(&self) -> Config {
        let endpoint = self.endpoint();
        let options: &[(&str, &str)] = match self.kind {
            Kind::Azure => &[
                ("azure_storage_use_emulator", "true"),
                ("azure_storage_account_name", ACCOUNT),
                ("azure_storage_account_key", ACCOUNT_KEY),
                ("allow_http", "true"),
            ],
            Kind::S3 => &[
                ("aws_endpoint", &endpoint),
                ("aws_access_key_id", KEY),
                ("aws_secret_access_key", KEY),
                ("aws_region", "us-east-1"),
                ("allow_http", "true"),
            ],
        };
        let service = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        Config { service, ..Config::default() }
    }

    /// The same bucket past the cache.
    pub(crate) fn store(&self, bucket: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
        let connector = SpawnedReqwestConnector::new(self.runtime.handle().clone());
        Ok(match self.kind {
            Kind::Azure => {
                let builder =
                    MicrosoftAzureBuilder::new().with_http_connector(connector).with_allow_http(true);
                let builder = builder.with_use_emulator(true);
                let builder = builder.with_account(ACCOUNT).with_access_key(ACCOUNT_KEY);
                Arc::new(builder.with_container_name(bucket).build()?)
            }
            Kind::S3 => {
                let builder = AmazonS3Builder::new().with_http_connector(connector).with_allow_http(true);
                let builder = builder.with_endpoint(self.endpoint()).with_region("us-east-1");
                let builder = builder.with_access_key_id(KEY).with_secret_access_key(KEY);
                Arc::new(builder.with_bucket_name(bucket).build()?)
            }
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.own {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// It takes a port that is free, and says which.
fn s3(folder: &TempDir) -> Result<(Child, u16), Failure> {
    let mut command = Command::new("plyfold-s3-service");
    command.arg(folder.path()).arg(KEY);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut said)?;
    }
    let port = said.trim().parse().map_err(|_| Failure::new(format!("it says no port: {said:?}")))?;
    Ok((child, port))
}

fn azure(folder: &TempDir) -> Result<(Child, u16), Failure> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("azurite-blob");
    command.args([
        "--silent",
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--blobPort",
        &port.to_string(),
    ]);
    command.arg("--location").arg(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok((command.spawn()?, port))
}

/// Waits until it takes connections.
fn wait(child: &mut Child, port: u16) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(status.to_string()));
        }
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => return Ok(()),
            Err(e) if Instant::now() > deadline => return Err(e),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
