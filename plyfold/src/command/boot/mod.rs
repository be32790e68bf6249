//! `boot` and `materialize --boot`: a virtual machine of QEMU with disks of an image, on this terminal.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::shell::quoted;
use crate::{DiskSet, Error, ErrorKind, Platform, Result, Rootfs, printable};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::process::Command;

use self::channel::Channel;
use self::linked::LinkedProgram;
use self::outcome::Ended;
use super::context::Context;
use super::machine_args::{Boot, BootOptions};
use super::terminal::Terminal;

mod channel;
mod cpio;
mod initramfs;
mod kernel;
mod linked;
mod outcome;
mod programs;

/// The architecture whose machine is known here.
const ARCHITECTURE: &str = "amd64";
/// Parameters of the kernel: to write to the serial line, to end after a panic, and not to give up where an emulated timer is
/// late.
const PARAMETERS: &str = "console=ttyS0 panic=-1 quiet no_timer_check";

/// What a virtual machine is started with, found before anything is made.
pub(super) struct Machine {
    qemu: PathBuf,
    kernel: PathBuf,
    initrd: Initrd,
    /// Options of the user's.
    more: Vec<OsString>,
}

enum Initrd {
    /// A file of the user's.
    Given(PathBuf),
    /// Made here, of this busybox, and of veritysetup where the format has hash trees and it was found.
    Made { busybox: PathBuf, veritysetup: Option<LinkedProgram> },
}

/// What a guest does with hash trees.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Trees {
    /// There are none.
    Missing,
    /// They are used where that is possible.
    Used,
    /// They are used, or there is no machine.
    Required,
}

impl Trees {
    fn of(has_trees: bool, is_required: bool) -> Self {
        match has_trees {
            false => Self::Missing,
            true if is_required => Self::Required,
            true => Self::Used,
        }
    }
}

/// Starts a machine with the disks in a directory, as they are, and waits until it ends.
///
/// # Errors
/// Those of [`DiskSet::open`], of finding what the machine needs, and of [`Ended::status`].
pub(super) async fn start(options: Boot, terminal: Terminal) -> Result<ExitCode> {
    let Boot { disks: folder, verity, kernel, initrd, qemu } = options;
    if terminal.json {
        return Err(no_json());
    }
    let set = DiskSet::open(&folder).map_err(|e| match e.kind() {
        ErrorKind::NotFound if !DiskSet::is_in(&folder) => e.with_better_hint(
            "`plyfold materialize IMAGE --as erofs --upper 8G --out DIR --boot` makes disks of an image and starts them; \
             `plyfold snapshot load NAME --out DIR` makes those of a snapshot again",
        ),
        _ => e,
    })?;
    if set.disks.drives().is_none() {
        return Err(no_disk());
    }
    let has_trees = set.disks.has_hash_trees();
    if verity.is_some() && !has_trees {
        let error = Error::config("the disks have no hash tree").with_context("path", folder.display());
        let hint =
            "`plyfold materialize IMAGE --as FORMAT -m verity=append --out DIR` makes disks with hash trees";
        return Err(error.with_hint(hint));
    }
    let shown = format!("`plyfold inspect {}` prints the lines for other programs", quoted(&folder));
    check_architecture(&set.image.platform.parse()?).map_err(|e| e.with_hint(shown))?;
    set.check_written()?;
    set.disks.notes.iter().for_each(|note| terminal.say("note", note));
    let machine = Machine::find(kernel, initrd, qemu, Trees::of(has_trees, verity.is_some())).await?;
    machine.boot(terminal, &set).await.map(ExitCode::from)
}

impl Machine {
    /// Finds what `--boot` needs for disks that will be made; `None` without that option.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for what is not there, with the places where it was looked for;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a form that no virtual machine takes.
    pub(super) async fn asked(
        options: BootOptions,
        rootfs: &Rootfs,
        context: &Context,
    ) -> Result<Option<Self>> {
        let BootOptions { boot, kernel, initrd, qemu } = options;
        if !boot {
            return Ok(None);
        }
        if context.terminal.json {
            return Err(no_json());
        }
        context.only.first().map_or(Ok(()), Self::check)?;
        if !rootfs.is_one_disk() {
            return Err(no_disk());
        }
        let trees = Trees::of(rootfs.format().has_hash_tree(), rootfs.is_verified());
        Self::find(kernel, initrd, qemu, trees).await.map(Some)
    }

    /// Refuses the disks of an image for another architecture, which are not made yet.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    pub(super) fn check(of: &Platform) -> Result<()> {
        let hint = "without --boot the disks are made, and lines for other programs are printed";
        check_architecture(of).map_err(|e| e.with_hint(hint))
    }

    async fn find(
        kernel: Option<PathBuf>,
        initrd: Option<PathBuf>,
        more: Vec<OsString>,
        trees: Trees,
    ) -> Result<Self> {
        let qemu = programs::qemu()?;
        let kernel = kernel::find(kernel)?;
        let initrd = if let Some(file) = initrd {
            Initrd::Given(kernel::readable(&file)?)
        } else {
            let busybox = programs::busybox()?;
            let veritysetup = match trees {
                Trees::Required => Some(programs::veritysetup().await?),
                Trees::Used => programs::veritysetup().await.ok(),
                Trees::Missing => None,
            };
            Initrd::Made { busybox, veritysetup }
        };
        Ok(Self { qemu, kernel, initrd, more })
    }

    /// Starts it with the disks, and waits until it ends; the exit status of the image's command, where it is known.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for what is not on one disk; those of [`Ended::status`].
    pub(super) async fn boot(self, terminal: Terminal, set: &DiskSet) -> Result<u8> {
        let DiskSet { image, disks, .. } = set;
        let drives = disks.drives().ok_or_else(no_disk)?;
        // What is made is held until QEMU has ended.
        let (initrd, _made) = match &self.initrd {
            Initrd::Given(file) => (file.clone(), None),
            Initrd::Made { busybox, veritysetup } => {
                let process = image.process.clone().unwrap_or_default();
                note_user(terminal, &process.user);
                warn_of_environment(terminal, &process.env);
                if disks.has_hash_trees() && veritysetup.is_none() {
                    let message = "the machine does not verify what it reads of the disks: there is no veritysetup here";
                    terminal.say("warning", message);
                }
                let init = initramfs::init(disks, &process, veritysetup.is_some());
                let modules = kernel::modules(&self.kernel);
                let made = initramfs::make(&init, busybox, veritysetup.as_ref(), modules.as_deref())?;
                (made.path(), Some(made))
            }
        };
        let channels = Channels::open().map_err(|e| Error::io("opening channels to QEMU", e))?;
        let arguments = self.arguments(&initrd, &channels, drives);
        let shown: Vec<String> = arguments.iter().map(|argument| quoted(Path::new(argument))).collect();
        terminal.say("starting", &format!("{} {}", quoted(&self.qemu), shown.join(" ")));
        let _terminal = TerminalState::save();
        let mut command = Command::new(&self.qemu);
        let status = command.args(&arguments).kill_on_drop(true).status().await;
        let status =
            status.map_err(|e| Error::io("starting QEMU", e).with_context("path", self.qemu.display()))?;
        let Channels { console, events, report } = channels;
        let (console, events, report) = (console.end().await, events.end().await, report.end().await);
        let is_reported = matches!(self.initrd, Initrd::Made { .. });
        let status = Ended { status, events, report, is_reported, console }.status()?;
        if let Some(note) = outcome::note_of(status) {
            terminal.say("note", note);
        }
        Ok(status)
    }

    /// QEMU's arguments. Of an option that is given twice the last one counts, of accelerators the first that works.
    fn arguments(&self, initrd: &Path, channels: &Channels, drives: Vec<OsString>) -> Vec<OsString> {
        let words = ["-nodefaults", "-display", "none", "-no-reboot", "-m", "1G", "-cpu", "max"];
        let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        arguments.extend(channels.arguments().into_iter().map(OsString::from));
        arguments.extend(["-kernel".into(), self.kernel.clone().into()]);
        arguments.extend(["-initrd".into(), initrd.into(), "-append".into(), PARAMETERS.into()]);
        for drive in drives {
            arguments.extend(["-drive".into(), drive]);
        }
        arguments.extend(self.more.iter().cloned());
        arguments.extend(["-accel", "kvm", "-accel", "tcg"].map(OsString::from));
        arguments
    }
}

/// What QEMU tells beside the terminal.
struct Channels {
    /// What the guest writes to its console.
    console: Channel,
    /// Why it ends: no driver in the guest is needed for that.
    events: Channel,
    /// What an initramfs that is made here writes to the fourth serial line.
    report: Channel,
}

impl Channels {
    fn open() -> io::Result<Self> {
        Ok(Self { console: Channel::pipe()?, events: Channel::of_events()?, report: Channel::pipe()? })
    }

    /// The console is on the terminal, with QEMU's own monitor behind Ctrl-A.
    fn arguments(&self) -> Vec<String> {
        let path = |channel: &Channel| format!("/proc/self/fd/{}", channel.number());
        vec![
            "-chardev".to_owned(),
            format!("stdio,id=console,mux=on,signal=off,logfile={}", path(&self.console)),
            "-serial".to_owned(),
            "chardev:console".to_owned(),
            "-mon".to_owned(),
            "console".to_owned(),
            "-chardev".to_owned(),
            format!("socket,id=events,fd={}", self.events.number()),
            "-mon".to_owned(),
            "events,mode=control".to_owned(),
            "-chardev".to_owned(),
            format!("file,id=report,path={}", path(&self.report)),
            "-device".to_owned(),
            format!("isa-serial,chardev=report,index={}", initramfs::REPORT),
        ]
    }
}

/// Says that the user of the image is not used.
fn note_user(terminal: Terminal, user: &str) {
    if !["", "0", "root", "0:0", "root:root"].contains(&user) {
        terminal.say("note", &format!("the image's command runs as root, not as {user}"));
    }
}

fn check_architecture(of: &Platform) -> Result<()> {
    match of.architecture() {
        ARCHITECTURE => Ok(()),
        other => Err(Error::unsupported(format!("a virtual machine for {other} cannot be started here"))),
    }
}

fn no_json() -> Error {
    let error = Error::config("--json has no form for the console of a virtual machine");
    error.with_hint("`plyfold inspect DIR --json` has the lines by which programs start the disks of a set")
}

/// Says which entries of the image's environment are left out.
fn warn_of_environment(terminal: Terminal, environment: &[String]) {
    for entry in environment.iter().filter(|entry| !initramfs::is_variable(entry)) {
        let entry = printable(entry);
        terminal.say(
            "warning",
            &format!("the image's environment has `{entry}`, which is no variable: it is left out"),
        );
    }
}

fn no_disk() -> Error {
    let message = "no virtual machine boots from this: the root file system is not on one disk";
    Error::unsupported(message).with_advice(crate::Advice::ChooseFormat {
        words: "{}, {}, {}, {}, {}, {} and {} are such disks",
        formats: Rootfs::ONE_DISK.to_vec(),
    })
}

/// What the terminal was, restored in the end: QEMU may be killed while it has it.
struct TerminalState(Option<Termios>);

impl TerminalState {
    fn save() -> Self {
        Self(tcgetattr(io::stdin()).ok())
    }
}

impl Drop for TerminalState {
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn options_of_the_user_come_behind_ours_and_before_accelerators() {
        let machine = Machine {
            qemu: "/q".into(),
            kernel: "/k".into(),
            initrd: Initrd::Given("/i".into()),
            more: vec!["-m".into(), "4G".into()],
        };
        let channels = Channels::open().unwrap();
        let arguments = machine.arguments(Path::new("/i"), &channels, vec!["file=/a,,b".into()]);
        let text = arguments.join(OsStr::new(" ")).into_string().unwrap();
        let end = "-kernel /k -initrd /i -append console=ttyS0 panic=-1 quiet no_timer_check -drive file=/a,,b -m 4G -accel kvm -accel tcg";
        assert!(text.ends_with(end), "{text}");
    }
}
