//! Pulls of one image from a registry, beside what other tools take for it.

use std::path::Path;
use std::{env, fs};

use crate::measure::{Bench, Goal, HEAD, Program, Result};

/// `image` is `host[:port]/repository:tag`, served without TLS and without credentials.
pub(crate) fn compare(bench: &Bench, plyfold: &Path, image: &str) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let at = |name: &str| scratch.path().join(name);
    let tool = |variable: &str, name: &str| env::var_os(variable).unwrap_or_else(|| name.into());
    let pull = || Program::new(plyfold).arg("pull").arg("--quiet").arg(image).arg("--store");
    let kept = at("kept");
    pull().arg(&kept).run()?;

    println!("{HEAD}");
    let ours = pull().out(&at("ours"));
    let crane =
        Program::new(tool("CRANE", "crane")).args(["pull", "--insecure", image]).out(&at("crane.tar"));
    bench.compare("pull, beside crane pull", &ours, &crane, Goal::Ratio(1.0))?;
    let source = format!("docker://{image}");
    let skopeo = || {
        let fixed = ["copy", "--quiet", "--src-tls-verify=false", &source];
        Program::new(tool("SKOPEO", "skopeo")).args(fixed)
    };
    let copy = skopeo().out_as("oci:", &at("skopeo"));
    bench.compare("pull, beside skopeo copy", &ours, &copy, Goal::Ratio(0.6))?;
    bench.compare("pull, beside curl and sha256sum", &ours, &floor(image, &kept)?, Goal::Ratio(2.0))?;
    let again = skopeo().arg(format!("oci:{}", at("skopeo").display()));
    bench.compare("pull of what is here", &pull().arg(&kept), &again, Goal::Seconds(0.015))
}

/// Every blob that a pull has brought, fetched and hashed at the same time, and nothing kept.
fn floor(image: &str, store: &Path) -> Result<Program> {
    let (host, name) = image.split_once('/').ok_or("an image is host/repository:tag")?;
    let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
    let mut script = Vec::new();
    for blob in fs::read_dir(store.join("blobs/sha256"))? {
        let digest = blob?.file_name().into_string().map_err(|_| "a blob has an odd name")?;
        // Whatever is no blob there is a manifest, and small.
        let url = format!("http://{host}/v2/{repository}/blobs/sha256:{digest}");
        script.push(format!("curl --silent '{url}' | sha256sum & "));
    }
    Ok(Program::new("sh").arg("-c").arg(script.concat() + "wait"))
}
