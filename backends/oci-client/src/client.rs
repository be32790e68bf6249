//! Requests through the client: signed in, without panics, and with its errors mapped.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use oci_client::Client;
use oci_client::errors::OciDistributionError as ClientError;
use oci_client::secrets::RegistryAuth;
use plyfold_core::{Error, ErrorKind, Reference, Result};

use crate::error;

/// The client, and the credentials for one registry.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) home: String,
    pub(crate) auth: RegistryAuth,
}

impl Session {
    /// The credentials for the registry of `reference`; what the client has for it already goes first.
    pub(crate) fn auth(&self, reference: &Reference) -> &RegistryAuth {
        if reference.registry() == self.home { &self.auth } else { &RegistryAuth::Anonymous }
    }

    /// Waits for what the client does about `reference`.
    ///
    /// # Errors
    /// Those of the client, mapped; [`Internal`](ErrorKind::Internal) when it panics.
    pub(crate) async fn wait<T>(
        &self,
        reference: &Reference,
        request: impl Future<Output = std::result::Result<T, ClientError>>,
    ) -> Result<T> {
        // The client's futures have tens of kilobytes.
        let signed_in = Box::pin(async {
            self.client.store_auth_if_needed(reference.resolve_registry(), self.auth(reference)).await;
            request.await
        });
        // The client panics on some answers, such as a token with a newline.
        match AssertUnwindSafe(signed_in).catch_unwind().await {
            Ok(outcome) => outcome.map_err(|e| error::from_client(e, reference.registry())),
            Err(_) => Err(Error::new(ErrorKind::Internal, "oci-client panicked on the registry's answer")),
        }
    }
}
