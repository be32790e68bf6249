//! Options of the backend, as a program sets them or as `-o key=value` gives them.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfold_core::{Error, OptionFault, Secret};
use reqwest::Url;
use serde::Deserialize;

use crate::deserialize::{list, one_or_many, seconds, secret};
use crate::hosts::Hosts;

/// How registries are reached. `Debug` shows no secret.
///
/// ```
/// use plyfold_core::Options;
/// use plyfold_registry::Config;
///
/// let options = Options::parse(["plain-http=registry.lan:5000", "read-timeout=5"])?;
/// let config: Config = options.config()?;
/// assert_eq!(config.plain_http, ["registry.lan:5000"]);
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Ignores every stored credential.
    pub anonymous: bool,
    /// The one file of stored credentials, in place of those that are looked for.
    pub auth_file: Option<PathBuf>,
    /// Files with CA certificates (PEM) that are trusted besides the system's.
    #[serde(deserialize_with = "one_or_many")]
    pub ca: Vec<PathBuf>,
    /// The client's certificate chain (PEM), for the registry that the URI names and for no other.
    pub client_cert: Option<PathBuf>,
    /// The private key of `client_cert` (PEM); `None` when it stands in the same file.
    pub client_key: Option<PathBuf>,
    /// How long a connection may take to be made; seconds as an option.
    #[serde(deserialize_with = "seconds")]
    pub connect_timeout: Duration,
    /// The directory of Docker's `config.json`, which is then the one file of stored credentials.
    pub docker_config: Option<PathBuf>,
    /// Where programs `docker-credential-NAME` are; `None` is `$PATH`.
    pub helper_path: Option<PathBuf>,
    /// How long a credential helper of `config.json` may take; seconds as an option.
    #[serde(deserialize_with = "seconds")]
    pub helper_timeout: Duration,
    /// Where the content of registries is, by their name or `_default`; wins over `hosts_dir`.
    pub hosts: BTreeMap<String, Hosts>,
    /// Folders with a `HOST/hosts.toml` or `HOST/*.crt`, as containerd and Docker have them. The first folder that
    /// has one for a registry counts.
    #[serde(deserialize_with = "one_or_many")]
    pub hosts_dir: Vec<PathBuf>,
    /// Loopback hosts (`host` or `host:port`) that speak TLS.
    #[serde(deserialize_with = "one_or_many")]
    pub https: Vec<String>,
    /// Requests that a host answers at the same time, reads and writes apart; `None` bounds them by what is done
    /// at once alone.
    pub max_connections: Option<NonZero<usize>>,
    /// Ranges of one layer of 32 MiB or more that are read at the same time, at most 8 of 4 MiB, which are held in
    /// memory; 1 reads it in one go. More than 1 helps where a host limits the speed of each connection.
    pub parallel_ranges: usize,
    /// The password for `username`.
    #[serde(deserialize_with = "secret")]
    pub password: Option<Secret>,
    /// Hosts (`host` or `host:port`) that are reached without TLS.
    #[serde(deserialize_with = "one_or_many")]
    pub plain_http: Vec<String>,
    /// How long a server may send nothing; seconds as an option.
    #[serde(deserialize_with = "seconds")]
    pub read_timeout: Duration,
    /// Requests that a host gets in a second, evenly spread; `None` does not slow down.
    pub requests_per_second: Option<NonZero<u32>>,
    /// Token servers (`host` or `host:port`) that may see credentials of registries on other hosts. `None` leaves it to
    /// each registry that is reached by verified TLS to name its own, by HTTPS; an empty list allows none.
    #[serde(deserialize_with = "list")]
    pub trusted_realm: Option<Vec<String>>,
    /// MiB of a blob that are sent by one request, at most 64, which are held in memory; 0 sends a blob in one go.
    /// An upload in chunks resumes after a broken connection, and passes proxies that limit the size of a request.
    pub upload_chunk: u32,
    /// The `User-Agent` of requests.
    pub user_agent: String,
    /// The user for the registry that the URI names, and for no other; wins over stored credentials.
    #[serde(deserialize_with = "secret")]
    pub username: Option<Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            anonymous: false,
            auth_file: None,
            ca: Vec::new(),
            client_cert: None,
            client_key: None,
            connect_timeout: Duration::from_secs(10),
            docker_config: None,
            helper_path: None,
            helper_timeout: Duration::from_secs(10),
            hosts: BTreeMap::new(),
            hosts_dir: HOSTS_DIRS.map(PathBuf::from).to_vec(),
            https: Vec::new(),
            max_connections: None,
            parallel_ranges: 1,
            password: None,
            plain_http: Vec::new(),
            read_timeout: Duration::from_secs(30),
            requests_per_second: None,
            trusted_realm: None,
            upload_chunk: 0,
            user_agent: concat!("plyfold/", env!("CARGO_PKG_VERSION")).to_owned(),
            username: None,
        }
    }
}

impl Config {
    /// Refuses what can never be meant: a host that no URL can have, and folders that are not there.
    pub(crate) fn check(&self) -> plyfold_core::Result<()> {
        let lists = [
            ("plain-http", &self.plain_http),
            ("https", &self.https),
            ("trusted-realm", self.trusted_realm.as_ref().unwrap_or(&self.https)),
        ];
        for (option, hosts) in lists {
            if let Some(host) = hosts.iter().find(|host| !is_host(host)) {
                let error = OptionFault::Value(option.to_owned(), format!("{host:?} is not a host"));
                return Err(Error::from(error)
                    .with_hint("write HOST[:PORT], without a scheme before it or a path behind"));
            }
        }
        // The usual ones need not be there, and an empty name stands for none.
        let usual = HOSTS_DIRS.map(Path::new);
        let mut named =
            self.hosts_dir.iter().filter(|dir| !usual.contains(&dir.as_path()) && *dir != Path::new(""));
        if let Some(dir) = named.find(|dir| !dir.is_dir()) {
            let why = format!("{} is not a directory", dir.display());
            let hint = "write a directory that holds HOST/hosts.toml, as /etc/containerd/certs.d does";
            return Err(Error::from(OptionFault::Value("hosts-dir".to_owned(), why)).with_hint(hint));
        }
        Ok(())
    }
}

/// Whether this is `host` or `host:port`.
fn is_host(text: &str) -> bool {
    let url = Url::parse(&format!("https://{text}/")).ok();
    let parts = ['/', '?', '#', '@', '\\'];
    !text.contains(parts) && url.is_some_and(|url| url.has_host() && url.path() == "/")
}

/// Where the tools that define these files look for them.
const HOSTS_DIRS: [&str; 2] = ["/etc/containerd/certs.d", "/etc/docker/certs.d"];

#[cfg(test)]
mod tests {
    use plyfold_core::{ErrorKind, Options};

    use super::*;

    fn parse(pairs: &[&str]) -> plyfold_core::Result<Config> {
        Options::parse(pairs.iter().copied())?.config()
    }

    #[test]
    fn lists_take_one_value_or_several() {
        assert_eq!(parse(&["plain-http=a:1"]).unwrap().plain_http, ["a:1"]);
        assert_eq!(parse(&["plain-http=a:1", "plain-http=b"]).unwrap().plain_http, ["a:1", "b"]);
        assert_eq!(parse(&[r#"plain-http=["a:1","b"]"#]).unwrap().plain_http, ["a:1", "b"]);
    }

    #[test]
    fn a_list_of_token_servers_may_be_empty() {
        assert_eq!(parse(&[]).unwrap().trusted_realm, None);
        assert_eq!(parse(&["trusted-realm="]).unwrap().trusted_realm, Some(Vec::new()));
        assert_eq!(parse(&["trusted-realm=a"]).unwrap().trusted_realm, Some(vec!["a".to_owned()]));
    }

    #[test]
    fn an_empty_folder_of_hosts_is_none() {
        parse(&["hosts-dir="]).unwrap().check().unwrap();
        let error = parse(&["hosts-dir=/nonexistent"]).unwrap().check().unwrap_err();
        assert_eq!((error.kind(), error.context("option")), (&ErrorKind::Config, Some("hosts-dir")));
        assert!(matches!(error.detail(), Some(OptionFault::Value(..))));
    }

    #[test]
    fn unknown_options_are_refused() {
        assert_eq!(*parse(&["plainhttp=a"]).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn secrets_stay_out_of_debug_and_of_errors() {
        let config = parse(&["username=me", "password=hunter2"]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let error = parse(&[r#"password=["8675309"]"#]).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config);
        assert!(!format!("{error} {error:?}").contains("8675309"));
    }

    #[test]
    fn passwords_that_look_like_numbers_are_texts() {
        for text in ["8675309", "007", "1e5", "0.10", "-0", "123456789012345678901234567890", "true"] {
            let config = parse(&[&format!("password={text}")]).unwrap();
            assert_eq!(config.password.unwrap().reveal(), text);
        }
        assert_eq!(parse(&[r#"password="8675309""#]).unwrap().password.unwrap().reveal(), "8675309");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Every option that holds a number, a duration, or a host with a port.
        #[test]
        fn any_number_is_a_configuration_or_an_error(
            number in "-?[0-9]{1,40}(\\.[0-9]{1,20})?(e-?[0-9]{1,4})?|null|true|NaN|inf|[ -~]{0,12}",
        ) {
            for key in [
                "connect-timeout", "helper-timeout", "read-timeout", "max-connections", "parallel-ranges",
                "requests-per-second", "upload-chunk", "plain-http", "https", "trusted-realm",
            ] {
                let option = format!("{key}={number}");
                if let Ok(config) = parse(&[&option]) {
                    proptest::prop_assert!(config.connect_timeout >= Duration::from_secs(1));
                    proptest::prop_assert!(std::time::Instant::now().checked_add(config.helper_timeout).is_some());
                    let home = format!("r.lan:{number}");
                    // The clients that are made of it count with these numbers.
                    drop((crate::Registry::new("r.lan", &config), crate::Registry::new(&home, &config)));
                }
            }
        }
    }
}
