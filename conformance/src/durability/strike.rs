//! One worker, struck once, and what it leaves.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::blow::{Blow, Step, Sweep};
use super::fixture::Role;
use super::scene::{self, Start};
use super::trace::call;
use super::worker::{FAILED, directed, myself};
use crate::oracle::{Captured, Failure, Run};

/// Where a blow has landed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Landing {
    /// At a call on something else.
    Elsewhere,
    /// Nowhere: the worker was done before.
    Missed,
    /// Where it should, once for each thread that went on until then, and the cache has survived.
    Struck(usize),
}

/// Strikes a worker when one of its threads makes the call of a step for the `nth` time.
pub(super) fn strike(
    sweep: &Sweep,
    step: &Step,
    held: &[PathBuf],
    nth: usize,
    crew: usize,
) -> Result<Landing, Failure> {
    let (scene, start) = (sweep.scene, sweep.start);
    let store = scene.store(&format!("struck-{crew}"), start)?;
    for blob in held {
        fs::copy(scene.full.join(blob), store.join(blob))?;
    }
    let log = store.with_extension("log");
    let said = worker(sweep, step, nth, &store, &log)?.output()?;
    let log = fs::read_to_string(log)?;
    let Some(line) = struck_line(step.blow, &log, &said)? else { return Ok(Landing::Missed) };
    if step.by.is_none() && call(line, &store).is_none_or(|call| step.known.contains(&call.by)) {
        return Ok(Landing::Elsewhere);
    }
    let outcome = match step.blow {
        Blow::Kill => start.outcome(),
        Blow::Error(_) if said.status.success() => {
            may_go_on(sweep, step, line).then(|| start.succeeded()).ok_or_else(|| unreported(&said))?
        }
        Blow::Error(_) => {
            is_reported(&said)?;
            if !may_go_on(sweep, step, line) {
                stays_away(&log)?;
                // Only the lock gives the right to remove a file.
                if step.syscall != "flock" && store.exists() {
                    scene.nothing_was_begun(&store, start)?;
                }
            }
            start.failed()
        }
    };
    if !matches!(start, Start::Nothing) {
        scene.survives(&store, outcome)?;
    }
    scene.heals(&store, start)?;
    Ok(Landing::Struck(log.matches("(INJECTED)").count().max(1)))
}

/// A worker under strace, which strikes it.
fn worker(sweep: &Sweep, step: &Step, nth: usize, store: &Path, log: &Path) -> Result<Run, Failure> {
    let syscall = &step.syscall;
    let how = match step.blow {
        Blow::Error(error) => format!("error={error}"),
        Blow::Kill => "signal=SIGKILL".to_owned(),
    };
    let run = Run::new("strace").args(["-f", "-y", "-e", &format!("trace={syscall}"), "-e"]);
    let run = run.arg(format!("inject={syscall}:{how}:when={nth}")).arg("-o").arg(log);
    // Other calls are not traced; only signals are lost by that.
    let run = if let Blow::Error(_) = step.blow { run.arg("--seccomp-bpf") } else { run };
    let run = match &step.by {
        // Without a slash at its end.
        Some(path) if path.as_os_str().is_empty() => run.arg("-P").arg(store),
        Some(path) => run.arg("-P").arg(store.join(path)),
        None => run,
    };
    let run = run.arg(myself()?).limit(Duration::from_secs(300));
    Ok(directed(run, sweep.scene.fixture, store, &sweep.orders))
}

/// The call that was struck, as the log has it; `None` when the worker was done before.
fn struck_line<'a>(blow: Blow, log: &'a str, said: &Captured) -> Result<Option<&'a str>, Failure> {
    let mut lines = log.lines().filter(|line| !line.contains("+++"));
    let struck = match blow {
        Blow::Kill if said.status.signal() == Some(9) => lines.next_back(),
        Blow::Kill => None,
        Blow::Error(_) => lines.find(|line| line.contains("(INJECTED)")),
    };
    match struck {
        Some(line) if line.contains("<... ") => {
            let thread = line.split(' ').next().unwrap_or_default();
            let begun = |other: &&str| other.starts_with(thread) && other.ends_with("<unfinished ...>");
            Ok(log.split_once(line).and_then(|(before, _)| before.lines().rev().find(begun)).or(Some(line)))
        }
        None if !said.status.success() => Err(Failure::new(said)),
        struck => Ok(struck),
    }
}

/// Whether a call may fail without an error: a temporary file that cannot be removed stays and does no harm, what
/// cannot be touched is older than it could be, what cannot be opened is looked for elsewhere, and without a note more
/// is looked at. What a collection is to remove has gone or it says so.
fn may_go_on(sweep: &Sweep, step: &Step, line: &str) -> bool {
    let was_there = match (sweep.start, &step.by) {
        (Start::Both, Some(by)) => sweep.scene.full.join(by).is_file(),
        _ => false,
    };
    let makes = line.contains("O_CREAT") || line.contains("O_TRUNC");
    let opens = step.syscall.starts_with("open") && !makes;
    let note = step.by.as_ref().is_some_and(|by| scene::role(sweep.scene.fixture, by) == Role::Note);
    let removes = step.syscall.starts_with("unlink");
    opens || note || is_optional(&step.syscall) && !(removes && was_there)
}

/// As [`may_go_on`], for calls that only remove or touch.
pub(super) fn is_optional(syscall: &str) -> bool {
    ["unlink", "unlinkat", "rmdir", "utimensat"].contains(&syscall)
}

/// Whether the worker has said that a call has failed.
fn is_reported(said: &Captured) -> Result<(), Failure> {
    let reported = said.stdout.starts_with(&format!("{FAILED}Io "));
    if reported && said.status.code() == Some(1) { Ok(()) } else { Err(unreported(said)) }
}

fn unreported(said: &Captured) -> Failure {
    Failure::new(format!("no clean error: {said}"))
}

/// Whether nothing was tried again that the disk had refused.
fn stays_away(log: &str) -> Result<(), Failure> {
    let (_, after) = log.split_once("(INJECTED)").unwrap_or_default();
    if after.lines().any(|line| line.contains("sync(") || line.contains("rename")) {
        return Err(Failure::new(format!("it was tried again:\n{log}")));
    }
    Ok(())
}
