//! Values of an image configuration that are replaced.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::EditFault;
use crate::Result;
use crate::strict::invalid;

/// What is changed of the configuration of what runs in an image (OCI image spec, `config.md`, property `config`), and of the
/// annotations of its manifest. What is not given stays.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConfigChange {
    /// Annotations of the manifest that are set. A Docker manifest has none.
    pub annotations: Vec<(String, String)>,
    /// Annotations of the manifest that are removed, before others are set.
    pub unset_annotations: Vec<String>,
    /// Environment variables that are set: in place where there is one of the name, else at the end.
    pub env: Vec<(String, String)>,
    /// Environment variables that are removed, before others are set.
    pub unset_env: Vec<String>,
    /// The program that is run, with its first arguments. The image's [`cmd`](Self::cmd) goes, unless one is given: it was
    /// written for another program.
    pub entrypoint: Option<Vec<String>>,
    /// The arguments that are used when a run names none; the program too, where there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Labels that are set.
    pub labels: Vec<(String, String)>,
    /// Labels that are removed, before others are set.
    pub unset_labels: Vec<String>,
    /// The user that the program runs as: `USER`, `UID`, `USER:GROUP` or `UID:GID`. An empty text is none.
    pub user: Option<String>,
    /// The directory that the program starts in: absolute, but for Windows. An empty text is none.
    pub workdir: Option<String>,
    /// The signal that asks the program to end, such as `SIGTERM`. An empty text is none.
    pub stop_signal: Option<String>,
    /// Ports that are added to those that the program listens on: `80`, `80/tcp`, `53/udp`.
    pub ports: Vec<String>,
    /// Ports that are removed, before others are added.
    pub unset_ports: Vec<String>,
    /// Paths that are added to those that hold data of their own in each container.
    pub volumes: Vec<String>,
    /// Paths that hold data of their own no longer; they are removed before others are added.
    pub unset_volumes: Vec<String>,
}

impl ConfigChange {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Sets it in the document of a configuration.
    pub(super) fn apply(&self, document: &mut Map<String, Value>) -> Result<()> {
        let is_windows = document.get("os").and_then(Value::as_str) == Some("windows");
        self.check(is_windows)?;
        let config = object(document, "config")?;
        if !(self.env.is_empty() && self.unset_env.is_empty()) {
            self.set_env(list(config, "Env")?, is_windows);
        }
        if let Some(entrypoint) = &self.entrypoint {
            config.insert("Entrypoint".to_owned(), json!(entrypoint));
            config.remove("Cmd");
        }
        if let Some(cmd) = &self.cmd {
            config.insert("Cmd".to_owned(), json!(cmd));
        }
        if !(self.labels.is_empty() && self.unset_labels.is_empty()) {
            let labels = object(config, "Labels")?;
            labels.retain(|name, _| !self.unset_labels.contains(name));
            labels.extend(self.labels.iter().map(|(name, value)| (name.clone(), json!(value))));
        }
        for (key, value) in
            [("User", &self.user), ("WorkingDir", &self.workdir), ("StopSignal", &self.stop_signal)]
        {
            match value.as_deref() {
                None => {}
                Some("") => drop(config.remove(key)),
                Some(value) => drop(config.insert(key.to_owned(), json!(value))),
            }
        }
        let ports = |ports: &[String]| ports.iter().map(|port| port_of(port)).collect::<Result<Vec<_>>>();
        set(config, "ExposedPorts", &ports(&self.unset_ports)?, ports(&self.ports)?)?;
        set(config, "Volumes", &self.unset_volumes, self.volumes.clone())
    }

    /// What is to be removed, and is not there: in the documents of a configuration and of a manifest.
    pub(super) fn not_there(&self, config: &Value, manifest: &Value) -> Result<BTreeSet<String>> {
        let is_windows = config.get("os").and_then(Value::as_str) == Some("windows");
        let (config, mut missing) = (config.get("config"), BTreeSet::new());
        let env = config.and_then(|config| config.get("Env")).and_then(Value::as_array);
        let has_variable =
            |name: &str| env.is_some_and(|env| env.iter().any(|item| is_variable(item, name, is_windows)));
        let names = self.unset_env.iter().filter(|name| !has_variable(name));
        missing.extend(names.map(|name| format!("the environment variable {name}")));
        let ports = self.unset_ports.iter().map(|port| port_of(port)).collect::<Result<Vec<_>>>()?;
        for (what, names, of) in [
            ("the label", &self.unset_labels, config.and_then(|config| config.get("Labels"))),
            ("the port", &ports, config.and_then(|config| config.get("ExposedPorts"))),
            ("the volume", &self.unset_volumes, config.and_then(|config| config.get("Volumes"))),
            ("the annotation", &self.unset_annotations, manifest.get("annotations")),
        ] {
            let names = names.iter().filter(|name| of.and_then(|of| of.get(name.as_str())).is_none());
            missing.extend(names.map(|name| format!("{what} {name}")));
        }
        Ok(missing)
    }

    /// Sets the annotations in the document of a manifest.
    pub(super) fn annotate(&self, document: &mut Map<String, Value>) -> Result<()> {
        if self.annotations.is_empty() && self.unset_annotations.is_empty() {
            return Ok(());
        }
        let annotations = object(document, "annotations")?;
        annotations.retain(|name, _| !self.unset_annotations.contains(name));
        annotations.extend(self.annotations.iter().map(|(name, value)| (name.clone(), json!(value))));
        if annotations.is_empty() {
            document.remove("annotations");
        }
        Ok(())
    }

    fn check(&self, is_windows: bool) -> Result<()> {
        for name in self.env.iter().map(|(name, _)| name).chain(&self.unset_env) {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(EditFault::EnvName(name.clone()).into());
            }
        }
        if self.labels.iter().any(|(name, _)| name.is_empty()) {
            return Err(EditFault::Label.into());
        }
        if self.annotations.iter().any(|(name, _)| name.is_empty()) {
            return Err(EditFault::Annotation.into());
        }
        if let Some(user) = self.user.as_ref().filter(|user| !is_user(user)) {
            return Err(EditFault::User(user.clone()).into());
        }
        if let Some(signal) = self.stop_signal.as_ref().filter(|signal| !is_signal(signal)) {
            return Err(EditFault::Signal(signal.clone()).into());
        }
        let of = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        let words = |words: &Option<Vec<String>>| words.iter().flatten().cloned().collect::<Vec<_>>();
        let texts: [(&str, Vec<String>); 8] = [
            ("an environment variable", self.env.iter().map(|(_, value)| value.clone()).collect()),
            ("the entrypoint", words(&self.entrypoint)),
            ("the command", words(&self.cmd)),
            ("the user", of(&self.user)),
            ("the directory", of(&self.workdir)),
            ("the signal", of(&self.stop_signal)),
            ("a label", self.labels.iter().map(|(name, value)| format!("{name}{value}")).collect()),
            ("a volume", self.volumes.clone()),
        ];
        if let Some((what, _)) = texts.iter().find(|(_, texts)| texts.iter().any(|text| text.contains('\0')))
        {
            return Err(EditFault::Zero(what).into());
        }
        let relative = |path: &&String| !is_windows && !path.starts_with('/');
        let workdir = self.workdir.iter().filter(|path| !path.is_empty());
        match workdir.chain(&self.volumes).find(relative) {
            Some(path) => Err(EditFault::Relative(path.clone()).into()),
            None => Ok(()),
        }
    }

    /// Names of variables have no case in Windows.
    fn set_env(&self, env: &mut Vec<Value>, is_windows: bool) {
        let is_named = |item: &Value, name: &str| is_variable(item, name, is_windows);
        env.retain(|item| !self.unset_env.iter().any(|name| is_named(item, name)));
        for (name, value) in &self.env {
            let item = json!(format!("{name}={value}"));
            // The last of one name is what counts: it is set, and the others go.
            let last = env.iter().rposition(|item| is_named(item, name));
            match last.and_then(|last| env.get_mut(last)) {
                Some(place) => {
                    *place = item;
                    let mut at = 0;
                    env.retain(|item| {
                        at += 1;
                        !is_named(item, name) || last == Some(at - 1)
                    });
                }
                None => env.push(item),
            }
        }
    }
}

/// Whether an item of `Env` is the variable of this name.
fn is_variable(item: &Value, name: &str, is_windows: bool) -> bool {
    let found = item.as_str().map(|item| item.split_once('=').map_or(item, |(name, _)| name));
    found.is_some_and(|found| found == name || is_windows && found.eq_ignore_ascii_case(name))
}

/// `USER` or `USER:GROUP`; an empty text is none.
fn is_user(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    text.is_empty() || !text.contains(char::is_whitespace) && parts.len() <= 2 && !parts.contains(&"")
}

/// A number, or a name as `kill -l` lists it, with `SIG` or without; an empty text is none.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 38] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS", "TERM",
        "TRAP", "TSTP", "TTIN", "TTOU", "UNUSED", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
        "EMT",
    ];
    if text.is_empty() || text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number)) {
        return true;
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-"));
    NAMES.contains(&name)
        || real_time.is_some_and(|offset| offset.parse::<u8>().is_ok_and(|offset| offset <= 30))
}

/// `80` and `80/tcp` as they stand in a configuration.
fn port_of(text: &str) -> Result<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit()) && number.parse() != Ok(0_u16);
    if !is_number || number.parse::<u16>().is_err() || !["sctp", "tcp", "udp"].contains(&protocol) {
        return Err(EditFault::Port(text.to_owned()).into());
    }
    Ok(format!("{number}/{protocol}"))
}

/// Removes names from the set under a key, and adds others. A set that becomes empty by it goes.
fn set(config: &mut Map<String, Value>, key: &str, removed: &[String], added: Vec<String>) -> Result<()> {
    if removed.is_empty() && added.is_empty() {
        return Ok(());
    }
    let names = object(config, key)?;
    names.retain(|name, _| !removed.contains(name));
    names.extend(added.into_iter().map(|name| (name, json!({}))));
    if names.is_empty() {
        config.remove(key);
    }
    Ok(())
}

/// The object under a key, which is made where there is none.
pub(super) fn object<'a>(of: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Map<String, Value>> {
    made(of, key, json!({})).as_object_mut().ok_or_else(|| invalid(format!("{key} is not an object")))
}

/// The list under a key, which is made where there is none.
pub(super) fn list<'a>(of: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>> {
    made(of, key, json!([])).as_array_mut().ok_or_else(|| invalid(format!("{key} is not a list")))
}

/// The value under a key. Go's tools write null for what was never set.
fn made<'a>(of: &'a mut Map<String, Value>, key: &str, empty: Value) -> &'a mut Value {
    let value = of.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = empty;
    }
    value
}
