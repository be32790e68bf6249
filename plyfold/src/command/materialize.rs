//! `materialize`: disks out of an image, and what to do with them.

use std::path::Path;
use std::process::ExitCode;

use crate::atomic_file::FileOptions;
use crate::layer::LayerLimits;
use crate::shell::quoted;
use crate::{
    Advice, CacheProvider as _, DiskSet, Disks, Error, HashTree, HashedPartition, PullOptions, PulledImage,
    Result, Rootfs, printable,
};
use serde_json::{Value, json};

use super::args::Materialize;
use super::boot::Machine;
use super::disks_document::disks_document;
use super::hints;
use super::plugins;
use super::progress::short;
use super::session::Session;
use super::size::Size;
use super::store::pulled;
use super::store_admin::counted;

/// Makes disks of an image, which is pulled if need be. The exit code is that of the image's command, if it is run.
pub(crate) async fn make(session: &Session, options: Materialize) -> Result<ExitCode> {
    session.refuse_replacing(&options.out, [&options.image])?;
    let of_format = options.of_format.of(&options.format)?;
    let rootfs = Rootfs::named(&options.format, &of_format, session.images.materializers())?;
    let rootfs = match options.upper {
        Some(bytes) => rootfs.upper(bytes),
        None => rootfs,
    };
    let Materialize { copy, mode, owner, machine, .. } = options;
    let files = FileOptions { copy, mode, owner, ..options.durably.options() };
    let rootfs = rootfs.files(files).strict(options.strict).limits(options.bounds.layer());
    let rootfs = rootfs.verified(options.verity.is_some());
    rootfs.check().map_err(|e| plugins::with_hashed_formats(e, session.images.materializers()))?;
    let machine = Machine::asked(machine, &rootfs, &session.context).await?;
    let (image, disks) =
        of_pulled(session, &options.image, &rootfs, options.bounds.layer(), false, async |image| {
            if machine.is_some() {
                image.made_for().as_ref().map_or(Ok(()), Machine::check)?;
            }
            session.images.materialize(image, &rootfs, &options.out).await
        })
        .await
        .map_err(|e| with_disks_there(e, &options.out))?;
    // Also with `-q`: the stacked layers show another tree than the image.
    if let Some(worst) = disks.overlay_differences.worst() {
        let count = disks.overlay_differences.count;
        let names = counted(count, "name", "names");
        let other = match &disks.merged {
            Some(_) => "use merged.erofs, which does",
            None => "`--as erofs` makes one image that does",
        };
        let message = format!("overlayfs does not show {names} of this image as it is: {worst}; {other}");
        session.terminal.say("warning", &message);
    }
    if let Some(machine) = machine {
        return machine.boot(session.terminal, &DiskSet::open(&options.out)?).await.map(ExitCode::from);
    }
    session.terminal.show(&document(&image, &disks), || text(&image, &disks))?;
    Ok(ExitCode::SUCCESS)
}

/// Says how disks are started that are there already.
fn with_disks_there(error: Error, out: &Path) -> Error {
    if error.advice() != Some(&Advice::KeepWritten) || !DiskSet::is_in(out) {
        return error;
    }
    let hint = format!(
        "`plyfold boot {}` starts the disks that are there as they are; remove the file, or choose another directory, for new ones",
        quoted(out)
    );
    error.with_better_hint(hint)
}

/// Works on an image that is pulled if need be, and once more after a repair of its layers. What is read alone replaces no name
/// of the store.
pub(crate) async fn of_pulled<T>(
    session: &Session,
    name: &str,
    rootfs: &Rootfs,
    limits: LayerLimits,
    is_read: bool,
    work: impl AsyncFn(&PulledImage) -> Result<T>,
) -> Result<(PulledImage, T)> {
    // In a store that cannot be written, the layers' images are made beside the output, after the pull.
    let keeps = !session.images.cache().is_read_only();
    let materializer = session.images.layer_materializer(rootfs)?.filter(|_| keeps);
    let pull = PullOptions { materializer, limits, ..PullOptions::default() };
    let brought = async |pull| {
        if is_read { session.read(name, None, pull).await } else { session.pull(name, None, pull).await }
    };
    let image = brought(pull.clone()).await?;
    if let Some(before) = &image.replaced {
        let message =
            format!("{} was {before} in the store before, and is {} now", image.reference, image.digest);
        session.terminal.say("warning", &message);
    }
    let done = work(&image).await;
    // A format of the whole image reads the layers only now.
    if keeps && done.as_ref().is_err_and(|e| e.advice() == Some(&Advice::RepairContent)) {
        let image = brought(PullOptions { verify: true, ..pull }).await?;
        let done = work(&image).await?;
        return Ok((image, done));
    }
    Ok((image, done?))
}

fn document(image: &PulledImage, disks: &Disks) -> Value {
    let mut document = disks_document(disks);
    document["image"] = pulled(image);
    document["image"]["process"] = json!(image.process());
    document
}

/// How disks are mounted here, verified and not.
fn mounts(disks: &Disks) -> String {
    let mut text = String::new();
    match disks.mount_script() {
        Ok(script) => {
            text.push_str("\nTo mount it here, as root:\n\n");
            text.extend(script.lines().map(|line| format!("  {line}\n")));
            text.push_str("\nTo unmount it:\n\n");
            text.extend(disks.unmount_script().lines().map(|line| format!("  {line}\n")));
        }
        Err(e) => text.extend(["\nThe mount command cannot be printed: ", &hints::on_one_line(&e), "\n"]),
    }
    let opened: Vec<String> = disks.verified().filter_map(|found| found.open_line()).collect();
    if let Some(script) = disks.verified_mount_script() {
        text.push_str("\nTo mount it so that the kernel verifies what is read, by veritysetup; it is unmounted in the same way:\n\n");
        text.extend(script.lines().map(|line| format!("  {line}\n")));
    } else if !opened.is_empty() {
        let what = "To have the kernel verify what is read, open each device as root, and mount it in place of the file";
        text.extend(["\n", what, ":\n\n"]);
        text.extend(opened.iter().flat_map(|line| ["  ", line, "\n"]));
    }
    text
}

/// Where a hash tree begins, if that is not at the start of what it is in.
fn offset(tree: &HashTree) -> String {
    match tree.hash_offset {
        0 => String::new(),
        offset => format!(", hash offset {offset}"),
    }
}

fn text(image: &PulledImage, disks: &Disks) -> String {
    disks_text(disks, |index| {
        // Which layer a file was made of; what follows the layers' files was made of them all.
        let layer = image.layers.get(index).filter(|_| index < disks.layers.len());
        let diff_id = layer.and_then(|layer| layer.diff_id.as_ref());
        let made = layer.map(|layer| format!("  layer {}", short(layer.descriptor.digest())));
        made.unwrap_or_default() + &diff_id.map(|id| format!(", diff_id {}", short(id))).unwrap_or_default()
    })
}

/// What disks are, and how to use them; `made_of` says what each file was made of.
pub(crate) fn disks_text(disks: &Disks, made_of: impl Fn(usize) -> String) -> String {
    files_text(disks, made_of) + &usage_text(disks)
}

/// The files, and the root hashes.
pub(crate) fn files_text(disks: &Disks, made_of: impl Fn(usize) -> String) -> String {
    let size = |path: &Path| match std::fs::metadata(path) {
        Ok(metadata) => Size(metadata.len()).to_string(),
        Err(_) => "missing".to_owned(),
    };
    let line =
        |(index, path): (usize, &Path)| format!("{}  {}{}\n", path.display(), size(path), made_of(index));
    let mut text: String = disks.paths().enumerate().map(line).collect();
    let is_of_partition =
        |root: &str| disks.verified_partitions().iter().any(|of| of.tree.root_hash() == root);
    // What a file and a partition hold alike is said of the partition, which a guest has.
    for found in disks.verified().filter(|found| !is_of_partition(found.tree.root_hash())) {
        let (root, name) = (found.tree.root_hash(), found.device());
        text.extend(["root hash  ", root, "  ", &printable(&name), &offset(found.tree), "\n"]);
    }
    for HashedPartition { name, image, holder, tree, .. } in disks.verified_partitions() {
        let holder = match holder.number {
            number if number == image.number => offset(tree),
            number => format!(", hash tree in partition {number}"),
        };
        let of = format!("partition {}, {}{holder}", image.number, printable(name));
        text.extend(["root hash  ", tree.root_hash(), "  ", &of, "\n"]);
    }
    text
}

/// How they are mounted and booted.
pub(crate) fn usage_text(disks: &Disks) -> String {
    let (mut text, boot) = (String::new(), disks.boot_lines());
    // A disk needs its version in the guest, which is said below.
    let kernel = disks.kernel.filter(|_| boot.is_none());
    text.extend(kernel.map(|kernel| format!("\nIt needs Linux {kernel} or later.\n")));
    text.extend(disks.notes.iter().map(|note| format!("\nNote: {}\n", printable(note))));
    if disks.is_mountable() {
        text += &mounts(disks);
    }
    if let Some(lines) = boot {
        let kernel = disks.kernel.map(|kernel| format!(", whose guest is Linux {kernel} or later"));
        let kernel = kernel.unwrap_or_default();
        text.extend(["\nTo boot a virtual machine from it", &kernel, ":\n\n"]);
        text.extend(lines.iter().map(|(name, line)| format!("  {name}: {line}\n")));
        if lines.iter().any(|(name, _)| *name == "kernel") {
            let version = if disks.has_partitions() { ", from Linux 6.4 on" } else { "" };
            text.extend(["\nThe line `kernel` is for one that has CONFIG_DM_INIT built in", version, ".\n"]);
        }
    }
    text
}
