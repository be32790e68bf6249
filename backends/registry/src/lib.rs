//! OCI distribution registries over HTTP, as a plyfold backend: `registry:ghcr.io/org/app:1.2`, or `docker://…`.
//!
//! The protocol is the [distribution specification] 1.1 with the [token authentication] that registries share.
//! Every answer of a registry is treated as hostile: bodies are bounded, digests are checked, ranges are
//! compared, redirects and token realms pass a policy before a byte goes out, and credentials, certificates, header
//! fields and proxies stay with the scheme, host and port they were given for.
//!
//! # Plain HTTP and TLS
//! Hosts are reached by HTTPS, and a TLS failure is never answered by a retry in the clear. Two exceptions are
//! decided before the first packet, not by probing: hosts that `plain-http` lists or a `hosts.toml` names by
//! `http://`, and loopback hosts (127.0.0.0/8, `::1`, `localhost`), which are plain HTTP unless their port is 443,
//! `https` lists them, or an own CA or client certificate is configured.
//!
//! # Hosts and credentials
//! Mirrors, CAs, client certificates, header fields and proxies come from `hosts.toml` files of containerd or from
//! [`Config::hosts`]; credentials from the configuration, from Docker's `config.json`, from Podman's `auth.json`, or
//! from the credential helpers that these name. The manual of `plyfold-core` has the order, on its page `registries`.
//! [`login()`] and [`logout`] write such files.
//!
//! # Proxies
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are honoured, except that loopback hosts are always
//! reached directly. A proxy that is named for one host wins over them.
//!
//! # Which library does what
//! `reqwest` pools connections, and does HTTP/1.1 and proxies; redirects, decompression and retries are off
//! there, because this crate decides about them for each hop. `rustls` with `aws-lc-rs` does TLS: it refuses
//! certificates without alternative names, and needs no system library and no `CMake`. It is the provider that `reqwest`
//! has by default: a program with a client of its own has that one, and need not install it. `toml` reads `hosts.toml`,
//! in the order of the file, which is the order of the requests. `http-auth` splits challenges, `httpdate` reads dates,
//! `rustls-native-certs` finds the system's CAs. `hyper` is below `reqwest`, and a direct dependency for its error of a
//! request that was never sent.
//!
//! # Transfers
//! The manual's page [`transfers`](plyfold_core::manual::transfers) says how content moves, what is tried again and
//! what the options `max-connections`, `requests-per-second`, `parallel-ranges` and `upload-chunk` are for.
//!
//! [distribution specification]: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
//! [token authentication]: https://distribution.github.io/distribution/spec/auth/token/

mod auth;
mod backend;
mod client;
mod config;
mod delete;
mod deserialize;
mod error;
mod fault;
mod fetch;
mod hosts;
mod limits;
mod link;
mod list;
mod login;
mod manifests;
mod mount;
mod parts;
mod policy;
mod proxy;
mod push;
mod range;
mod referrers;
mod resolver;
mod response;
mod tls;
mod transport;
mod upload;

pub use auth::Keeper;
pub use backend::Registry;
pub use config::Config;
pub use fault::{ChallengeFault, HostsFault};
pub use hosts::{ClientCertificate, Host, HostCapability, Hosts};
pub use login::{Login, login, logout};
pub use plyfold_core::{Credential, Secret};
