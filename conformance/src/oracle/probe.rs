//! Whether a machine has what a test needs.

use std::sync::OnceLock;

use super::guest::parts;
use super::mount::Mount;
use super::need::{Need, debian_root, find, guest_folder};
use super::run::Run;

impl Need {
    /// Why the need is not met, in one clause; `None` when it is.
    pub fn missing(&self) -> Option<String> {
        match self {
            Self::DebianRoot => {
                let root = debian_root();
                let made = root.join("etc/plyfold-bare").exists();
                (!made).then(|| format!("{} is no Debian root: run .ci/bare true", root.display()))
            }
            Self::FileSystem(name) => (!kernel_has(name)).then(|| format!("the kernel has no {name}")),
            Self::Guest => {
                let lacks = |path: &std::path::PathBuf| !path.exists();
                let missing = parts(&guest_folder()).into_iter().find(lacks)?;
                Some(format!("{} is missing: run .ci/guest", missing.display()))
            }
            Self::Mounts => (!may_mount()).then(|| "mounting is not allowed: run as root".to_owned()),
            Self::Peer(name) => {
                find(name).is_none().then(|| format!("{name} is missing, and not in this Debian"))
            }
            Self::Tool { name, package } => {
                find(name).is_none().then(|| format!("{name} is missing: install {package}"))
            }
            Self::Tracing => {
                let strace = Self::Tool { name: "strace", package: "strace" };
                strace
                    .missing()
                    .or_else(|| (!may_trace()).then(|| "tracing a process is not allowed".to_owned()))
            }
        }
    }
}

fn kernel_has(file_system: &str) -> bool {
    let listed = || {
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        known.lines().any(|line| line.split_whitespace().next_back() == Some(file_system))
    };
    listed() || (Run::new("modprobe").arg(file_system).success().is_ok() && listed())
}

fn may_mount() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| Mount::new("tmpfs", "none", "size=64k").is_ok())
}

fn may_trace() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| Run::new("strace").args(["-f", "-o", "/dev/null", "true"]).success().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_machine_has_is_found() {
        assert_eq!(Need::Tool { name: "sh", package: "dash" }.missing(), None);
        assert_eq!(Need::FileSystem("proc").missing(), None);
        assert!(Need::FileSystem("plyfoldfs").missing().is_some());
        assert!(Need::Peer("plyfold-no-such-peer").missing().is_some());
    }
}
