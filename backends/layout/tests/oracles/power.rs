//! Power cuts: a file system that stops from one moment to the next and forgets what was not synced.

use std::env;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use plyfold_conformance::oracle::{Failure, Mount, Run, Verdict};
use plyfold_conformance::samples;
use plyfold_core::{
    Artifact, ArtifactKey, CacheProvider as _, CacheProviderExt as _, ImageSourceExt as _, Materializer as _,
    reference,
};
use plyfold_erofs::ErofsLayer;
use plyfold_layout::Store;
use tempfile::TempDir;

use crate::{block, scene, worker};

/// How many power cuts each file system gets; a few when it is not set.
const ROUNDS: &str = "PLYFOLD_POWER_CUTS";
const FEW: u32 = 6;
/// Images in a round.
const IMAGES: u32 = 3;
/// The layers of an image, in bytes.
const LAYERS: [usize; 3] = [200, 70_000, 300_000];

pub(crate) fn power_cut_on_ext4_loses_nothing() -> Verdict {
    // Nothing is written by the clock, only when someone asks for it.
    cuts("ext4", &["-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0"], "loop,commit=1000")
}

pub(crate) fn power_cut_on_xfs_loses_nothing() -> Verdict {
    cuts("xfs", &[], "loop")
}

/// A disk with a store, and what was said to be in it.
struct Bench {
    file_system: &'static str,
    options: &'static str,
    folder: TempDir,
    promised: Vec<String>,
}

fn cuts(file_system: &'static str, make: &[&str], options: &'static str) -> Verdict {
    let rounds = env::var(ROUNDS).ok().map_or(Ok(FEW), |text| text.parse::<u32>())?;
    let mut bench = Bench { file_system, options, folder: TempDir::new()?, promised: Vec::new() };
    let disk = bench.folder.path().join("disk");
    File::create(&disk)?.set_len(1 << 30)?;
    Run::new(&format!("mkfs.{file_system}")).arg("-q").args(make).arg(&disk).success()?;
    // A round without a cut tells how long one takes.
    let whole = bench.round(0, None)?;
    let (mut lost, mut corrupt) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        // Half of the cuts come right after a success, the others anywhere, evenly spread.
        let share = f64::from(round) / f64::from(rounds);
        let cut = if round % 2 == 0 {
            Cut::During(whole.mul_f64(share))
        } else {
            Cut::After(round / 2 % IMAGES + 1)
        };
        bench.round(round, Some(cut))?;
        let judged = bench.judge(round, &mut lost, &mut corrupt);
        judged.map_err(|e| {
            Failure::new(format!("round {round}: {e:?}; lost: {lost:#?}; corrupt: {corrupt:#?}"))
        })?;
    }
    let (promised, losses, damages) = (bench.promised.len(), lost.len(), corrupt.len());
    let figures =
        format!("{file_system}: {rounds} power cuts, {promised} successes, {losses} lost, {damages} corrupt");
    if losses + damages > 0 {
        return Err(Failure::new(format!("{figures}\nlost: {lost:#?}\ncorrupt: {corrupt:#?}")));
    }
    Ok(writeln!(std::io::stderr(), "{figures}")?)
}

#[derive(Clone, Copy)]
enum Cut {
    /// After so many successes, at once.
    After(u32),
    /// After that time.
    During(Duration),
}

impl Bench {
    fn mount(&self) -> Result<Mount, Failure> {
        Mount::new(self.file_system, self.folder.path().join("disk"), self.options)
    }

    /// Pulls images until the power is cut; how long that took.
    fn round(&mut self, round: u32, cut: Option<Cut>) -> Result<Duration, Failure> {
        let names: Vec<_> =
            (0..IMAGES).map(|image| format!("registry.example/round:{round}-{image}")).collect();
        let samples: Vec<_> = names.iter().map(|name| (name.clone(), scene::image(name, &LAYERS))).collect();
        let samples: Vec<_> = samples.iter().map(|(name, sample)| (name.clone(), sample)).collect();
        let origin = self.origin(round);
        samples::write_layout(&origin, &samples)?;
        let disk = self.mount()?;
        let start = Instant::now();
        let mut worker = Worker::start(&disk.path().join("store"), &origin)?;
        match cut {
            Some(Cut::After(successes)) => {
                for name in &names[..successes as usize] {
                    worker.order(name)?;
                    self.promised.extend(worker.answer());
                }
            }
            Some(Cut::During(time)) => {
                names.iter().try_for_each(|name| worker.order(name))?;
                std::thread::sleep(time);
            }
            None => names.iter().try_for_each(|name| worker.order(name))?,
        }
        if cut.is_some() {
            Run::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(disk.path()).success()?;
        }
        // What was said was true at that time, whenever it is heard.
        self.promised.extend(worker.last_words());
        let took = start.elapsed();
        disk.unmount()?;
        Ok(took)
    }

    fn origin(&self, round: u32) -> PathBuf {
        self.folder.path().join(format!("origin-{round}"))
    }

    /// What of the promised is not there after the power cut, and what is there and wrong.
    fn judge(&self, round: u32, lost: &mut Vec<String>, corrupt: &mut Vec<String>) -> Verdict {
        let disk = self.mount()?;
        let path = disk.path().join("store");
        corrupt.extend(scene::unsound(&path)?);
        let store = Store::open(&path)?;
        for name in &self.promised {
            if let Err(why) = scene::whole(&store, name).and_then(|()| has_artifacts(&store, name)) {
                lost.push(format!("{name}: {why:?}"));
            }
        }
        // Whatever was cut off can be done again, and then nothing is left of the first attempt.
        for image in 0..IMAGES {
            let name = format!("registry.example/round:{round}-{image}");
            block(worker::pull_from(&self.origin(round), &name, &store, 1))??;
            scene::whole(&store, &name)?;
        }
        scene::nothing_in_progress(&path)?;
        disk.unmount()
    }
}

/// Whether each layer of an image has the artifact that its pull has reported.
fn has_artifacts(store: &Store, name: &str) -> Verdict {
    let source = block(store.new_source(&reference::parse(name)?, &"linux/amd64".parse()?))??;
    for layer in source.manifest()?.layers() {
        // The layers are plain tars.
        let key = ArtifactKey { format: ErofsLayer::default().format(), diff_id: layer.digest().clone() };
        if let Artifact::Vacant(_) = block(store.artifact(&key))?? {
            return Err(Failure::new(format!("the artifact of {} is gone", layer.digest())));
        }
    }
    Ok(())
}

/// A worker that pulls what it is told to.
struct Worker {
    process: Child,
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(store: &Path, origin: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(env::current_exe()?);
        command.env(worker::STORE, store).env(worker::ORIGIN, origin);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take();
        let answers = process.stdout.take().ok_or_else(|| Failure::new("a worker without output"))?;
        Ok(Self { process, orders, answers: BufReader::new(answers).lines() })
    }

    fn order(&mut self, name: &str) -> Verdict {
        let orders = self.orders.as_mut().ok_or_else(|| Failure::new("no more orders"))?;
        Ok(writeln!(orders, "{name}")?)
    }

    /// The next image that was pulled; `None` when a pull has failed.
    fn answer(&mut self) -> Option<String> {
        let line = self.answers.next()?.ok()?;
        line.strip_prefix(worker::DONE).map(str::to_owned)
    }

    /// All further images that were pulled, when there are no more orders.
    fn last_words(mut self) -> Vec<String> {
        self.orders = None;
        std::iter::from_fn(|| self.answer()).collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
