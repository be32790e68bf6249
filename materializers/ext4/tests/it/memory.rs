//! What a large image takes in memory, in a process of its own whose peak is measured.

use std::env;
use std::fs;
use std::io::{self, Read, Write as _};
use std::process::Command;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::Materializer as _;
use plyfold_core::layer::{Hashing, LayerOptions, LayerTar, TreeLimits};
use plyfold_core::tree::MergedTree;
use plyfold_ext4::Ext4Rootfs;

/// What the process takes besides: itself, and the buffers of a layer and of a disk.
const BASE: u64 = 28 << 20;
const FILES: u64 = 100_000;
const CASE: &str = "PLYFOLD_MEMORY_CASE";

/// A tar whose entries are made while it is read.
struct Endless {
    number: u64,
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.bytes.len() && self.number <= FILES {
            (self.bytes, self.at) = (Vec::new(), 0);
            for number in self.number..(self.number + 200).min(FILES) {
                // Half of them in one directory.
                let name = match number % 2 {
                    0 => format!("large/{number}"),
                    _ => format!("d{}/{number}", number / 1000),
                };
                let mut entry = LayerBuilder::new().file(name, 0o644, &[7; 100]).finish();
                entry.truncate(entry.len() - 1024);
                self.bytes.append(&mut entry);
            }
            self.number += 200;
            if self.number > FILES {
                self.bytes.extend_from_slice(&[0; 1024]);
            }
        }
        let count = buffer.len().min(self.bytes.len() - self.at);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[test]
fn a_whole_image_takes_the_memory_of_its_names() {
    if env::var(CASE).is_ok() {
        let tar = Endless { number: 0, bytes: Vec::new(), at: 0 };
        let layer = LayerTar::new(tar, LayerOptions { hashing: Hashing::Nothing, ..LayerOptions::default() });
        let scratch = tempfile::tempdir().unwrap();
        let image = MergedTree::read([layer], TreeLimits::default(), scratch.path()).unwrap();
        Ext4Rootfs::new().image(&image, &mut tempfile::tempfile().unwrap()).unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        return io::stdout().write_all(format!("\npeak: {}\n", line.trim()).as_bytes()).unwrap();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    let test = "memory::a_whole_image_takes_the_memory_of_its_names";
    let run = command.args(["--exact", test, "--nocapture"]).env(CASE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said} {}", String::from_utf8_lossy(&run.stderr));
    let peak = said.split("peak: ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let peak = peak.parse::<u64>().unwrap() * 1024;
    // Half a million take less than 128 MiB.
    assert!(peak < BASE + FILES * 200, "{} KiB", peak / 1024);
}
