//! Measures plyfold beside its peers, and writes `docs/benchmarks.md`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use bench::{Bench, Missing, Options};
use cases::CASES;
use curves::CURVES;
use record::{Record, Records};

use crate::result::Result;

mod bench;
mod bucket;
mod cases;
mod check;
mod curves;
mod inputs;
mod large_store;
mod page;
mod peers;
mod program;
mod record;
mod registry;
mod svg;

const USAGE: &str = "usage: plyfold-bench compare [--quick] [--runs N] [--rootfs FILE.tar] [--scratch DIR] [--docs DIR] \
                     [--list | --page | CASE...]";

/// What the command line asks for.
struct Command {
    options: Options,
    /// Where the page is.
    docs: PathBuf,
    wanted: Vec<String>,
    lists: bool,
    measures: bool,
}

/// Runs the cases that are named, or all, and writes the page with them and with those that it had.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let command = parse(arguments)?;
    let names = CASES.iter().map(|case| case.name).chain(CURVES.iter().map(|curve| curve.name));
    if command.lists {
        names.for_each(|name| println!("{name}"));
        return Ok(());
    }
    let known: Vec<&str> = names.collect();
    if let Some(name) = command.wanted.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("{name} is no case: `--list` shows them").into());
    }
    let mut records = Records::read(&command.docs.join("benchmarks.json"))?;
    let failed = if command.measures { measure(&command, &mut records)? } else { Vec::new() };
    page::write(&records, &command.docs)?;
    println!("{}", command.docs.join("benchmarks.md").display());
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// The names of cases that failed. Each result is written at once.
fn measure(command: &Command, records: &mut Records) -> Result<Vec<&'static str>> {
    let bench = Bench::new(command.options.clone())?;
    let is_wanted =
        |name: &str| command.wanted.is_empty() || command.wanted.iter().any(|wanted| wanted == name);
    fs::create_dir_all(&command.docs)?;
    let mut failed = Vec::new();
    let mut judged = |name, outcome: Result<()>| match outcome {
        Ok(()) => {}
        Err(error) if error.is::<Missing>() => println!("{name}: skipped: {error}"),
        Err(error) => {
            println!("{name}: {error}");
            failed.push(name);
        }
    };
    for case in CASES.iter().filter(|case| is_wanted(case.name)) {
        let outcome = (case.run)(&bench).and_then(|record| {
            show(case.name, &record);
            records.cases.insert(case.name.to_owned(), record);
            records.write(&command.docs.join("benchmarks.json"))
        });
        judged(case.name, outcome);
    }
    for curve in CURVES.iter().filter(|curve| is_wanted(curve.name)) {
        let outcome = (curve.run)(&bench).and_then(|record| {
            for line in &record.lines {
                println!("{:<20} {:<44} exponent {:>5.2}", curve.name, line.name, line.exponent());
            }
            records.curves.insert(curve.name.to_owned(), record);
            records.write(&command.docs.join("benchmarks.json"))
        });
        judged(curve.name, outcome);
    }
    Ok(failed)
}

/// A line for each program.
fn show(name: &str, record: &Record) {
    let ours = record.rows.first().map_or(0.0, |row| row.cost.wall);
    for row in &record.rows {
        let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let goal = row.goal.map_or_else(String::new, |goal| {
            format!("  goal {goal:.2} {}", if ours / row.cost.wall <= goal { "met" } else { "missed" })
        });
        println!(
            "{name:<20} {:<44} {:>8.3} s  CPU {:>6}  {:>7} MiB  ratio {:.2}{goal}",
            row.name,
            row.cost.wall,
            value(row.cost.cpu),
            value(row.cost.memory),
            ours / row.cost.wall
        );
    }
    for reason in &record.skipped {
        println!("{name:<20} skipped: {reason}");
    }
}

fn parse(arguments: &[OsString]) -> Result<Command> {
    let mut words = arguments.iter();
    let root = peers::root();
    let (mut runs, mut docs, mut scratch) = (None, None, None);
    let (mut quick, mut rootfs, mut wanted, mut lists, mut measures) = (false, None, Vec::new(), false, true);
    while let Some(word) = words.next() {
        let mut path = || words.next().map(PathBuf::from).ok_or(USAGE);
        match word.to_str().ok_or(USAGE)? {
            "--quick" => quick = true,
            "--list" => lists = true,
            "--page" => measures = false,
            "--runs" => runs = Some(path()?.to_str().ok_or(USAGE)?.parse::<usize>()?.max(1)),
            "--rootfs" => rootfs = Some(fs::canonicalize(path()?)?),
            "--scratch" => scratch = Some(path()?),
            "--docs" => docs = Some(path()?),
            option if option.starts_with('-') => return Err(USAGE.into()),
            case => wanted.push(case.to_owned()),
        }
    }
    // What a quick comparison finds is not for the repository.
    let docs = docs.unwrap_or_else(|| root.join(if quick { "target/benchmarks" } else { "docs" }));
    let name = if quick { "plyfold-compare-quick" } else { "plyfold-compare" };
    let scratch = scratch.unwrap_or_else(|| env::temp_dir().join(name));
    let options = Options { runs: runs.unwrap_or(if quick { 3 } else { 7 }), quick, rootfs, scratch };
    Ok(Command { options, docs, wanted, lists, measures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_comparison_leaves_the_repository_alone() {
        let parsed = |words: &[&str]| parse(&words.iter().map(OsString::from).collect::<Vec<_>>());
        let quick = parsed(&["--quick", "pull"]).unwrap();
        assert!(
            quick.docs.ends_with("target/benchmarks") && quick.options.runs == 3 && quick.wanted == ["pull"]
        );
        let whole = parsed(&["--runs", "9"]).unwrap();
        assert!(whole.docs.ends_with("docs") && whole.options.runs == 9 && whole.wanted.is_empty());
        assert!(parsed(&["--slow"]).is_err() && parsed(&["--runs"]).is_err());
        assert!(run(&[OsString::from("no-such-case")]).is_err());
    }
}
