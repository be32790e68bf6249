//! What a worker does to its store, as strace sees it.

use std::fs;
use std::path::{Path, PathBuf};

use plyfold_conformance::oracle::{Failure, Run};

use crate::scene::Scene;
use crate::worker;

/// The system calls that change files; `?` for those that not every architecture has.
const CHANGING: &str = "openat,?open,?creat,?mkdir,mkdirat,?mknod,mknodat,write,writev,pwrite64,pwritev,\
    ?pwritev2,copy_file_range,sendfile,splice,fallocate,ftruncate,truncate,?chmod,fchmod,fchmodat,fchown,fchownat,\
    fsetxattr,setxattr,fdatasync,fsync,sync_file_range,syncfs,?rename,?renameat,renameat2,?link,linkat,?symlink,\
    symlinkat,?unlink,unlinkat,?rmdir,utimensat,flock";

/// One system call on the store.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) thread: String,
    /// What it works on, within the store.
    pub(crate) path: PathBuf,
    /// What it is renamed to.
    pub(crate) to: Option<PathBuf>,
    /// The lines on which it begins and has ended.
    pub(crate) from: usize,
    pub(crate) until: usize,
}

/// All calls of a worker that is given `orders` for the store; the last one is the report of its success.
pub(crate) fn record(scene: &Scene, store: &Path, orders: &str) -> Result<Vec<Call>, Failure> {
    let log = store.with_extension("log");
    let run = Run::new("strace").args(["-f", "-y", "-s", "4096", "-e"]).arg(format!("trace={CHANGING}"));
    let run = run.arg("-o").arg(&log).arg(std::env::current_exe()?);
    scene.directed(run, store, orders).success()?;
    let calls = parse(&fs::read_to_string(&log)?, store.to_str().unwrap_or_default());
    if calls.is_empty() {
        return Err(Failure::new("the trace shows no call"));
    }
    Ok(calls)
}

fn parse(log: &str, store: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for (at, line) in log.lines().enumerate() {
        let Some((thread, what)) = line.split_once(' ') else { continue };
        let what = what.trim_start();
        if let Some(resumed) = what.strip_prefix("<... ") {
            let begun = calls.iter_mut().rev().find(|call| {
                call.thread == thread && call.until == usize::MAX && resumed.starts_with(&call.name)
            });
            if let Some(call) = begun {
                call.until = at;
            }
            continue;
        }
        let Some((name, arguments)) = what.split_once('(') else { continue };
        let changes = !name.starts_with("open") && name != "creat" || arguments.contains("O_CREAT");
        let mut paths = arguments.split(['"', '<', '>']).filter_map(|text| within(store, text));
        let path = match paths.next() {
            Some(path) if changes => path,
            None if arguments.contains(&format!("\"{}", worker::DONE)) => "reported".into(),
            _ => continue,
        };
        let until = if line.ends_with("<unfinished ...>") { usize::MAX } else { at };
        let to = name.starts_with("rename").then(|| paths.next()).flatten();
        calls.push(Call { name: name.to_owned(), thread: thread.to_owned(), path, to, from: at, until });
    }
    calls
}

fn within(store: &str, text: &str) -> Option<PathBuf> {
    let inner = text.strip_prefix(store)?;
    (inner.is_empty() || inner.starts_with('/')).then(|| inner.trim_start_matches('/').into())
}
