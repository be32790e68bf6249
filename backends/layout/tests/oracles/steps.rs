//! kill -9, and failures of the disk, at every system call that changes the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use plyfold_conformance::oracle::{Captured, Failure, Run, Verdict};
use plyfold_layout::Store;

use crate::scene::{self, NEW, OLD, Scene, Start};
use crate::trace::record;
use crate::worker;

/// Rule D 127, and with it D 128 `index_old_or_new_never_torn` and D 131 `stale_lock_of_dead_owner_recovered`.
pub(crate) fn kill_at_every_syscall_leaves_openable_store() -> Verdict {
    let scene = Scene::new()?;
    let eviction = format!("{}{OLD}", worker::EVICT);
    let mut struck = 0;
    for (start, orders) in [(Start::Nothing, ""), (Start::Old, NEW), (Start::Both, &eviction)] {
        struck += sweep(&scene, start, orders, |_, _| vec![Blow::Kill])?;
    }
    assert!(struck > 150, "{struck} steps are not all that such work takes");
    Ok(())
}

/// Rule D 132. Writes that the disk takes in part are in `a_disk_of_any_size_leaves_no_trace`.
pub(crate) fn enospc_eio_short_write_clean_fail() -> Verdict {
    let scene = Scene::new()?;
    let mut struck = 0;
    for (start, orders) in [(Start::Nothing, ""), (Start::Old, NEW)] {
        struck += sweep(&scene, start, orders, |syscall, path| match syscall {
            // Without this note the next open reads what it need not read.
            _ if path == Some(Path::new("locks/boot")) => Vec::new(),
            // A failure of any call, such as reading a library, is not ours to report.
            _ if path.is_none() => Vec::new(),
            // What cannot be removed stays and harms nobody, and what cannot be touched is older than it could be.
            "unlink" | "unlinkat" | "utimensat" => Vec::new(),
            "fchmod" | "flock" | "ftruncate" => vec![Blow::Error("EIO")],
            "mkdir" | "mkdirat" | "openat" => vec![Blow::Error("ENOSPC")],
            _ => vec![Blow::Error("EIO"), Blow::Error("ENOSPC")],
        })?;
    }
    assert!(struck > 150, "{struck} steps are not all that such a pull takes");
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Blow {
    Error(&'static str),
    Kill,
}

/// One place where a worker is struck.
#[derive(Debug)]
struct Step {
    syscall: String,
    /// `None` for files that have another name each time: any call of the kind is struck then.
    path: Option<PathBuf>,
    blow: Blow,
    /// The blobs that are in the store already.
    held: Vec<PathBuf>,
}

/// Strikes a worker wherever it changes the store, each time in a store of its own; how often that was.
fn sweep(
    scene: &Scene,
    start: Start,
    orders: &str,
    blows: impl Fn(&str, Option<&Path>) -> Vec<Blow>,
) -> Result<usize, Failure> {
    let steps = Mutex::new(steps(scene, start, orders, blows)?);
    let next = || steps.lock().ok()?.pop();
    let crew = |number: usize| -> Result<usize, Failure> {
        let mut all = 0;
        while let Some(step) = next() {
            let mut struck = 0;
            while strike(scene, start, orders, &step, struck + 1, number)
                .map_err(|e| Failure::new(format!("{step:?}, time {}: {e:?}", struck + 1)))?
            {
                struck += 1;
            }
            if struck == 0 {
                return Err(Failure::new(format!("{step:?} was not reached")));
            }
            all += struck;
        }
        Ok(all)
    };
    std::thread::scope(|scope| {
        let crews: Vec<_> = (0..3).map(|number| scope.spawn(move || crew(number))).collect();
        crews.into_iter().map(|crew| crew.join().unwrap_or_else(|_| Err(Failure::new("a panic")))).sum()
    })
}

/// Where a worker that is let alone changes the store.
fn steps(
    scene: &Scene,
    start: Start,
    orders: &str,
    blows: impl Fn(&str, Option<&Path>) -> Vec<Blow>,
) -> Result<Vec<Step>, Failure> {
    let calls = record(scene, &scene.store("recorded", start)?, orders)?;
    let published = calls.iter().filter_map(|call| call.to.clone());
    let published: Vec<PathBuf> = published.filter(|to| to.starts_with("blobs")).collect();
    let mut places = BTreeMap::<(String, Option<PathBuf>), BTreeSet<String>>::new();
    for call in calls.iter().filter(|call| call.path != Path::new("reported")) {
        let path =
            Some(&call.path).filter(|path| !path.to_string_lossy().starts_with("ingest/lease-")).cloned();
        places.entry((call.name.clone(), path)).or_default().insert(call.thread.clone());
    }
    let mut steps = Vec::new();
    for ((syscall, path), threads) in places {
        // strace counts for each thread, and each blob has its own: the second one there is the first when the
        // blob of the one before is in the store.
        let rounds = if path.is_some() { threads.len().min(published.len() + 1) } else { 1 };
        let all = blows(&syscall, path.as_deref()).into_iter();
        for (blow, held) in all.flat_map(|blow| (0..rounds).map(move |held| (blow, held))) {
            let (syscall, path, held) = (syscall.clone(), path.clone(), published[..held].to_vec());
            steps.push(Step { syscall, path, blow, held });
        }
    }
    Ok(steps)
}

/// Whether the worker came there for the `nth` time. If so, it was struck, and the store has survived.
fn strike(
    scene: &Scene,
    start: Start,
    orders: &str,
    step: &Step,
    nth: usize,
    crew: usize,
) -> Result<bool, Failure> {
    let store = scene.store(&format!("struck-{crew}"), start)?;
    for blob in &step.held {
        fs::copy(scene.after.join(blob), store.join(blob))?;
    }
    let log = store.with_extension("log");
    let syscall = &step.syscall;
    let how = match step.blow {
        Blow::Error(error) => format!("error={error}"),
        Blow::Kill => "signal=SIGKILL".to_owned(),
    };
    let run = Run::new("strace").args(["-f", "-y", "-e", &format!("trace={syscall}"), "-e"]);
    let run = run.arg(format!("inject={syscall}:{how}:when={nth}")).arg("-o").arg(&log);
    let run = match &step.path {
        // Without a slash at its end.
        Some(path) if path.as_os_str().is_empty() => run.arg("-P").arg(&store),
        Some(path) => run.arg("-P").arg(store.join(path)),
        None => run,
    };
    let run = run.arg(std::env::current_exe()?).limit(Duration::from_secs(60));
    let said = scene.directed(run, &store, orders).output()?;
    match step.blow {
        Blow::Kill if said.status.signal() == Some(9) => {}
        Blow::Error(_) if refused(&fs::read_to_string(&log)?, &said)? => {
            // Only the lock gives the right to remove a file.
            if syscall != "flock" && store.exists() {
                scene::nothing_in_progress(&store)?;
            }
        }
        _ if said.status.success() => return Ok(false),
        _ => return Err(Failure::new(said)),
    }
    match start {
        Start::Nothing => {}
        Start::Old => scene.survives(&store, matches!(step.blow, Blow::Error(_)))?,
        Start::Both => {
            scene::sound(&store)?;
            scene::whole(&Store::open(&store)?, NEW)?;
        }
    }
    scene.heals(&store)?;
    Ok(true)
}

/// Whether a call was answered by an error. If so, the worker has reported it as such, and has not tried again.
fn refused(log: &str, said: &Captured) -> Result<bool, Failure> {
    let Some((_, after)) = log.split_once("(INJECTED)") else { return Ok(false) };
    let reported = said.stdout.starts_with(&format!("{}Io ", worker::FAILED));
    if !reported || said.status.code() != Some(1) {
        return Err(Failure::new(format!("no clean error: {said}")));
    }
    if after.lines().any(|line| line.contains("sync(") || line.contains("rename")) {
        return Err(Failure::new(format!("it was tried again:\n{log}")));
    }
    Ok(true)
}
