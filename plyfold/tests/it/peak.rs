//! Tests that measure the memory of a process: they run again as one of their own.

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// The peak in bytes (`proc(5)`, `VmHWM`) of a test again as a process with these variables and this input. The test
/// [tells](tell) it there.
pub(crate) fn of(test: &str, variables: &[(&str, &str)], input: impl FnOnce(&mut dyn Write) + Send) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).envs(variables.iter().copied());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let run = std::thread::scope(|scope| {
        scope.spawn(move || input(&mut stdin));
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{variables:?}: {said} {}", String::from_utf8_lossy(&run.stderr));
    let peak = said.split("peak:").nth(1).and_then(|rest| rest.split_whitespace().next());
    peak.unwrap_or_else(|| panic!("{said}")).parse::<u64>().unwrap() * 1024
}

/// Writes the peak of this process for [`of`].
pub(crate) fn tell() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    io::stdout().write_all(format!("\npeak:{line}\n").as_bytes()).unwrap();
}
