//! `layer` and `disk`: one layer as an image, and one empty upper.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Seek, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::atomic_file::AtomicFile;
use crate::blocking::{Stop, blocking};
use crate::disk_file::open_error;
use crate::durable::parent;
use crate::durable::temporary_file;
use crate::layer::{Hashing, LayerOptions, LayerSummary};
use crate::materializers::ext4::Ext4Upper;
use crate::{Disk, Error, Made, Materializer as _, Materializers, Result, Role, VerifiedFile};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use serde_json::json;

use super::args::Layer;
use super::disk_args;
use super::hash_tree::TreeDocument;
use super::one_layer;
use super::replaced::refuse_same;
use super::size::Size;
use super::terminal::Terminal;

/// Converts the tar at `tar` into the file `out`, and shows what both hash to.
pub(crate) async fn make(options: Layer, terminal: Terminal) -> Result<()> {
    let Layer { tar, out, format, of_format, no_digests, bounds, durably } = options;
    let of_format = of_format.of(&format)?;
    let format = Materializers::linked()?.open(&format, &of_format)?;
    one_layer::check(&*format)?;
    let hashing = if no_digests { Hashing::Nothing } else { Hashing::Both };
    let options = LayerOptions { hashing, limits: bounds.layer(), ..LayerOptions::default() };
    refuse_terminal(&tar)?;
    refuse_same(&tar, &out)?;
    let (target, name) = (out.clone(), format.format().name);
    let (made, summary, size) = blocking(move |stop| {
        let mut file = AtomicFile::create(&target, durably.options(), stop)?;
        let source = Input::open(&tar, stop)?;
        let plain = source.whole_file()?;
        let converted = one_layer::convert(&*format, (source, plain), options, &mut file, parent(&target));
        let (made, summary) = converted.map_err(|e| e.with_context("path", tar.display()))?;
        Ok((made, summary, file.publish()?))
    })
    .await?;
    show(&made, &summary, &Disk::plain(out, Role::Image, name, size), terminal)
}

/// Shows the file, and what is known of its layer.
fn show(made: &Made, summary: &LayerSummary, disk: &Disk, terminal: Terminal) -> Result<()> {
    let Disk { path, format: name, size, .. } = disk;
    let warnings: Vec<String> = summary.warnings.iter().map(ToString::to_string).collect();
    let levels = [("warning", &warnings), ("warning", &made.losses), ("note", &made.notes)];
    for (level, messages) in levels {
        for message in messages {
            terminal.say(level, message);
        }
    }
    let verified = made.hash_tree.as_ref().map(|tree| VerifiedFile { disk, tree, tree_file: path });
    let document = json!({
        "path": path.display().to_string(),
        "size": size,
        "format": name,
        "diff_id": summary.diff_id,
        "diff_size": summary.size,
        "digest": summary.blob,
        "digest_size": summary.blob_size,
        "compression": summary.compression.to_string(),
        "hash_tree": verified.as_ref().map(TreeDocument::of_file),
        "warnings": warnings,
        "notes": made.told(),
    });
    terminal.show(&document, || {
        let digest = summary.blob.as_ref();
        let digest = digest.map(|digest| format!("digest   {digest}  {}\n", Size(summary.blob_size)));
        let diff_id = summary.diff_id.as_ref();
        let diff_id = diff_id.map(|digest| format!("diff_id  {digest}  {}\n", Size(summary.size)));
        let file = format!("{:<8} {}  {}\n", name.trim_end_matches("-layers"), path.display(), Size(*size));
        let tree = verified.map(|found| {
            let open = found.open_line().unwrap_or_default();
            format!("root hash {}\nopen     {open}\n", found.tree.root_hash())
        });
        [digest.unwrap_or_default(), diff_id.unwrap_or_default(), file, tree.unwrap_or_default()].concat()
    })
}

/// Makes an empty ext4 disk.
pub(crate) async fn make_disk(options: disk_args::Disk, terminal: Terminal) -> Result<()> {
    let disk_args::Disk { size, out, durably } = options;
    let target = out.clone();
    let made = blocking(move |stop| {
        let disk = Ext4Upper::new(size)?;
        let mut file = AtomicFile::create(&target, durably.options(), stop)?;
        disk.join(&[], &mut file)?;
        file.replaces_no_used_disk()?;
        file.publish()
    });
    made.await.map_err(|e| e.with_context("path", out.display()))?;
    let text = || format!("{}  {} ext4, empty\n", out.display(), Size(size));
    terminal.show(&json!({ "path": out.display().to_string(), "size": size }), text)
}

/// Refuses a terminal in place of a tar: the command would wait without a message.
pub(crate) fn refuse_terminal(path: &Path) -> Result<()> {
    if path == Path::new("-") && io::stdin().is_terminal() {
        return Err(Error::config("refusing to read a tar from a terminal")
            .with_hint("name a file, or pipe a program's output into the command"));
    }
    Ok(())
}

/// The bytes of a file or of a pipe, until the work is cancelled: a pipe may never send.
pub(crate) struct Input {
    file: File,
    stop: Stop,
}

impl Input {
    pub(crate) fn open(path: &Path, stop: &Stop) -> Result<Self> {
        let opened = if path == Path::new("-") {
            io::stdin().as_fd().try_clone_to_owned().map(File::from)
        } else {
            // A named pipe that no program writes to is waited for below, and not here.
            let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
            File::options().read(true).custom_flags(nonblocking).open(path)
        };
        let at = |e| open_error("opening the layer", e).with_context("path", path.display());
        let file = opened.map_err(at)?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            let hint = format!("pack it: tar -C {} -c . | plyfold layer - --out FILE.erofs", path.display());
            let error = Error::config("the layer is a directory, and not a tar");
            return Err(error.with_context("path", path.display()).with_hint(hint));
        }
        Ok(Self::of(file, stop))
    }

    /// A file that can be read several times: of what comes once, a temporary one in `folder` with all of its bytes.
    pub(crate) fn rereadable(path: &Path, folder: &Path, stop: &Stop) -> Result<File> {
        let mut input = Self::open(path, stop)?;
        if let Some(file) = input.whole_file()? {
            return Ok(file);
        }
        let mut file = temporary_file(folder)?;
        let copied = io::copy(&mut input, &mut file);
        copied.map_err(|e| Error::io(format!("copying {} to a temporary file", path.display()), e))?;
        Ok(file)
    }

    pub(crate) fn of(file: File, stop: &Stop) -> Self {
        Self { file, stop: stop.clone() }
    }

    /// The same file once more, where its bytes can be read again: not of a pipe, nor of one that is already read in part.
    fn whole_file(&self) -> Result<Option<File>> {
        let is_whole = (&self.file).stream_position().is_ok_and(|position| position == 0)
            && self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        let again = is_whole.then(|| self.file.try_clone()).transpose();
        again.map_err(|e| Error::io("opening the layer", e))
    }
}

impl Seek for Input {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        loop {
            self.stop.check()?;
            if poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&pause))? > 0 {
                match self.file.read(buf) {
                    // Another process has read it.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => return outcome,
                }
            }
        }
    }
}
