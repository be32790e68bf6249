//! What callgrind has counted, without what differs between machines.
//!
//! Counted are the instructions of this program's own file: those of the C library are chosen by the CPU, and differ with
//! its version. Of the rest, functions of crates that choose by the CPU (hashes, codecs, searches) are counted apart.

use std::collections::HashMap;

use crate::result::Result;

/// Crates that have several forms of a function, of which the CPU decides.
const BY_CPU: &[&str] = &[
    "crc32c",
    "crc32fast",
    "memchr",
    "sha1_smol",
    "sha2",
    "simd-adler32",
    "simdutf8",
    "std_detect",
    "twox-hash",
    "zlib-rs",
];

/// Instructions that were executed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// On any CPU.
    pub(crate) code: u64,
    /// Of functions that are chosen by the CPU.
    pub(crate) by_cpu: u64,
}

/// Sums up the file that callgrind writes (its manual, "Callgrind Format Specification"), with `--dump-instr=no`.
pub(crate) fn counts(profile: &str, program: &str) -> Result<Counts> {
    let mut names = Names::default();
    let (mut counts, mut is_counted, mut is_by_cpu, mut is_call) = (Counts::default(), false, false, false);
    let mut is_complete = false;
    for line in profile.lines() {
        if let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.contains(' ')) {
            match key {
                "ob" => is_counted = names.of(Kind::Object, value) == program,
                // The file of the function, and not the one of code that was inlined into it.
                "fl" => is_by_cpu = is_chosen_by_cpu(names.of(Kind::File, value)),
                "cob" => drop(names.of(Kind::Object, value)),
                "fi" | "fe" | "cfi" | "cfl" => drop(names.of(Kind::File, value)),
                // The next line has the cost of the function that is called.
                "calls" => is_call = true,
                _ => {}
            }
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.split_once(' ').and_then(|(_, cost)| cost.parse::<u64>().ok());
            let cost = cost.ok_or_else(|| format!("no line of a profile: {line}"))?;
            match (std::mem::take(&mut is_call), is_counted, is_by_cpu) {
                (false, true, true) => counts.by_cpu += cost,
                (false, true, false) => counts.code += cost,
                _ => {}
            }
        }
        is_complete |= line.starts_with("totals:");
    }
    if !is_complete || counts.code == 0 {
        return Err(format!("the profile is cut, or has nothing of {program}").into());
    }
    Ok(counts)
}

/// Whether a source file is of a crate in [`BY_CPU`], by the folder of its version: `…/sha2-0.11.0/src/…`.
fn is_chosen_by_cpu(file: &str) -> bool {
    file.split('/').any(|folder| {
        let name =
            folder.rsplit_once('-').filter(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()));
        BY_CPU.contains(&name.map_or(folder, |(name, _)| name))
    })
}

#[derive(Clone, Copy, Eq, Hash, PartialEq)]
enum Kind {
    File,
    Object,
}

/// Names are numbered where they come first: `(3) name`, and later `(3)`.
#[derive(Default)]
struct Names<'a>(HashMap<(Kind, &'a str), &'a str>);

impl<'a> Names<'a> {
    fn of(&mut self, kind: Kind, value: &'a str) -> &'a str {
        match value.split_once(' ').filter(|_| value.starts_with('(')) {
            Some((number, name)) => {
                self.0.insert((kind, number), name);
                name
            }
            None => self.0.get(&(kind, value)).copied().unwrap_or(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
version: 1
cmd: ./guard run layer
positions: line
events: Ir

ob=(1) /usr/lib/libc.so.6
fl=(1) ???
fn=(1) memcpy
0 1000

ob=(2) /target/guard
fl=(2) /work/core/src/tree.rs
fn=(2) build = x
10 5
+1 6
fi=(3) /root/.cargo/registry/src/index/sha2-0.11.0/src/lib.rs
7 20
fe=(2)
cob=(1)
cfi=(1)
cfn=(1)
calls=3 0
* 900
* 1

fl=(3)
fn=(3) sha2::compress
-4 300
cfi=(2)
cfn=(2)
calls=1 10
5 31

totals: 2263
";

    #[test]
    fn own_code_is_counted_and_what_the_cpu_chooses_apart() {
        let found = counts(PROFILE, "/target/guard").unwrap();
        assert_eq!(found, Counts { code: 5 + 6 + 20 + 1, by_cpu: 300 });
    }

    #[test]
    fn a_cut_profile_is_an_error() {
        let cut = PROFILE.replace("totals:", "");
        assert!(counts(&cut, "/target/guard").is_err());
        assert!(counts(PROFILE, "/target/another").is_err());
    }

    #[test]
    fn crates_are_known_by_their_folders() {
        for file in [
            "/c/registry/src/i/sha2-0.11.0/src/x.rs",
            "/rustc/a/library/stdarch/crates/std_detect/src/cache.rs",
        ] {
            assert!(is_chosen_by_cpu(file), "{file}");
        }
        for file in ["/work/sha2x-1/core/src/lib.rs", "/c/registry/src/i/sha2-extra-1.0/src/x.rs", "???"] {
            assert!(!is_chosen_by_cpu(file), "{file}");
        }
    }
}
