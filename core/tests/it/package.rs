//! Names that are derived from directories.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use plyfold_core::package::{GitTree, tree_hash};
use plyfold_core::{ErrorKind, PackageResolver, Result};
use tempfile::TempDir;

/// A package `Init_1` with one file.
fn base() -> TempDir {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("Init_1")).unwrap();
    fs::write(base.path().join("Init_1/run.sh"), "exec true\n").unwrap();
    base
}

/// What git says of that package.
const HASH: &str = "b6414047ec9a0c4841e6b1e8922402d824047dc4";

#[test]
fn templates_become_names() {
    let base = base();
    let packages = GitTree::new(base.path());
    let own = GitTree::new(base.path().join("Init_1"));
    for (packages, template, name) in [
        (&packages, "@pkg:./Init_1", "init-1:HASH"),
        (&packages, "@pkg:Init_1/", "init-1:HASH"),
        (&packages, "ghcr.io/org/{name}:{hash}@pkg:Init_1", "ghcr.io/org/init-1:HASH"),
        (&packages, "oci:out:{hash}@pkg:Init_1", "oci:out:HASH"),
        (&packages, "ghcr.io/org/app:1@pkg:Init_1", "ghcr.io/org/app:1"),
        (&own, "registry.lan:5000/{name}:{hash}", "registry.lan:5000/init-1:HASH"),
        (&own, "registry.lan:5000/app:{hash}-{hash}", "registry.lan:5000/app:HASH-HASH"),
    ] {
        let resolved = packages.name(template).unwrap();
        assert_eq!(resolved, Some(name.replace("HASH", HASH)), "{template}");
    }
    for name in ["alpine", "ghcr.io/org/app:1", "oci:dir:tag", "app@sha256:00", "", "{tag}"] {
        assert_eq!(packages.name(name).unwrap(), None, "{name}");
    }
}

#[test]
fn what_cannot_be_resolved_is_an_error() {
    let base = base();
    let packages = GitTree::new(base.path());
    let error = |template| packages.name(template).unwrap_err();
    let unknown = error("ghcr.io/{org}/{name}:{hash}@pkg:Init_1");
    assert_eq!(*unknown.kind(), ErrorKind::Config);
    assert!(unknown.hint().unwrap().contains("ghcr.io/org/{name}:{hash}"), "{unknown}");
    let absent = error("@pkg:absent");
    assert_eq!(*absent.kind(), ErrorKind::NotFound);
    assert!(absent.context("path").unwrap().ends_with("absent"), "{absent}");
    for template in ["@pkg:Init_1/run.sh", "@pkg:", "app:{hash}@pkg:"] {
        let error = error(template);
        assert_eq!(*error.kind(), ErrorKind::Config, "{template}");
        assert!(error.hint().unwrap().contains("a directory"), "{template}: {error:#}");
    }
}

#[tokio::test]
async fn a_closure_is_a_resolver() {
    let latest = |text: &str| -> Result<Option<String>> {
        Ok(text.strip_prefix("latest:").map(|name| format!("registry.lan/{name}:7")))
    };
    let resolvers: [Box<dyn PackageResolver>; 2] = [Box::new(latest), Box::new(GitTree::new(base().path()))];
    assert_eq!(resolvers[0].resolve("latest:app").await.unwrap().as_deref(), Some("registry.lan/app:7"));
    assert_eq!(resolvers[0].resolve("app:7").await.unwrap(), None);
    assert_eq!(resolvers[1].resolve("app:7").await.unwrap(), None);
}

#[test]
fn what_git_does_not_hold_is_refused() {
    let refused = |dir: &Path, file: &str| {
        let error = tree_hash(dir).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.context("path").unwrap().ends_with(file), "{error}");
        error
    };
    let socket = base();
    let _listener = UnixListener::bind(socket.path().join("Init_1/socket")).unwrap();
    refused(socket.path(), "socket");
    let nested = base();
    fs::create_dir(nested.path().join("Init_1/.git")).unwrap();
    assert!(refused(nested.path(), "Init_1").hint().is_some());
    assert_eq!(tree_hash(&nested.path().join("Init_1")).unwrap(), HASH);
}

/// The hash changes with names, content, modes and targets, and with nothing else.
#[test]
fn what_counts_is_what_git_records() {
    let base = base();
    let package = base.path().join("Init_1");
    let file = package.join("run.sh");
    let hash = || tree_hash(&package).unwrap();
    fs::create_dir_all(package.join("empty/within")).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(hash(), HASH);
    let mut seen = vec![hash()];
    let mut is_new = |hash: String| {
        assert!(!seen.contains(&hash), "{hash}");
        seen.push(hash);
    };
    fs::set_permissions(&file, Permissions::from_mode(0o744)).unwrap();
    is_new(hash());
    fs::write(&file, "exec false\n").unwrap();
    is_new(hash());
    fs::rename(&file, package.join(OsStr::from_bytes(b"run\xff"))).unwrap();
    is_new(hash());
    symlink("nowhere", package.join("link")).unwrap();
    is_new(hash());
    fs::remove_file(package.join("link")).unwrap();
    symlink("elsewhere", package.join("link")).unwrap();
    is_new(hash());
}

#[test]
fn a_directory_without_files_has_the_empty_tree() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(tree_hash(empty.path()).unwrap(), "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
}
