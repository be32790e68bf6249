//! The program as its users run it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use plyfold_conformance::samples;
use serde_json::Value;

/// The name of an image in a folder that [`folder`] makes.
const NAME: &str = "registry.example/app:1";

/// Runs it with a store in the directory.
fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_example-command"));
    command.args(arguments).current_dir(dir).env_clear().env("PLYFOLD_STORE", dir.join("store"));
    command.output().unwrap()
}

/// What it writes, when it succeeds.
fn written(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An image as the third party's backend keeps it.
fn folder(dir: &Path) {
    let (sample, folder) = (samples::image(), dir.join("images"));
    let name = folder.join(NAME.replace(':', "/"));
    fs::create_dir_all(name.parent().unwrap()).unwrap();
    fs::write(name, sample.top.digest().as_ref()).unwrap();
    for blob in &sample.blobs {
        fs::write(folder.join(blob.descriptor.digest().as_ref()), &blob.bytes).unwrap();
    }
}

#[test]
fn a_backend_of_another_crate_is_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    let backends: Value = serde_json::from_str(&written(dir.path(), &["backends", "--json"])).unwrap();
    let packages: Vec<&str> =
        backends.as_array().unwrap().iter().filter_map(|backend| backend["package"].as_str()).collect();
    for package in ["example-backend", "plyfold-archive", "plyfold-layout", "plyfold-registry"] {
        assert!(packages.contains(&package), "{packages:?}");
    }
    let image = format!("folder:images:{NAME}");
    written(dir.path(), &["pull", &image, "--platform", "linux/amd64"]);
    let disks = ["--as", "vmdk", "--upper", "64M", "--out", "disks", "--platform", "linux/amd64"];
    written(dir.path(), &[&["materialize", &image][..], &disks].concat());
    assert!(dir.path().join("disks/rootfs.vmdk").is_file());
    assert!(written(dir.path(), &["list"]).contains("registry.example/app"));
}

#[test]
fn a_format_of_another_crate_is_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    let formats: Value = serde_json::from_str(&written(dir.path(), &["formats", "--json"])).unwrap();
    let names: Vec<&str> =
        formats.as_array().unwrap().iter().filter_map(|format| format["name"].as_str()).collect();
    for name in ["concat", "cpio", "erofs-layers", "vmdk"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let image = format!("folder:images:{NAME}");
    let line = ["materialize", &image, "--as", "cpio", "--out", "out", "--platform", "linux/amd64", "--json"];
    let document: Value = serde_json::from_str(&written(dir.path(), &line)).unwrap();
    assert_eq!(document["files"][0]["format"], "cpio", "{document}");
    let archive = dir.path().join("out/rootfs.cpio");
    let made = fs::read(&archive).unwrap();
    assert!(made.starts_with(b"070701"));
    // The second time it comes out of the cache: it is the same file there, or its clone.
    fs::remove_file(&archive).unwrap();
    assert!(written(dir.path(), &line[..line.len() - 1]).contains("rootfs.cpio"));
    assert!(fs::read(&archive).unwrap() == made);
    let kept = fs::read_dir(dir.path().join("store/artifacts")).unwrap();
    let kept =
        kept.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("cpio-v"));
    assert_eq!(kept.count(), 1);
}

/// One that stands on EROFS layers is listed with all of its files, beside what the layers have.
#[test]
fn the_files_of_a_joined_format_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    let image = format!("folder:images:{NAME}");
    let line =
        ["materialize", &image, "--as", "concat", "--out", "out", "--platform", "linux/amd64", "--json"];
    let document: Value = serde_json::from_str(&written(dir.path(), &line)).unwrap();
    let files: Vec<&str> =
        document["files"].as_array().unwrap().iter().filter_map(|file| file["path"].as_str()).collect();
    for name in ["layer-00.erofs", "merged.erofs", "rootfs.raw", "rootfs.offsets"] {
        assert!(files.iter().any(|path| path.ends_with(name)), "{name}: {document}");
    }
    assert!(document["mount"].is_string() && document["notes"].is_array(), "{document}");
}

/// A format of a whole image reads the layers after the pull, and one of layers in it. The files of layers are there for the
/// other format, too, which then reads no layer: they are made last.
#[test]
fn a_damaged_layer_is_fetched_again_whatever_is_made() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    let image = format!("folder:images:{NAME}");
    written(dir.path(), &["pull", &image, "--platform", "linux/amd64"]);
    let blob = samples::image().images[0].layers[0].descriptor.digest().to_string();
    let blob = dir.path().join("store/blobs").join(blob.replace(':', "/"));
    let sound = fs::read(&blob).unwrap();
    for format in ["cpio", "erofs-layers"] {
        let mut damaged = sound.clone();
        damaged[30] ^= 1;
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, damaged).unwrap();
        let line = ["materialize", &image, "--as", format, "--out", format, "--platform", "linux/amd64"];
        let made = run(dir.path(), &line);
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success() && said.contains("is fetched again"), "{format}: {said}");
        assert!(fs::read(&blob).unwrap() == sound, "{format}");
    }
}

#[test]
fn it_goes_by_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let help = written(dir.path(), &["--help"]);
    assert!(
        help.contains("Usage: example-command ") && help.contains("`example-command backends`"),
        "{help}"
    );
    let help = written(dir.path(), &["pull", "--help"]);
    assert!(help.contains("\n  example-command pull alpine\n") && !help.contains("  plyfold "), "{help}");
    let version = written(dir.path(), &["--version"]);
    assert!(version.starts_with("example-command (plyfold "), "{version}");
    let option = run(dir.path(), &["materialize", "alpine", "--as", "vmdk", "--out", "o", "-m", "split"]);
    let said = String::from_utf8(option.stderr).unwrap();
    assert!(said.contains("KEY=VALUE") && !said.contains("-o "), "{said}");
    let missing = run(dir.path(), &["push", "registry.example/app:2", "oci:there:2"]);
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("`example-command list`"), "{said}");
    for (shell, function) in [
        ("bash", "complete -F _example_command_with_images -o bashdefault -o default example-command\n"),
        ("fish", "complete -c example-command -n \"__fish_example_command_using_subcommand pull\""),
        ("zsh", "$(example-command names-for-completion"),
    ] {
        let script = written(dir.path(), &["completions", shell]);
        assert!(script.contains(function), "{shell}: {script}");
        assert!(!script.contains("_plyfold"), "{shell}: {script}");
    }
}
