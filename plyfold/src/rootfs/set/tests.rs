use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::{Barrier, mpsc};
use std::time::Duration;

use super::staging_folder::OLD as OLD_FOLDER;
use super::*;
use plyfold_core::snapshot::RECORD;

/// What a folder has: names with their content, of the list without its first line, and without the record.
fn content(folder: &Path) -> BTreeMap<String, String> {
    let names = place::names(folder).unwrap();
    let read = |name: OsString| {
        let text = fs::read_to_string(folder.join(&name)).unwrap_or_else(|_| "a folder".to_owned());
        let names = text.split_once('\n').filter(|_| name == LIST).map(|(_, names)| names.to_owned());
        (name.into_string().unwrap(), names.unwrap_or(text))
    };
    names.into_iter().filter(|name| name != RECORD).map(read).collect()
}

/// Adds a record, as every set has one. It is that of another version: which files are the set's is not known.
fn add_record(set: &mut Set<'_>) -> Result<()> {
    set.add(RECORD, |file| Ok(file.write_all(b"{}")?)).map(drop)
}

/// Writes a list as sets do.
fn write_list(folder: &Path, names: &str) {
    let path = folder.join(LIST);
    let inode = fs::File::create(&path).unwrap().metadata().unwrap().ino();
    fs::write(path, format!("{inode}\n{names}")).unwrap();
}

fn files<const N: usize>(files: [(&str, &str); N]) -> BTreeMap<String, String> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

const SET: [(&str, &str); 3] = [("layer-00.erofs", "old"), ("layer-01.erofs", "old"), (MERGED, "old merged")];

/// Publishes files after doing something in between.
fn publish(out: &Path, names: &[(&str, &str)], between: impl FnOnce(&Path)) -> Result<()> {
    let stop = Stop::default();
    let mut set = Set::new(out, FileOptions::default(), &stop)?;
    set.declare(names.iter().map(|(name, _)| *name))?;
    for (name, text) in names {
        let write = |file: &mut AtomicFile| Ok(file.write_all(text.as_bytes())?);
        let (path, _) = set.add(name, write)?;
        assert_eq!(path, out.join(name));
    }
    add_record(&mut set)?;
    between(set.stage.path());
    set.publish().map(|note| assert_eq!(note, None))
}

#[test]
fn a_new_folder_appears_with_all_its_files_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a/b/out");
    publish(&out, &SET, |_| assert!(!out.exists())).unwrap();
    assert_eq!(content(&out), files(SET));
    assert_eq!(content(out.parent().unwrap()).len(), 1);
    let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("layer-00.erofs"), mode(MERGED)), (0o444, 0o444));

    let stop = Stop::default();
    let dropped = dir.path().join("c/d/out");
    drop(Set::new(&dropped, FileOptions::default(), &stop).unwrap());
    assert_eq!(content(dir.path()).len(), 1);
}

#[test]
fn an_older_set_is_exchanged_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    publish(&out, &SET, |_| {}).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o2750)).unwrap();
    fs::write(out.join(UPPER), "a guest's").unwrap();
    let (inode, before) = (fs::metadata(&out).unwrap().ino(), content(&out));
    publish(&out, &[("layer-00.erofs", "new")], |_| assert_eq!(content(&out), before)).unwrap();
    // Nothing is left of the old set but what a guest has written to.
    assert_eq!(content(&out), files([("layer-00.erofs", "new"), (UPPER, "a guest's")]));
    let found = fs::metadata(&out).unwrap();
    assert_ne!(found.ino(), inode);
    assert_eq!(found.mode() & 0o7777, 0o2750);
    assert_eq!(content(dir.path()).len(), 1);
}

#[test]
fn what_others_have_in_the_folder_stays() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    publish(&out, &SET, |_| {}).unwrap();
    fs::create_dir(out.join("theirs")).unwrap();
    fs::create_dir(out.join("layer-07.erofs")).unwrap();
    let inode = fs::metadata(&out).unwrap().ino();
    publish(&out, &[("layer-00.erofs", "new"), (UPPER, "upper")], |_| {}).unwrap();
    let folder = "a folder";
    let expected = [("layer-00.erofs", "new"), ("layer-07.erofs", folder), (UPPER, "upper")];
    let mut expected = files(expected);
    expected.insert("theirs".to_owned(), folder.to_owned());
    assert_eq!(content(&out), expected);
    assert_eq!(fs::metadata(&out).unwrap().ino(), inode);
    // Also what comes while the set is made.
    fs::remove_dir(out.join("theirs")).unwrap();
    fs::remove_dir(out.join("layer-07.erofs")).unwrap();
    publish(&out, &SET, |_| fs::write(out.join("late"), "theirs").unwrap()).unwrap();
    assert_eq!(content(&out).get("late").unwrap(), "theirs");
    assert_eq!(content(&out).get(MERGED).unwrap(), "old merged");
}

#[test]
fn a_set_that_fails_midway_leaves_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    publish(&out, &SET, |_| {}).unwrap();
    let new = [("layer-00.erofs", "new"), ("layer-01.erofs", "new"), (MERGED, "new"), (VMDK, "new")];
    for others in [false, true] {
        if others {
            fs::write(out.join("theirs"), "theirs").unwrap();
        }
        let before = content(&out);
        let stop = Stop::default();
        let mut set = Set::new(&out, FileOptions::default(), &stop).unwrap();
        set.add("layer-00.erofs", |_| Ok(())).unwrap();
        set.add("layer-01.erofs", |_| Err(Error::corrupt("no"))).unwrap_err();
        drop(set);
        assert_eq!(content(&out), before);
    }
    // The last file cannot get its place when the others have theirs.
    let before = content(&out);
    publish(&out, &new, |stage| fs::remove_file(stage.join(VMDK)).unwrap()).unwrap_err();
    assert_eq!(content(&out), before);
    assert_eq!(content(dir.path()).len(), 1);
}

#[test]
fn what_the_dead_have_left_goes_with_the_next_set() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let stop = Stop::default();
    // One of a running process, one of a killed process, and one with another file.
    let mut alive = Set::new(&out, FileOptions::default(), &stop).unwrap();
    alive.add(MERGED, |_| Ok(())).unwrap();
    for name in ["dead", "other"] {
        let dead = dir.path().join(format!("{}{name}", staging_folder::STAGE));
        fs::create_dir_all(dead.join(OLD_FOLDER)).unwrap();
        for file in [MERGED, ".plyfold-tmp-abcdef", ".old/layer-00.erofs"] {
            fs::write(dead.join(file), "").unwrap();
        }
    }
    let other = dir.path().join(format!("{}other/theirs", staging_folder::STAGE));
    fs::write(&other, "").unwrap();
    publish(&out, &SET, |_| {}).unwrap();
    let left = content(dir.path());
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(content(other.parent().unwrap()), files([("theirs", "")]));
    alive.publish().unwrap();
    assert_eq!(content(&out), files([(MERGED, "")]));
}

#[test]
fn a_file_where_the_folder_belongs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("out"), "").unwrap();
    let error = publish(&dir.path().join("out"), &SET, |_| {}).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    assert!(publish(&dir.path().join("link"), &SET, |_| {}).is_err());
    // A link to a folder is followed, and stays.
    fs::create_dir(dir.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", dir.path().join("good")).unwrap();
    for _ in 0..2 {
        publish(&dir.path().join("good"), &SET, |_| {}).unwrap();
        assert_eq!(content(&dir.path().join("real")), files(SET));
        assert!(fs::symlink_metadata(dir.path().join("good")).unwrap().is_symlink());
    }
}

/// A format may give its files any name, and so may a user.
#[test]
fn files_of_other_formats_go_with_their_set_and_those_of_users_never() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let initramfs = [("rootfs.cpio", "cpio"), ("layer-00.verity", "hashes")];
    let list = (LIST, "layer-00.verity\nrootfs.cpio\n");
    for others in [false, true] {
        publish(&out, &initramfs, |_| {}).unwrap();
        let mut expected = files(initramfs);
        expected.extend(files([list]));
        if others {
            for theirs in ["rootfs.tar", "layer-00.img"] {
                fs::write(out.join(theirs), "theirs").unwrap();
                expected.insert(theirs.to_owned(), "theirs".to_owned());
            }
        }
        assert_eq!(content(&out), expected);
        // The same again, then another format, with which the list goes.
        publish(&out, &initramfs, |_| {}).unwrap();
        assert_eq!(content(&out), expected);
        publish(&out, &SET, |_| {}).unwrap();
        let mut expected = files(SET);
        if others {
            expected.extend(files([("rootfs.tar", "theirs"), ("layer-00.img", "theirs")]));
        }
        assert_eq!(content(&out), expected);
    }
    // A file of the user's by the name of a new one is refused, before the work and after it.
    let before = content(&out);
    let error = publish(&out, &[("rootfs.tar", "ours")], |_| {}).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
    let late = || fs::write(out.join("rootfs.cpio"), "theirs").unwrap();
    publish(&out, &initramfs, |_| late()).unwrap_err();
    let mut after = before.clone();
    after.insert("rootfs.cpio".to_owned(), "theirs".to_owned());
    assert_eq!(content(&out), after);
    assert_eq!(content(dir.path()).len(), 1);
}

/// A list that others have written names files of the folder alone.
#[test]
fn a_list_names_no_other_files() {
    let names = ["../a.img", "a/b.img", ".bashrc", "a", "a.b.c", "A.img", "rootfs.cpio", MERGED, ""];
    let set = SetNames::of(names);
    assert_eq!(set.list(7), "7\nrootfs.cpio\n");
    let dir = tempfile::tempdir().unwrap();
    let listed = || SetNames::waiting_in(dir.path());
    assert_eq!(listed(), SetNames::default());
    write_list(dir.path(), &names.join("\n"));
    assert_eq!(listed(), set);
    // One that was copied to here, or came with the folder, lists what may be the user's.
    let (list, copy) = (dir.path().join(LIST), dir.path().join("copy"));
    fs::copy(&list, &copy).unwrap();
    fs::rename(&copy, &list).unwrap();
    assert_eq!(listed(), SetNames::default());
    write_list(dir.path(), &"a.img\n".repeat(1 << 18));
    assert_eq!(listed(), SetNames::default());
    // A pipe is not waited for.
    fs::remove_file(&list).unwrap();
    rustix::fs::mknodat(CWD, &list, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(listed(), SetNames::default());
}

/// What a killed run of another format has left is removed by its list.
#[test]
fn what_the_dead_have_listed_goes_with_the_next_set() {
    let dir = tempfile::tempdir().unwrap();
    let dead = dir.path().join(format!("{}dead", staging_folder::STAGE));
    fs::create_dir_all(dead.join(OLD_FOLDER)).unwrap();
    for file in ["rootfs.cpio", ".old/rootfs.tar"] {
        fs::write(dead.join(file), "").unwrap();
    }
    write_list(&dead, "rootfs.cpio\n");
    publish(&dir.path().join("out"), &SET, |_| {}).unwrap();
    // The older file had no list: it may be the user's.
    assert_eq!(content(&dead), files([(OLD_FOLDER, "a folder")]));
    write_list(&dead.join(OLD_FOLDER), "rootfs.tar\n");
    publish(&dir.path().join("out"), &SET, |_| {}).unwrap();
    assert!(!dead.exists());
}

/// Whatever adds it: the name is the upper's in every set.
#[test]
fn an_upper_that_was_written_to_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let disk = "a new disk".repeat(1000);
    for _ in 0..2 {
        publish(&out, &[(UPPER, &disk)], |_| {}).unwrap();
    }
    fs::remove_file(out.join(UPPER)).unwrap();
    fs::write(out.join(UPPER), "what a guest has written").unwrap();
    let before = content(&out);
    let error = publish(&out, &[(UPPER, &disk)], |_| {}).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
    assert_eq!(content(&out), before);
}

/// Without a record no file is a set's, whatever it is called.
#[test]
fn files_of_such_names_are_the_users_where_no_set_is() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    for (name, _) in SET {
        fs::write(out.join(name), "theirs").unwrap();
    }
    let before = content(&out);
    let error = publish(&out, &SET, |_| {}).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
    assert_eq!(content(&out), before);
    publish(&out, &[(VMDK, "new")], |_| {}).unwrap();
    let mut after = before.clone();
    after.insert(VMDK.to_owned(), "new".to_owned());
    assert_eq!(content(&out), after);
    // One that comes while the set is made.
    fs::remove_file(out.join(RECORD)).unwrap();
    let late = |_: &Path| fs::write(out.join("layer-07.erofs"), "theirs").unwrap();
    publish(&out, &[("layer-07.erofs", "new")], late).unwrap_err();
    assert_eq!(content(&out).get("layer-07.erofs").unwrap(), "theirs");
    assert_eq!(content(dir.path()).len(), 1);
}

#[test]
fn a_second_file_of_one_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for name in ["layer-00.erofs", "rootfs.cpio", LIST] {
        let error =
            publish(&out, &[("rootfs.cpio", "one"), (name, "one"), (name, "two")], |_| {}).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Internal, "{error}");
        assert!(!out.exists());
    }
}

/// Publishes in another thread; whether it has ended comes by the channel.
fn publishing_to(out: &Path, text: &'static str) -> mpsc::Receiver<Result<()>> {
    let (tell, told) = mpsc::channel();
    let out = out.to_owned();
    std::thread::spawn(move || {
        tell.send(publish(&out, &[("layer-00.erofs", text), ("rootfs.cpio", text)], |_| {}))
    });
    told
}

/// Longer than a set of two files takes to appear.
const WHILE: Duration = Duration::from_secs(1);

#[test]
fn a_folder_that_another_publishes_to_is_neither_looked_at_nor_changed() {
    for others in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        publish(&out, &SET, |_| {}).unwrap();
        if others {
            fs::write(out.join("mine"), "mine").unwrap();
        }
        let lock = fs::File::open(&out).unwrap();
        lock.lock().unwrap();
        // A name that is in its way for a moment: not all of the older set is listed now.
        fs::write(out.join("rootfs.cpio"), "half of another set").unwrap();
        let before = content(&out);
        let told = publishing_to(&out, "new");
        told.recv_timeout(WHILE).unwrap_err();
        assert_eq!(content(&out), before);
        // The folder is exchanged for another meanwhile, which has the same lock.
        fs::rename(&out, dir.path().join("older")).unwrap();
        fs::create_dir(&out).unwrap();
        let newer = fs::File::open(&out).unwrap();
        newer.lock().unwrap();
        drop(lock);
        told.recv_timeout(WHILE).unwrap_err();
        assert_eq!(content(&out), files([]));
        drop(newer);
        told.recv_timeout(30 * WHILE).unwrap().unwrap();
        let new = [("layer-00.erofs", "new"), ("rootfs.cpio", "new"), (LIST, "rootfs.cpio\n")];
        assert_eq!(content(&out), files(new));
    }
}

/// The first to appear holds the lock on the new folder until it has ended.
#[test]
fn who_finds_a_new_folder_in_the_place_of_nothing_waits_for_its_set() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let stop = Stop::default();
    let mut first = Set::new(&out, FileOptions::default(), &stop).unwrap();
    first.add(MERGED, |_| Ok(())).unwrap();
    add_record(&mut first).unwrap();
    let (tell, told) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let second = out.clone();
    std::thread::spawn(move || tell.send(publish(&second, &SET, |_| goes_on.recv().unwrap())));
    first.appear().unwrap();
    go_on.send(()).unwrap();
    told.recv_timeout(WHILE).unwrap_err();
    assert_eq!(content(&out), files([(MERGED, "")]));
    drop(first);
    told.recv_timeout(30 * WHILE).unwrap().unwrap();
    assert_eq!(content(&out), files(SET));
}

#[test]
fn one_that_waits_for_a_folder_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let lock = fs::File::open(dir.path()).unwrap();
    lock.lock().unwrap();
    let stop = Stop::default();
    stop.flag().store(true, std::sync::atomic::Ordering::Relaxed);
    let error = Set::new(dir.path(), FileOptions::default(), &stop).map(drop).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Cancelled);
}

/// A folder in which another set waits is not exchanged: its path stays.
#[test]
fn a_set_that_waits_in_the_folder_stays_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let stop = Stop::default();
    let mut waits = Set::new(&out, FileOptions::default(), &stop).unwrap();
    waits.declare([MERGED]).unwrap();
    publish(&out, &SET, |_| {}).unwrap();
    let inode = fs::metadata(&out).unwrap().ino();
    publish(&out, &[("layer-00.erofs", "new")], |_| {}).unwrap();
    assert_eq!(fs::metadata(&out).unwrap().ino(), inode);
    waits.add(MERGED, |_| Ok(())).unwrap();
    waits.publish().unwrap();
    assert_eq!(content(&out), files([(MERGED, "")]));
}

#[test]
fn sets_that_appear_at_the_same_time_are_never_mixed() {
    const TEXTS: [&str; 4] = ["a", "b", "c", "d"];
    for (others, older) in [(false, false), (false, true), (true, false), (true, true)] {
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out");
            if older {
                publish(&out, &SET, |_| {}).unwrap();
            }
            if others {
                fs::create_dir_all(&out).unwrap();
                fs::write(out.join("mine"), "mine").unwrap();
            }
            let start = Barrier::new(TEXTS.len());
            std::thread::scope(|scope| {
                for (at, text) in TEXTS.into_iter().enumerate() {
                    let (out, start) = (&out, &start);
                    scope.spawn(move || {
                        let of_other_formats = if at % 2 == 0 { "rootfs.cpio" } else { "rootfs.raw" };
                        let names = [("layer-00.erofs", text), (of_other_formats, text), (MERGED, text)];
                        let together = |_: &Path| {
                            start.wait();
                        };
                        publish(out, &names, together).unwrap();
                    });
                }
            });
            let mut left = content(&out);
            assert_eq!(left.remove("mine").is_some(), others);
            let list = left.remove(LIST).unwrap();
            assert!(left.contains_key(list.trim_end()), "{list} {left:?}");
            let texts: std::collections::BTreeSet<_> = left.values().collect();
            assert_eq!((left.len(), texts.len()), (3, 1), "{left:?}");
            assert_eq!(content(dir.path()).len(), 1);
        }
    }
}
