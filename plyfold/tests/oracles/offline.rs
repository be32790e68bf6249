//! What uses no network, as `strace` sees it.

use std::path::Path;

use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples::{Sample, index, non_distributable, oci_archive};

const PROGRAM: &str = env!("CARGO_BIN_EXE_plyfold");

/// Archives are loaded, listed, saved, exported and changed without a socket of the internet: also those whose layers name
/// places in it.
pub(crate) fn archives_come_and_go_without_a_network() -> Verdict {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let samples: [(&str, Sample); 2] = [("index", index()), ("foreign", non_distributable())];
    for (name, sample) in &samples {
        let image = format!("registry.example/org/{name}:1");
        std::fs::write(path(name), oci_archive(&[(image.clone(), sample)]))?;
        for line in [
            format!("load {} --list", path(name)),
            format!("load {}", path(name)),
            format!("save {image} --out {}", path("saved.tar")),
            format!("export {image} --platform linux/amd64 --out {}", path("root.tar")),
            format!("config {image} --user 1 --tag registry.example/org/changed:1"),
            format!("push {image} oci-archive:{}:{image}", path("pushed.tar")),
            format!("copy oci-archive:{} oci:{}:{image}", path(name), path("layout")),
        ] {
            let asked = sockets(dir.path(), &line)?;
            assert!(asked.is_empty(), "{line}: {asked:?}");
        }
    }
    // The check sees sockets where there are some.
    let asked = sockets(dir.path(), "tags localhost:1/org/app --retry-max-time 0s")?;
    assert!(!asked.is_empty(), "strace shows no socket at all");
    Ok(())
}

/// The calls that make a socket of the internet, or send to one.
fn sockets(folder: &Path, line: &str) -> Result<Vec<String>, Failure> {
    let trace = folder.join("trace");
    let run = Run::new("strace").args(["-f", "-e", "trace=socket,connect", "-o"]).arg(&trace).arg(PROGRAM);
    let run = run.args(line.split(' ')).args(["--quiet", "--store"]).arg(folder.join("store"));
    let said = run.output()?;
    assert!(said.status.success() || line.starts_with("tags"), "{line}: {said}");
    let trace = std::fs::read_to_string(&trace)?;
    Ok(trace.lines().filter(|call| call.contains("AF_INET")).map(str::to_owned).collect())
}
