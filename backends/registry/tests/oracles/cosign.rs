//! `cosign` without its servers: keys, signatures and their verification, in a folder.

use std::path::Path;

use plyfold_conformance::oracle::{Run, Verdict};

/// Everything that it keeps stays in the folder, which it runs in: `generate-key-pair` makes `cosign.key` and `cosign.pub` there.
/// It asks for no password.
pub(crate) fn cosign(folder: &Path) -> Run {
    Run::new("sh")
        .env("HOME", folder)
        .env("COSIGN_PASSWORD", "password")
        .env("TUF_ROOT", folder.join("tuf"))
        .args(["-c", r#"cd "$HOME" && exec cosign "$@""#, "cosign"])
}

/// Signs an image in one of its two ways, by an option of `--new-bundle-format`.
pub(crate) fn sign(folder: &Path, bundle: &str, image: &str) -> Verdict {
    let offline = ["--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry", "-y"];
    cosign(folder).arg("sign").args(offline).args([bundle, "--key", "cosign.key", image]).success()?;
    Ok(())
}

pub(crate) fn verify(folder: &Path, image: &str) -> Verdict {
    let offline = ["--insecure-ignore-tlog", "--allow-http-registry", "--key", "cosign.pub"];
    cosign(folder).arg("verify").args(offline).arg(image).success()?;
    Ok(())
}
