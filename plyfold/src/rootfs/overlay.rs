//! What overlayfs does not show as it is: a rule for `erofs-layers` and `erofs-tar`, whose images it stacks.

use plyfold_core::layer::TreeLimits;
use plyfold_core::{Advice, Error, ErrorKind, InputArtifact, MadeFile, MadeImage, Result, Role};
use plyfold_erofs::{ErofsFault, ErofsMerged, ErofsTar, OverlayDifferences};

use super::options::{FLAT, LAYERS, MERGED, Rootfs, TARS};
use crate::blocking::alone;

/// What overlayfs would show otherwise, of the layers' images.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) when there is something and [`Rootfs::strict`] is on.
pub(super) async fn differences(made: &MadeImage, rootfs: &Rootfs) -> Result<OverlayDifferences> {
    let layers: Vec<InputArtifact> = lowers(made);
    let (limits, budget) = (rootfs.limits.tree.clone(), rootfs.budget.clone());
    // A single layer is mounted by overlayfs only under an upper.
    let stacked = rootfs.upper.is_some();
    let are_tars = made.format.name == TARS;
    let found = alone("plyfold-overlay", move |stop| {
        // It gives its part of the shared memory back when it is dropped.
        let limits = TreeLimits { share: Some(budget.share_until(stop.flag())), ..limits };
        if are_tars {
            return ErofsTar::overlay_differences(&layers, &limits, stacked);
        }
        ErofsMerged::default().with_limits(limits).overlay_differences(&layers, stacked)
    })
    .await?;
    match found.worst() {
        Some(worst) if rootfs.strict => {
            let message = format!("overlayfs would not show the image as it is: {worst}");
            let others = match found.count {
                1 => String::new(),
                count => format!(", and {} more names", count - 1),
            };
            Err(Error::new(ErrorKind::Unsupported, message + &others)
                .with_advice(Advice::ChooseFormat { words: "{} shows it as it is", formats: vec![MERGED] }))
        }
        _ => Ok(found),
    }
}

/// The images that an upper is stacked on: those of the layers, bottom first, or that of all of them.
pub(super) fn lowers(made: &MadeImage) -> Vec<InputArtifact> {
    let is_lower =
        |file: &&MadeFile| file.role == Role::Image && [FLAT, LAYERS, TARS].contains(&file.format.name);
    let lowers = made.files.iter().filter(is_lower);
    lowers
        .map(|file| InputArtifact::new(&file.name, file.role, file.artifact.clone(), file.diff_id.clone()))
        .collect()
}

/// Whether the layers are sound, and no merged image can refer to them.
pub(super) fn is_unmerged(error: &Error) -> bool {
    use ErofsFault::{BlockSizes, CompressedBelow, CompressedLayer, FileSize, MergedLayer, Unmerged};

    matches!(
        error.detail(),
        Some(
            BlockSizes(..) | CompressedBelow(_) | CompressedLayer | FileSize(..) | MergedLayer | Unmerged(_)
        )
    )
}

/// Checks that a merged image is one of the same layers' images.
pub(super) fn check_same(made: &MadeImage, merged: &MadeImage) -> Result<()> {
    let formats = |made: &MadeImage| made.files.last().map(|file| file.format.clone());
    if formats(made) == formats(merged) {
        return Ok(());
    }
    let message = "the layers have options that the merged image of them was not given";
    Err(Error::config(message).with_hint("give options by the name of the format"))
}
