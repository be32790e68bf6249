//! What differs between two images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Cursor;
use std::path::Path;

use plyfold::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold::tree::MergedTree;
use plyfold::{Difference, Differences, FileChange, FileField, Result, printable};
use plyfold_conformance::samples::{self, LayerBuilder, docker_archive};
use plyfold_conformance::tree::{TreeLine, read_layer, stacked};

use super::run::{Place, check};

fn lower() -> LayerBuilder {
    LayerBuilder::new()
        .dir("etc", 0o755)
        .file("etc/content", 0o644, b"one")
        .file("etc/longer", 0o644, b"one")
        .file("etc/gone", 0o644, b"gone")
        .file("etc/same", 0o644, b"same")
        .file("etc/mode", 0o644, b"same")
        .file("etc/owner", 0o644, b"same")
        .file("etc/becomes-a-link", 0o644, b"same")
        .symlink("etc/link", "same")
        .char_device("etc/device", 0o600, 1, 3)
        .dir("removed", 0o755)
        .file("removed/a", 0o644, b"")
        .file("removed/b/c", 0o644, b"")
        .file("removed-not", 0o644, b"")
        .file("linked/a", 0o644, b"linked")
        .hard_link("linked/b", "linked/a")
        .hard_link("linked/c", "linked/a")
        .file("several/a", 0o644, b"several")
        .hard_link("several/b", "several/a")
}

fn upper() -> LayerBuilder {
    LayerBuilder::new()
        .file("etc/content", 0o644, b"two")
        .file("etc/longer", 0o644, b"longer")
        .whiteout("etc/gone")
        .file("etc/mode", 0o4755, b"same")
        .owner(7, 8)
        .file("etc/owner", 0o644, b"same")
        .symlink("etc/becomes-a-link", "same")
        .symlink("etc/link", "other")
        .char_device("etc/device", 0o600, 1, 5)
        .mtime("1700000000")
        .file("removed-not", 0o644, b"")
        .xattr("user.note", "a note")
        .file("etc/same", 0o644, b"same")
        .file("etc/new\n", 0o644, b"")
        .file(b"etc/b\xff", 0o644, b"")
        .whiteout("removed")
        .dir("new", 0o700)
        .file("new/file", 0o644, b"")
        .file("linked/c", 0o644, b"linked")
        .whiteout("several/a")
}

fn place() -> Place {
    let place = Place::new();
    let (lower, upper) = (lower().finish(), upper().finish());
    let before = samples::of_layers("before", std::slice::from_ref(&lower));
    let after = samples::of_layers("after", &[lower, upper]);
    for (name, sample) in [("before", &before), ("after", &after)] {
        let archive = docker_archive(&[(format!("localhost/{name}:1"), sample)]);
        fs::write(place.path(&format!("{name}.tar")), archive).unwrap();
    }
    place
}

#[test]
fn runs_are_as_they_were() {
    let place = place();
    let lines = [
        "diff {}/before.tar {}/after.tar -q",
        "diff {}/after.tar {}/before.tar -q",
        "diff {}/before.tar {}/after.tar -q --json",
        "diff {}/before.tar {}/after.tar -q --stat",
        "diff {}/before.tar {}/after.tar -q --stat --json",
        "diff {}/after.tar {}/after.tar -q",
        "diff {}/after.tar {}/after.tar -q --json",
        "diff localhost/before:1 localhost/after:1 --policy never --stat",
        "load {}/before.tar -q",
        "load {}/after.tar -q",
        "diff localhost/before:1 localhost/after:1 --policy never --stat",
        "diff localhost/before:1 localhost/none:1 --policy never",
        "diff {}/before.tar",
        "diff oci:examples/sample:latest {}/after.tar -q --platform linux/s390x",
    ];
    check("diff", &lines.map(|line| place.run(line)));
}

fn merged(layers: &[Vec<u8>], scratch: &Path) -> MergedTree {
    let layers = layers.iter().map(|tar| LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default()));
    MergedTree::read(layers, TreeLimits::default(), scratch).unwrap()
}

fn lines(layers: &[Vec<u8>]) -> BTreeMap<String, TreeLine> {
    let read = |tar: &Vec<u8>| {
        let mut tar = LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default()).unwrap();
        read_layer(&mut tar).unwrap()
    };
    let lines = stacked(layers.iter().map(read).collect()).unwrap();
    let what: BTreeMap<String, String> =
        lines.iter().map(|line| (line.path.clone(), line.what.clone())).collect();
    // Each name is what its file is, however many names that has.
    let line = |line: TreeLine| {
        let first = line.what.strip_prefix("= ").and_then(|first| what.get(first)).unwrap_or(&line.what);
        (line.path.clone(), TreeLine { links: 0, what: first.clone(), ..line })
    };
    lines.into_iter().map(line).collect()
}

/// The paths that differ, as the conformance suite's own model of an image says it; that does not tell which names have
/// parted.
#[test]
fn differences_are_those_of_the_trees() {
    let scratch = tempfile::tempdir().unwrap();
    let rootfs: Vec<Vec<u8>> =
        samples::rootfs().images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect();
    let sets = [rootfs, vec![lower().finish(), upper().finish()]];
    for layers in &sets {
        for (one, two) in (0..=layers.len()).flat_map(|one| (0..=layers.len()).map(move |two| (one, two))) {
            let (before, after) = (lines(&layers[..one]), lines(&layers[..two]));
            let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            let differs = |path: &&&String| before.get(**path) != after.get(**path);
            let expected: BTreeSet<&String> = paths.iter().filter(differs).copied().collect();
            let trees = [&layers[..one], &layers[..two]].map(|part| merged(part, scratch.path()));
            let found: Vec<Difference> =
                Differences::new(&trees[0], &trees[1]).collect::<Result<_>>().unwrap();
            let name = |path: &[u8]| format!("/{}", printable(&String::from_utf8_lossy(path)));
            let is_parted = |one: &&Difference| one.change == FileChange::Changed(vec![FileField::Links]);
            let parted: Vec<_> =
                found.iter().filter(is_parted).map(|one| name(one.path.as_bytes())).collect();
            assert!(parted.is_empty() || parted == ["/linked/c"], "{one} and {two}: {parted:?}");
            let found: Vec<Difference> = found.into_iter().filter(|one| !is_parted(&one)).collect();
            let names: BTreeSet<String> = found.iter().map(|one| name(one.path.as_bytes())).collect();
            assert_eq!(names.iter().collect::<BTreeSet<_>>(), expected, "{one} and {two}");
            assert_eq!(names.len(), found.len(), "each path once");
            for difference in &found {
                let path = name(difference.path.as_bytes());
                let is = (before.contains_key(&path), after.contains_key(&path));
                let expected = match difference.change {
                    FileChange::Added => (false, true),
                    FileChange::Removed => (true, false),
                    _ => (true, true),
                };
                assert_eq!(is, expected, "{path}");
            }
        }
    }
}

#[test]
fn files_of_many_pieces_are_compared_to_their_ends() {
    let scratch = tempfile::tempdir().unwrap();
    let of = |last: u8| {
        let mut content = vec![7; 300_000];
        content[299_999] = last;
        let runs: [(u64, &[u8]); 1] = [(1 << 20, &[last])];
        let layer = LayerBuilder::new().file("f", 0o644, &content).sparse_file("s", 0o644, 2 << 20, &runs);
        merged(&[layer.finish()], scratch.path())
    };
    let (one, same, other) = (of(1), of(1), of(2));
    assert_eq!(Differences::new(&one, &same).count(), 0);
    let found: Vec<_> = Differences::new(&one, &other).map(Result::unwrap).collect();
    let changes: Vec<_> = found.iter().map(|one| (one.path.as_bytes(), &one.change)).collect();
    let content = FileChange::Changed(vec![FileField::Content]);
    assert_eq!(changes, [(&b"f"[..], &content), (b"s", &content)]);
}

#[test]
fn times_are_left_alone_where_that_is_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let of = |time: &str| {
        merged(&[LayerBuilder::new().mtime(time).file("f", 0o644, b"").finish()], scratch.path())
    };
    let (one, two) = (of("1"), of("2"));
    let found: Vec<_> = Differences::new(&one, &two).map(Result::unwrap).collect();
    assert_eq!(found[0].change, FileChange::Changed(vec![FileField::Time]));
    assert_eq!(Differences::new(&one, &two).ignoring_times().count(), 0);
}
