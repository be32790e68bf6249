//! Runs two programs in turn and compares their medians.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{fmt, fs, io};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The table's first line.
pub(crate) const HEAD: &str =
    "case                                plyfold          peer  ratio  goal             peak memory";

/// A command line, and the file or folder that it makes.
#[derive(Clone)]
pub(crate) struct Program {
    words: Vec<OsString>,
    out: Option<PathBuf>,
}

impl Program {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self { words: vec![program.as_ref().to_owned()], out: None }
    }

    pub(crate) fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    pub(crate) fn args(self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        words.into_iter().fold(self, Self::arg)
    }

    /// An argument that names the output, which is removed before each run.
    pub(crate) fn out(self, file: &Path) -> Self {
        self.out_as("", file)
    }

    /// As [`Program::out`], with something in front of the name.
    pub(crate) fn out_as(mut self, prefix: &str, file: &Path) -> Self {
        self.out = Some(file.to_owned());
        let mut word = OsString::from(prefix);
        word.push(file);
        self.arg(word)
    }

    /// Runs it and answers its wall time in seconds, and its peak memory in KiB where GNU `time` is installed.
    pub(crate) fn run(&self) -> Result<(f64, Option<u64>)> {
        let measured = self.measured()?;
        Ok((measured.wall, measured.memory))
    }

    fn measured(&self) -> Result<Measured> {
        if let Some(out) = &self.out {
            let removed = if out.is_dir() { fs::remove_dir_all(out) } else { fs::remove_file(out) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let report = tempfile::NamedTempFile::new()?;
        let mut command = if Path::new("/usr/bin/time").exists() {
            let mut time = Command::new("/usr/bin/time");
            time.args(["-f", "%M %U %S", "-o"]).arg(report.path()).args(&self.words);
            time
        } else {
            let mut plain = Command::new(&self.words[0]);
            plain.args(&self.words[1..]);
            plain
        };
        let start = Instant::now();
        let status = command.stdout(Stdio::null()).status()?;
        let seconds = start.elapsed().as_secs_f64();
        if !status.success() {
            return Err(format!("{}: {status}", self.words.join(OsStr::new(" ")).display()).into());
        }
        let report = fs::read_to_string(report.path())?;
        let mut numbers = report.split_whitespace();
        let memory = numbers.next().and_then(|kib| kib.parse().ok());
        // Not a number where GNU `time` is not installed.
        let cpu = numbers.filter_map(|seconds| seconds.parse::<f64>().ok()).sum();
        Ok(Measured { wall: seconds, cpu: memory.map_or(f64::NAN, |_| cpu), memory })
    }
}

/// What one run takes, in seconds and KiB.
struct Measured {
    wall: f64,
    cpu: f64,
    memory: Option<u64>,
}

/// What runs take in seconds: medians.
pub(crate) struct Times {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

impl Times {
    fn of(runs: &[Measured]) -> Self {
        let of = |time: fn(&Measured) -> f64| median(runs.iter().map(time).collect());
        Self { wall: of(|run| run.wall), cpu: of(|run| run.cpu) }
    }
}

/// What plyfold should reach.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// At most this share of the peer's time.
    Ratio(f64),
    /// At most this long.
    Seconds(f64),
}

impl Goal {
    fn is_met(self, ours: f64, theirs: f64) -> bool {
        match self {
            Self::Ratio(most) => ours / theirs <= most,
            Self::Seconds(most) => ours <= most,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio(most) => write!(f, "{most:.2}"),
            Self::Seconds(most) => write!(f, "{most:.3} s"),
        }
    }
}

/// How often each program runs.
pub(crate) struct Bench {
    runs: usize,
}

impl Bench {
    pub(crate) fn from_env() -> Result<Self> {
        let runs = std::env::var("RUNS").ok().map_or(Ok(5), |runs| runs.parse::<usize>())?;
        Ok(Self { runs: runs.max(1) })
    }

    /// Measures both in turn, after a run that is not measured.
    pub(crate) fn medians(&self, ours: &Program, theirs: &Program) -> Result<(Times, Times)> {
        ours.run()?;
        theirs.run()?;
        let (mut our_runs, mut their_runs) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            our_runs.push(ours.measured()?);
            their_runs.push(theirs.measured()?);
        }
        Ok((Times::of(&our_runs), Times::of(&their_runs)))
    }

    /// Measures both in turn, so that a change of the machine's load meets both, and prints a line of the table.
    pub(crate) fn compare(&self, case: &str, ours: &Program, theirs: &Program, goal: Goal) -> Result<()> {
        self.compare_after(case, || (), ours, theirs, goal)
    }

    /// The same with something that is done before each pair of measured runs.
    pub(crate) fn compare_after(
        &self,
        case: &str,
        mut before: impl FnMut(),
        ours: &Program,
        theirs: &Program,
        goal: Goal,
    ) -> Result<()> {
        ours.run()?;
        let first = theirs.run()?.0;
        let mut their_times = if matches!(goal, Goal::Ratio(_)) { Vec::new() } else { vec![first] };
        let (mut our_times, mut peak) = (Vec::new(), None);
        for _ in 0..self.runs {
            before();
            let (seconds, memory) = ours.run()?;
            our_times.push(seconds);
            peak = peak.max(memory);
            // Some cases take the peer minutes; where no ratio is asked for, its first run is enough.
            if matches!(goal, Goal::Ratio(_)) {
                their_times.push(theirs.run()?.0);
            }
        }
        let (ours, theirs) = (median(our_times), median(their_times));
        let verdict = if goal.is_met(ours, theirs) { "met" } else { "missed" };
        let memory = peak.map_or_else(|| "-".to_owned(), |kib| format!("{} MiB of 64", kib.div_ceil(1024)));
        let goal = format!("{goal} {verdict}");
        println!("{case:<34}{ours:>7.3} s {theirs:>11.3} s {:>6.2}  {goal:<16} {memory}", ours / theirs);
        Ok(())
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
