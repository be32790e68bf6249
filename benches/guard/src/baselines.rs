//! The counts that are in the repository, and the comparison with them.

use std::collections::BTreeMap;
use std::fmt;

use crate::profile::Counts;
use crate::result::Result;

/// By how much a count may exceed its baseline, in percent.
const TOLERANCE: u64 = 2;

/// The same where another compiler has made the program.
const OTHER_COMPILER: u64 = 25;

/// What counts depend on, besides the code.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Build {
    /// The first line of `rustc --version`, and the target.
    pub(crate) compiler: String,
    /// What the CPU offers, as the program sees it in valgrind.
    pub(crate) cpu: String,
}

/// The counts of one build.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Baselines {
    pub(crate) build: Build,
    pub(crate) cases: BTreeMap<String, Counts>,
}

/// How a count compares.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Within the tolerance.
    Same,
    /// By so many tenths of a percent.
    Less(u64),
    More(u64),
    /// No baseline.
    New,
}

impl Baselines {
    /// Of the text of the file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut found = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (key, value) = line.split_once(' ').ok_or("a line of the baselines has one word")?;
            let value = value.trim();
            match key {
                "compiler" => value.clone_into(&mut found.build.compiler),
                "cpu" => value.clone_into(&mut found.build.cpu),
                _ => {
                    let numbers: Vec<u64> =
                        value.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
                    let [code, by_cpu] = numbers[..] else {
                        return Err(format!("{key} has two counts, and not {}", numbers.len()).into());
                    };
                    found.cases.insert(key.to_owned(), Counts { code, by_cpu });
                }
            }
        }
        Ok(found)
    }

    /// The tolerance for counts of another build, in percent.
    pub(crate) fn tolerance(&self, build: &Build) -> u64 {
        if self.build.compiler == build.compiler { TOLERANCE } else { OTHER_COMPILER }
    }

    /// Compares what a case takes on any CPU, and, where the CPU is like that of the baselines, what is chosen by the CPU.
    pub(crate) fn compare(&self, case: &str, found: Counts, build: &Build) -> [Verdict; 2] {
        let Some(baseline) = self.cases.get(case) else {
            return [Verdict::New, Verdict::New];
        };
        let tolerance = self.tolerance(build);
        let by_cpu = if self.build.cpu == build.cpu {
            verdict(baseline.by_cpu, found.by_cpu, tolerance)
        } else {
            Verdict::Same
        };
        [verdict(baseline.code, found.code, tolerance), by_cpu]
    }
}

impl fmt::Display for Baselines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Instructions of each case: those on any CPU, and those of functions that are chosen by the CPU."
        )?;
        writeln!(f, "# `.ci/guard --bless` writes this file; CONTRIBUTING.md says when.")?;
        writeln!(f, "compiler {}", self.build.compiler)?;
        writeln!(f, "cpu {}", self.build.cpu)?;
        for (case, Counts { code, by_cpu }) in &self.cases {
            writeln!(f, "{case:<12}{code:>12}{by_cpu:>12}")?;
        }
        Ok(())
    }
}

fn verdict(baseline: u64, found: u64, tolerance: u64) -> Verdict {
    let tenths = baseline.abs_diff(found) * 1000 / baseline.max(1);
    match tenths > tolerance * 10 {
        false => Verdict::Same,
        true if found > baseline => Verdict::More(tenths),
        true => Verdict::Less(tenths),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baselines() -> Baselines {
        let build = Build { compiler: "rustc 1.95.0 x86_64".to_owned(), cpu: "avx2 sse4.2".to_owned() };
        let counts = Counts { code: 1_000_000, by_cpu: 5_000_000 };
        Baselines { build, cases: [("layer".to_owned(), counts)].into() }
    }

    #[test]
    fn the_file_reads_back() {
        assert_eq!(Baselines::parse(&baselines().to_string()).unwrap(), baselines());
        assert!(Baselines::parse("layer 1\n").is_err());
        assert!(Baselines::parse("layer 1 x\n").is_err());
    }

    #[test]
    fn five_percent_more_fails() {
        let baselines = baselines();
        let compare = |code, by_cpu| baselines.compare("layer", Counts { code, by_cpu }, &baselines.build);
        assert_eq!(compare(1_050_000, 5_000_000), [Verdict::More(50), Verdict::Same]);
        assert_eq!(compare(1_000_000, 5_250_000), [Verdict::Same, Verdict::More(50)]);
        assert_eq!(compare(1_020_000, 4_900_000), [Verdict::Same, Verdict::Same]);
        assert_eq!(compare(1_021_000, 4_890_000), [Verdict::More(21), Verdict::Less(22)]);
        assert_eq!(compare(u64::from(u32::MAX), 0)[1], Verdict::Less(1000));
        assert_eq!(
            baselines.compare("another", Counts::default(), &baselines.build),
            [Verdict::New, Verdict::New]
        );
    }

    #[test]
    fn another_machine_or_compiler_is_judged_by_what_is_comparable() {
        let baselines = baselines();
        let found = Counts { code: 1_050_000, by_cpu: 50_000_000 };
        let cpu = Build { cpu: "sse4.2".to_owned(), ..baselines.build.clone() };
        assert_eq!(baselines.compare("layer", found, &cpu), [Verdict::More(50), Verdict::Same]);
        let compiler = Build { compiler: "rustc 1.96.0 x86_64".to_owned(), ..baselines.build.clone() };
        assert_eq!(baselines.compare("layer", found, &compiler), [Verdict::Same, Verdict::More(9000)]);
    }
}
