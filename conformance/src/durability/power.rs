//! Power cuts: a file system that stops at once and loses what was not synced.
//!
//! A success counts when it is reported before the cut begins. A power cut stops the processor as well; XFS that is shut
//! down (Linux 6.18) returns success from an `fsync` of what it has just lost: of files that one process only writes,
//! syncs and renames, 27 were lost in 400 shutdowns, each reported during the shutdown.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use plyfold_core::{
    Artifact, ArtifactKey, CacheProvider, CacheProviderExt as _, ImageSourceExt as _, Materializer as _,
    reference,
};

use super::artifact::{Summed, is_whole};
use super::fixture::DurabilityFixture;
use super::scene::{self, block};
use super::worker::{DONE, commanded, pull_image};
use crate::oracle::{Failure, PowerDisk, Verdict};

/// How many power cuts each file system gets; a few when it is not set.
const ROUNDS: &str = "PLYFOLD_POWER_CUTS";
const FEW: u32 = 6;
/// Images in a round.
const IMAGES: u32 = 3;

pub(super) fn power_cut_on_ext4_loses_nothing(fixture: &dyn DurabilityFixture) -> Verdict {
    cuts(fixture, "ext4")
}

pub(super) fn power_cut_on_xfs_loses_nothing(fixture: &dyn DurabilityFixture) -> Verdict {
    cuts(fixture, "xfs")
}

/// A disk with a cache, and what was said to be in it.
struct Bench<'a> {
    fixture: &'a dyn DurabilityFixture,
    disk: PowerDisk,
    promised: Vec<String>,
}

fn cuts(fixture: &dyn DurabilityFixture, file_system: &'static str) -> Verdict {
    let rounds = env::var(ROUNDS).ok().map_or(Ok(FEW), |text| text.parse::<u32>())?;
    let mut bench = Bench { fixture, disk: PowerDisk::new(file_system, 1 << 30)?, promised: Vec::new() };
    // A round without a cut tells how long one takes.
    let whole = bench.round(0, None)?;
    for round in 1..=rounds {
        // Half of the cuts come right after a success, the others anywhere, evenly spread.
        let share = f64::from(round) / f64::from(rounds);
        let cut = if round % 2 == 0 {
            Cut::During(whole.mul_f64(share))
        } else {
            Cut::After(round / 2 % IMAGES + 1)
        };
        bench.round(round, Some(cut))?;
        bench.judge(round).map_err(|e| Failure::new(format!("round {round} on {file_system}: {e:?}")))?;
    }
    let promised = bench.promised.len();
    writeln!(std::io::stderr(), "{file_system}: {rounds} power cuts, {promised} successes, nothing lost")?;
    Ok(())
}

#[derive(Clone, Copy)]
enum Cut {
    /// After so many successes, at once.
    After(u32),
    /// After that time.
    During(Duration),
}

fn names(round: u32) -> Vec<String> {
    (0..IMAGES).map(|image| format!("registry.example/round:{round}-{image}")).collect()
}

impl Bench<'_> {
    /// Pulls images until the power is cut; how long that took.
    fn round(&mut self, round: u32, cut: Option<Cut>) -> Result<Duration, Failure> {
        let names = names(round);
        let disk = self.disk.mount()?;
        let start = Instant::now();
        let mut worker = Worker::start(self.fixture, &disk.path().join("store"))?;
        match cut {
            Some(Cut::After(successes)) => {
                for name in &names[..successes as usize] {
                    worker.order(name)?;
                    self.promised.extend(worker.answer());
                }
            }
            Some(Cut::During(time)) => {
                names.iter().try_for_each(|name| worker.order(name))?;
                thread::sleep(time);
            }
            None => names.iter().try_for_each(|name| worker.order(name))?,
        }
        if cut.is_some() {
            self.promised.extend(worker.answered());
            PowerDisk::cut(&disk)?;
            worker.rest();
        } else {
            self.promised.extend(worker.rest());
        }
        let took = start.elapsed();
        disk.unmount()?;
        Ok(took)
    }

    /// Whether everything visible is complete, and everything reported as stored is there.
    fn judge(&self, round: u32) -> Verdict {
        let disk = self.disk.mount()?;
        let path = disk.path().join("store");
        let corrupt = scene::unsound(self.fixture, &path)?;
        if !corrupt.is_empty() {
            return Err(Failure::new(format!("corrupt: {corrupt:#?}")));
        }
        block(async {
            let cache = self.fixture.open(&path).await?;
            for name in &self.promised {
                scene::whole(&cache, name).await?;
                has_artifacts(&cache, name).await?;
            }
            // Whatever was cut off can be done again, and then nothing is left of the first attempt.
            for name in names(round) {
                pull_image(&name, &*cache, 1).await?;
                scene::whole(&cache, &name).await?;
            }
            Ok::<_, Failure>(())
        })??;
        scene::nothing_in_progress(self.fixture, &path)?;
        disk.unmount()
    }
}

/// Whether each layer of an image has the artifact that its pull has reported.
async fn has_artifacts(cache: &(impl CacheProvider + Clone), name: &str) -> Verdict {
    let source = cache.new_source(&reference::parse(name)?, &"linux/amd64".parse()?).await?;
    for layer in source.manifest()?.layers() {
        // The layers are plain tars.
        let key = ArtifactKey::layer(Summed.format(), layer.digest().clone());
        match cache.artifact(&key).await? {
            Artifact::Present(artifact) if artifact.path().map_or(Ok(false), is_whole)? => {}
            _ => return Err(Failure::new(format!("the artifact of {} in {name} is gone", layer.digest()))),
        }
    }
    Ok(())
}

/// A worker that pulls the image that the command names.
struct Worker {
    process: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Worker {
    fn start(fixture: &dyn DurabilityFixture, store: &Path) -> Result<Self, Failure> {
        let mut command = commanded(fixture, store)?;
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take();
        let output = process.stdout.take().ok_or_else(|| Failure::new("a worker without output"))?;
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
        });
        Ok(Self { process, orders, answers })
    }

    fn order(&mut self, name: &str) -> Verdict {
        let orders = self.orders.as_mut().ok_or_else(|| Failure::new("no more orders"))?;
        Ok(writeln!(orders, "{name}")?)
    }

    /// The next image that was pulled; `None` when a pull has failed.
    fn answer(&mut self) -> Option<String> {
        pulled(&self.answers.recv().ok()?)
    }

    /// All further images that were pulled until now.
    fn answered(&mut self) -> Vec<String> {
        self.answers.try_iter().filter_map(|line| pulled(&line)).collect()
    }

    /// All further images that are pulled, when there are no more orders.
    fn rest(mut self) -> Vec<String> {
        self.orders = None;
        self.answers.iter().filter_map(|line| pulled(&line)).collect()
    }
}

/// The image that an answer reports as pulled.
fn pulled(line: &str) -> Option<String> {
    line.strip_prefix(DONE).map(str::to_owned)
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
