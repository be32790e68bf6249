//! What a worker does to its cache, as strace sees it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::fixture::DurabilityFixture;
use super::worker::{DONE, directed, myself};
use crate::oracle::{Failure, Run};

/// The system calls that change files, and those that open them; `?` for those that not every architecture has.
const CALLS: &str = "openat,?openat2,?open,?creat,?mkdir,mkdirat,?mknod,mknodat,write,writev,pwrite64,pwritev,\
    ?pwritev2,copy_file_range,sendfile,splice,fallocate,ftruncate,truncate,?chmod,fchmod,fchmodat,fchown,fchownat,\
    fsetxattr,setxattr,fdatasync,fsync,sync_file_range,syncfs,?rename,?renameat,renameat2,?link,linkat,?symlink,\
    symlinkat,?unlink,unlinkat,?rmdir,utimensat,flock";

/// One system call on the cache.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) thread: String,
    /// What it works on, within the cache.
    pub(super) path: PathBuf,
    /// What strace knows it by: its path, or the folder that it is relative to.
    pub(super) by: PathBuf,
    /// Its number, from 1, among the calls of this name in its thread, on whatever they are.
    pub(super) nth: usize,
    /// The further name that it gives to it.
    pub(super) to: Option<PathBuf>,
    /// Whether it only opens what is there, to be read or to be locked.
    pub(super) opens: bool,
    /// The lines on which it begins and has ended.
    pub(super) from: usize,
    pub(super) until: usize,
}

impl Call {
    /// Whether it is the report of the worker's success.
    pub(super) fn is_report(&self) -> bool {
        self.path == Path::new("reported")
    }

    /// Whether it changes the content of a file.
    pub(super) fn writes(&self) -> bool {
        ["write", "trunc", "falloc", "copy", "sendfile", "splice"].iter().any(|part| self.name.contains(part))
    }

    pub(super) fn syncs(&self) -> bool {
        self.name == "fsync" || self.name == "fdatasync"
    }
}

/// All calls of a worker that is given `orders`; the last one is the report of its success.
pub(super) fn record(
    fixture: &dyn DurabilityFixture,
    store: &Path,
    orders: &str,
) -> Result<Vec<Call>, Failure> {
    let log = store.with_extension("log");
    let run = Run::new("strace").args(["-f", "-y", "-s", "4096", "-e"]).arg(format!("trace={CALLS}"));
    let run = run.arg("-o").arg(&log).arg(myself()?);
    directed(run, fixture, store, orders).success()?;
    let calls = parse(&fs::read_to_string(&log)?, store.to_str().unwrap_or_default());
    if calls.iter().all(Call::is_report) {
        return Err(Failure::new("the trace shows no call"));
    }
    Ok(calls)
}

/// The call on the cache in one line of a log.
pub(super) fn call(line: &str, store: &Path) -> Option<Call> {
    parse(line, store.to_str().unwrap_or_default()).pop()
}

fn parse(log: &str, store: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut numbers = HashMap::<(&str, &str), usize>::new();
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
        let nth = numbers.entry((thread, name)).or_default();
        *nth += 1;
        let nth = *nth;
        let mut named = paths(name, arguments, store).into_iter();
        let (path, by) = match named.next() {
            Some(found) => found,
            None if arguments.contains(&format!("\"{DONE}")) => ("reported".into(), PathBuf::new()),
            None => continue,
        };
        let until = if line.ends_with("<unfinished ...>") { usize::MAX } else { at };
        let gives = name.starts_with("rename") || name.starts_with("link");
        let to = named.next().filter(|_| gives).map(|(to, _)| to);
        let opens =
            name.starts_with("open") && !["O_CREAT", "O_TRUNC"].iter().any(|how| arguments.contains(how));
        let (name, thread) = (name.to_owned(), thread.to_owned());
        calls.push(Call { name, thread, path, by, nth, to, opens, from: at, until });
    }
    calls
}

/// The paths in the cache among a call's arguments, and what strace knows each by.
fn paths(name: &str, arguments: &str, store: &str) -> Vec<(PathBuf, PathBuf)> {
    // The path of a descriptor stands in <>, a text in "".
    let relative = name != "creat" && (name.ends_with("at") || name.ends_with("at2"));
    let mut found = Vec::new();
    let mut folder: Option<PathBuf> = None;
    let mut rest = arguments;
    while let Some(start) = rest.find(['"', '<']) {
        let (quote, inner) = rest[start..].split_at(1);
        let Some(end) = inner.find(if quote == "<" { '>' } else { '"' }) else { break };
        let text = &inner[..end];
        rest = &inner[end + 1..];
        match (quote, within(store, text), folder.take()) {
            ("<", Some(path), _) if relative => folder = Some(path),
            (_, Some(path), _) => found.push((path.clone(), path)),
            ("\"", None, Some(folder)) => found.push((folder.join(text), folder)),
            _ => {}
        }
        // What is written is no name.
        if !relative && quote == "<" {
            break;
        }
    }
    found
}

fn within(store: &str, text: &str) -> Option<PathBuf> {
    let inner = text.strip_prefix(store)?;
    (inner.is_empty() || inner.starts_with('/')).then(|| inner.trim_start_matches('/').into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_out_of_a_log() {
        let log = "7 openat(AT_FDCWD</tmp>, \"/tmp/s/ingest/x\", O_RDWR|O_CREAT, 0600) = 3</tmp/s/ingest/x>\n\
            8 write(3</tmp/s/ingest/x>, \"see \\\"/tmp/s/blobs\", 9 <unfinished ...>\n\
            7 openat(4</tmp/s>, \"index.json\", O_RDONLY) = 5\n\
            8 <... write resumed>) = 9\n\
            8 rename(\"/tmp/s/ingest/x\", \"/tmp/s/index.json\") = 0\n\
            8 renameat2(4</tmp/s/ingest>, \"y\", 4</tmp/s>, \"z\", 0) = 0\n\
            8 fsync(6</tmp/s>) = 0\n\
            8 fsync(6</tmp/store>) = 0\n\
            7 write(1</tmp/out>, \"done all\\n\", 9) = 9\n";
        let calls = parse(log, "/tmp/s");
        let text = |path: &PathBuf| path.display().to_string();
        let lines: Vec<_> = calls
            .iter()
            .map(|call| {
                let to = call.to.as_ref().map(text).unwrap_or_default();
                let (path, by) = (text(&call.path), text(&call.by));
                format!(
                    "{}{} {path}|{by}|{to} {} {}-{}",
                    call.name, call.nth, call.opens, call.from, call.until
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                "openat1 ingest/x|ingest/x| false 0-0",
                "write1 ingest/x|ingest/x| false 1-3",
                "openat2 index.json|| true 2-2",
                "rename1 ingest/x|ingest/x|index.json false 4-4",
                "renameat21 ingest/y|ingest|z false 5-5",
                "fsync1 || false 6-6",
                "write1 reported|| false 8-8",
            ]
        );
    }
}
