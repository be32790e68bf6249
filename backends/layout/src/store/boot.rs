//! The check of a store at the first open after a boot.
//!
//! What plyfold stores is on the disk before it can be seen. Other tools that write into the same layout do not wait
//! for that: after a power cut, what they wrote last may be there by its name, and be empty or torn. The kernel writes
//! back what is dirty within some 35 seconds (`vm.dirty_expire_centisecs`, `vm.dirty_writeback_centisecs`), under load
//! within minutes; so the first open of a boot reads again what was changed up to [`WINDOW`] before the last change of
//! the boot before, and quarantines what is damaged.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use plyfold_core::{Error, Result};
use rustix::time::{ClockId, clock_gettime};

use plyfold_core::blocking::Stop;

use super::items::{self, Item};
use super::quarantine;
use super::reading::{self, Verdict, Watch};
use crate::durable;
use crate::root::Root;

/// How far back what was changed last may not have reached the disk, in nanoseconds.
const WINDOW: i128 = 600 * NANOS;
const NANOS: i128 = 1_000_000_000;
/// The lock, and the boots under which the store has been looked at: one line for each, of machines that share it.
const RECORD: &str = "boot";
/// The lines that are kept.
const MACHINES: usize = 64;

/// Checks the store if this was not done since the boot. A store that cannot be written is not checked: its content
/// is verified when it is read. Best effort: a store that cannot be looked at can still be opened, and is looked at
/// next time.
pub(super) fn check(root: &Root) {
    // Without this file the time of the boot is unknown.
    let Ok(boot) = fs::read_to_string("/proc/sys/kernel/random/boot_id") else { return };
    let record = fs::read_to_string(root.path().join("locks").join(RECORD));
    if record.is_ok_and(|record| knows(&record, boot.trim())) || root.is_read_only() {
        return;
    }
    let (now, up) = (nanoseconds(ClockId::Realtime), nanoseconds(ClockId::Boottime));
    if let Err(e) = check_once(root, boot.trim(), now - up, now) {
        tracing::warn!("{} may have damage from before the machine was started: {e}", root.path().display());
    }
}

fn knows(record: &str, boot: &str) -> bool {
    record.lines().any(|line| line == boot)
}

fn check_once(root: &Root, boot: &str, booted: i128, now: i128) -> Result<()> {
    // A concurrent open waits for the first one, which has then done the check.
    let mut record = durable::lock(root, RECORD)?;
    let at = |e| Error::io("reading which boots the store has seen", e);
    let mut text = String::new();
    record.read_to_string(&mut text).map_err(at)?;
    if knows(&text, boot) {
        return Ok(());
    }
    reread(root, changed_last(items::all(root)?, booted, now))?;
    let lines: Vec<&str> = text.lines().chain([boot]).collect();
    let text = lines[lines.len().saturating_sub(MACHINES)..].join("\n") + "\n";
    // Not synced: if the line is lost, the check is done once more.
    let emptied = record.set_len(0).and_then(|()| record.seek(SeekFrom::Start(0)));
    emptied.and_then(|_| record.write_all(text.as_bytes())).map_err(at)
}

fn nanoseconds(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * NANOS + i128::from(time.tv_nsec)
}

/// What was changed from [`WINDOW`] before the last change of earlier boots on. That is more than what may be damaged:
/// where clocks have been set, the order of times is not that of events.
fn changed_last(mut items: Vec<Item>, booted: i128, now: i128) -> Vec<Item> {
    let earlier = items.iter().map(|item| item.changed).filter(|&changed| changed < booted || changed > now);
    let Some(last) = earlier.max() else { return Vec::new() };
    items.retain(|item| item.changed >= last - WINDOW);
    items
}

fn reread(root: &Root, items: Vec<Item>) -> Result<()> {
    let unwatched = Watch { read: &|_| (), stop: &Stop::default() };
    reading::read_all(items, &unwatched, |item, verdict| {
        match verdict {
            Verdict::Damaged(why) => tracing::warn!("{} is damaged: {why}", item.path.display()),
            Verdict::Remains => {}
            Verdict::Gone | Verdict::OtherMode(..) | Verdict::Sound | Verdict::Unfinished => return Ok(()),
        }
        quarantine::remove(root, &item).map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plyfold_core::cache::DamagedPart;
    use plyfold_core::digest;

    /// A store with three blobs, two of which are torn.
    fn store() -> (tempfile::TempDir, Root, [std::path::PathBuf; 3]) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().to_owned(), true, false);
        let blobs = folder.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let paths =
            ["torn", "empty", "sound"].map(|content| blobs.join(digest::sha256(content.as_bytes()).digest()));
        for (path, content) in paths.iter().zip(["to", "", "sound"]) {
            fs::write(path, content).unwrap();
        }
        (folder, root, paths)
    }

    #[test]
    fn the_first_open_of_a_boot_looks_and_later_ones_do_not() {
        let (folder, root, [torn, empty, sound]) = store();
        let now = nanoseconds(ClockId::Realtime) + NANOS;
        check_once(&root, "first", now, now).unwrap();
        assert!(!torn.exists() && !empty.exists() && sound.exists());
        assert_eq!(fs::read_dir(folder.path().join("quarantine")).unwrap().count(), 2);
        fs::write(&sound, "changed").unwrap();
        check_once(&root, "first", now, now).unwrap();
        assert!(sound.exists());
        // A boot of another machine does not remove this machine's line.
        check_once(&root, "second", now + NANOS, now + NANOS).unwrap();
        assert!(!sound.exists());
        let record = fs::read_to_string(folder.path().join("locks/boot")).unwrap();
        assert_eq!(record, "first\nsecond\n");
        for machine in 0..2 * MACHINES {
            check_once(&root, &machine.to_string(), now, now).unwrap();
        }
        let record = fs::read_to_string(folder.path().join("locks/boot")).unwrap();
        assert_eq!(record.lines().count(), MACHINES);
        assert!(knows(&record, &(2 * MACHINES - 1).to_string()));
    }

    #[test]
    fn a_second_open_waits_and_checks_nothing() {
        let (_folder, root, [torn, ..]) = store();
        let now = nanoseconds(ClockId::Realtime) + NANOS;
        let mut first = durable::lock(&root, RECORD).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| check_once(&root, "this", now, now));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!second.is_finished());
            first.write_all(b"this\n").unwrap();
            drop(first);
            second.join().unwrap().unwrap();
        });
        assert!(torn.exists());
    }

    fn items(changed: &[i128]) -> Vec<Item> {
        let item = |&minute: &i128| Item {
            part: DamagedPart::Blob(digest::sha256(b"")),
            path: "blob".into(),
            kind: rustix::fs::FileType::RegularFile,
            size: 0,
            used: std::time::SystemTime::UNIX_EPOCH,
            changed: minute * 60 * NANOS,
            identity: (0, 0),
        };
        changed.iter().map(item).collect()
    }

    #[test]
    fn what_was_changed_ten_minutes_before_the_last_boot_ended_is_read() {
        let minutes = |changed: &[i128], booted: i128, now: i128| -> Vec<i128> {
            let last = changed_last(items(changed), booted * 60 * NANOS, now * 60 * NANOS);
            last.iter().map(|item| item.changed / 60 / NANOS).collect()
        };
        assert_eq!(minutes(&[], 100, 200), [0; 0]);
        assert_eq!(minutes(&[10, 49, 50, 60, 120], 100, 200), [50, 60, 120]);
        // Made since the start: nothing is older.
        assert_eq!(minutes(&[110, 120], 100, 200), [0; 0]);
        // A clock that begins in 1970 at every boot.
        assert_eq!(minutes(&[900, 995, 1000], 0, 5), [995, 1000]);
    }
}
