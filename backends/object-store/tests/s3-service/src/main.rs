//! An S3 service on loopback, for tests: `plyfold-s3-service FOLDER KEY [unlocked]`. It prints its port.
//!
//! The protocol is that of the library `s3s`, and the objects are those of `s3s-fs`: files below the folder. What `s3s-fs` lacks
//! is added: it looks at the condition of a put before it takes the body, and without a lock, so of several puts at the
//! same time more than one is made, and it writes an object and its `ETag` into two files, so that a reader may get the one
//! with the other. Here a body is taken first, and then a request has its object for itself. A request that has begun is
//! carried out, also when its client has gone. With `unlocked` it is `s3s-fs` as it is: `compare` shows the difference.

mod locked;

use std::io::Write as _;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

use locked::Locked;

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(key)) = (arguments.next(), arguments.next()) else {
        return Err("usage: plyfold-s3-service FOLDER KEY".into());
    };
    let files = FileSystem::new(&folder).map_err(|e| format!("{e:?}"))?;
    let mut service = match arguments.next().as_deref() {
        Some("unlocked") => S3ServiceBuilder::new(files),
        _ => S3ServiceBuilder::new(Locked::new(files, folder.as_ref())),
    };
    service.set_auth(SimpleAuth::from_single(key.clone(), key));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            // A client that goes away is no failure of the service.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service).await;
        });
    }
}
