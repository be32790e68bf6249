//! Verbs of other programs, and the verb that does the same here.

use crate::{Error, printable};
use clap::error::{ContextKind, ContextValue};

/// The error for a verb of another program, if that is what clap has refused.
pub(crate) fn other(usage: &clap::Error) -> Option<Error> {
    let Some(ContextValue::String(verb)) = usage.get(ContextKind::InvalidSubcommand) else { return None };
    Some(Error::config(format!("there is no verb {}", printable(verb))).with_hint(hint(verb)?))
}

/// What does the same here.
fn hint(verb: &str) -> Option<&'static str> {
    Some(match verb {
        "run" | "start" => {
            "`plyfold materialize IMAGE --as erofs --upper 8G --out DIR --boot` starts a virtual machine with an image, `plyfold boot DIR` one with the disks that it has made"
        }
        "mount" | "create" => {
            "`plyfold materialize IMAGE --as erofs-merged --out DIR` makes block devices, and prints how to mount and boot them"
        }
        "attest" | "attestation" | "attestations" | "provenance" | "scan" | "scout" => {
            "`plyfold sbom IMAGE --list` lists the SBOMs of an image, `plyfold sbom IMAGE --provenance` writes how it was built"
        }
        "mirror" => "`plyfold sync LIST.toml TARGET` brings the images of a list to one place",
        "archive" => "`plyfold save IMAGE --out FILE` writes images as one archive",
        "checkpoint" | "restore" | "dump" => {
            "`plyfold snapshot save DIR NAME` saves the disks of an image with what a guest has written, `plyfold snapshot load NAME --out DIR` makes them again"
        }
        "extract" | "unpack" | "cp" => {
            "`plyfold cat IMAGE PATH` writes the content of a file, `plyfold export IMAGE --out - | tar -x` unpacks all of them"
        }
        "dir" | "files" | "find" | "tree" => "`plyfold ls -R IMAGE` lists the files of an image",
        "fetch" | "download" | "get" => "`plyfold pull IMAGE` brings an image into the store",
        "upload" | "publish" => "`plyfold push IMAGE TARGET` copies an image of the store to another place",
        "import" => "`plyfold load ARCHIVE` brings the images of an archive into the store",
        "show" | "info" | "manifest" | "history" | "digest" => "`plyfold inspect IMAGE` shows an image",
        "search" | "catalog" | "repos" | "repositories" | "list-tags" => {
            "`plyfold tags HOST/` lists the repositories of a registry, `plyfold tags HOST/REPOSITORY` the tags of one"
        }
        "prune" | "clean" | "cleanup" | "purge" => {
            "`plyfold gc` removes what no image needs, `plyfold remove IMAGE` an image"
        }
        "df" | "du" | "usage" | "size" => "`plyfold list` shows the room that each image takes",
        "untag" => "`plyfold remove IMAGE` removes a name from the store",
        "check" | "fsck" | "scrub" | "repair" => {
            "`plyfold verify` reads the store again, `plyfold verify --repair` repairs it"
        }
        "convert" | "erofs" | "mkfs" => {
            "`plyfold layer TAR --out FILE.erofs` converts a layer, `plyfold materialize IMAGE` a whole image"
        }
        "auth" | "signin" => "`plyfold login HOST` stores a login",
        "version" => "`plyfold --version` shows the version",
        "umount" | "unmount" => {
            "what is mounted is the kernel's: `umount DIR` unmounts it, `losetup -D` frees loop devices that nothing uses"
        }
        "image" | "container" | "system" | "volume" | "builder" | "buildx" | "context" | "network"
        | "machine" => {
            "there are no groups of verbs: `plyfold list`, `plyfold remove IMAGE`, `plyfold gc`, `plyfold inspect IMAGE`"
        }
        "mutate" | "rebase" | "annotate" => {
            "`plyfold config IMAGE --tag NAME --env K=V` changes the configuration of an image, `plyfold append IMAGE LAYER.tar --tag NAME` puts layers on it"
        }
        "build" | "exec" | "ps" | "stop" | "kill" | "logs" | "commit" | "restart" | "attach" | "pause"
        | "unpause" | "wait" | "top" | "stats" | "events" | "port" | "rename" | "update" | "compose" => {
            "plyfold neither builds images nor runs them; `plyfold materialize IMAGE` makes what virtual machines boot from"
        }
        _ => return None,
    })
}
