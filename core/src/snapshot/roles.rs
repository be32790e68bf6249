//! Which files are a set together. What a record says of them decides how a machine gets them, so a record that
//! contradicts itself is refused.

use super::fault::invalid;
use crate::{Result, Role};

/// Formats of which each file is a disk with the whole root file system, and the roles that their files have.
const WHOLE: [(&str, &[Role]); 7] = [
    ("erofs", &[Role::Image, Role::HashTree]),
    (EXT4, &[Role::Image, Role::HashTree]),
    ("gpt", &[Role::Image]),
    ("raw", &[Role::Image, Role::HashTree]),
    ("vmdk", &[Role::Descriptor, Role::HashTree]),
    ("vmdk-gpt", &[Role::Descriptor, Role::Sidecar]),
    (STREAM, &[Role::Image]),
];
/// The other formats that are known.
const PARTS: [(&str, &[Role]); 4] = [
    ("erofs-layers", &[Role::Image, Role::HashTree, Role::Sidecar]),
    ("erofs-merged", &[Role::Image, Role::HashTree]),
    ("erofs-tar", &[Role::Image, Role::HashTree, Role::Sidecar]),
    (UPPER, &[Role::Image]),
];
/// Those with a file for each layer.
const OF_LAYERS: [&str; 2] = ["erofs-layers", "erofs-tar"];
const EXT4: &str = "ext4";
const STREAM: &str = "vmdk-stream";
const UPPER: &str = "ext4-upper";

/// What decides it of a file.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    pub(super) role: Role,
    pub(super) format: &'a str,
    pub(super) writable: bool,
    pub(super) has_tree: bool,
}

/// Checks that no two files are for the same, and that each is for something that its format has.
pub(super) fn check<'a>(files: impl Iterator<Item = Part<'a>>) -> Result<()> {
    let (mut whole, mut known): (Option<Part<'_>>, Vec<Part<'_>>) = (None, Vec::new());
    for file in files {
        let Part { name, role, format, writable, has_tree } = file;
        let of = |formats: &[(&str, &'static [Role])]| {
            formats.iter().find(|(known, _)| *known == format).map(|(_, roles)| *roles)
        };
        let is_whole = of(&WHOLE).is_some();
        let Some(roles) = of(&WHOLE).or_else(|| of(&PARTS)) else { continue };
        if !roles.contains(&role) {
            return Err(invalid(format!(
                "{name} has the role {role}, and the format {format} has none such"
            )));
        }
        let is_written = format == UPPER || (format == EXT4 && role == Role::Image && !has_tree);
        if writable != is_written {
            let is = if is_written { "write" } else { "do not write" };
            return Err(invalid(format!(
                "guests {is} to {name} of the format {format}, and it says otherwise"
            )));
        }
        let is_same = |other: &&Part<'_>| (other.role, other.format) == (role, format);
        if let Some(other) = known.iter().find(is_same).filter(|_| !OF_LAYERS.contains(&format)) {
            return Err(twice(*other, file));
        }
        if is_whole && [Role::Descriptor, Role::Image].contains(&role) {
            if let Some(other) = whole {
                return Err(twice(other, file));
            }
            whole = Some(file);
        }
        known.push(file);
    }
    let upper = known.iter().find(|file| file.format == UPPER);
    match (upper, whole.filter(|whole| [EXT4, STREAM].contains(&whole.format))) {
        (Some(upper), Some(whole)) => Err(twice(*upper, whole)),
        _ => Ok(()),
    }
}

fn twice(one: Part<'_>, other: Part<'_>) -> crate::Error {
    invalid(format!("{} and {} cannot both be disks of one machine", one.name, other.name))
}
