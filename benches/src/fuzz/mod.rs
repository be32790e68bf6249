//! Damaged inputs, at random, for a number of seconds of CPU time: no reader panics, takes more memory or time than its
//! bounds, or yields an internal error. An input follows from its number alone, so that what was found can be made again.

mod archives;
mod corpus;
mod gpt;
mod gzip;
mod mutate;
mod outcome;
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use self::mutate::Random;
use self::targets::{Target, target};
use crate::result::Result;

/// More than any input takes that does not loop.
const SLOW: Duration = Duration::from_secs(10);

/// The CPU time of this process.
fn cpu() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

/// Runs `name` for so many seconds, from the input of this number on, or the input of that number alone.
pub(crate) fn run(name: &str, seconds: u64, first: u64, alone: bool) -> Result<()> {
    let target = target(name)?;
    let (start, mut number) = (cpu(), first);
    let (mut refused, mut findings) = (0_u64, 0_u64);
    loop {
        let before = cpu();
        let (input, outcome) = attempt(&target, number);
        let took = cpu().saturating_sub(before);
        let finding = match outcome {
            Ok(false) => None,
            Ok(true) => {
                refused += 1;
                None
            }
            Err(finding) => Some(finding),
        };
        let slow = (took > SLOW).then(|| format!("{:.1} s of CPU time", took.as_secs_f64()));
        if let Some(finding) = finding.or(slow) {
            findings += 1;
            let path = PathBuf::from(format!("fuzz-{name}-{number}.bin"));
            fs::write(&path, input)?;
            println!("input {number}, in {}: {finding}", path.display());
        }
        number += 1;
        if alone || cpu().saturating_sub(start) >= Duration::from_secs(seconds) {
            break;
        }
    }
    let inputs = number - first;
    println!(
        "{name}: {inputs} inputs from {first} on, {refused} refused, {findings} findings, {:.0} s of CPU time, peak {} MiB",
        cpu().saturating_sub(start).as_secs_f64(),
        peak().unwrap_or_default() >> 10
    );
    if findings > 0 { Err(format!("{findings} findings").into()) } else { Ok(()) }
}

/// The input of a number, and whether it was refused, or what was found.
fn attempt(target: &Target, number: u64) -> (Vec<u8>, std::result::Result<bool, String>) {
    let input = target.input(&mut Random::new(number));
    let outcome = catch_unwind(AssertUnwindSafe(|| target.judge(&input)));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    });
    (input, outcome)
}

/// The most memory that this process has had, in KiB (`proc(5)`, `VmHWM`).
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}
