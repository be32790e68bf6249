//! How a machine has ended, and what its end means.

use std::io;
use std::process::ExitStatus;

use crate::{Error, ErrorKind, Result};
use serde_json::Value;

/// How the kernel begins the last line before it ends (`kernel/panic.c`).
const PANIC: &str = "Kernel panic - not syncing";
/// Parts of that line where it had no root file system or no init (`init/do_mounts.c`, `init/main.c`, `kernel/exit.c`).
const STARTING: [&str; 2] = ["root fs", "init"];
/// The most that is shown of a line of the console, in characters.
const SHOWN: usize = 200;

/// What is known of the end of a machine.
pub(super) struct Ended {
    /// Of QEMU.
    pub(super) status: ExitStatus,
    /// What QEMU has said in JSON, the end of it.
    pub(super) events: Vec<u8>,
    /// What the initramfs that is made here has reported.
    pub(super) report: Vec<u8>,
    /// Whether it was that one.
    pub(super) is_reported: bool,
    /// What was on the console, the end of it.
    pub(super) console: Vec<u8>,
}

/// What an initramfs that is made here reports.
pub(super) mod report {
    /// The disks could not be mounted.
    pub(in super::super) const UNMOUNTED: &str = "unmounted";
    /// The disks are there, and the command is started.
    pub(in super::super) const BEGUN: &str = "begun";
    /// The command has ended; its exit status follows.
    pub(in super::super) const STATUS: &str = "status ";
}

impl Ended {
    /// The exit status of the image's command, where it was reported; else 0 for a machine that its guest has powered off in
    /// place of that, or that its user has ended. The command has all of the guest, so it can report what it likes.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) when there is no report, or none that can be understood, when the guest's kernel has panicked or has reset the machine, and when QEMU has failed or was
    /// ended from outside; [`Unsupported`](ErrorKind::Unsupported) when the guest could not mount its disks.
    pub(super) fn status(&self) -> Result<u8> {
        match self.reason().as_deref() {
            // The kernel resets the machine after a panic (`panic=-1`); a device of the user's may tell it first.
            Some("guest-reset" | "guest-panic") => return Err(self.not_off()),
            Some("host-error" | "host-signal") => return Err(stopped()),
            _ => {}
        }
        if !self.status.success() {
            return Err(Error::io("running QEMU", io::Error::other(self.status.to_string())).with_hint(
                "it has said why above; where KVM cannot run the kernel, end the command with `-- -accel tcg`",
            ));
        }
        let report = String::from_utf8_lossy(&self.report);
        let last = report.lines().map(str::trim).rfind(|line| !line.is_empty());
        if last == Some(report::UNMOUNTED) {
            return Err(unmounted());
        }
        let status = last.and_then(|line| line.strip_prefix(report::STATUS)?.parse().ok());
        // What another initramfs writes there is its own.
        let is_none = !self.is_reported || last == Some(report::BEGUN) || self.is_ended_by_user();
        status.or(is_none.then_some(0)).ok_or_else(|| unreported(last))
    }

    fn is_ended_by_user(&self) -> bool {
        self.reason().is_some_and(|reason| reason == "host-qmp-quit")
    }

    /// The error for a machine that its guest has not powered off.
    fn not_off(&self) -> Error {
        let said = |message: &str, line: &str| {
            Error::new(ErrorKind::Io, message).with_context("console", shown(line))
        };
        match self.lines().rev().find(|line| line.contains(PANIC)) {
            Some(line) => {
                let error = said("the guest's kernel has panicked", &line);
                if !STARTING.iter().any(|part| line.contains(part)) {
                    return error;
                }
                error.with_hint(
                    "it needs drivers for the disks, built in or as modules beside it, and an init that it can start: \
                     `--kernel FILE` boots another kernel, `--initrd FILE` another initramfs",
                )
            }
            None => said("the guest has reset the machine in place of powering it off", &self.last_line())
                .with_hint("`poweroff -f` in the guest ends the machine; a reset is also what a kernel ends with that cannot run here"),
        }
    }

    /// Why QEMU has ended (`SHUTDOWN`, `ShutdownCause` of `qapi/run-state.json`).
    fn reason(&self) -> Option<String> {
        let events = String::from_utf8_lossy(&self.events);
        events.lines().rev().find_map(|line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let is_end = event["event"] == "SHUTDOWN";
            is_end.then(|| event["data"]["reason"].as_str().map(str::to_owned))?
        })
    }

    fn lines(&self) -> impl DoubleEndedIterator<Item = String> {
        let lines: Vec<String> = self.console.split(|byte| b"\r\n".contains(byte)).map(plain).collect();
        lines.into_iter().filter(|line| !line.is_empty())
    }

    fn last_line(&self) -> String {
        self.lines().next_back().unwrap_or_else(|| "nothing was written to it".to_owned())
    }
}

/// What is to be known of an exit status that says that no command was started.
pub(super) fn note_of(status: u8) -> Option<&'static str> {
    match status {
        126 => Some(
            "status 126 is mostly that of a command which cannot be run, such as one for another architecture",
        ),
        127 => Some(
            "status 127 is mostly that of a command which is not in the image, or whose interpreter or loader is not: \
             an image without /bin/sh runs no scripts",
        ),
        _ => None,
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Io, "QEMU was ended from outside, and not by its guest")
}

fn unreported(last: Option<&str>) -> Error {
    let error = Error::new(
        ErrorKind::Io,
        "the machine is off, and nothing that can be understood says how its command has ended",
    );
    let error = error.with_hint("the guest reports that on its fourth serial line, which nothing else may write to, and the kernel has to have");
    last.map(|line| plain(line.as_bytes()))
        .into_iter()
        .fold(error, |error, line| error.with_context("report", shown(&line)))
}

fn unmounted() -> Error {
    Error::unsupported("the guest could not mount its disks").with_hint(
        "its console says why: the kernel has to be as new as the format asks for, and to have the file systems built in or \
         as modules beside it; `--kernel FILE` boots another one",
    )
}

/// A line without what steers a terminal.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_matches(|c: char| c.is_whitespace() || c.is_control()).to_owned()
}

fn shown(line: &str) -> String {
    line.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn ended(reason: &str, report: &str, console: &str) -> Ended {
        let events = format!(
            "{{\"QMP\": {{}}}}\r\n{{\"return\": {{}}}}\r\n{{\"timestamp\": {{}}, \"event\": \"SHUTDOWN\", \"data\": {{\"guest\": true, \"reason\": \"{reason}\"}}}}\r\n"
        );
        let of = |text: &str| text.as_bytes().to_vec();
        Ended {
            status: ExitStatus::from_raw(0),
            events: events.into(),
            report: of(report),
            is_reported: true,
            console: of(console),
        }
    }

    fn said(of: &Ended) -> (String, Option<String>) {
        let error = of.status().unwrap_err();
        (error.message().to_owned(), error.context("console").map(str::to_owned))
    }

    #[test]
    fn a_machine_that_is_off_has_the_status_of_its_command() {
        let of_user = "Kernel panic - not syncing: said by a program\r\n";
        for (reason, report, status) in [
            // It was powered off by the command.
            ("guest-shutdown", "\r\nbegun\r\n", 0),
            ("guest-shutdown", "begun\r\n\r\nstatus 0\r\n", 0),
            ("guest-shutdown", "status 127\r\n", 127),
            ("guest-shutdown", "begun\r\nx\r\nstatus 3\r\n", 3),
            ("host-qmp-quit", "", 0),
        ] {
            assert_eq!(ended(reason, report, of_user).status().unwrap(), status, "{reason} {report}");
        }
    }

    /// What is no status is no success.
    #[test]
    fn a_report_that_is_missing_or_garbled_is_an_error() {
        for report in
            ["", "x", "begun\r\nxstatus 0\r\n", "status 256\r\n", "status", "status 0\r\nx", "status 0 0"]
        {
            let of = ended("guest-shutdown", report, "");
            assert!(said(&of).0.contains("nothing that can be understood"), "{report:?}");
            // Another initramfs writes what it likes.
            assert_eq!(Ended { is_reported: false, ..of }.status().unwrap(), 0, "{report:?}");
        }
    }

    #[test]
    fn any_other_end_is_an_error_with_what_the_guest_said() {
        let panic = "[    1.1] Kernel panic - not syncing: No working init found.";
        let console = format!("hello\r\n{panic}\r\n[    1.2] ---[ end ]---\r\n\r\n");
        let panicked = ("the guest's kernel has panicked".to_owned(), Some(panic.to_owned()));
        assert_eq!(said(&ended("guest-reset", "", &console)), panicked);
        // Also one that panics while it shuts down, and one that a device tells.
        assert_eq!(said(&ended("guest-reset", "status 0\r\n", &console)), panicked);
        assert_eq!(said(&ended("guest-panic", "", &console)), panicked);
        let hint =
            |console: &str| ended("guest-reset", "", console).status().unwrap_err().hint().map(str::to_owned);
        assert!(hint(&console).unwrap().contains("--initrd FILE"));
        assert_eq!(hint("Kernel panic - not syncing: sysrq triggered crash\r\n"), None);
        let reset = |console| said(&ended("guest-reset", "", console)).1.unwrap();
        assert_eq!(reset("a\r\nb \x1b\r\n"), "b");
        assert_eq!(reset(""), "nothing was written to it");
        assert!(reset(&"x".repeat(5000)).len() == SHOWN);
        assert!(ended("host-signal", "status 0\r\n", "").status().is_err());
        let unmounted = ended("guest-shutdown", "unmounted\r\n", "").status().unwrap_err();
        assert_eq!(*unmounted.kind(), ErrorKind::Unsupported);
        let failed = Ended { status: ExitStatus::from_raw(256), ..ended("guest-shutdown", "status 0", "") };
        assert_eq!(said(&failed).0, "running QEMU");
    }
}
