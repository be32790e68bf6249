//! M: disks of one kind: those that refer to other files, that a text describes, that are written to, that boot, that are
//! made to a size.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;

use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_core::{ErrorKind, Input, Result, Role};

use super::materializer::{Made, SmallDisk, noise};
use super::probe::error_of;
use crate::rule::{not_judged, rules};
use crate::samples::{self, LayerBuilder};
use crate::tree::TreeLine;
use crate::{DiskFixture, MaterializerFixture};

rules! {
    $ __disk_rules of dyn DiskFixture;
    "M 154" merged_image_refers_to_layers_without_copying:
        "what is made of the files of layers, and needs them beside it, grows by a hundredth of their content at most",
    "M 155" vmdk_reads_back_identical:
        "what a program reads that takes a description of a disk (for a VMDK: qemu-img) is the files that it is made of, \
         one behind the other, and nothing else",
    "M 156" ext4_upper_takes_writes:
        "a disk that is written to is filled to nine tenths, at most by 64 MiB; what was written is read back from a second \
         mount, what was there before still is, and the format's checker finds nothing",
    "M 157" guest_boots:
        "a virtual machine boots with the disk as its root file system, runs a command of the image, which sees what the \
         layers say, and turns itself off",
    "M 233" a_size_too_small_is_told_first:
        "a size that is too small for the image is `Config` before a byte is written, with the least size that would do in \
         the hint: that one does, and a block less does not",
}

const MIB: u64 = 1 << 20;
/// The unit of sizes, in bytes.
const BLOCK: u64 = 4096;

async fn merged_image_refers_to_layers_without_copying(fixture: &dyn DiskFixture) {
    let materializer = fixture.materializer();
    if !matches!(materializer.input(), Input::Artifacts { .. }) || materializer.is_self_contained() {
        return not_judged("the format refers to no other file");
    }
    let written = |length| {
        let layer = |seed| LayerBuilder::new().file(format!("f{seed}"), 0o644, &noise(length, seed)).finish();
        Made::of(fixture, &[layer(1), layer(2)]).size()
    };
    let (small, large) = (1 << 16, 4 << 20);
    let (of_small, of_large) = (written(small), written(large));
    let more = 2 * (large - small) as u64;
    assert!(of_large <= of_small + more / 100, "{more} bytes more in layers: {of_small}, {of_large} bytes");
}

async fn vmdk_reads_back_identical(fixture: &dyn DiskFixture) {
    if !fixture.materializer().outputs().iter().any(|file| file.role == Role::Descriptor) {
        return not_judged("no file of the format describes a disk of others");
    }
    for image in [samples::rootfs(), samples::image()] {
        let layers: Vec<_> = image.images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect();
        let made = Made::of(fixture, &layers);
        let Some(mut read) = fixture.read_back(made.file(), &made.layers) else {
            return not_judged("the fixture has no `read_back`");
        };
        assert!(read.parts.len() >= layers.len(), "the layers are parts of the disk");
        let mut offset = 0;
        for (place, part) in read.parts.iter_mut().enumerate() {
            offset += assert_starts(&mut read.disk, part, place, offset);
        }
        let mut rest = Vec::new();
        read.disk.take(1 << 20).read_to_end(&mut rest).expect("the disk can be read");
        assert_eq!(rest.len(), 0, "bytes behind the parts, from {offset}");
    }
}

/// Reads both, the disk from where it is; how many bytes there were.
fn assert_starts(disk: &mut File, part: &mut File, place: usize, offset: u64) -> u64 {
    let (mut own, mut read, mut at) = (vec![0; 1 << 16], vec![0; 1 << 16], 0);
    loop {
        let count = part.read(&mut own).expect("a part can be read");
        if count == 0 {
            return at;
        }
        let found = disk.read_exact(&mut read[..count]);
        assert!(found.is_ok(), "the disk ends in part {place}, at {} or before", offset + at + count as u64);
        assert!(own[..count] == read[..count], "part {place} differs between {at} and {}", at + count as u64);
        at += count as u64;
    }
}

async fn ext4_upper_takes_writes(fixture: &dyn DiskFixture) {
    let materializer = fixture.materializer();
    let writable = materializer.outputs().iter().any(|file| file.writable);
    if !writable && materializer.input() != Input::Nothing {
        return not_judged("its users do not write to it");
    }
    let image = samples::rootfs();
    let layers: Vec<_> = image.images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect();
    let made = Made::of(fixture, if materializer.input() == Input::Nothing { &[] } else { &layers });
    made.adapt();
    let before = made.tree();
    let mut written = 0;
    if !fixture.write(made.file(), &mut |folder| written = fill(folder)) {
        return not_judged("the fixture has no `write`");
    }
    assert!(written > 0, "there is room for nothing");
    made.check();
    let read = fixture.write(made.file(), &mut |folder| {
        for number in 0..written {
            let read = fs::read(folder.join("filled").join(number.to_string()));
            assert!(read.expect("what was written is there") == chunk(number), "file {number} differs");
        }
    });
    assert!(read, "it is written to once, and not again");
    made.check();
    let after = made.tree();
    let is_below = |line: &&TreeLine| !line.what.starts_with("dir");
    for line in before.iter().filter(is_below) {
        assert!(after.contains(line), "it was there before: {line}");
    }
}

/// Fills a folder to nine tenths with files of 1 MiB, at most 64 of them; how many there are.
fn fill(folder: &Path) -> u64 {
    let room = rustix::fs::statvfs(folder).expect("the file system says how much is free");
    let files = (room.f_bavail.saturating_mul(room.f_frsize) / 10 * 9 / MIB).min(64);
    let filled = folder.join("filled");
    fs::create_dir(&filled).expect("a folder can be made");
    for number in 0..files {
        fs::write(filled.join(number.to_string()), chunk(number)).expect("there is room for a file");
    }
    files
}

fn chunk(number: u64) -> Vec<u8> {
    noise(MIB as usize, number + 1)
}

async fn guest_boots(fixture: &dyn DiskFixture) {
    let Some(program) = fixture.program() else {
        return not_judged("the fixture has no `program` for a virtual machine");
    };
    let bottom = LayerBuilder::new()
        .dir("bin", 0o755)
        .file("bin/cat", 0o755, &program)
        .dir("etc", 0o755)
        .file("etc/motd", 0o644, b"the bottom layer")
        .file("etc/kept", 0o644, b"of the bottom layer");
    let top = LayerBuilder::new().dir("etc", 0o755).file("etc/motd", 0o644, b"the top layer, ");
    let made = Made::of(fixture, &[bottom.finish(), top.finish()]);
    made.adapt();
    let said = fixture.boot(made.file(), &made.layers, &["/bin/cat", "/etc/motd", "/etc/kept"]);
    assert_eq!(said, "the top layer, of the bottom layer", "what a guest reads of two files");
}

async fn a_size_too_small_is_told_first(fixture: &dyn DiskFixture) {
    let image = samples::rootfs();
    let layers: Vec<_> = image.images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect();
    let refusal = |bytes: u64| match fixture.with_size(bytes)? {
        Err(error) => Some(error),
        Ok(sized) => Some(error_of(sized_into_nothing(&*sized, &layers))),
    };
    let Some(error) = refusal(BLOCK) else {
        return not_judged("the format has no size that depends on the image");
    };
    assert_eq!(*error.kind(), ErrorKind::Config, "{error}");
    let hint = error.hint().unwrap_or_default().to_owned();
    let numbers = hint.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u64>().ok());
    let told: Vec<u64> = numbers.filter(|number| number % BLOCK == 0 && *number > BLOCK).collect();
    let [least] = told[..] else { panic!("no least size in the hint {hint:?} of {error}") };
    let sized = |bytes| fixture.with_size(bytes).expect("it has sizes");
    let made = sized(least).and_then(|sized| Made::attempt(&*sized, &layers).map(|made| made.adapt()));
    assert!(made.is_ok(), "{least} bytes are the least: {made:?}");
    let error = refusal(least - BLOCK).expect("it has sizes");
    assert_eq!(*error.kind(), ErrorKind::Config, "with a block less: {error}");
    assert!(
        error.hint().is_some_and(|hint| hint.contains(&least.to_string())),
        "with a block less: {error:?}"
    );
}

/// Makes a file on a disk where no byte may be written.
fn sized_into_nothing(fixture: &dyn MaterializerFixture, layers: &[Vec<u8>]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let open = |tar: &Vec<u8>| LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default());
    let image = fixture.read(layers.iter().map(open).collect(), folder.path())?;
    let materializer = fixture.materializer();
    let mut disk = SmallDisk::new(&*materializer, 0);
    let made = materializer.image(&image, &mut disk).map(drop);
    assert_eq!(disk.length(), 0, "a file has got a length");
    made
}
