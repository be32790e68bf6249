//! A test that runs itself again as a child process, with little memory.

use std::env;
use std::fs;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::rule::{not_judged, own_test};

/// Set for such a child.
const CHILD: &str = "PLYFOLD_RULE_CHILD";

/// Whether this process is the child of a test that has run itself again for a rule. What the rule judges is judged
/// here, and the exit status of the test says what comes of it.
pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Does `work` in a child process that may map no more than `memory` bytes beside what it has at its start, on two
/// processors: buffers of threads count.
///
/// # Panics
/// When the child fails.
pub(crate) fn within(memory: u64, work: impl FnOnce()) {
    let Some(test) = own_test() else {
        return not_judged(
            "memory is bounded for a test that runs itself as a child process, and this is none",
        );
    };
    if is_child() {
        limit(memory);
        return work();
    }
    let mut child = Command::new(env::current_exe().expect("a test knows its program"));
    child.args(["--exact", &test, "--nocapture"]).env(CHILD, "1");
    // Each arena of glibc reserves 64 MiB that it may never use.
    let ended = child.env("MALLOC_ARENA_MAX", "1").output().expect("a test runs itself");
    let said = String::from_utf8_lossy(&ended.stdout);
    let ran = ended.status.success() && said.contains(" 1 passed");
    assert!(ran, "{test} {}: {said}{}", ended.status, String::from_utf8_lossy(&ended.stderr));
}

/// Bounds the address space of this process (`setrlimit(2)`, `RLIMIT_AS`).
fn limit(memory: u64) {
    let status = fs::read_to_string("/proc/self/status").expect("Linux says how much is mapped");
    let mapped = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let mapped: u64 = mapped.and_then(|kib| kib.trim().parse().ok()).expect("`VmSize` is a number of KiB");
    let limit = Rlimit { current: Some((mapped << 10) + memory), ..getrlimit(Resource::As) };
    setrlimit(Resource::As, limit).expect("a process bounds itself");
    on_processors(2);
}

/// Lets this thread, and those that it starts, run on so many processors of those that it may run on.
pub(crate) fn on_processors(count: usize) {
    let allowed = sched_getaffinity(None).expect("a thread knows its processors");
    let mut fewer = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).take(count).for_each(|cpu| fewer.set(cpu));
    sched_setaffinity(None, &fewer).expect("a thread takes fewer processors");
}
