//! Which credentials are sent to which registry: those of the configuration, else those that other tools have stored.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use plyfold_core::{Advice, Credential, Error, Result, Secret};
use serde::{Deserialize, Deserializer};

use super::grant::login;
use super::helper::Helpers;
use crate::Config;

/// Bytes of a file of credentials that are read.
pub(super) const FILE: u64 = 1 << 20;

/// Where credentials are looked up.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// The registry that `own` is for, and no other.
    home: String,
    own: Option<Credential>,
    /// Whether `own` was given for calls of one kind, such as those of one tenant.
    is_of_call: bool,
    /// Docker's `config.json`, podman's `auth.json`, in the order they are looked at; none for anonymous use.
    files: Vec<PathBuf>,
    helpers: Helpers,
}

impl Credentials {
    pub(crate) fn new(config: &Config, home: &str) -> Result<Self> {
        let own = match (&config.username, &config.password) {
            (None, None) => None,
            (Some(user), Some(password)) => Some(Credential::Basic(user.clone(), password.clone())),
            _ => return Err(Error::config("username and password must be given together")),
        };
        let files = if config.anonymous { Vec::new() } else { files(config) };
        Ok(Self { home: canonical(home), own, is_of_call: false, files, helpers: Helpers::new(config) })
    }

    /// This one alone: no other host gets any, and what the machine has stored is for none of these calls.
    pub(crate) fn for_calls(self, own: Credential) -> Self {
        Self { own: Some(own), is_of_call: true, files: Vec::new(), ..self }
    }

    /// Whether the credential is that of some calls alone.
    pub(crate) fn is_of_call(&self) -> bool {
        self.is_of_call
    }

    /// The credential for a repository; read anew each time, so that a later `docker login` counts. Blocks: a
    /// credential helper may be asked.
    pub(super) fn of(&self, registry: &str, repository: &str) -> Result<Option<Credential>> {
        if let (Some(own), true) = (&self.own, canonical(registry) == self.home) {
            return Ok(Some(own.clone()).filter(|own| *own != Credential::Anonymous));
        }
        Ok(self.stored(registry, repository)?.map(|(credential, _)| credential))
    }

    /// What the files have for a repository, and which of them.
    pub(crate) fn stored(&self, registry: &str, repository: &str) -> Result<Option<(Credential, &Path)>> {
        for file in &self.files {
            let Some(stored) = read(file)? else { continue };
            let found = stored.of(registry, repository, &self.helpers);
            if let Some(credential) = found.map_err(|e| e.with_context("path", file.display()))? {
                return Ok(Some((credential, file)));
            }
        }
        Ok(None)
    }
}

/// What makes one credential another than the next: the key of its tokens.
pub(crate) fn parts(credential: &Credential) -> (u8, &str, &str) {
    match credential {
        Credential::Basic(user, password) => (1, user.reveal(), password.reveal()),
        Credential::IdentityToken(token) => (2, token.reveal(), ""),
        Credential::RegistryToken(token) => (3, token.reveal(), ""),
        _ => (0, "", ""),
    }
}

/// Where credentials may be stored. A file that is named is the only one; else `$DOCKER_CONFIG`, and the paths of
/// containers-auth.json(5) in its order.
fn files(config: &Config) -> Vec<PathBuf> {
    if let Some(named) = named(config) {
        return vec![named];
    }
    let home = std::env::home_dir();
    let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let runtime = set("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")).or_else(|| {
        // Root has no such folder of its own; podman takes this one.
        let user = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").ok()?);
        Some(PathBuf::from(format!("/run/containers/{user}/auth.json")))
    });
    let own = set("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
    let places = [
        set("DOCKER_CONFIG").map(|folder| folder.join("config.json")),
        runtime,
        own.map(|folder| folder.join("containers/auth.json")),
        in_home(".docker/config.json"),
    ];
    places.into_iter().flatten().collect()
}

/// The file that the configuration or `$REGISTRY_AUTH_FILE` names.
fn named(config: &Config) -> Option<PathBuf> {
    let docker = config.docker_config.as_ref().map(|folder| folder.join("config.json"));
    config.auth_file.clone().or(docker).or_else(|| set("REGISTRY_AUTH_FILE"))
}

/// Where new credentials are stored.
pub(super) fn file_to_write(config: &Config) -> Option<PathBuf> {
    let docker = || set("DOCKER_CONFIG").or_else(|| Some(std::env::home_dir()?.join(".docker")));
    named(config).or_else(|| Some(docker()?.join("config.json")))
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn read(path: &Path) -> Result<Option<File>> {
    let Some(text) = content(path)? else { return Ok(None) };
    // The parser's message could quote a secret: where it stands is enough.
    let parsed = serde_json::from_slice(&text).map_err(|e| not_json(path, &e));
    parsed.map(Some)
}

/// The bytes of a file of credentials, if it is there.
pub(super) fn content(path: &Path) -> Result<Option<Vec<u8>>> {
    let unreadable = |e| Error::io("reading stored credentials", e).with_context("path", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        // Some users have no home but `/dev/null`.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(unreadable(e)),
    };
    let mut text = Vec::new();
    file.take(FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE {
        let message = format!("stored credentials have more than {FILE} bytes");
        return Err(Error::limit(message).with_context("path", path.display()));
    }
    Ok(Some(text))
}

pub(super) fn not_json(path: &Path, e: &serde_json::Error) -> Error {
    let message = format!("stored credentials are not valid JSON, line {} column {}", e.line(), e.column());
    Error::config(message).with_context("path", path.display())
}

/// The parts of Docker's `config.json` that matter here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default, deserialize_with = "or_none")]
    auths: BTreeMap<String, Option<Entry>>,
    /// The helper of each registry; empty for one whose credentials stand in the file.
    #[serde(default, deserialize_with = "or_none")]
    cred_helpers: BTreeMap<String, Option<String>>,
    /// The helper of all others.
    creds_store: Option<String>,
}

/// A table, which Go's tools write as `null` when it is empty.
fn or_none<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<Secret>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

impl File {
    /// The credential of the registry's own helper, else of the file, else of the helper for all registries.
    fn of(&self, registry: &str, repository: &str, helpers: &Helpers) -> Result<Option<Credential>> {
        let registry = canonical(registry);
        let server = server(&registry);
        let own = self.cred_helpers.iter().find(|(key, _)| canonical(key) == registry);
        if let Some(name) = own.and_then(|(_, name)| name.as_ref()).filter(|name| !name.is_empty()) {
            return helpers.credential(name, server);
        }
        if let Some(entry) = self.entry(&format!("{registry}/{repository}"))
            && let Some(credential) = entry.credential()?
        {
            return Ok(Some(credential));
        }
        let store = self.creds_store.as_deref().filter(|name| own.is_none() && !name.is_empty());
        store.map_or(Ok(None), |name| helpers.credential(name, server))
    }

    /// The entry for the longest prefix of `registry/repository` (containers-auth.json(5)), under any of the
    /// spellings that Docker has used for a registry.
    fn entry(&self, wanted: &str) -> Option<&Entry> {
        let matching = self.auths.iter().filter_map(|(key, entry)| {
            let key = canonical(key);
            let rest = wanted.strip_prefix(key.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some((key.len(), entry.as_ref()?))
        });
        matching.max_by_key(|(length, _)| *length).map(|(_, entry)| entry)
    }
}

/// The name that Docker uses for its own registry with a helper.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The name under which Docker stores a registry's credentials.
pub(super) fn server(canonical: &str) -> &str {
    if canonical == "docker.io" { DOCKER_HUB } else { canonical }
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>> {
        let given = |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.reveal().is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token)));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token)));
        }
        if let Some(auth) = given(&self.auth) {
            return decoded(auth.reveal()).map(Some);
        }
        Ok(given(&self.username)
            .zip(given(&self.password))
            .map(|(user, password)| Credential::Basic(user, password)))
    }
}

/// `auth`: base64 of `user:password`. Some tools leave out the padding, Docker may append NULs to the password.
fn decoded(auth: &str) -> Result<Credential> {
    let invalid = || {
        Error::config("a stored credential is not base64 of user:password").with_advice(Advice::StoreAgain)
    };
    let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (user, password) = text.split_once(':').ok_or_else(invalid)?;
    Ok(login(Secret::new(user), Secret::new(password.trim_end_matches('\0'))))
}

/// `https://index.docker.io/v1/`, `registry-1.docker.io` and `docker.io` are one registry.
pub(super) fn canonical(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    let (host, path) = key.find('/').map_or((key, ""), |at| key.split_at(at));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    format!("{host}{path}")
}

#[cfg(test)]
mod tests {
    use plyfold_core::ErrorKind;

    use super::*;

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic(Secret::new(user), Secret::new(password))
    }

    fn stored(json: &str) -> (tempfile::TempDir, Credentials) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), json).unwrap();
        let config = Config { docker_config: Some(directory.path().to_owned()), ..Config::default() };
        let credentials = Credentials::new(&config, "home.example").unwrap();
        (directory, credentials)
    }

    #[test]
    fn the_longest_prefix_decides() {
        let (_directory, credentials) = stored(
            r#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"aHViOnB3"},
                "r.example":{"username":"all","password":"1"},
                "r.example/team":{"username":"team","password":"2"},
                "r.example/team/app":{"identitytoken":"refresh"},
                "http://old.example/v2/":{"auth":"b2xkOnB3AAA"},
                "empty.example":{}
            },"HttpHeaders":{}}"#,
        );
        let of = |registry, repository| credentials.of(registry, repository).unwrap();
        assert_eq!(of("docker.io", "library/alpine"), Some(basic("hub", "pw")));
        assert_eq!(of("r.example", "other/x"), Some(basic("all", "1")));
        assert_eq!(of("r.example", "team/x"), Some(basic("team", "2")));
        assert_eq!(of("r.example", "teamwork/x"), Some(basic("all", "1")));
        assert_eq!(of("r.example", "team/app"), Some(Credential::IdentityToken(Secret::new("refresh"))));
        assert_eq!(of("r.example", "team/app/x"), Some(Credential::IdentityToken(Secret::new("refresh"))));
        assert_eq!(of("old.example", "x"), Some(basic("old", "pw")));
        assert_eq!(of("empty.example", "x"), None);
        assert_eq!(of("r.example:5000", "x"), None);
        assert_eq!(of("r.example.evil", "x"), None);
    }

    #[test]
    fn helpers_are_asked_where_the_file_has_no_answer() {
        let (_directory, credentials) = stored(
            r#"{"auths":{"r.example":{"username":"all","password":"1"},"empty.example":{}},
                "credHelpers":{"h.example":"plyfold-test-own","f.example":""},"credsStore":"plyfold-test-all"}"#,
        );
        assert_eq!(credentials.of("r.example", "x").unwrap(), Some(basic("all", "1")));
        assert_eq!(credentials.of("f.example", "x").unwrap(), None);
        for (registry, name) in [
            ("h.example", "plyfold-test-own"),
            ("empty.example", "plyfold-test-all"),
            ("o.example", "plyfold-test-all"),
        ] {
            // Neither is installed: the error tells which of them was asked.
            let error = credentials.of(registry, "x").unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Auth);
            assert!(error.message().contains(name), "{registry}: {error}");
        }
    }

    /// Podman's file is read as podman writes it.
    #[test]
    fn an_auth_file_is_the_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let auth_file = folder.path().join("auth.json");
        let json = r#"{"auths":{"quay.io/org/app":{"auth":"YXBwOjE="},"quay.io/org":{"auth":"b3JnOjI="},
            "quay.io":{"auth":"YWxsOjM="},"docker.io":{"auth":"aHViOjQ="}}}"#;
        std::fs::write(&auth_file, json).unwrap();
        let config = Config {
            auth_file: Some(auth_file),
            docker_config: Some("/nonexistent".into()),
            ..Config::default()
        };
        let credentials = Credentials::new(&config, "home.example").unwrap();
        let of = |registry, repository| credentials.of(registry, repository).unwrap();
        assert_eq!(of("quay.io", "org/app"), Some(basic("app", "1")));
        assert_eq!(of("quay.io", "org/other"), Some(basic("org", "2")));
        assert_eq!(of("quay.io", "organ/x"), Some(basic("all", "3")));
        assert_eq!(of("docker.io", "library/alpine"), Some(basic("hub", "4")));
        assert_eq!(of("ghcr.io", "org/app"), None);
    }

    #[test]
    fn own_credentials_are_for_the_home_registry_alone() {
        let config = Config {
            username: Some(Secret::new("me")),
            password: Some(Secret::new("pw")),
            anonymous: true,
            ..Config::default()
        };
        let credentials = Credentials::new(&config, "home.example").unwrap();
        assert_eq!(credentials.of("home.example", "x").unwrap(), Some(basic("me", "pw")));
        assert_eq!(credentials.of("other.example", "x").unwrap(), None);
        assert_eq!(credentials.of("home.example:444", "x").unwrap(), None);
    }

    /// Go's tools write and read `null` for what is not there, and some users have no home but `/dev/null`.
    #[test]
    fn nothing_is_written_in_several_ways() {
        for json in [
            r#"{"auths":null,"credHelpers":null,"credsStore":null}"#,
            r#"{"auths":{"a":null,"b":{"auth":null}}}"#,
            "{}",
        ] {
            let (_directory, credentials) = stored(json);
            assert_eq!(credentials.of("a", "x").unwrap(), None, "{json}");
        }
        let config = Config { auth_file: Some("/dev/null/auth.json".into()), ..Config::default() };
        assert_eq!(Credentials::new(&config, "a").unwrap().of("a", "x").unwrap(), None);
    }

    #[test]
    fn broken_files_are_errors_without_their_secrets() {
        for json in [r#"{"auths":{"a":{"auth":"!hunter2!"}}}"#, r#"{"auths":{"a":{"password":["hunter2"]}}}"#]
        {
            let (_directory, credentials) = stored(json);
            let error = credentials.of("a", "x").unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        let (_directory, credentials) = stored(&" ".repeat((FILE + 1) as usize));
        assert_eq!(*credentials.of("a", "x").unwrap_err().kind(), ErrorKind::Limit);
        let (directory, credentials) = stored("{}");
        drop(directory);
        assert_eq!(credentials.of("a", "x").unwrap(), None);
    }
}
