//! Images that are made of others, beside what another tool makes of the same.

use std::fs;
use std::path::Path;

use plyfold_conformance::oracle::{Failure, Run, Verdict};
use plyfold_conformance::samples::{LayerBuilder, image, write_layout};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_plyfold");

/// The configuration of an image of a layout.
fn config(layout: &Path, tag: &str) -> Result<Value, Failure> {
    let image = format!("oci:{}:{tag}", layout.display());
    let said = Run::new("skopeo").args(["inspect", "--config", "--raw", &image]).success()?.stdout;
    Ok(serde_json::from_str(&said)?)
}

/// The same layer and the same values: the same configuration and the same root file system, history aside.
pub(crate) fn umoci_makes_the_same_images() -> Verdict {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    let (theirs, ours, layer) = (path("theirs"), path("ours"), path("layer.tar"));
    write_layout(&theirs, &[("base".to_owned(), &image())])?;
    let tar = LayerBuilder::new().file("etc/agent.conf", 0o640, b"on\n").whiteout("etc/absent");
    fs::write(&layer, tar.finish())?;

    let umoci =
        |arguments: &[&str], image: String| Run::new("umoci").args(arguments).args(["--image", &image]);
    let base = format!("{}:base", theirs.display());
    umoci(&["raw", "add-layer", "--tag", "new"], base).arg(&layer).success()?;
    let new = |layout: &Path| format!("{}:new", layout.display());
    umoci(
        &[
            "config",
            "--config.env=A=1",
            "--config.env=PATH=/bin",
            "--config.entrypoint=/bin/app",
            "--config.cmd=-v",
            "--config.label=org.example=yes",
            "--config.user=1000:1000",
            "--config.workingdir=/srv",
            "--config.stopsignal=SIGINT",
            "--config.exposedports=53/udp",
            "--config.volume=/data",
        ],
        new(&theirs),
    )
    .success()?;

    let store = path("store");
    let run = |arguments: &[&str]| Run::new(PROGRAM).args(arguments).arg("--store").arg(&store);
    run(&["load", "-q", &format!("oci:{}:base", theirs.display())]).success()?;
    let base = "localhost/theirs:base";
    run(&["append", base, &layer.display().to_string(), "--tag", "localhost/a:1"]).success()?;
    run(&[
        "config",
        "localhost/a:1",
        "--tag",
        "localhost/a:2",
        "-e",
        "A=1",
        "-e",
        "PATH=/bin",
        "--entrypoint",
        "/bin/app",
        "--cmd",
        "[\"-v\"]",
        "--label",
        "org.example=yes",
        "--user",
        "1000:1000",
        "--workdir",
        "/srv",
        "--stop-signal",
        "SIGINT",
        "--expose",
        "53/udp",
        "--volume",
        "/data",
    ])
    .success()?;
    run(&["push", "-q", "localhost/a:2", &format!("oci:{}", new(&ours))]).success()?;

    let (left, right) = (config(&ours, "new")?, config(&theirs, "new")?);
    assert_eq!(left["config"], right["config"]);
    assert_eq!(left["rootfs"], right["rootfs"]);
    for (layout, bundle) in [(&ours, "bundle"), (&theirs, "their-bundle")] {
        umoci(&["unpack", "--rootless"], new(layout)).arg(path(bundle)).success()?;
    }
    let roots = [path("bundle/rootfs"), path("their-bundle/rootfs")];
    assert_eq!(fs::read(roots[0].join("etc/agent.conf"))?, b"on\n");
    Run::new("diff").args(["-r", "--no-dereference"]).args(&roots).success()?;
    Ok(())
}
