//! Disks with hash trees: what `verity --check` and `--roots` say of each form, whole and damaged.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use serde_json::Value;

use super::run::{Place, check};

const IMAGE: &str = "oci:examples/sample:latest --platform linux/amd64";

/// A place with a disk of the sample, and the document of its root hashes.
fn place(format: &str) -> (Place, String, Vec<(String, String)>) {
    let place = Place::new();
    let made = place.run(&format!("materialize {IMAGE} --as {format} --out {{}}/set -q"));
    assert!(made.contains("[exit 0]"), "{format}: {made}");
    let told = place.run(&format!("verity {IMAGE} --as {format} --out {{}}/roots.json"));
    assert!(told.contains("[exit 0]"), "{format}: {told}");
    let document: Value = serde_json::from_slice(&fs::read(place.path("roots.json")).unwrap()).unwrap();
    let disks = document["disks"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let roots = disks.map(|disk| (text(&disk["name"]), text(&disk["rootHash"]))).collect();
    let mut files = place.files();
    files.retain(|name| name.starts_with("set/rootfs.") && !name.ends_with(".verity"));
    assert_eq!(files.len(), 1, "{format}");
    (place, files.remove(0), roots)
}

fn json(place: &Place, line: &str) -> (Option<i32>, Value, Value) {
    let arguments = line.replace("{}", place.dir.path().to_str().unwrap());
    let output = place.command(arguments.split(' ')).output().unwrap();
    let parse = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(Value::Null);
    (output.status.code(), parse(&output.stdout), parse(&output.stderr))
}

#[test]
fn every_image_in_a_partition_is_verified_by_its_own_tree() {
    for format in [
        "gpt -m verity=append",
        "gpt -m verity=partition -m block-size=512",
        "vmdk-gpt -m verity=append",
        "vmdk-gpt -m verity=partition",
        "vmdk-stream -m of=gpt -m verity=append",
        "vmdk-stream -m of=gpt -m verity=partition",
    ] {
        let (place, disk, roots) = place(format);
        assert_eq!(roots.len(), 3, "{format}");
        let of = |more: &str| json(&place, &format!("verity {{}}/{disk} {more} --json"));
        let all: Vec<String> = roots.iter().map(|(_, root)| format!("--check {root}")).collect();
        for more in ["--roots {}/roots.json", &all.join(" ")] {
            let (code, report, error) = of(more);
            assert_eq!(code, Some(0), "{format}: {report} {error}");
            assert_eq!(report["verified"], true, "{format}");
            let names: Vec<_> = report["partitions"].as_array().unwrap().iter().collect();
            assert_eq!(names.len(), 3, "{format}");
            for (found, (name, root)) in names.iter().zip(&roots) {
                assert!(found["name"] == *name && found["verified"] == true, "{format}: {found}");
                assert_eq!(found["hash_tree"]["root_hash"], *root, "{format}");
            }
        }
        // One by its name, or by its number: the others are not checked.
        for name in [roots[1].0.as_str(), "2"] {
            let (code, report, _) = of(&format!("--check {name}={}", roots[1].1));
            let found: Vec<_> = (0..3).map(|at| report["partitions"][at]["verified"].clone()).collect();
            assert_eq!((code, found), (Some(0), vec![Value::Null, true.into(), Value::Null]), "{format}");
        }
        // The root hash of another one, and of none.
        let (code, report, error) = of(&format!("--check {}={}", roots[0].0, roots[1].1));
        assert_eq!((code, &error["kind"]), (Some(5), &"corrupt".into()), "{format}: {report}");
        let (code, _, error) = of(&format!("--check {}", "0".repeat(64)));
        assert!(
            code == Some(5) && error["hint"].as_str().unwrap().contains(&roots[2].1),
            "{format}: {error}"
        );
        let (code, _, error) = of(&format!("--check {}", roots[0].1));
        assert!(code == Some(2) && error["hint"].as_str().unwrap().contains("--roots"), "{format}: {error}");
    }
}

#[test]
fn a_disk_without_partitions_is_verified_as_a_whole() {
    for (format, tree) in [
        ("raw -m verity=append", ""),
        ("raw -m verity=beside", "--hash-tree {}/set/rootfs.verity"),
        ("vmdk -m verity=append", ""),
        ("vmdk -m verity=beside", "--hash-tree {}/set/rootfs.verity"),
        ("vmdk-stream -m verity=append", ""),
        ("vmdk-stream -m of=erofs -m verity=append", ""),
    ] {
        let (place, disk, roots) = place(format);
        let of = |more: &str| {
            json(&place, format!("verity {{}}/{disk} {more} {tree} --json").replace("  ", " ").as_str())
        };
        for more in ["--roots {}/roots.json".to_owned(), format!("--check {}", roots[0].1)] {
            let (code, found, error) = of(&more);
            assert_eq!(code, Some(0), "{format}: {error}");
            let root = &found["hash_tree"]["root_hash"];
            assert!(found["verified"] == true && *root == roots[0].1, "{format}: {found}");
        }
        assert_eq!(of(&format!("--check {}", "0".repeat(64))).0, Some(5), "{format}");
        if !tree.is_empty() {
            continue;
        }
        let inspected = json(&place, &format!("inspect {{}}/{disk} --json")).1;
        let inner = if format.starts_with("raw") { &inspected } else { &inspected["disk"] };
        assert_eq!(inner["hash_tree"]["root_hash"], roots[0].1, "{format}: {inspected}");
    }
}

/// The partition that is damaged is named, and the others are verified.
#[test]
fn damage_is_found_in_its_partition() {
    for (format, file) in [
        ("gpt -m verity=append", "set/rootfs.gpt"),
        ("gpt -m verity=partition", "set/rootfs.gpt"),
        ("vmdk-gpt -m verity=append", "set/layer-00.erofs"),
    ] {
        let (place, disk, _) = place(format);
        let start = if file == "set/rootfs.gpt" { 2 << 20 } else { 0 };
        let path = place.path(file);
        // The store has another link to it.
        fs::copy(&path, place.path("copy")).unwrap();
        fs::rename(place.path("copy"), &path).unwrap();
        let damaged = File::options().read(true).write(true).open(&path).unwrap();
        damaged.write_all_at(b"damage", start + 8192).unwrap();
        let line = format!("verity {{}}/{disk} --roots {{}}/roots.json --json");
        let (code, report, error) = json(&place, &line);
        assert_eq!((code, &error["kind"]), (Some(5), &"corrupt".into()), "{format}: {report}");
        let found: Vec<_> = (0..3).map(|at| report["partitions"][at]["verified"].clone()).collect();
        assert_eq!(found, [true, false, true].map(Value::from), "{format}");
        let said = report["partitions"][1]["error"].as_str().unwrap();
        assert!(said.contains("data block 2, at byte 8192"), "{format}: {said}");
    }
}

/// A tree behind a disk with partitions stands behind its second table, and one behind a disk that guests write to is of what
/// it was.
#[test]
fn no_tree_is_appended_to_a_disk_that_it_breaks() {
    let place = Place::new();
    for (format, out) in
        [("gpt", "gpt"), ("vmdk-gpt", "over"), ("erofs --upper 64M", "upper"), ("ext4 -m size=64M", "ext4")]
    {
        let made = place.run(&format!("materialize {IMAGE} --as {format} --out {{}}/{out} -q"));
        assert!(made.contains("[exit 0]"), "{made}");
    }
    assert!(place.run("disk --size 64M --out {}/empty.ext4").contains("[exit 0]"));
    for (file, hint) in [
        ("gpt/rootfs.gpt", "--as gpt -m verity="),
        ("over/partitions.gpt", "--as vmdk-gpt -m verity="),
        ("upper/upper.ext4", "--hash-tree"),
        ("ext4/rootfs.ext4", "--as ext4 -m verity="),
        ("empty.ext4", "--hash-tree"),
    ] {
        let size = || fs::metadata(place.path(file)).unwrap().len();
        let before = size();
        let (code, done, error) = json(&place, &format!("verity {{}}/{file} --append --json"));
        let said = error["hint"].as_str().unwrap_or_default();
        let is_told = said.contains(hint) && said.contains("--hash-tree");
        assert!(code == Some(2) && is_told, "{file}: {code:?} {done} {error}");
        assert_eq!(size(), before, "{file}");
        let (code, _, error) =
            json(&place, &format!("verity {{}}/{file} --hash-tree {{}}/{file}.tree --json"));
        assert_eq!(code, Some(0), "{file}: {error}");
    }
    // A file system that no guest writes to is read with a tree behind it.
    let verified = place.run(&format!("materialize {IMAGE} --as ext4 -m verity=beside --out {{}}/read -q"));
    assert!(verified.contains("[exit 0]"), "{verified}");
    let appended = place.run("verity {}/read/rootfs.ext4 --append");
    assert!(appended.contains("[exit 0]"), "{appended}");
}

/// `veritysetup` opens files and block devices; a VMDK is neither before a machine has it.
#[test]
fn a_vmdk_with_a_tree_is_opened_in_the_guest() {
    for format in ["vmdk", "vmdk-gpt", "vmdk-stream"] {
        let (place, disk, _) = place(format);
        let made = place.run(&format!("verity {{}}/{disk} --hash-tree {{}}/tree"));
        assert!(made.contains("[exit 0]") && made.contains("dm-mod.create"), "{format}: {made}");
        assert!(!made.contains("veritysetup"), "{format}: {made}");
        let (_, made, _) = json(&place, &format!("verity {{}}/{disk} --hash-tree {{}}/other --json"));
        assert!(made["hash_tree"]["open"].is_null() && made["table"].is_string(), "{format}: {made}");
        let (code, _, error) = json(&place, &format!("verity {{}}/{disk} --append --json"));
        let hint = error["hint"].as_str().unwrap();
        assert!(code == Some(2) && hint.contains(&format!("--as {format} -m verity=")), "{format}: {hint}");
    }
    let (place, disk, _) = place("erofs");
    let (_, made, _) = json(&place, &format!("verity {{}}/{disk} --hash-tree {{}}/tree --json"));
    let open = made["hash_tree"]["open"].as_str().unwrap_or_default();
    assert!(open.starts_with("veritysetup open "), "{made}");
}

/// An image that has its devices behind it on one disk needs a newer Linux than the image alone.
#[test]
fn the_kernel_of_a_disk_is_the_one_that_materialize_says() {
    let is_disk = |name: &String| name.starts_with("set/rootfs.") && !name.ends_with(".verity");
    for format in [
        "raw",
        "raw -m verity=append",
        "vmdk",
        "vmdk -m verity=append",
        "vmdk-stream",
        "vmdk-stream -m verity=append",
        "vmdk-stream -m of=erofs",
        "erofs",
        "erofs -m verity=append",
        "gpt",
        "gpt -m verity=append",
        "vmdk-gpt",
    ] {
        let place = Place::new();
        let (code, made, error) =
            json(&place, &format!("materialize {IMAGE} --as {format} --out {{}}/set -q --json"));
        assert_eq!(code, Some(0), "{format}: {error}");
        let file = place.files().into_iter().find(|name| is_disk(name)).unwrap();
        let shown = json(&place, &format!("inspect {{}}/{file} --json")).1;
        let disk = if shown["disk"].is_null() { &shown } else { &shown["disk"] };
        let of_first = &disk["partitions"][0]["content"]["kernel"];
        let kernel = if of_first.is_null() { &disk["kernel"] } else { of_first };
        assert!(made["kernel"].is_string() && *kernel == made["kernel"], "{format}: {made} {shown}");
    }
}

/// A partition that begins as a tree does and has the name of one, and which a guest mounts.
#[test]
fn only_the_tree_of_an_image_is_passed_over() {
    let (place, disk, _) = place("gpt -m verity=partition");
    let flat = place.run(&format!("materialize {IMAGE} --as erofs --out {{}}/flat -q"));
    assert!(flat.contains("[exit 0]"), "{flat}");
    let file = File::options().read(true).write(true).open(place.path(&disk)).unwrap();
    let (mut header, mut entries) = (vec![0; 92], vec![0; 128 * 128]);
    file.read_exact_at(&mut header, 512).unwrap();
    file.read_exact_at(&mut entries, 1024).unwrap();
    // Between the last two partitions there is room for one more.
    let last = entries[5 * 128..6 * 128].to_vec();
    let sector = |at: usize| u64::from_le_bytes(entries[at..at + 8].try_into().unwrap());
    let (first, end) = (sector(4 * 128 + 40) + 1, sector(5 * 128 + 32) - 1);
    entries[6 * 128..7 * 128].copy_from_slice(&last);
    entries[6 * 128 + 16] ^= 1;
    entries[6 * 128 + 32..6 * 128 + 40].copy_from_slice(&first.to_le_bytes());
    entries[6 * 128 + 40..6 * 128 + 48].copy_from_slice(&end.to_le_bytes());
    header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
    header[16..20].fill(0);
    let sum = crc32(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&header, 512).unwrap();
    file.write_all_at(&entries, 1024).unwrap();
    let mut image = fs::read(place.path("flat/rootfs.erofs")).unwrap();
    image[..8].copy_from_slice(b"verity\0\0");
    file.write_all_at(&image, first * 512).unwrap();
    let line = format!("verity {{}}/{disk} --roots {{}}/roots.json --json");
    let (code, report, error) = json(&place, &line);
    assert_eq!((code, &error["kind"]), (Some(5), &"corrupt".into()), "{report}");
    let of_last = report["partitions"].as_array().unwrap().last().unwrap();
    assert!(of_last["number"] == 7 && of_last["verified"] == false, "{report}");
    let shown = json(&place, &format!("inspect {{}}/{disk} --json")).1;
    assert_eq!(shown["partitions"][6]["content"]["format"], "erofs", "{shown}");
    assert_eq!(shown["partitions"][5]["content"]["format"], "verity", "{shown}");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

/// Files that are no images and no disks, but are made here.
#[test]
fn hash_trees_are_named_where_a_disk_is_asked_for() {
    let place = Place::new();
    let made = place.run(&format!("materialize {IMAGE} --as erofs -m verity=beside --out {{}}/set -q"));
    assert!(made.contains("[exit 0]"), "{made}");
    fs::copy(place.path("set/rootfs.erofs"), place.path("layer.erofs")).unwrap();
    assert!(place.run("verity {}/layer.erofs --append --sidecar").contains("[exit 0]"));
    let folder = place.dir.path();
    for file in ["set/rootfs.verity", "layer.erofs.dmverity"] {
        for name in [file.to_owned(), format!("./{file}"), place.path(file)] {
            for (verb, more) in [("inspect", ""), ("ls", ""), ("cat", "/etc")] {
                let words = [verb, &name, more].into_iter().filter(|word| !word.is_empty());
                let output = place.command(words).current_dir(folder).output().unwrap();
                let said = String::from_utf8(output.stderr).unwrap();
                let is_named = said.contains("hash tree") && said.contains("plyfold verity FILE");
                assert!(is_named && !said.contains("archive:"), "{verb} {name}: {said}");
                assert_eq!(output.status.code(), Some(2), "{verb} {name}: {said}");
            }
        }
    }
}

#[test]
fn what_is_said_of_verified_disks() {
    let (place, _, roots) = place("gpt -m verity=partition");
    let mut runs = vec![
        place.run("verity {}/set/rootfs.gpt --roots {}/roots.json"),
        place.run("verity {}/set/rootfs.gpt --roots {}/roots.json --json"),
        place.run(&format!("verity {{}}/set/rootfs.gpt --check merged={}", roots[0].1)),
        place.run(&format!("verity {{}}/set/rootfs.gpt --check {}", roots[0].1)),
        place.run(&format!("verity {{}}/set/rootfs.gpt --check {}", "0".repeat(64))),
        place.run(&format!("verity {{}}/set/rootfs.gpt --check other={}", roots[0].1)),
        place.run(&format!("verity {{}}/set/rootfs.gpt --check {} --check 1={}", roots[0].1, roots[0].1)),
        place.run("verity {}/set/rootfs.gpt --check merged=0"),
        place.run("verity {}/set/rootfs.gpt --roots {}/none.json"),
        place.run("verity {}/set/rootfs.gpt --roots {}/set/rootfs.gpt"),
        place.run("inspect {}/set/rootfs.gpt"),
        place.run("inspect {}/set/rootfs.gpt --json"),
    ];
    for line in [
        format!("materialize {IMAGE} --as gpt --out {{}}/bare -q"),
        format!("materialize {IMAGE} --as vmdk-stream -m verity=append --out {{}}/stream -q"),
        format!("materialize {IMAGE} --as vmdk-gpt -m verity=append --out {{}}/over -q"),
    ] {
        assert!(place.run(&line).contains("[exit 0]"), "{line}");
    }
    runs.extend(
        [
            "verity {}/bare/rootfs.gpt --roots {}/roots.json",
            "verity {}/stream/rootfs.vmdk --roots {}/roots.json",
            "verity {}/stream/rootfs.vmdk --append",
            "inspect {}/stream/rootfs.vmdk",
            "inspect {}/over/rootfs.vmdk",
            "inspect {}/over/partitions.gpt",
            "ls {}/over/partitions.gpt /etc",
            "cat {}/over/partitions.gpt /etc/motd",
        ]
        .map(|line| place.run(line)),
    );
    fs::remove_file(place.path("over/rootfs.vmdk")).unwrap();
    runs.push(place.run("inspect {}/over/partitions.gpt"));
    check("verified_disks", &runs);
}
