//! `materialize --boot`: a virtual machine of QEMU with what was made, on this terminal.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::oci_spec::image::Config;
use crate::shell::quoted;
use crate::{Disks, Error, ImageSourceExt as _, PulledImage, Result, Rootfs};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::process::Command;

use self::channel::Channel;
use self::linked::LinkedProgram;
use self::outcome::Ended;
use super::args::BootOptions;
use super::session::Session;

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

impl Machine {
    /// Finds what `--boot` needs; `None` without that option.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for what is not there, with the places where it was looked for;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a form that no virtual machine takes.
    pub(super) async fn find(options: BootOptions, rootfs: &Rootfs) -> Result<Option<Self>> {
        if !options.boot {
            return Ok(None);
        }
        if !rootfs.is_one_disk() {
            return Err(no_disk());
        }
        let qemu = programs::qemu()?;
        let kernel = kernel::find(options.kernel)?;
        let initrd = if let Some(file) = options.initrd {
            Initrd::Given(kernel::readable(&file)?)
        } else {
            let busybox = programs::busybox()?;
            let veritysetup = match rootfs.format().has_hash_tree() {
                true if rootfs.is_verified() => Some(programs::veritysetup().await?),
                true => programs::veritysetup().await.ok(),
                false => None,
            };
            Initrd::Made { busybox, veritysetup }
        };
        Ok(Some(Self { qemu, kernel, initrd, more: options.qemu }))
    }

    /// Starts it with the disks, and waits until it ends; the exit status of the image's command, where it is known.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for another architecture; those of [`Ended::status`].
    pub(super) async fn boot(self, session: &Session, image: &PulledImage, disks: &Disks) -> Result<u8> {
        let drives = disks.drives().ok_or_else(no_disk)?;
        let platform = image.made_for();
        let architecture = platform.as_ref().unwrap_or(&image.platform).architecture();
        if architecture != ARCHITECTURE {
            let message = format!("a virtual machine for {architecture} cannot be started here");
            return Err(
                Error::unsupported(message).with_hint("take the lines that are printed for other programs")
            );
        }
        // What is made is held until QEMU has ended.
        let (initrd, _made) = match &self.initrd {
            Initrd::Given(file) => (file.clone(), None),
            Initrd::Made { busybox, veritysetup } => {
                let config = image.source(&*session.images.cache()).config().await?;
                let config = config.document().config().as_ref();
                note_user(session, config);
                if disks.has_hash_trees() && veritysetup.is_none() {
                    let message = "the machine does not verify what it reads of the disks: there is no veritysetup here";
                    session.terminal.say("warning", message);
                }
                let init = initramfs::init(disks, config, veritysetup.is_some());
                let modules = kernel::modules(&self.kernel);
                let made = initramfs::make(&init, busybox, veritysetup.as_ref(), modules.as_deref())?;
                (made.path(), Some(made))
            }
        };
        let channels = Channels::open().map_err(|e| Error::io("opening channels to QEMU", e))?;
        let arguments = self.arguments(&initrd, &channels, drives);
        let shown: Vec<String> = arguments.iter().map(|argument| quoted(Path::new(argument))).collect();
        session.terminal.say("starting", &format!("{} {}", quoted(&self.qemu), shown.join(" ")));
        let _terminal = TerminalState::save();
        let mut command = Command::new(&self.qemu);
        let status = command.args(&arguments).kill_on_drop(true).status().await;
        let status =
            status.map_err(|e| Error::io("starting QEMU", e).with_context("path", self.qemu.display()))?;
        let Channels { console, events, report } = channels;
        let (console, events, report) = (console.end().await, events.end().await, report.end().await);
        Ended { status, events, report, console }.status()
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
fn note_user(session: &Session, config: Option<&Config>) {
    let user = config.and_then(|config| config.user().as_deref()).unwrap_or_default();
    if !["", "0", "root", "0:0", "root:root"].contains(&user) {
        session.terminal.say("note", &format!("the image's command runs as root, not as {user}"));
    }
}

fn no_disk() -> Error {
    let message = "no virtual machine boots from this: the root file system is not on one disk";
    Error::unsupported(message).with_advice(crate::Advice::ChooseFormat {
        words: "{}, {}, {}, {} and {} are such disks",
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
