//! An [`oci_client::Client`] that a program already has, with its credentials, certificates and proxies, as a plyfold
//! backend.
//!
//! ```no_run
#![doc = include_str!("../examples/pull.rs")]
//! ```
//!
//! `plyfold-registry` is plyfold's own backend for registries, and the safer one: this crate is for programs that have
//! set up a client, and want plyfold to use it. TLS is that of the client: a feature of `oci-client` chooses it, and the
//! feature `rustls-no-provider` of this crate, which is on, can be turned off then.
//!
//! # Without a scheme
//! Linking this crate adds no scheme to [`Backends`](plyfold_core::Backends): a URI does not say which of a program's
//! clients is meant. A program that wants one registers a [`Backend`](plyfold_core::Backend) of a scheme of its own,
//! whose `open` takes the client from where the program keeps it, and makes an [`OciClient`] of it.
//!
//! # What is checked here
//! Content is that of its digest, as with every backend: manifests pass plyfold's strict parser, and blobs verify
//! themselves while they are read. A client that panics (on a token with a newline, or on the answer to a manifest that
//! is pushed by its digest) is an error of kind [`Internal`](plyfold_core::ErrorKind::Internal). Credentials go to one
//! registry alone. The `urls` of descriptors are not asked.
//!
//! # What the client leaves out
//! `oci-client` 0.18 gives no place to check or to do this:
//!
//! - Answers, and texts of errors, are read without a bound on their size. Basic credentials go to any `realm` that the
//!   registry names. Redirects and upload locations lead to any host, though without credentials.
//! - `Content-Type`, `Content-Range`, `Retry-After` and `Link` are not passed on. So a range that starts at another byte
//!   is seen only when the whole blob is verified, a request to wait has no delay, and lists are asked for page by
//!   page until an empty one comes.
//! - The reason of a refused token is lost: what was refused is reported as [`Auth`](plyfold_core::ErrorKind::Auth).
//! - HEAD tells no size: [`resolve`](plyfold_core::ImageRegistry::resolve) reads the manifest.
//! - A list of referrers that the registry forbids is an empty one.
//! - There is no deletion, and there are no mirrors, credential helpers and stored credentials.
//! - Blobs are uploaded in parts of 4 MiB, or in one request if the client's configuration says so.
//! - Building a client panics on a machine without any CA certificate, and without a process-wide `rustls` provider if
//!   the feature of `reqwest` asks for one.
//!
//! The tests judge this backend by the suites about registries, hostile documents and HTTP; the rules that it does not
//! keep are listed there, each with its reason, and a test fails when one is kept after all.

mod backend;
mod client;
mod error;

pub use backend::OciClient;
pub use oci_client;
