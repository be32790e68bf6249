//! Storing credentials where Docker and podman find them too.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plyfold_core::durable::{parent, sync_folder};
use plyfold_core::{Error, Result, Secret};
use serde_json::{Map, Value, json};

use super::credentials::{canonical, content, file_to_write, not_json, server};
use super::helper::Helpers;
use crate::Config;

/// Where credentials are kept.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Keeper {
    /// In a file, readable by every user who may read the file.
    File(PathBuf),
    /// By the program `docker-credential-NAME`.
    Helper(String),
}

/// One file of credentials, and the helpers that it names.
pub(crate) struct Store {
    path: PathBuf,
    helpers: Helpers,
}

impl Store {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let path = file_to_write(config).ok_or_else(|| {
            Error::config("there is no file to store credentials in")
                .with_hint("set HOME, DOCKER_CONFIG or REGISTRY_AUTH_FILE")
        })?;
        Ok(Self { path, helpers: Helpers::new(config) })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn insert(&self, registry: &str, user: &Secret, password: &Secret) -> Result<Keeper> {
        let mut document = self.read()?;
        let registry = canonical(registry);
        let key = self.key(&registry).to_owned();
        let helper = helper_of(&document, &registry);
        let entry = match &helper {
            Some(name) => {
                self.helpers.store(name, server(&registry), user, password)?;
                // Docker lists its registries here, and asks the helper for the rest.
                json!({})
            }
            None => json!({ "auth": STANDARD.encode(format!("{}:{}", user.reveal(), password.reveal())) }),
        };
        let auths = table(&mut document, "auths")?;
        auths.retain(|other, _| *other == key || canonical(other) != registry);
        auths.insert(key, entry);
        self.write(&document)?;
        Ok(helper.map_or_else(|| Keeper::File(self.path.clone()), Keeper::Helper))
    }

    pub(crate) fn remove(&self, registry: &str) -> Result<Vec<Keeper>> {
        let mut keepers = Vec::new();
        let mut document = self.read()?;
        let registry = canonical(registry);
        if let Some(name) = helper_of(&document, &registry)
            && self.helpers.erase(&name, server(&registry))?
        {
            keepers.push(Keeper::Helper(name));
        }
        let auths = table(&mut document, "auths")?;
        let before = auths.len();
        let mut held = false;
        auths.retain(|key, entry| {
            let is_its = canonical(key)
                .strip_prefix(&registry)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            held |= is_its && entry.as_object().is_some_and(|entry| !entry.is_empty());
            !is_its
        });
        if auths.len() < before {
            self.write(&document)?;
        }
        if held {
            keepers.push(Keeper::File(self.path.clone()));
        }
        Ok(keepers)
    }

    /// Docker has a special key for its own registry; podman has not.
    fn key<'a>(&self, canonical: &'a str) -> &'a str {
        let is_docker = self.path.file_name().is_some_and(|name| name == "config.json");
        if is_docker { server(canonical) } else { canonical }
    }

    fn read(&self) -> Result<Map<String, Value>> {
        let Some(text) = content(&self.path)?.filter(|text| !text.trim_ascii().is_empty()) else {
            return Ok(Map::new());
        };
        match serde_json::from_slice(&text) {
            Ok(Value::Object(document)) => Ok(document),
            Ok(_) => Err(Error::config("stored credentials are not a JSON object")),
            Err(e) => Err(not_json(&self.path, &e)),
        }
    }

    /// Replaces the file at once and durably. It is the user's alone; a link to it stays one.
    fn write(&self, document: &Map<String, Value>) -> Result<()> {
        let failed = |e| Error::io("storing credentials", e);
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = parent(&path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        replace(&path, folder, document).map_err(failed)?;
        sync_folder(folder)
    }
}

fn replace(path: &Path, folder: &Path, document: &Map<String, Value>) -> io::Result<()> {
    // Readable by the user alone; removed when it does not become `path`.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The helper that keeps a registry's credentials.
fn helper_of(document: &Map<String, Value>, registry: &str) -> Option<String> {
    let helpers = document.get("credHelpers").and_then(Value::as_object);
    let own = helpers.into_iter().flatten().find(|(key, _)| canonical(key) == registry);
    let name = own.map(|(_, name)| name).or_else(|| document.get("credsStore"));
    name.and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
}

fn table<'a>(document: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Map<String, Value>> {
    let value = document.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value
        .as_object_mut()
        .ok_or_else(|| Error::config(format!("{name} in stored credentials is not a JSON object")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use plyfold_core::ErrorKind;

    use super::*;

    fn store(folder: &Path, name: &str) -> Store {
        let path = folder.join(name);
        let config = Config { helper_path: Some(folder.to_owned()), ..Config::default() };
        Store { path, helpers: Helpers::new(&config) }
    }

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn insert(store: &Store, registry: &str) -> Result<Keeper> {
        store.insert(registry, &Secret::new("user"), &Secret::new("pw"))
    }

    #[test]
    fn what_others_have_written_stays_and_the_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "a/config.json");
        assert_eq!(insert(&store, "docker.io").unwrap(), Keeper::File(store.path.clone()));
        let hub = json!({"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwdw=="}}});
        assert_eq!(read(&store.path), hub);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store.path), mode(store.path.parent().unwrap())), (0o600, 0o700));
        let before = r#"{"HttpHeaders":{"X":"y"},"auths":{"r.lan":{"auth":"b2xk"},"r.lan/team":{"auth":"dGVhbQ=="},
            "https://q.lan/v1/":{"auth":"cQ==","email":"e"}},"plugins":{"a":[1]}}"#;
        fs::write(&store.path, before).unwrap();
        fs::set_permissions(&store.path, fs::Permissions::from_mode(0o644)).unwrap();
        insert(&store, "r.lan").unwrap();
        let after = read(&store.path);
        assert_eq!(after["auths"]["r.lan"]["auth"], "dXNlcjpwdw==");
        assert_eq!(after["auths"]["r.lan/team"]["auth"], "dGVhbQ==");
        assert_eq!((&after["HttpHeaders"]["X"], &after["plugins"]["a"][0]), (&json!("y"), &json!(1)));
        assert_eq!(mode(&store.path), 0o600);
        // Another spelling of the same registry is replaced, not doubled.
        insert(&store, "q.lan").unwrap();
        assert_eq!(read(&store.path)["auths"].as_object().unwrap().len(), 3);
        assert_eq!(store.remove("r.lan").unwrap(), [Keeper::File(store.path.clone())]);
        let left: Vec<String> = read(&store.path)["auths"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(left, ["q.lan"]);
        assert_eq!(store.remove("r.lan").unwrap(), []);
        assert_eq!(
            fs::read_dir(store.path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn podman_s_file_has_podman_s_names_and_links_stay_links() {
        let folder = tempfile::tempdir().unwrap();
        let (real, store) = (folder.path().join("real.json"), store(folder.path(), "auth.json"));
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &store.path).unwrap();
        insert(&store, "docker.io").unwrap();
        assert_eq!(read(&real), json!({"auths":{"docker.io":{"auth":"dXNlcjpwdw=="}}}));
        assert!(fs::symlink_metadata(&store.path).unwrap().is_symlink());
    }

    #[test]
    fn helpers_keep_what_the_file_gives_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"#!/bin/sh
cd "$(dirname "$0")" && case "$1" in
store) cat > stored ;;
erase) read -r server; [ -e stored ] || { echo credentials not found in native keychain; exit 1; }; rm stored ;;
esac
"#;
        let path = folder.path().join("docker-credential-keeper");
        // Written by another process: a descriptor for writing that a fork inherits makes the script busy.
        let sh = ["-c", r#"printf '%s' "$1" > "$2""#, "sh", script];
        let written = std::process::Command::new("sh").args(sh).arg(&path).status();
        assert!(written.unwrap().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let store = store(folder.path(), "config.json");
        fs::write(&store.path, r#"{"credsStore":"none-such","credHelpers":{"r.lan":"keeper"}}"#).unwrap();
        assert_eq!(insert(&store, "r.lan").unwrap(), Keeper::Helper("keeper".to_owned()));
        let stored = folder.path().join("stored");
        assert_eq!(read(&stored), json!({"ServerURL":"r.lan","Username":"user","Secret":"pw"}));
        assert!(!fs::read_to_string(&store.path).unwrap().contains("dXNlcjpwdw"));
        assert_eq!(read(&store.path)["auths"]["r.lan"], json!({}));
        assert_eq!(store.remove("r.lan").unwrap(), [Keeper::Helper("keeper".to_owned())]);
        assert!(!stored.exists());
        assert_eq!(store.remove("r.lan").unwrap(), []);
        // The helper of all others is not there: nothing is stored in the clear in its place.
        assert_eq!(*insert(&store, "other.lan").unwrap_err().kind(), ErrorKind::Auth);
        assert!(!fs::read_to_string(&store.path).unwrap().contains("other.lan"));
    }

    #[test]
    fn a_table_that_is_null_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "config.json");
        fs::write(&store.path, r#"{"auths":null}"#).unwrap();
        assert_eq!(store.remove("r.lan").unwrap(), []);
        insert(&store, "r.lan").unwrap();
        assert_eq!(read(&store.path)["auths"]["r.lan"]["auth"], "dXNlcjpwdw==");
    }

    #[test]
    fn a_file_that_is_not_valid_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "config.json");
        for text in ["[]", "{", r#"{"auths":["hunter2"]}"#] {
            fs::write(&store.path, text).unwrap();
            let error = insert(&store, "r.lan").unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Config, "{text}");
            assert!(!format!("{error:?}").contains("hunter2"));
            assert_eq!(fs::read_to_string(&store.path).unwrap(), text);
        }
    }
}
