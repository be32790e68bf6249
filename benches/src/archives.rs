//! Archives: `save` out of the store beside a copy of what it writes, and of a layout directory beside skopeo; `export` beside
//! crane.

use std::env;
use std::path::{Path, PathBuf};

use plyfold_core::reference;

use crate::measure::{Bench, Goal, HEAD, Program, Result};

/// Of an image that a layout directory has, `DIR:TAG`.
pub(crate) fn compare(bench: &Bench, plyfold: &Path, image: &str) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let at = |name: &str| scratch.path().join(name);
    let skopeo = env::var_os("SKOPEO").map_or_else(|| PathBuf::from("skopeo"), PathBuf::from);
    let (store, uri) = (at("store"), format!("oci:{image}"));
    let save = |image: &str, form: &str| {
        let save =
            Program::new(plyfold).args(["save", image, "--quiet", "--no-sync", "--format", form, "--store"]);
        save.arg(&store).arg("--out").out(&at("ours.tar"))
    };
    println!("{HEAD}");
    Program::new(plyfold).args(["pull", &uri, "--quiet", "--store"]).arg(&store).run()?;
    let (layout, tag) = image.rsplit_once(':').ok_or("name the image as DIR:TAG")?;
    let name = reference::local(Path::new(layout), tag)?.whole();
    save(&name, "oci").run()?;
    std::fs::rename(at("ours.tar"), at("result.tar"))?;
    let copy = Program::new("cp").arg("--reflink=never").arg(at("result.tar")).out(&at("theirs.tar"));
    bench.compare("save beside cp", &save(&name, "oci"), &copy, Goal::Ratio(1.3))?;
    let peer = |to: &str| {
        let copy = Program::new(&skopeo).args(["copy", "--quiet", &uri]);
        copy.out_as(&format!("{to}:"), &at("theirs.tar"))
    };
    bench.compare("save beside skopeo", &save(&uri, "oci"), &peer("oci-archive"), Goal::Ratio(0.5))?;
    bench.compare(
        "save --format docker",
        &save(&uri, "docker"),
        &peer("docker-archive"),
        Goal::Ratio(0.5),
    )?;
    let export = Program::new(plyfold).args(["export", &uri, "--quiet", "--no-sync", "--store"]).arg(&store);
    let export = export.arg("--out").out(&at("ours.tar"));
    let crane = env::var_os("CRANE").map_or_else(|| PathBuf::from("crane"), PathBuf::from);
    let script = "exec \"$0\" export - \"$2\" < \"$1\"";
    let crane =
        Program::new("sh").arg("-c").arg(script).arg(&crane).arg(at("result.tar")).out(&at("theirs.tar"));
    bench.compare("export beside crane", &export, &crane, Goal::Ratio(0.4))
}
