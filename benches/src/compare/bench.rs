//! Runs plyfold and its peers in turn on one input.

use std::cell::OnceCell;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fmt, fs, thread};

use super::peers::{Peer, Peers, plyfold};
use super::program::{Cost, Program};
use super::record::{Record, Row, Taken};
use super::registry::Registry;
use crate::result::Result;

/// How a comparison is run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) runs: usize,
    /// Small inputs.
    pub(crate) quick: bool,
    /// The tar of a root file system; without it one is made up.
    pub(crate) rootfs: Option<PathBuf>,
    /// The folder of inputs and outputs, which is kept.
    pub(crate) scratch: PathBuf,
}

/// Programs, inputs, and a registry once it is needed.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) plyfold: Peer,
    pub(crate) peers: Peers,
    pub(crate) taken: Taken,
    registry: OnceCell<std::result::Result<Registry, String>>,
}

/// A program of a comparison.
pub(crate) struct Rival {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) program: Program,
    /// At most this share of its time is wanted of plyfold.
    pub(crate) goal: Option<f64>,
}

/// A rival, or why there is none.
pub(crate) type Found = std::result::Result<Rival, String>;

/// A case has nothing to run without a program.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Missing {}

impl Rival {
    pub(crate) fn new(name: &str, peer: &Peer, program: Program) -> Self {
        Self { name: name.to_owned(), version: peer.version.clone(), program, goal: None }
    }

    pub(crate) fn goal(self, most: f64) -> Self {
        Self { goal: Some(most), ..self }
    }
}

impl Bench {
    pub(crate) fn new(options: Options) -> Result<Self> {
        fs::create_dir_all(&options.scratch)?;
        let taken = Taken { date: today()?, machine: machine(&options.scratch), runs: options.runs };
        Ok(Self { plyfold: plyfold()?, peers: Peers::default(), registry: OnceCell::new(), taken, options })
    }

    /// A file or folder for outputs.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.options.scratch.join(name)
    }

    /// A command line of plyfold.
    pub(crate) fn ours(&self, words: &[&str]) -> Program {
        Program::new(&self.plyfold.path).args(words)
    }

    /// A peer's part of a comparison.
    pub(crate) fn rival(&self, name: &str, shown: &str, program: impl FnOnce(&Path) -> Program) -> Found {
        let peer = self.peers.find(name)?;
        Ok(Rival::new(shown, &peer, program(&peer.path)))
    }

    /// An input, made where it is not there yet.
    pub(crate) fn input(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let (path, part) = (self.at(name), self.at("input.part"));
        if !path.exists() {
            make(&part)?;
            fs::rename(part, &path)?;
        }
        Ok(path)
    }

    /// `large`, or `small` where the comparison is quick.
    pub(crate) fn size<T>(&self, large: T, small: T) -> T {
        if self.options.quick { small } else { large }
    }

    /// A registry on this machine.
    pub(crate) fn registry(&self) -> Result<&Registry> {
        let start = || {
            let program = self.peers.find("docker-registry")?.path;
            Registry::start(&program, &self.at("registry")).map_err(|error| error.to_string())
        };
        let registry = self.registry.get_or_init(start).as_ref();
        registry.map_err(|reason| Missing(reason.clone()).into())
    }

    /// Compares plyfold with all rivals; `check` compares their outputs after a run that is not measured.
    pub(crate) fn contest(
        &self,
        (title, input): (&str, &str),
        (name, ours): (&str, Program),
        rivals: Vec<Found>,
        check: impl FnOnce() -> Result<String>,
    ) -> Result<Record> {
        self.contest_of((title, input), (name, ours), rivals, check, || ())
    }

    /// The same with something that is done before each round.
    pub(crate) fn contest_of(
        &self,
        (title, input): (&str, &str),
        (name, ours): (&str, Program),
        rivals: Vec<Found>,
        check: impl FnOnce() -> Result<String>,
        mut before: impl FnMut(),
    ) -> Result<Record> {
        let mut record = Record {
            title: title.to_owned(),
            taken: self.taken.clone(),
            input: input.to_owned(),
            ..Record::default()
        };
        ours.run()?;
        let mut all = vec![Rival::new(name, &self.plyfold, ours)];
        for rival in rivals {
            // A peer may refuse the input, which is no failure of the comparison.
            let ran = rival.and_then(|rival| match rival.program.run() {
                Ok(_) => Ok(rival),
                Err(error) => {
                    rival.program.clear().map_err(|error| error.to_string())?;
                    Err(format!("{}: {error}", rival.name))
                }
            });
            match ran {
                Ok(rival) => all.push(rival),
                Err(reason) => record.skipped.push(reason.trim().replace('\n', " ")),
            }
        }
        record.checked = check()?;
        let mut costs = vec![Vec::new(); all.len()];
        for _ in 0..self.options.runs {
            before();
            for (rival, costs) in all.iter().zip(&mut costs) {
                costs.push(rival.program.run()?);
            }
        }
        record.rows = all.into_iter().zip(costs).map(|(rival, costs)| row(rival, &costs)).collect();
        Ok(record)
    }

    /// The median cost of a program that has no peer, after a run that is not measured.
    pub(crate) fn alone(&self, program: &Program) -> Result<Cost> {
        program.run()?;
        let costs = (0..self.options.runs).map(|_| program.run()).collect::<Result<Vec<_>>>()?;
        Ok(Cost::median(&costs))
    }
}

fn row(rival: Rival, costs: &[Cost]) -> Row {
    Row { name: rival.name, version: rival.version, cost: Cost::median(costs), goal: rival.goal }
}

fn today() -> Result<String> {
    let date = Program::new("date").args(["--utc", "+%F"]).output()?;
    Ok(String::from_utf8_lossy(&date).trim().to_owned())
}

/// The processor, how many of its cores, the kernel, and the file system of the scratch folder.
fn machine(scratch: &Path) -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        processors.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let model = model.map_or("unknown processor", |(_, model)| model.trim());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let disk = Program::new("df").args(["--output=fstype"]).arg(scratch).output().unwrap_or_default();
    let disk = String::from_utf8_lossy(&disk);
    let disk = disk.lines().last().unwrap_or_default();
    format!("{cores} cores of {model}, Linux {}, {}", kernel.trim(), disk.trim())
}
