//! Counts the instructions of a few cases by valgrind's callgrind, and compares them with `baselines.txt`: unlike times they
//! are the same on a busy machine. How to run it: `.ci/guard`.

#![expect(clippy::print_stdout, reason = "a table on standard output is what this program is for")]

mod baselines;
mod cases;
mod inputs;
mod profile;
mod result;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, str};

use baselines::{Baselines, Build, Verdict};
use cases::CASES;
use profile::Counts;
use result::Result;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baselines.txt");

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => check(),
        ["--bless"] => bless(),
        ["cpu"] => {
            println!("{}", cpu());
            Ok(ExitCode::SUCCESS)
        }
        ["run", case, folder] => cases::run(case, Path::new(folder)).map(|()| ExitCode::SUCCESS),
        _ => Err("usage: plyfold-guard [--bless]".into()),
    }
}

/// Compares each case with its baseline; more instructions than that allows are a failure.
fn check() -> Result<ExitCode> {
    let (build, baselines) = (this_build()?, Baselines::parse(&fs::read_to_string(FILE)?)?);
    let tolerance = baselines.tolerance(&build);
    if build.compiler != baselines.build.compiler {
        println!("the baselines are of {}, and this is {}", baselines.build.compiler, build.compiler);
        println!("so {tolerance} % more are allowed; `.ci/guard --bless` takes baselines of this compiler");
    }
    if build.cpu != baselines.build.cpu {
        println!(
            "functions that are chosen by the CPU are not compared: {:?}, and the baselines {:?}",
            build.cpu, baselines.build.cpu
        );
    }
    let (mut slower, mut other) = (Vec::new(), Vec::new());
    for (case, found) in measured()? {
        let baseline = baselines.cases.get(case).copied().unwrap_or_default();
        println!(
            "{case:<12}{} (baseline {}), {} by CPU ({})",
            found.code, baseline.code, found.by_cpu, baseline.by_cpu
        );
        for (verdict, what) in baselines.compare(case, found, &build).into_iter().zip(["", " by CPU"]) {
            match verdict {
                Verdict::Same => {}
                Verdict::More(tenths) => {
                    slower.push(format!("{case}{what}: {}.{} % more", tenths / 10, tenths % 10));
                }
                Verdict::Less(tenths) => {
                    other.push(format!("{case}{what}: {}.{} % less", tenths / 10, tenths % 10));
                }
                Verdict::New => other.push(format!("{case}{what}: no baseline")),
            }
        }
    }
    for line in &other {
        println!("note: {line}; `.ci/guard --bless` writes it down");
    }
    if slower.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "instructions, where {tolerance} % more than the baseline are allowed:\n  {}",
        slower.join("\n  ")
    );
    println!("where that is wanted: .ci/guard --bless, and say why in the commit");
    Ok(ExitCode::FAILURE)
}

/// Takes new baselines.
fn bless() -> Result<ExitCode> {
    let cases = measured()?.into_iter().map(|(case, found)| (case.to_owned(), found)).collect();
    let baselines = Baselines { build: this_build()?, cases };
    fs::write(FILE, baselines.to_string())?;
    println!("{baselines}");
    Ok(ExitCode::SUCCESS)
}

/// The counts of each case, one by one.
fn measured() -> Result<Vec<(&'static str, Counts)>> {
    let folder = tempfile::Builder::new().prefix("guard").tempdir()?;
    cases::prepare(folder.path())?;
    let this = env::current_exe()?;
    let this = this.to_str().ok_or("the program's path is text")?;
    let profile = folder.path().join("profile");
    let count = |case: &'static str| {
        let out = format!("--callgrind-out-file={}", profile.display());
        let folder = folder.path().to_str().ok_or("the folder's path is text")?;
        in_valgrind(&["--tool=callgrind", &out, this, "run", case, folder])?;
        Ok((case, profile::counts(&fs::read_to_string(&profile)?, this)?))
    };
    CASES.iter().map(|case| count(case.name)).collect()
}

/// The output of a command in valgrind, with an environment of its own.
fn in_valgrind(arguments: &[&str]) -> Result<String> {
    let output = Command::new("valgrind")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .arg("--quiet")
        .args(arguments)
        .output();
    let output = output.map_err(|error| format!("valgrind: {error}; .ci/run installs it"))?;
    if !output.status.success() {
        return Err(
            format!("valgrind: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    Ok(str::from_utf8(&output.stdout)?.trim().to_owned())
}

fn this_build() -> Result<Build> {
    let rustc = Command::new("rustc").arg("-vV").output()?.stdout;
    let lines: Vec<&str> = str::from_utf8(&rustc)?.lines().collect();
    let host = lines.iter().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc names no host")?;
    let compiler = format!("{} {host}", lines.first().ok_or("rustc has no version")?);
    let this = env::current_exe()?;
    let cpu = in_valgrind(&["--tool=none", this.to_str().ok_or("the program's path is text")?, "cpu"])?;
    Ok(Build { compiler, cpu })
}

/// What the crates that choose by the CPU look at.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("sha", is_x86_feature_detected!("sha")),
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
    ];
    let found: Vec<&str> =
        features.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect();
    found.join(" ")
}

/// What the crates that choose by the CPU look at: not known.
#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    env::consts::ARCH.to_owned()
}
