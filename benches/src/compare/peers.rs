//! The programs that plyfold is compared with: found, or built.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

use crate::result::Result;

/// A program as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

/// How a program shows its version, and what brings it.
const PROGRAMS: &[(&str, &[&str], &str)] = &[
    ("crane", &["version"], ".ci/peers brings it"),
    ("curl", &["--version"], "Debian's package curl"),
    ("cp", &["--version"], "Debian's package coreutils"),
    ("docker-registry", &["--version"], "Debian's package docker-registry"),
    ("fsck.erofs", &["--version"], "Debian's package erofs-utils, or .ci/peers"),
    ("mke2fs", &["-V"], "Debian's package e2fsprogs"),
    ("mkfs.erofs", &["--version"], "Debian's package erofs-utils, or .ci/peers"),
    ("openssl", &["version"], "Debian's package openssl"),
    ("oras", &["version"], ".ci/peers brings it"),
    ("plyfold-s3-service", &["--version"], ".ci/services builds it"),
    ("sha256sum", &["--version"], "Debian's package coreutils"),
    ("skopeo", &["--version"], "Debian's package skopeo"),
    ("tar", &["--version"], "Debian's package tar"),
    ("umoci", &["--version"], "Debian's package umoci"),
    ("veritysetup", &["--version"], "Debian's package cryptsetup-bin"),
    ("zstd", &["--version"], "Debian's package zstd"),
];

/// What is built of [`Peers::microsandbox`].
const MICROSANDBOX: &str = "benches/peers/microsandbox/Cargo.toml";

/// Each program is looked for once.
#[derive(Default)]
pub(crate) struct Peers(RefCell<BTreeMap<String, std::result::Result<Peer, String>>>);

impl Peers {
    /// The program, or why there is none: `MKFS_EROFS` and its like name one; else the newest of `PATH`, the folders of
    /// administrators, and what `.ci/peers` brings.
    pub(crate) fn find(&self, name: &str) -> std::result::Result<Peer, String> {
        self.once(name, || {
            let (_, version, brought) =
                PROGRAMS.iter().find(|(known, ..)| *known == name).ok_or(format!("{name} is not known"))?;
            let variable = env::var_os(name.to_uppercase().replace(['.', '-'], "_"));
            let path = variable.map(PathBuf::from).or_else(|| in_path(name));
            let path = path.ok_or_else(|| format!("{name} is missing: {brought}"))?;
            Ok(Peer { version: first_line(&path, version), path })
        })
    }

    /// The driver of microsandbox-image: `MICROSANDBOX_DRIVER`, or what cargo builds in a folder of its own.
    pub(crate) fn microsandbox(&self) -> std::result::Result<Peer, String> {
        self.once("microsandbox-image", || {
            let version = "microsandbox-image 0.7.13".to_owned();
            if let Some(path) = env::var_os("MICROSANDBOX_DRIVER") {
                return Ok(Peer { path: path.into(), version });
            }
            let target = root().join("target/compare-peers");
            let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut build = Command::new(cargo);
            build
                .args(["build", "--release", "--locked", "--quiet", "--manifest-path"])
                .arg(root().join(MICROSANDBOX));
            match build.env("CARGO_TARGET_DIR", &target).status() {
                Ok(status) if status.success() => {}
                Ok(status) => return Err(format!("building microsandbox-image: {status}")),
                Err(error) => return Err(format!("building microsandbox-image: {error}")),
            }
            let path = target.join("release/microsandbox-driver");
            Ok(Peer { path, version })
        })
    }

    fn once(
        &self,
        name: &str,
        find: impl FnOnce() -> std::result::Result<Peer, String>,
    ) -> std::result::Result<Peer, String> {
        if let Some(found) = self.0.borrow().get(name) {
            return found.clone();
        }
        let found = find();
        self.0.borrow_mut().insert(name.to_owned(), found.clone());
        found
    }
}

/// The command under measurement: `PLYFOLD`, or that beside this program, which is of the commit that is checked out.
pub(crate) fn plyfold() -> Result<Peer> {
    let named = env::var_os("PLYFOLD").map(PathBuf::from);
    let commit = if named.is_some() { String::new() } else { commit() };
    let path = named.map_or_else(|| Ok::<_, io::Error>(env::current_exe()?.with_file_name("plyfold")), Ok)?;
    if !path.exists() {
        return Err(format!("{} is missing: cargo build --release -p plyfold", path.display()).into());
    }
    Ok(Peer { version: format!("{}{commit}", first_line(&path, &["--version"])), path })
}

fn commit() -> String {
    let commit = Command::new("git").current_dir(root()).args(["describe", "--always", "--dirty"]).output();
    commit.map_or_else(
        |_| String::new(),
        |output| format!(" {}", String::from_utf8_lossy(&output.stdout).trim()),
    )
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn in_path(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let more = [
        root().join("target/peers/usr/bin"),
        root().join("target/services/bin"),
        "/usr/sbin".into(),
        "/sbin".into(),
    ];
    let folders: Vec<PathBuf> = env::split_paths(&folders).chain(more).collect();
    [format!("{name}-forky"), name.to_owned()]
        .iter()
        .find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()))
}

/// The first line that a program writes, to either stream.
fn first_line(path: &Path, arguments: &[&str]) -> String {
    let output = Command::new(path).args(arguments).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else {
        return format!("{}, unknown version", path.file_name().unwrap_or_default().display());
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_has_its_reason_and_what_is_there_a_version() {
        let peers = Peers::default();
        assert!(peers.find("no-such-program").unwrap_err().contains("not known"));
        let cp = peers.find("cp").unwrap();
        assert!(cp.path.is_absolute() && cp.version.contains("cp"), "{cp:?}");
    }
}
