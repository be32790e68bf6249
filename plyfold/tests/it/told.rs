//! What is said of sets, trees and options that are not as they should be: the exit code, and what to do.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use serde_json::Value;

use super::run::Place;

const IMAGE: &str = "oci:examples/sample:latest --platform linux/amd64";

fn made(format: &str) -> Place {
    let place = Place::new();
    let made = place.run(&format!("materialize {IMAGE} --as {format} --out {{}}/set -q"));
    assert!(made.contains("[exit 0]"), "{format}: {made}");
    place
}

/// The exit code, the document, and the error.
fn json(place: &Place, line: &str) -> (Option<i32>, Value, Value) {
    let line = format!("{line} --json").replace("{}", place.dir.path().to_str().unwrap());
    let output = place.command(line.split_whitespace()).output().unwrap();
    let parse = |bytes: &[u8]| {
        let last = bytes.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
        serde_json::from_slice(bytes).or_else(|_| serde_json::from_slice(last.unwrap_or_default()))
    };
    (
        output.status.code(),
        parse(&output.stdout).unwrap_or_default(),
        parse(&output.stderr).unwrap_or_default(),
    )
}

fn hint(error: &Value) -> &str {
    error["hint"].as_str().unwrap_or_default()
}

#[test]
fn a_set_with_a_missing_disk_is_shown_without_it() {
    for (format, missing) in [
        ("erofs-layers", "layer-01.erofs"),
        ("vmdk --upper 64M", "layer-00.erofs"),
        ("erofs --upper 64M", "upper.ext4"),
        ("vmdk", "rootfs.vmdk"),
        ("gpt -m verity=append", "rootfs.gpt"),
    ] {
        let place = made(format);
        fs::remove_file(place.path(&format!("set/{missing}"))).unwrap();
        let (code, shown, error) = json(&place, "inspect {}/set");
        assert_eq!((code, &error["kind"]), (Some(3), &"not-found".into()), "{format}: {shown} {error}");
        assert!(
            error["context"]["path"].as_str().unwrap_or_default().ends_with(missing),
            "{format}: {error}"
        );
        assert!(!hint(&error).is_empty(), "{format}: {error}");
        assert_eq!(shown["image"]["process"]["args"][0], "/bin/hello", "{format}: {shown}");
        for file in shown["files"].as_array().unwrap() {
            let is_missing = file["path"].as_str().unwrap().ends_with(missing);
            assert_eq!(file["size"].is_null(), is_missing, "{format}: {file}");
            assert_eq!(file["state"] == "missing", is_missing, "{format}: {file}");
            assert!(file["key"].is_string(), "{format}: {file}");
        }
        // Nothing can be done with the others alone.
        for line in ["mount", "mount_verified", "unmount", "boot"] {
            assert!(shown[line].is_null(), "{format}: {line} of {shown}");
        }
        let text = place.run("inspect {}/set");
        let line = text.lines().find(|line| line.contains(missing)).unwrap();
        assert!(
            line.contains("missing") && !text.contains("To boot") && !text.contains("To mount"),
            "{text}"
        );
        let others = fs::read_dir(place.path("set")).unwrap().map(|entry| entry.unwrap().file_name());
        let others = others.filter(|name| !name.to_str().unwrap().starts_with('.'));
        assert!(others.into_iter().all(|name| text.contains(name.to_str().unwrap())), "{text}");
        // What needs all of them refuses the set.
        for line in ["boot {}/set", "snapshot save {}/set --out {}/saved"] {
            let refused = place.run(line);
            assert!(refused.contains("[exit 3]") && refused.contains("is missing"), "{refused}");
        }
    }
}

#[test]
fn what_needs_a_hash_tree_says_how_to_make_one() {
    let place = made("erofs");
    let output = place.run("boot {}/set --verity require");
    assert!(output.contains("[exit 2]") && output.contains("-m verity=append"), "{output}");
    for format in ["vmdk", "raw", "erofs"] {
        let (code, _, error) =
            json(&place, &format!("materialize {IMAGE} --as {format} -m verity=partition --out {{}}/no"));
        let of = "verity=partition is of the formats gpt, vmdk-gpt, vmdk-stream";
        assert!(code == Some(2) && hint(&error).contains(of), "{format}: {error}");
    }
    let (code, _, error) =
        json(&place, &format!("materialize {IMAGE} --as gpt -m verity=beside --out {{}}/no"));
    assert!(code == Some(2) && hint(&error).contains("erofs-layers, erofs-merged"), "{error}");
    // No format has it.
    let (code, _, error) =
        json(&place, &format!("materialize {IMAGE} --as gpt -m verity=inside --out {{}}/no"));
    assert!(code == Some(2) && !hint(&error).contains("is of"), "{error}");
    let (code, _, error) = json(&place, &format!("materialize {IMAGE} --as ext4 --upper 64M --out {{}}/no"));
    let sorted = "erofs, erofs-layers, erofs-merged, erofs-tar, gpt, raw, vmdk, vmdk-gpt";
    assert!(code == Some(2) && hint(&error).contains(sorted), "{error}");
}

#[test]
fn a_vmdk_that_lacks_a_file_says_what_to_do() {
    let place = made("vmdk");
    fs::remove_file(place.path("set/layer-00.erofs")).unwrap();
    for verb in ["ls", "ls -l", "verity"] {
        let (code, _, error) = json(&place, &format!("{verb} {{}}/set/rootfs.vmdk"));
        assert!(
            code == Some(3) && hint(&error).contains("beside the descriptor"),
            "{verb}: {code:?} {error}"
        );
    }
}

#[test]
fn a_file_of_no_complete_blocks_is_to_be_filled_up() {
    let place = Place::new();
    fs::write(place.path("odd"), [1; 5000]).unwrap();
    let (code, _, error) = json(&place, "verity {}/odd --data-block-size 512");
    assert!(code == Some(2) && hint(&error).contains("truncate -s %512"), "{error}");
}

#[test]
fn a_document_of_other_options_is_named() {
    let place = made("gpt -m verity=append");
    let other = format!("verity {IMAGE} --as gpt -m block-size=512 --out {{}}/roots.json");
    assert!(place.run(&other).contains("[exit 0]"));
    let (code, report, _) = json(&place, "verity {}/set/rootfs.gpt --roots {}/roots.json");
    let said = report["partitions"][0]["error"].as_str().unwrap_or_default();
    assert!(code == Some(5) && said.contains("gpt") && said.contains("b512"), "{report}");
    let place = made("raw -m verity=append");
    let other = format!("verity {IMAGE} --as raw -m block-size=512 --out {{}}/roots.json");
    assert!(place.run(&other).contains("[exit 0]"));
    let (code, _, error) = json(&place, "verity {}/set/rootfs.raw --roots {}/roots.json");
    let said = error["message"].as_str().unwrap_or_default();
    assert!(code == Some(5) && said.contains("raw") && said.contains("b512"), "{error}");
}

#[test]
fn digests_of_a_set_are_short_in_text() {
    let place = made("erofs-layers");
    let manifest = json(&place, "inspect {}/set").1["image"]["manifest"].as_str().unwrap().to_owned();
    let text = place.run("inspect {}/set");
    assert!(!text.contains(&manifest) && text.contains(&manifest[7..19]), "{text}");
    let whole = place.run("inspect {}/set --no-trunc");
    assert!(whole.contains(&manifest), "{whole}");
}

#[test]
fn root_hashes_replace_no_file() {
    let place = Place::new();
    let line = format!("verity {IMAGE} --as erofs --out {{}}/roots.json");
    fs::write(place.path("roots.json"), "important").unwrap();
    let refused = place.run(&line);
    assert!(refused.contains("[exit 2]"), "{refused}");
    assert_eq!(fs::read(place.path("roots.json")).unwrap(), b"important");
    fs::remove_file(place.path("roots.json")).unwrap();
    assert!(place.run(&line).contains("[exit 0]"));
}

/// Content is not compared, which takes long; how large a disk is tells that it was cut off, or that a tree was appended.
#[test]
fn a_disk_of_another_size_is_not_started() {
    for (format, name) in [
        ("erofs", "rootfs.erofs"),
        ("erofs-layers", "layer-01.erofs"),
        ("vmdk", "layer-00.erofs"),
        ("gpt -m verity=append", "rootfs.gpt"),
    ] {
        let place = made(format);
        let disk = File::options().write(true).open(place.path(&format!("set/{name}"))).unwrap();
        let size = disk.metadata().unwrap().len();
        for other in [0, size - 512, size + 4096] {
            disk.set_len(other).unwrap();
            for line in ["inspect {}/set", "boot {}/set"] {
                let output = place.run(line);
                assert!(output.contains("[exit 5]") && output.contains(name), "{format}, {other}: {output}");
                assert!(output.contains("hint: make the disks again"), "{format}, {other}: {output}");
            }
        }
        disk.set_len(size).unwrap();
        assert!(place.run("inspect {}/set").contains("[exit 0]"), "{format}");
    }
}

#[test]
fn each_root_hash_is_printed_once() {
    for format in ["vmdk-gpt -m verity=partition", "vmdk-gpt -m verity=append", "gpt -m verity=append"] {
        let place = Place::new();
        let made = place.run(&format!("materialize {IMAGE} --as {format} --out {{}}/set"));
        let mut roots: Vec<&str> = made.lines().filter_map(|line| line.strip_prefix("root hash  ")).collect();
        for line in &mut roots {
            *line = &line[..64];
        }
        let count = roots.len();
        roots.sort_unstable();
        roots.dedup();
        assert_eq!((count, roots.len()), (3, 3), "{format}: {made}");
    }
}

/// A guest may have made another file system, so it is saved; but it may also be an accident.
#[test]
fn a_disk_without_a_sound_file_system_is_saved_with_a_warning() {
    let place = made("erofs --upper 64M");
    let upper = File::options().write(true).open(place.path("set/upper.ext4")).unwrap();
    upper.write_all_at(&[0x5a; 8192], 0).unwrap();
    let note = "upper.ext4 has no sound ext4 file system";
    let (code, saved, error) = json(&place, "snapshot save {}/set --out {}/saved");
    assert!(
        code == Some(0) && saved["notes"][0].as_str().unwrap_or_default().contains(note),
        "{saved} {error}"
    );
    let text = place.run("snapshot save {}/set --out {}/again");
    assert!(text.contains(&format!("warning: {note}")), "{text}");
}
