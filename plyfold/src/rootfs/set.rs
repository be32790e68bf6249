//! Files that appear together, in place of an older set or not at all.
//!
//! All files are written, and synced, in a folder of their own. What comes then depends on what is in their place:
//!
//! | there is | the set appears by | a failure or a power cut leaves |
//! |---|---|---|
//! | nothing | one rename of the folder | nothing, or the whole set |
//! | a folder with an older set and nothing else | one exchange of the two folders | the whole old set, or the new one |
//! | any other folder | a rename for each file, which a failure undoes | on a failure the old set; after a power cut between two of them files of the old set or of the new one, never of both |
//!
//! Of several that make a set in one folder at the same time, one after the other looks at what is there and publishes: they
//! lock the folder. A new folder has the lock of its set from the start.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use plyfold_core::{ArtifactHandle, Error, ErrorKind, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use self::directory::Directory;
use self::names::{LIST, SetNames};
use self::place::{OutputState, like};
use self::staging_folder::{OLD, StagingFolder};
use self::turn::Turn;
use crate::atomic_file::{self, AtomicFile, FileOptions, SHARED};
use crate::blocking::Stop;
use crate::durable::{parent, sync_folder};

use self::names::{MERGED, UPPER, VMDK, WRITTEN};

mod directory;
pub(super) mod names;
mod place;
mod staging_folder;
mod turn;

/// What is where a set is to appear, and a folder for files on their way there: on the same file system, in a folder that
/// is there already. What killed processes have left in that one is removed.
fn staged(out: &Path) -> Result<(OutputState, StagingFolder)> {
    let begin = |place: &OutputState| {
        let there = place.parent().ancestors().find(|ancestor| ancestor.is_dir());
        StagingFolder::new(there.unwrap_or(Path::new(".")))
    };
    let mut place = OutputState::of(out)?;
    let mut stage = begin(&place);
    if let (Err(_), OutputState::Older(folder)) = (&stage, &place) {
        // A user who may write only to the folder itself, not to its parent, gets the files one by one.
        place = OutputState::Other(folder.clone());
        stage = begin(&place);
    }
    let stage = stage.map_err(|e| Error::io("making a folder for the output", e));
    Ok((place, stage.map_err(|e| e.with_context("path", out.display()))?))
}

/// A folder for files on their way to a set, which is removed with this value, or by the next run.
pub(super) fn folder_for(out: &Path) -> Result<impl AsRef<Path> + Send + Sync + use<>> {
    staged(out).map(|(_, stage)| stage)
}

/// The same in a folder that holds temporary files, which is made when it is not there.
pub(super) fn folder_in(parent: &Path) -> Result<impl AsRef<Path> + Send + Sync + use<>> {
    let stage = fs::create_dir_all(parent).and_then(|()| StagingFolder::new(parent));
    let stage = stage.map_err(|e| Error::io("making a temporary folder", e));
    stage.map_err(|e| e.with_context("path", parent.display()))
}

/// The files, in a folder of their own.
pub(super) struct Set<'a> {
    out: &'a Path,
    options: FileOptions,
    stop: &'a Stop,
    place: OutputState,
    stage: StagingFolder,
    /// The folders that the output is in, as far as they are new.
    parents: Directory,
    names: Vec<String>,
    /// Those that are not durable yet.
    unsynced: Vec<String>,
    /// Those that refer to others.
    referring: Vec<String>,
    turn: Turn,
    /// Whether a finished file was linked.
    is_linking: bool,
    /// Whether only a folder that is not there yet may become the set.
    is_new: bool,
}

impl<'a> Set<'a> {
    /// Begins a set that will appear as the folder `out`.
    pub(super) fn new(out: &'a Path, options: FileOptions, stop: &'a Stop) -> Result<Self> {
        options.check()?;
        // Until the names are declared. Others stage their files meanwhile, in the same folder if it cannot be exchanged.
        let mut turn = Turn::default();
        turn.take(out, stop)?;
        let (place, stage) = staged(out)?;
        let parents = Directory::at(place.parent())?;
        Ok(Self {
            out,
            options,
            stop,
            place,
            stage,
            parents,
            names: Vec::new(),
            unsynced: Vec::new(),
            referring: Vec::new(),
            turn,
            is_linking: false,
            is_new: false,
        })
    }

    /// Says which files will be added. The set lists those that no set has by itself, so that the next one removes
    /// them.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) when there is a file of such a name that no set has recorded or listed.
    pub(super) fn declare<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) -> Result<()> {
        let names: Vec<&str> = names.into_iter().collect();
        let older = SetNames::listed_in(self.out);
        for name in &names {
            refuse_foreign(&older, self.out, name)?;
        }
        self.turn = Turn::default();
        let listed = SetNames::of(names);
        if listed.is_empty() {
            return Ok(());
        }
        let write = |file: &mut AtomicFile| {
            let list = listed.list(file.file().metadata()?.ino());
            Ok(io::Write::write_all(file, list.as_bytes())?)
        };
        self.add(LIST, write).map(drop)
    }

    /// The folder that the files wait in, for other files on the same disk.
    pub(super) fn scratch(&self) -> &Path {
        self.stage.path()
    }

    /// Says that the folder has to be new: one that comes meanwhile is not touched.
    pub(super) fn in_new_folder(&mut self) -> Result<()> {
        self.is_new = true;
        match self.place {
            OutputState::Nothing { .. } => Ok(()),
            _ => Err(taken(self.out)),
        }
    }

    /// Says that a file refers to others: it appears behind them.
    pub(super) fn refers(&mut self, name: &str) {
        self.referring.push(name.to_owned());
    }

    /// Adds a file, and yields the path that it will have, and its size in bytes.
    pub(super) fn add(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut AtomicFile) -> Result<()>,
    ) -> Result<(PathBuf, u64)> {
        self.put(name, name == UPPER, content)
    }

    /// As [`Set::add`], of a finished file, whose content it [takes](AtomicFile::fill_from). Once one was linked, because the
    /// file system cannot clone, the next ones are linked without a try.
    pub(super) fn add_finished(
        &mut self,
        name: &str,
        artifact: &dyn ArtifactHandle,
    ) -> Result<(PathBuf, u64)> {
        if self.is_linking
            && !WRITTEN.contains(&name)
            && let Some(source) = artifact.path()
        {
            self.check_name(name)?;
            if let Ok(size) = atomic_file::link(source, &self.stage.path().join(name)) {
                self.settled(name, true);
                return Ok((self.out.join(name), size));
            }
        }
        let mut is_link = false;
        let added = self.add(name, |out| {
            out.fill_from(artifact)?;
            is_link = out.is_link();
            Ok(())
        });
        self.is_linking |= is_link;
        added
    }

    /// As [`Set::add`], for a file of the set's own that a guest will write to.
    pub(super) fn add_writable(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut AtomicFile) -> Result<()>,
    ) -> Result<(PathBuf, u64)> {
        self.put(name, true, content)
    }

    fn put(
        &mut self,
        name: &str,
        is_writable: bool,
        content: impl FnOnce(&mut AtomicFile) -> Result<()>,
    ) -> Result<(PathBuf, u64)> {
        self.check_name(name)?;
        let mode = match self.options.mode {
            // Its owner writes to it, whatever its mode.
            mode if is_writable => mode.map(|mode| mode | 0o200),
            mode if self.options.copy => mode,
            _ => Some(SHARED),
        };
        // Files that can be opened again are synced together, before the set appears.
        let is_open_to_us = self.options.owner.is_none() && mode.is_none_or(|mode| mode & 0o400 != 0);
        let sync = self.options.sync && !is_open_to_us;
        let options = FileOptions { mode, copy: self.options.copy || is_writable, sync, ..self.options };
        let target = self.out.join(name);
        let mut file = AtomicFile::create_in(self.stage.path(), &target, options, self.stop)?;
        content(&mut file).map_err(|e| e.with_context("path", target.display()))?;
        // One that guests do not write to may have the name of one that they do.
        if is_writable || WRITTEN.contains(&name) {
            file.replaces_no_used_disk()?;
        }
        let size = file.settle(&self.stage.path().join(name))?;
        self.settled(name, is_open_to_us);
        Ok((target, size))
    }

    fn check_name(&self, name: &str) -> Result<()> {
        self.stop.check()?;
        if self.names.iter().any(|there| there == name) {
            return Err(Error::new(ErrorKind::Internal, format!("two files of one set are called {name}")));
        }
        Ok(())
    }

    /// One more file is in the folder.
    fn settled(&mut self, name: &str, is_open_to_us: bool) {
        self.names.push(name.to_owned());
        if self.options.sync && is_open_to_us {
            self.unsynced.push(name.to_owned());
        }
    }

    /// Publishes the set, and removes the older one. Returns what its user has to know.
    pub(super) fn publish(mut self) -> Result<Option<String>> {
        self.stop.check()?;
        self.sync_files()?;
        let published = match self.place.clone() {
            OutputState::Nothing { .. } => self.appear(),
            OutputState::Older(folder) => self.exchange(&folder),
            OutputState::Other(folder) => self.replace(&folder),
        };
        published.map_err(|e| e.with_context("path", self.out.display()))?;
        self.parents.keep();
        Ok(self.turn.without.as_ref().map(|e| {
            format!("the output directory cannot be locked ({e}): let no other process write a set to it at the same time")
        }))
    }

    /// Makes the files durable, links to finished ones, too: not every cache has synced what it has. Together they take little
    /// more than one: the first sync writes the metadata of all.
    fn sync_files(&self) -> Result<()> {
        self.unsynced.iter().try_for_each(|name| {
            self.stop.check()?;
            let synced = fs::File::open(self.stage.path().join(name)).and_then(|file| file.sync_all());
            let at =
                |e| Error::io("syncing the output", e).with_context("path", self.out.join(name).display());
            synced.map_err(at)
        })
    }

    /// There was nothing: the folder gets its name.
    fn appear(&mut self) -> Result<()> {
        self.sync(self.stage.path())?;
        let stage = self.stage.path().to_owned();
        match renameat_with(CWD, &stage, CWD, self.out, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // Where the file system does not know the flag: an empty folder at most is replaced.
            Err(rustix::io::Errno::INVAL) if fs::rename(&stage, self.out).is_ok() => {}
            Err(_) if self.is_new && self.out.exists() => return Err(taken(self.out)),
            // Another process has made it meanwhile.
            Err(_) if self.out.is_dir() => return self.replace(self.out),
            Err(e) => return Err(publishing(e.into())),
        }
        let synced = self
            .sync(self.place.parent())
            .and_then(|()| if self.options.sync { self.parents.sync() } else { Ok(()) });
        match &synced {
            Ok(()) => self.stage.keep(),
            // Undo what may not survive a power cut. If the undo fails, the set is complete and visible.
            Err(_) => drop(fs::rename(self.out, &stage)),
        }
        synced
    }

    /// There is an older set and nothing else: the folders change places.
    fn exchange(&mut self, folder: &Path) -> Result<()> {
        self.turn.take(folder, self.stop)?;
        let stage = self.stage.path().to_owned();
        // What a guest has written to is kept, if the new set has none in its place.
        let is_kept = |name: &&str| {
            !self.names.iter().any(|new| new == name) && fs::symlink_metadata(folder.join(name)).is_ok()
        };
        let keep = |name: &str| fs::hard_link(folder.join(name), stage.join(name)).is_ok();
        let is_ready =
            place::is_a_set(folder) && like(&stage, folder) && WRITTEN.into_iter().filter(is_kept).all(keep);
        if !is_ready {
            return self.replace(folder);
        }
        self.sync(&stage)?;
        if renameat_with(CWD, &stage, CWD, folder, RenameFlags::EXCHANGE).is_err() {
            return self.replace(folder);
        }
        self.sync(self.place.parent()).inspect_err(|_| {
            let _ = renameat_with(CWD, &stage, CWD, folder, RenameFlags::EXCHANGE);
        })?;
        // Files that were added to the old folder since are kept.
        let older = SetNames::listed_in(&stage);
        for entry in fs::read_dir(&stage).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let move_on =
                || renameat_with(CWD, entry.path(), CWD, folder.join(&name), RenameFlags::NOREPLACE);
            if !older.has(&name) && move_on().is_err() {
                self.stage.keep();
            }
        }
        Ok(())
    }

    /// There is a folder that others use: what is older goes, then the new files come.
    fn replace(&mut self, folder: &Path) -> Result<()> {
        self.turn.take(folder, self.stop)?;
        let mut moves = Moves { old: self.stage.path().join(OLD), done: Vec::new() };
        let outcome = fs::create_dir(&moves.old)
            .map_err(publishing)
            .and_then(|()| self.replace_each(folder, &mut moves))
            .and_then(|()| self.sync(folder))
            .and_then(|()| self.sync(parent(folder)));
        outcome.map_err(|e| {
            if moves.undo() {
                return e;
            }
            self.stage.keep();
            e.with_hint(format!("older files that could not be put back are in {}", moves.old.display()))
        })
    }

    fn replace_each(&self, folder: &Path, moves: &mut Moves) -> Result<()> {
        // Old and new files never stand side by side: a merged image over the layers of another set shows wrong data.
        let older = SetNames::listed_in(folder);
        for name in &self.names {
            // It may have come since the set was declared.
            refuse_foreign(&older, folder, name)?;
        }
        let is_removed = |name: &OsString| {
            let is_replaced = self.names.iter().any(|new| OsStr::new(new) == name);
            let is_file = fs::symlink_metadata(folder.join(name)).is_ok_and(|found| found.is_file());
            let is_kept = WRITTEN.iter().any(|written| OsStr::new(written) == name) && !is_replaced;
            is_file && older.has(name) && !is_kept
        };
        let mut removed = place::names(folder).map_err(publishing)?;
        removed.retain(is_removed);
        // What says which files are the set's goes last, and comes first: a part of a set is known as one, too.
        let (telling, others): (Vec<OsString>, Vec<OsString>) =
            removed.into_iter().partition(|name| names::tells(name));
        for name in others {
            moves.make(&folder.join(&name), &moves.old.join(&name))?;
        }
        self.sync_moves(folder, moves)?;
        for name in telling {
            moves.make(&folder.join(&name), &moves.old.join(&name))?;
        }
        let is_last = |name: &&String| self.referring.contains(*name) || *name == MERGED || *name == VMDK;
        let (last, first): (Vec<&String>, Vec<&String>) = self.names.iter().partition(is_last);
        let (telling, first): (Vec<&String>, Vec<&String>) =
            first.into_iter().partition(|name| names::tells(OsStr::new(name)));
        let appear =
            |name: &String, moves: &mut Moves| moves.make(&self.stage.path().join(name), &folder.join(name));
        telling.into_iter().try_for_each(|name| appear(name, moves))?;
        for names in [first, last] {
            self.sync_moves(folder, moves)?;
            names.into_iter().try_for_each(|name| appear(name, moves))?;
        }
        Ok(())
    }

    /// Makes what was renamed so far durable.
    fn sync_moves(&self, folder: &Path, moves: &Moves) -> Result<()> {
        if moves.done.is_empty() { Ok(()) } else { self.sync(folder) }
    }

    fn sync(&self, folder: &Path) -> Result<()> {
        if self.options.sync { sync_folder(folder) } else { Ok(()) }
    }
}

/// The error for a new folder where something is.
fn taken(out: &Path) -> Error {
    let error = Error::config("there is something of this name already").with_context("path", out.display());
    error.with_hint("choose another directory, or remove that one if it is no longer needed")
}

fn publishing(e: io::Error) -> Error {
    Error::io("publishing the output", e)
}

/// Refuses to replace a file that is none of the older set's.
fn refuse_foreign(older: &SetNames, folder: &Path, name: &str) -> Result<()> {
    if older.has(OsStr::new(name)) || fs::symlink_metadata(folder.join(name)).is_err() {
        return Ok(());
    }
    Err(Error::config(format!("the output directory has a file {name} that is not of the set there"))
        .with_context("path", folder.join(name).display())
        .with_hint("move it away, or choose another directory"))
}

/// Renames that can be undone.
struct Moves {
    /// Where what was replaced waits.
    old: PathBuf,
    done: Vec<(PathBuf, PathBuf)>,
}

impl Moves {
    fn make(&mut self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(publishing)?;
        self.done.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Whether everything is where it was.
    fn undo(&mut self) -> bool {
        let mut is_undone = true;
        for (from, to) in self.done.drain(..).rev() {
            is_undone &= fs::rename(to, from).is_ok();
        }
        is_undone
    }
}

#[cfg(test)]
mod tests;
