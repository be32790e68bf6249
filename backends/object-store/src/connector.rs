//! Connections: requests run on the [runtime](crate::background) of this crate, whatever the caller's threads do.
//!
//! `object_store` has the like, `SpawnedReqwestConnector`. It takes what comes however fast that is, and keeps what its caller has not
//! read yet; here a service waits for its reader.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Pieces of an answer that have come and were not read: each has at most some 400 KiB.
const UNREAD: usize = 1;

/// Connects by reqwest. A machine without CA certificates connects as well: to what needs none, and a connection that needs
/// one fails.
#[derive(Debug)]
pub(crate) struct Connector(pub(crate) Handle);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let reqwest = ReqwestConnector::default();
        let without = || options.clone().with_no_system_certificates(true);
        let client = reqwest.connect(options).or_else(|e| reqwest.connect(&without()).map_err(|_| e))?;
        Ok(HttpClient::new(Client { client, runtime: self.0.clone() }))
    }
}

#[derive(Debug)]
struct Client {
    client: HttpClient,
    runtime: Handle,
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let client = self.client.clone();
        let (answer, answered) = oneshot::channel();
        let (piece, mut pieces) = mpsc::channel(UNREAD);
        // Dropped with the answer, it ends the task.
        let mut task = JoinSet::new();
        let request = async move {
            let (parts, mut body) = match client.execute(request).await {
                Ok(response) => response.into_parts(),
                Err(e) => return drop(answer.send(Err(e))),
            };
            if answer.send(Ok(parts)).is_err() {
                return;
            }
            while let Some(frame) = body.frame().await {
                if piece.send(frame).await.is_err() {
                    return;
                }
            }
        };
        task.spawn_on(request, &self.runtime);
        let parts = answered.await.map_err(|_| HttpError::new(HttpErrorKind::Unknown, Ended))??;
        let body = StreamBody::new(stream::poll_fn(move |context| {
            let _task = &task;
            pieces.poll_recv(context)
        }));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}

/// A task has ended without an answer.
#[derive(Debug)]
struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task of a request has ended")
    }
}

impl Error for Ended {}
