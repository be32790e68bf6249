//! Every step of a worker's work, one blow at each.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::blow::{Blow, Step, Sweep};
use super::image::{NEW, OLD};
use super::scene::{Scene, Start};
use super::strike::{Landing, strike};
use super::trace::{Call, record};
use super::worker::EVICT;
use crate::oracle::{Failure, Verdict};
use crate::rule::not_judged;

/// A collection where there is one, a pull, and an open that makes the cache.
pub(super) fn sweeps<'a>(scene: &'a Scene<'a>) -> impl Iterator<Item = Sweep<'a>> {
    if !scene.evicts() {
        not_judged("the cache does not collect");
    }
    let collection = scene.evicts().then(|| (Start::Both, format!("{EVICT}{OLD}")));
    let others = [(Start::Old, NEW.to_owned()), (Start::Nothing, String::new())];
    collection.into_iter().chain(others).map(move |(start, orders)| Sweep { scene, start, orders })
}

/// What the runs of a crew have shown, where nothing was damaged.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// The calls that were recorded.
    calls: usize,
    /// Those of them that were struck.
    struck: usize,
    runs: usize,
    /// Steps that were not struck often enough.
    missed: Vec<String>,
}

impl Sweep<'_> {
    /// Strikes a worker wherever it uses the cache, each time in a cache of its own, with the blows for calls of one
    /// name on one file.
    pub(super) fn run(&self, what: &str, blows: impl Fn(&[&Call]) -> Vec<Blow>) -> Verdict {
        let steps = Mutex::new(self.steps(blows)?);
        let crew = |number: usize| -> Result<Tally, Failure> {
            let mut tally = Tally::default();
            while let Some(step) = steps.lock().ok().and_then(|mut steps| steps.pop()) {
                self.strike_all(&step, number, &mut tally).inspect_err(|_| {
                    // One damaged cache is enough.
                    steps.lock().into_iter().for_each(|mut steps| steps.clear());
                })?;
            }
            Ok(tally)
        };
        let tallies = std::thread::scope(|scope| {
            let crew = &crew;
            let crews: Vec<_> = (0..3).map(|number| scope.spawn(move || crew(number))).collect();
            let joined =
                crews.into_iter().map(|crew| crew.join().unwrap_or_else(|_| Err(Failure::new("a panic"))));
            joined.collect::<Vec<_>>()
        });
        let all = total(tallies)?;
        let Tally { calls, struck, runs, .. } = all;
        let start = self.start;
        writeln!(std::io::stderr(), "{what} from {start:?}: {struck} of {calls} calls, in {runs} runs")?;
        if !all.missed.is_empty() {
            return Err(Failure::new(all.missed.join("\n")));
        }
        // An open makes two documents, a folder and a lock; every other operation takes more.
        if struck < 10 { Err(Failure::new("that is not all that such work takes")) } else { Ok(()) }
    }

    /// Whether the same thread makes the same calls each time.
    fn is_steady(&self) -> bool {
        self.scene.fixture.blocking_threads() == 1
    }

    /// Strikes a worker at this step as often as it comes there, and adds that to the crew's tally.
    fn strike_all(&self, step: &Step, crew: usize, tally: &mut Tally) -> Verdict {
        let mut strike = |held: usize, nth: usize| {
            tally.runs += 1;
            let held = &step.published[..held];
            strike(self, step, held, nth, crew)
                .map_err(|e| Failure::new(format!("{step:?}, time {nth} with {} blobs: {e:?}", held.len())))
        };
        let mut struck = 0;
        for (held, numbers) in step.rounds.iter().enumerate() {
            for nth in numbers {
                if let Landing::Struck(calls) = strike(held, *nth)? {
                    struck += calls;
                }
            }
        }
        // With several threads the numbers of the calls differ in each run.
        let rounds = if struck < step.calls { step.rounds.len() } else { 0 };
        for held in 0..rounds {
            for nth in 1.. {
                match strike(held, nth)? {
                    Landing::Elsewhere => {}
                    Landing::Missed => break,
                    Landing::Struck(calls) => struck += calls,
                }
            }
        }
        // Among the runtime's own writes, one to a file of another name has another number each time.
        let is_aimed = self.is_steady() && (step.by.is_some() || step.syscall != "write");
        let enough = if is_aimed { step.calls } else { usize::from(step.by.is_some()) };
        if struck < enough {
            tally.missed.push(format!("{step:?} was reached only {struck} times"));
        }
        tally.calls += step.calls;
        tally.struck += struck.min(step.calls);
        Ok(())
    }

    /// Where a worker that is let alone uses the cache.
    fn steps(&self, blows: impl Fn(&[&Call]) -> Vec<Blow>) -> Result<Vec<Step>, Failure> {
        let again = || record(self.scene.fixture, &self.scene.store("recorded", self.start)?, &self.orders);
        let (first, calls) = (again()?, again()?);
        let known: BTreeSet<&Path> = first.iter().map(|call| &*call.by).collect();
        let published = calls.iter().filter_map(|call| call.to.clone());
        let published: Vec<PathBuf> = published.filter(|to| to.starts_with("blobs")).collect();
        let mut places = BTreeMap::<(&str, Option<&Path>), Vec<&Call>>::new();
        for call in calls.iter().filter(|call| !call.is_report()) {
            let by = Some(&*call.by).filter(|by| known.contains(by));
            places.entry((&call.name, by)).or_default().push(call);
        }
        let mut steps = Vec::new();
        for ((syscall, by), calls) in places {
            let rounds = Self::rounds(by, &calls, published.len());
            let known = if by.is_none() {
                known.iter().map(|by| by.to_path_buf()).collect()
            } else {
                BTreeSet::new()
            };
            // Any write may be the one that wakes the runtime.
            let is_safe = |blow: &Blow| by.is_some() || syscall != "write" || matches!(blow, Blow::Kill);
            for blow in blows(&calls).into_iter().filter(is_safe) {
                let (syscall, by) = (syscall.to_owned(), by.map(Path::to_owned));
                let (calls, published) = (calls.len(), published.clone());
                steps.push(Step {
                    syscall,
                    by,
                    blow,
                    calls,
                    published,
                    rounds: rounds.clone(),
                    known: known.clone(),
                });
            }
        }
        Ok(steps)
    }

    /// strace counts for each thread, and each blob may have its own: the second one there is the first when the blob
    /// of the one before is in the cache. So in each round another thread is the first to
    /// come there.
    fn rounds(by: Option<&Path>, calls: &[&Call], blobs: usize) -> Vec<Vec<usize>> {
        if by.is_none() {
            // Counted with the calls on other files.
            return vec![calls.iter().map(|call| call.nth).collect()];
        }
        let mut threads: Vec<(&str, usize)> = Vec::new();
        for call in calls {
            match threads.iter_mut().find(|(thread, _)| *thread == call.thread) {
                Some((_, times)) => *times += 1,
                None => threads.push((&call.thread, 1)),
            }
        }
        threads.iter().take(blobs + 1).map(|(_, times)| (1..=*times).collect()).collect()
    }
}

/// The sum of what the crews have shown. Damage that any of them has found outranks steps that were missed: how often a
/// step is reached depends on how busy the machine is, and what is left in a cache does not.
fn total(tallies: Vec<Result<Tally, Failure>>) -> Result<Tally, Failure> {
    let mut all = Tally::default();
    let mut damage = Vec::new();
    for tally in tallies {
        match tally {
            Err(found) => damage.push(format!("{found:?}")),
            Ok(tally) => {
                all.calls += tally.calls;
                all.struck += tally.struck;
                all.runs += tally.runs;
                all.missed.extend(tally.missed);
            }
        }
    }
    if damage.is_empty() { Ok(all) } else { Err(Failure::new(damage.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_damage_is_told_and_outranks_steps_that_were_missed() {
        let short = || Ok(Tally { calls: 3, struck: 1, runs: 2, missed: vec!["missed".to_owned()] });
        let damage = |what: &str| Err(Failure::new(what));
        let found = total(vec![short(), damage("old:1 was lost"), damage("index.json"), short()]);
        assert_eq!(format!("{:?}", found.unwrap_err()), "old:1 was lost\nindex.json");
        let all = total(vec![short(), short()]).unwrap();
        assert_eq!((all.calls, all.struck, all.runs, all.missed.len()), (6, 2, 4, 2));
    }
}
