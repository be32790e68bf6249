//! `hosts.toml` as containerd defines it (its documentation, "hosts.toml Content Description").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read as _};
use std::iter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfold_core::{Error, Result, Secret};
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::deserialize::one_or_many;
use crate::fault::HostsFault;

/// Bytes of a `hosts.toml` that are read.
const FILE: u64 = 1 << 20;
/// The folder for registries that have none of their own.
pub(super) const DEFAULT: &str = "_default";

/// The hosts of one registry: the content of a `hosts.toml`.
///
/// ```
/// use plyfold_core::Options;
/// use plyfold_registry::Config;
///
/// let hosts = r#"hosts={"docker.io":{"host":[{"url":"https://mirror.lan","capabilities":["pull"]}]}}"#;
/// let config: Config = Options::parse([hosts])?.config()?;
/// assert_eq!(config.hosts["docker.io"].host[0].0, "https://mirror.lan");
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Hosts {
    /// The registry's own address; `None` is the one that references name.
    pub server: Option<String>,
    /// What is asked before it, in this order: `[host."URL"]`, or as a list of tables with a `url`.
    #[serde(deserialize_with = "in_order")]
    pub host: Vec<(String, Host)>,
    /// How the registry itself is reached: the fields that stand before any `[host]`.
    #[serde(flatten)]
    pub own: Host,
}

/// How one host is reached. `Debug` shows no secret.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Host {
    /// CA certificates (PEM) that are trusted besides the system's.
    #[serde(deserialize_with = "one_or_many")]
    pub ca: Vec<PathBuf>,
    /// What it is asked for; `None` is everything.
    #[serde(deserialize_with = "capabilities")]
    pub capabilities: Option<Vec<HostCapability>>,
    /// The client's certificates.
    #[serde(deserialize_with = "certificates")]
    pub client: Vec<ClientCertificate>,
    /// How long a connection may take to be made; `None` is [`Config::connect_timeout`](crate::Config).
    #[serde(deserialize_with = "go_duration")]
    pub dial_timeout: Option<Duration>,
    /// Header fields of every request to this host, and to no other.
    #[serde(deserialize_with = "header")]
    pub header: BTreeMap<String, Vec<Secret>>,
    /// The URL's path is the API's whole prefix: no `/v2` is appended.
    pub override_path: bool,
    /// The proxy for this host, whatever the environment says.
    pub proxy: Option<Secret>,
    /// Accepts every certificate. For tests.
    pub skip_verify: bool,
    /// Unknown fields, such as those of other versions of containerd: ignored in files, refused in
    /// [`Config`](crate::Config).
    #[serde(flatten, deserialize_with = "keys")]
    pub unknown: BTreeSet<String>,
}

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, strum::EnumString)]
#[strum(ascii_case_insensitive)]
#[non_exhaustive]
pub enum HostCapability {
    /// Content by its digest, which needs no trust.
    Pull,
    /// Writing.
    Push,
    /// What refers to an image.
    Referrers,
    /// Resolving names and listing them.
    Resolve,
}

/// A certificate of the client, and its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificate {
    /// The chain (PEM).
    pub cert: PathBuf,
    /// The key (PEM); `None` when it stands in the same file.
    pub key: Option<PathBuf>,
}

impl Hosts {
    /// The configuration of a registry: of the first folder that has one for it, else for all.
    pub(super) fn find(folders: &[PathBuf], registry: &str) -> Result<Option<Self>> {
        let names = folder_names(registry).into_iter().chain([DEFAULT.to_owned()]);
        Self::first(folders, names)
    }

    /// The configuration of this host alone.
    pub(super) fn find_own(folders: &[PathBuf], host: &str) -> Result<Option<Self>> {
        Self::first(folders, folder_names(host))
    }

    fn first(folders: &[PathBuf], names: impl IntoIterator<Item = String>) -> Result<Option<Self>> {
        for name in names {
            for folder in folders.iter().filter(|folder| !folder.as_os_str().is_empty()) {
                let folder = folder.join(&name);
                if folder.is_dir() {
                    return Self::read(&folder).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("hosts.toml");
        let at = |e: Error| e.with_context("path", path.display());
        let unreadable = |e| at(Error::io("reading hosts.toml", e));
        let mut text = String::new();
        match std::fs::File::open(&path) {
            Ok(file) => {
                file.take(FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(unreadable(e)),
        }
        if text.len() as u64 > FILE {
            return Err(at(HostsFault::Long(FILE).into()));
        }
        if text.is_empty() {
            return Self::of_certificates(folder).map_err(unreadable);
        }
        // The parser's message would quote the line, and a header field may be a secret.
        let mut hosts: Self = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            at(HostsFault::Syntax(line, e.message().to_owned()).into())
        })?;
        hosts.own.anchor(folder);
        hosts.host.iter_mut().for_each(|(_, host)| host.anchor(folder));
        Ok(hosts)
    }

    /// Docker's own files: `NAME.crt` for CAs, `NAME.cert` and `NAME.key` for the client.
    fn of_certificates(folder: &Path) -> io::Result<Self> {
        let mut own = Host::default();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => own.ca.push(path),
                Some("cert") => {
                    let key = Some(path.with_extension("key")).filter(|key| key.exists());
                    own.client.push(ClientCertificate { cert: path, key });
                }
                _ => {}
            }
        }
        own.ca.sort_unstable();
        own.client.sort_unstable_by(|a, b| a.cert.cmp(&b.cert));
        Ok(Self { own, ..Self::default() })
    }

    /// Unknown fields: in a program's configuration they are errors.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &str> {
        let hosts = self.host.iter().map(|(_, host)| host).chain([&self.own]);
        hosts.flat_map(|host| host.unknown.iter().map(String::as_str))
    }
}

impl Host {
    pub(super) fn may(&self, capability: HostCapability) -> bool {
        self.capabilities.as_ref().is_none_or(|listed| listed.contains(&capability))
    }

    /// Paths are relative to the file that they stand in.
    fn anchor(&mut self, folder: &Path) {
        let anchor = |path: &mut PathBuf| *path = folder.join(&*path);
        self.ca.iter_mut().for_each(anchor);
        for certificate in &mut self.client {
            anchor(&mut certificate.cert);
            certificate.key.iter_mut().for_each(anchor);
        }
    }
}

/// The folders that a registry's configuration may be in, best first: containerd allows for file systems that have
/// no colons.
fn folder_names(registry: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((host, port)) = registry.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        names.push(format!("{host}_{port}_"));
    }
    names.push(registry.to_owned());
    names.retain(|name| !name.starts_with('.') && !name.contains('/'));
    names
}

/// The hosts in the order of the document, which is the order of the requests.
fn in_order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Host)>, D::Error> {
    #[derive(Deserialize)]
    struct Listed {
        url: String,
        #[serde(flatten)]
        host: Host,
    }
    struct InOrder;
    impl<'de> Visitor<'de> for InOrder {
        type Value = Vec<(String, Host)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of hosts by URL, or a list of tables with a url")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            iter::from_fn(|| map.next_entry().transpose()).collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let hosts = iter::from_fn(|| list.next_element().transpose());
            hosts.map(|listed| listed.map(|Listed { url, host }| (url, host))).collect()
        }
    }
    deserializer.deserialize_any(InOrder)
}

fn capabilities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<HostCapability>>, D::Error> {
    let names = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
    let unknown =
        |name| D::Error::custom(format!("unknown capability {name:?}: pull, push, referrers, resolve"));
    let known = names.iter().map(|name| name.parse().map_err(|_| unknown(name)));
    let known: Vec<_> = known.collect::<Result<_, _>>()?;
    Ok(Some(known).filter(|known| !known.is_empty()))
}

fn certificates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ClientCertificate>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Item {
        File(PathBuf),
        Pair([PathBuf; 2]),
    }
    let items: Vec<Item> = one_or_many(deserializer)?;
    let certificates = items.into_iter().map(|item| match item {
        Item::File(cert) => ClientCertificate { cert, key: None },
        Item::Pair([cert, key]) => {
            ClientCertificate { cert, key: Some(key).filter(|key| !key.as_os_str().is_empty()) }
        }
    });
    Ok(certificates.collect())
}

fn header<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Vec<Secret>>, D::Error> {
    #[derive(Deserialize)]
    struct Values(#[serde(deserialize_with = "one_or_many")] Vec<Secret>);
    let fields = Option::<BTreeMap<String, Values>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(fields.into_iter().map(|(name, Values(values))| (name, values)).collect())
}

/// The names of a table's other fields.
#[expect(clippy::zero_sized_map_values, reason = "the values are skipped while they are read")]
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    let fields = BTreeMap::<String, IgnoredAny>::deserialize(deserializer)?;
    Ok(fields.into_keys().collect())
}

/// A duration as Go writes it: `1m30s`, `500ms`; none when it is empty.
fn go_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    parse_duration(&text)
        .map(Some)
        .ok_or_else(|| D::Error::custom("dial_timeout is not a duration such as \"5s\""))
}

/// The longest duration that Go's own type can hold is 2^63 - 1 nanoseconds; its parser refuses more, also as a sum.
const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = &tail[..tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len())];
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            // Go takes the micro sign and the Greek letter.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part).filter(|sum| *sum <= LONGEST)?;
        rest = &tail[unit.len()..];
    }
    (sum > Duration::ZERO).then_some(sum)
}

#[cfg(test)]
mod tests {
    use plyfold_core::ErrorKind;

    use super::*;

    fn found(registry: &str, files: &[(&str, &str)]) -> Result<Option<Hosts>> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let folders = [PathBuf::new(), folder.path().join("none"), folder.path().to_owned()];
        Hosts::find(&folders, registry)
    }

    /// Every field that containerd's documentation shows, in its spellings.
    #[test]
    fn a_file_of_containerd_is_read_as_it_is() {
        let text = r#"
            server = "https://registry-1.docker.io"
            ca = "own.pem"
            future_field = { a = 1 }

            [host."https://z.mirror"]
              capabilities = ["pull", "Resolve"]
              ca = ["/etc/certs/test-1-ca.pem", "special.pem"]
              client = [["client.cert", "/etc/client.key"],["client.pem", ""]]
              dial_timeout = "1m0.5s"
              [host."https://z.mirror".header]
                x-custom-2 = ["value1", "value2"]
                authorization = "Basic c2VjcmV0"

            [host."http://a.mirror:5000/v2/upstream"]
              client = "client.pem"
              override_path = true
              skip_verify = true
              proxy = "http://user:pw@my-proxy:8080"
              another = 3
        "#;
        let hosts = found("docker.io", &[("docker.io/hosts.toml", text)]).unwrap().unwrap();
        assert_eq!(hosts.server.as_deref(), Some("https://registry-1.docker.io"));
        assert!(hosts.own.ca[0].ends_with("docker.io/own.pem") && hosts.own.ca[0].is_absolute());
        assert_eq!(hosts.unknown().collect::<Vec<_>>(), ["another", "future_field"]);
        // The order of the file, which is not that of the alphabet.
        let [(first, z), (second, a)] = &hosts.host[..] else { panic!("{hosts:?}") };
        assert_eq!(
            (first.as_str(), second.as_str()),
            ("https://z.mirror", "http://a.mirror:5000/v2/upstream")
        );
        assert_eq!(z.capabilities, Some(vec![HostCapability::Pull, HostCapability::Resolve]));
        assert!(
            z.ca[0] == Path::new("/etc/certs/test-1-ca.pem") && z.ca[1].ends_with("docker.io/special.pem")
        );
        assert_eq!(z.client[0].key.as_deref(), Some(Path::new("/etc/client.key")));
        assert!(z.client[1].key.is_none() && z.client[1].cert.ends_with("docker.io/client.pem"));
        assert_eq!(z.dial_timeout, Some(Duration::from_millis(60_500)));
        assert_eq!(z.header["x-custom-2"].len(), 2);
        assert!(a.override_path && a.skip_verify && a.capabilities.is_none());
        assert!(a.client[0].cert.ends_with("docker.io/client.pem"));
        let shown = format!("{hosts:?}");
        assert!(!shown.contains("c2VjcmV0") && !shown.contains("user:pw"), "{shown}");
    }

    #[test]
    fn the_folder_of_the_registry_comes_before_the_default() {
        let server = |name: &str| format!("server = \"https://{name}\"");
        let (default, plain, escaped) = (server("default"), server("plain"), server("escaped"));
        let all = [
            ("_default/hosts.toml", default.as_str()),
            ("r.example:5000/hosts.toml", &plain),
            ("r.example_5000_/hosts.toml", &escaped),
        ];
        let of = |registry: &str, files| found(registry, files).unwrap().and_then(|hosts| hosts.server);
        assert_eq!(of("r.example:5000", &all).as_deref(), Some("https://escaped"));
        assert_eq!(of("r.example:5000", &all[..2]).as_deref(), Some("https://plain"));
        assert_eq!(of("r.example", &all).as_deref(), Some("https://default"));
        assert_eq!(of("r.example", &all[1..]), None);
        assert_eq!(of("../r.example:5000", &all[1..]), None);
        assert_eq!(of("[::1]:5000", &[("[::1]_5000_/hosts.toml", &plain)]).as_deref(), Some("https://plain"));
    }

    #[test]
    fn a_folder_of_certificates_is_docker_s() {
        let files = [
            ("r.lan/b.crt", ""),
            ("r.lan/a.crt", ""),
            ("r.lan/c.cert", ""),
            ("r.lan/c.key", ""),
            ("r.lan/d.cert", ""),
        ];
        let own = found("r.lan", &files).unwrap().unwrap().own;
        assert!(own.ca[0].ends_with("r.lan/a.crt") && own.ca.len() == 2);
        assert!(own.client[0].key.as_ref().unwrap().ends_with("r.lan/c.key") && own.client[1].key.is_none());
    }

    #[test]
    fn broken_files_are_errors_that_quote_no_value() {
        for text in [
            "server = ",
            "[host.\"https://m\"]\ncapabilities = [\"pul\"]",
            "[host.\"https://m\"]\ndial_timeout = \"soon\"",
            "[host.\"https://m\"]\nca = 3",
            "[host.\"https://m\".header]\nauthorization = { t = \"hunter2\" }",
            "[host.\"https://m\".header]\nauthorization = \"hunter2",
            "[host.\"https://m\"]\nclient = [[\"a\"]]",
        ] {
            let error = found("r.lan", &[("r.lan/hosts.toml", text)]).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Config, "{text}: {error}");
            assert!(error.context("path").unwrap().ends_with("r.lan/hosts.toml"), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        let long = " ".repeat(FILE as usize + 1);
        let error = found("r.lan", &[("r.lan/hosts.toml", &long)]).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Limit);
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in [("30s", 30_000), ("1.5h", 5_400_000), ("500ms", 500), ("1m1s", 61_000)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        let long = "9".repeat(400);
        let sum = format!("{0}s{0}s", "1".to_owned() + &"0".repeat(19));
        for text in
            ["", "0s", "5", "s", "-1s", "1d", "1e9s", "1.s.s", "1e19 s + 1e19 s", &sum, &format!("{long}s")]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration("9223372036s"), Some(Duration::from_secs(9_223_372_036)));
        assert_eq!(parse_duration("9223372036s1s"), None);
    }

    /// What is not set is null in the documents of Go's tools, and empty in files.
    #[test]
    fn what_is_not_set_is_null_or_empty() {
        use crate::Config;
        use plyfold_core::Options;
        let fields = ["ca", "capabilities", "client", "dial_timeout", "header", "proxy"];
        for (field, empty) in fields.into_iter().zip(["[]", "[]", "[]", "\"\"", "{}", "null"]) {
            for value in ["null", empty] {
                for hosts in [
                    format!(r#"hosts={{"r.lan":{{"{field}":{value}}}}}"#),
                    format!(r#"hosts={{"r.lan":{{"host":{{"https://m.lan":{{"{field}":{value}}}}}}}}}"#),
                    format!(r#"hosts={{"r.lan":{{"host":[{{"url":"https://m.lan","{field}":{value}}}]}}}}"#),
                ] {
                    let config: Result<Config> = Options::parse([hosts.as_str()]).unwrap().config();
                    let hosts = &config.unwrap_or_else(|e| panic!("{hosts}: {e}")).hosts["r.lan"];
                    let host = hosts.host.first().map_or(&hosts.own, |(_, host)| host);
                    let is_unset = host.ca.is_empty() && host.client.is_empty() && host.header.is_empty();
                    assert!(
                        is_unset && host.capabilities.is_none() && host.dial_timeout.is_none(),
                        "{host:?}"
                    );
                }
            }
        }
        for value in ["null", "{}", "[]"] {
            let hosts = format!(r#"hosts={{"r.lan":{{"host":{value}}}}}"#);
            let config: Config = Options::parse([hosts.as_str()]).unwrap().config().unwrap();
            assert!(config.hosts["r.lan"].host.is_empty());
        }
        let empty =
            "ca = []\n[host.\"https://m\"]\ncapabilities = []\nclient = []\ndial_timeout = \"\"\nheader = {}";
        assert!(found("r.lan", &[("r.lan/hosts.toml", empty)]).is_ok());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Whatever stands there, it is a duration that clocks can count with, or none.
        #[test]
        fn no_text_breaks_the_parser_of_durations(
            text in "([0-9]{0,25}(\\.[0-9]{0,25})?(h|m|s|ms|us|µs|ns|d|e9|)){0,6}|[0-9.eE+\\-hms ]{0,40}|NaN|inf|.{0,20}",
        ) {
            if let Some(parsed) = parse_duration(&text) {
                proptest::prop_assert!(parsed > Duration::ZERO && parsed <= LONGEST);
                proptest::prop_assert!(std::time::SystemTime::now().checked_add(parsed).is_some());
            }
        }
    }
}
