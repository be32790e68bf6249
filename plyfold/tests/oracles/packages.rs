//! The hash of a directory, as git has it.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use plyfold::package::tree_hash;
use plyfold_conformance::oracle::{Run, Verdict};

/// Names that sort differently as files and as directories, names that are no UTF-8, empty and large files, modes, links
/// of every kind, empty directories, and files that git would ignore or convert.
pub(crate) fn git_makes_the_same_tree_of_a_package() -> Verdict {
    let base = tempfile::tempdir()?;
    let package = base.path().join("package");
    for dir in ["a", "a.b", "a-b/c/d", "a0", "empty/within", "modes"] {
        fs::create_dir_all(package.join(dir))?;
    }
    for name in ["a/file", "a.b/file", "a-b/c/d/file", "a0/file", "a.", "a-", "z", "A", "ä"] {
        fs::write(package.join(name), name)?;
    }
    fs::write(package.join(OsStr::from_bytes(b"a\xff\xfe")), "no UTF-8")?;
    fs::write(package.join(OsStr::from_bytes(b"new\nline \t\"quoted\"")), "")?;
    fs::write(package.join("large"), vec![7; (1 << 20) + 3])?;
    fs::write(package.join("crlf.txt"), "a\r\nb\r\n")?;
    fs::write(package.join(".gitignore"), "ignored\nz\n")?;
    fs::write(package.join("ignored"), "but added by force")?;
    for mode in [0o400, 0o444, 0o544, 0o600, 0o611, 0o644, 0o654, 0o700, 0o755, 0o777, 0o4755] {
        let file = package.join(format!("modes/{mode:o}"));
        fs::write(&file, "")?;
        fs::set_permissions(&file, Permissions::from_mode(mode))?;
    }
    for (name, target) in [("link", "a/file"), ("to-a-directory", "a"), ("dangling", "/nowhere/..")] {
        symlink(target, package.join(name))?;
    }
    symlink(OsStr::from_bytes(b"\xff"), package.join("to-no-utf-8"))?;
    fs::hard_link(package.join("large"), package.join("large-too"))?;

    let ours = tree_hash(&package)?;
    let git = |arguments: &[&str]| {
        let git = Run::new("git").arg("-C").arg(&package).args(["-c", "core.autocrlf=false"]);
        git.args(arguments).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", base.path()).success()
    };
    git(&["init", "--quiet"])?;
    git(&["add", "--all", "--force"])?;
    let theirs = git(&["write-tree"])?.stdout;
    assert_eq!(ours, theirs.trim_end(), "{}", git(&["ls-files", "--stage"])?.stdout);
    // The repository itself does not count.
    assert_eq!(tree_hash(&package)?, ours);
    let sub = git(&["write-tree", "--prefix=a-b/"])?.stdout;
    assert_eq!(tree_hash(&package.join("a-b"))?, sub.trim_end());
    Ok(())
}
