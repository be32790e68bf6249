//! An image's configuration as the configuration of a runtime (OCI image specification, `conversion.md`).

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};

use crate::files::{Files, FilesFault};
use crate::manifest::RawConfig;
use crate::{Error, Result, Size};

crate::fault! {
    /// Why the user of an image is not known.
    pub enum UserFault;
    /// A number of a user or a group in the image's files is not one from 0 to 4,294,967,295.
    Number(String) => (Corrupt, "{0} is no number of a user or group"),
    /// There is no such name.
    Unknown(String, &'static str) => (NotFound, "the image has no {0:?} in {1}",
        "numbers need no entry: the publisher can write UID:GID"),
    /// Another system than Linux, where users are no numbers.
    System(String) => (Unsupported, "the user of an image for {0} is not converted"),
}

/// The version of the specification that the result keeps (`ociVersion`).
const VERSION: &str = "1.0.2";
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// Bytes that are read of one of these files.
const FILE_LIMIT: usize = 1 << 20;

/// The configuration of a runtime that an image's configuration stands for: process, user, annotations, and a `tmpfs` for each
/// volume. What the image says nothing about is absent: namespaces, capabilities, further mounts, the host's name. The root
/// is `rootfs`.
///
/// Names of users and groups are looked up in `files`, the image's own. No file is read when [`names_a_user`] is false.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) with a [`UserFault`] for a user or group that the image does not have;
/// [`Unsupported`](crate::ErrorKind::Unsupported) for images of other systems than Linux; those of `files`;
/// [`Limit`](crate::ErrorKind::Limit) for such a file of more than 1 MiB.
pub fn runtime_spec(config: &RawConfig, files: &mut dyn Files) -> Result<Spec> {
    let document = config.document();
    let os = document.os().to_string();
    if os != "linux" {
        return Err(UserFault::System(os).into());
    }
    let process = document.config().as_ref();
    let cwd = process.and_then(|process| process.working_dir().as_deref()).filter(|cwd| !cwd.is_empty());
    let words = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let entrypoint = words(process.and_then(|process| process.entrypoint().as_ref()));
    let cmd = words(process.and_then(|process| process.cmd().as_ref()));
    let args = [entrypoint, cmd].concat();
    let user = user(config, files)?;
    let mut own = json!({
        "user": { "uid": user.uid, "gid": user.gid },
        "args": args,
        "env": words(process.and_then(|process| process.env().as_ref())),
        "cwd": Path::new("/").join(cwd.unwrap_or_default()),
    });
    if !user.groups.is_empty() {
        own["user"]["additionalGids"] = user.groups.into();
    }
    let mut spec = json!({
        "ociVersion": VERSION,
        "root": { "path": "rootfs" },
        "process": own,
        "annotations": annotations(config),
    });
    let mut volumes = words(process.and_then(|process| process.volumes().as_ref()));
    volumes.retain(|to| !to.is_empty());
    if !volumes.is_empty() {
        volumes.sort();
        let options = ["rw", "nosuid", "nodev", "noexec", "relatime"];
        // A relative one begins at `/` (OCI runtime specification, `config.md`, "Mounts"), and should not be.
        let mount = |to: &String| {
            let to = Path::new("/").join(to);
            json!({ "destination": to, "type": "tmpfs", "source": "none", "options": options })
        };
        spec["mounts"] = volumes.iter().map(mount).collect();
    }
    serde_json::from_value(spec)
        .map_err(|e| Error::corrupt("the configuration has no form for a runtime").with_source(e))
}

/// What the configuration implies, and its labels, which come before that.
fn annotations(config: &RawConfig) -> Map<String, Value> {
    let document = config.document();
    let process = document.config().as_ref();
    let list = |list: Option<&Vec<String>>| {
        let mut list = list.cloned().unwrap_or_default();
        list.sort();
        list.join(",")
    };
    let features = document.os_features().as_ref().map(|features| features.join(","));
    let implied = [
        ("architecture", Some(document.architecture().to_string())),
        ("author", document.author().clone()),
        ("created", document.created().clone()),
        ("exposedPorts", Some(list(process.and_then(|process| process.exposed_ports().as_ref())))),
        ("os", Some(document.os().to_string())),
        ("os.features", features),
        ("os.version", document.os_version().clone()),
        ("stopSignal", process.and_then(|process| process.stop_signal().clone())),
        ("variant", document.variant().clone()),
    ];
    let implied = implied.into_iter().filter_map(|(key, value)| {
        let value = value.filter(|value| !value.is_empty())?;
        Some((format!("org.opencontainers.image.{key}"), value))
    });
    let labels = process.and_then(|process| process.labels().clone()).into_iter().flatten();
    // Keys must not be empty (OCI runtime specification, `config.md`, "Annotations").
    let labels = labels.filter(|(key, _)| !key.is_empty());
    let all: BTreeMap<String, String> = implied.chain(labels).collect();
    all.into_iter().map(|(key, value)| (key, value.into())).collect()
}

/// Whether the user of an image is given by a name, or without a group, so that [`runtime_spec`] reads files of the image.
pub fn names_a_user(config: &RawConfig) -> bool {
    match parts(config) {
        None => false,
        Some((user, Some(group))) => number(&user).is_none() || number(&group).is_none(),
        Some((_, None)) => true,
    }
}

/// A user as a kernel knows it.
#[derive(Debug, Default)]
struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// The user and the group, if there are any.
fn parts(config: &RawConfig) -> Option<(String, Option<String>)> {
    let user = config.document().config().as_ref()?.user().clone().filter(|user| !user.is_empty())?;
    Some(match user.split_once(':') {
        Some((user, group)) => (user.to_owned(), Some(group.to_owned()).filter(|group| !group.is_empty())),
        None => (user, None),
    })
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The user of the configuration (`config.md`, property `User`): `user`, `uid`, each with `:group` or `:gid` behind it.
/// One that is not defined is root.
fn user(config: &RawConfig, files: &mut dyn Files) -> Result<User> {
    let Some((name, group)) = parts(config) else { return Ok(User::default()) };
    let uid = number(&name);
    let mut user = User { uid: uid.unwrap_or_default(), ..User::default() };
    if uid.is_none() || group.is_none() {
        let passwd = lines(files, PASSWD)?;
        let found = passwd.iter().find(|line| match uid {
            Some(uid) => line.get(2).and_then(|field| number(field)) == Some(uid),
            None => line[0] == name,
        });
        match found {
            Some(line) => (user.uid, user.gid) = (field(line, 2)?, field(line, 3)?),
            None if uid.is_none() => return Err(UserFault::Unknown(name, PASSWD).into()),
            None => {}
        }
    }
    match group {
        Some(group) => user.gid = gid(&group, files)?,
        // The groups of one that is a number are left alone.
        None if uid.is_none() => {
            for line in lines(files, GROUP)? {
                if line.get(3).is_some_and(|members| members.split(',').any(|member| member == name)) {
                    user.groups.push(field(&line, 2)?);
                }
            }
        }
        None => {}
    }
    Ok(user)
}

fn gid(group: &str, files: &mut dyn Files) -> Result<u32> {
    if let Some(gid) = number(group) {
        return Ok(gid);
    }
    let lines = lines(files, GROUP)?;
    let line = lines.iter().find(|line| line[0] == group);
    field(line.ok_or_else(|| UserFault::Unknown(group.to_owned(), GROUP))?, 2)
}

fn field(line: &[String], at: usize) -> Result<u32> {
    let field = line.get(at).map_or("", String::as_str);
    number(field).ok_or_else(|| UserFault::Number(format!("{field:?} of {:?}", line[0])).into())
}

/// The lines of a file of users or groups, in fields; without comments. One that is not there has none.
fn lines(files: &mut dyn Files, path: &str) -> Result<Vec<Vec<String>>> {
    let mut bytes = Vec::new();
    let read = files.read(path.as_bytes(), &mut |piece| {
        if bytes.len() + piece.len() > FILE_LIMIT {
            let message = format!("{path} of the image has more than {}", Size(FILE_LIMIT as u64));
            return Err(Error::limit(message));
        }
        bytes.extend_from_slice(piece);
        Ok(())
    });
    match read {
        Err(e) if matches!(e.detail(), Some(FilesFault::Missing(_))) => return Ok(Vec::new()),
        read => read?,
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|line| line.split(':').map(str::to_owned).collect()).collect())
}
