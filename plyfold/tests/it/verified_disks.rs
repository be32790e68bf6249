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
            assert!(found["verified"] == true && found["root_hash"] == roots[0].1, "{format}: {found}");
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
