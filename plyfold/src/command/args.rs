//! The command line's grammar.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::atomic_file::Owner;
use crate::{Options, Result};
use clap::{Args as Group, Parser, Subcommand};

use super::bounds::Bounds;
use super::copy_args::{Copy, Push};
use super::diff_args::Diff;
use super::disk_args::{Disk, Patch, Resize, Verity, disk_size, file};
use super::edit_args::{Append, Config};
use super::global::Global;
use super::load_args::Load;
use super::machine_args::{Boot, BootOptions, HashTrees};
use super::reading::{Policy, Reading};
use super::save_args::Save;
use super::sbom_args::Sbom;
use super::snapshot_args::Snapshot;
use super::sync_args::Sync;
use super::written_files::{Durably, mode, owner};
use super::{age, plugins, size};

/// Container images into block devices that virtual machines and kernels mount.
#[derive(Debug, Parser)]
#[command(name = "plyfold", version, arg_required_else_help = true)]
#[command(after_help = "IMAGE is scheme:rest (`plyfold backends` lists the schemes) or a name: `alpine` is \
    registry:docker.io/library/alpine:latest. \
    [PATTERN]@pkg:DIR names the image of a directory: {name} and {hash} in PATTERN are its name and the hash of git's tree \
    of it.\n\
    Exit codes: 0 success, 1 failure, 2 usage, 3 not found, 4 access denied, 5 corrupt content; SIGINT and SIGTERM \
    end it as such.")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Bring an image into the store
    #[command(
        after_help = "Examples:\n  plyfold pull alpine\n  plyfold pull ghcr.io/org/app:1.2 --platform linux/arm64\n  plyfold pull registry.lan:5000/app -o ca=lan.pem"
    )]
    Pull(Pull),
    /// List the images in the store with the room that each takes, and what of it no other image needs
    #[command(visible_alias = "images")]
    List {
        /// Show whole digests and names
        #[arg(long)]
        no_trunc: bool,
        // Accepts `list IMAGE`, to give a better error.
        #[arg(hide = true)]
        image: Option<String>,
    },
    /// List the files of an image or of a disk, without mounting it; without an argument the images in the store
    #[command(
        after_help = "A disk is a file with an EROFS image, an ext4 file system, a VMDK or partitions; its first bytes decide, not its \
        name.\n\n\
        Examples:\n  plyfold ls alpine /etc\n  plyfold ls -l layer.erofs\n  plyfold ls -R --json rootfs.vmdk /usr | jq -r '.[].path'"
    )]
    Ls(Ls),
    /// Write the content of files of an image or of a disk to standard output, without mounting it
    #[command(
        after_help = "Examples:\n  plyfold cat alpine /etc/os-release\n  plyfold cat upper.ext4 /upper/var/log/syslog"
    )]
    Cat(Cat),
    /// List the files that differ between two images: added, removed and changed ones
    #[command(
        after_help = "A line begins with + for what only the second image has, - for what only the first has, and ~ for what both have, with what of \
        it is not the same: content, device, kind, links, mode, owner, target, time or xattrs. Layers do not count, only the files that they show \
        together. The exit code is 0 also when there are differences.\n\n\
        Examples:\n  plyfold diff app:1 app:2\n  plyfold diff --ignore-times app:1 rebuilt.tar\n  plyfold diff --json app:1 app:2 | jq -r '.[] | select(.change == \"added\") | .path'"
    )]
    Diff(Diff),
    /// Show an image of the store, or of an archive or a directory; or a disk: EROFS, ext4, VMDK or partitions; or a directory of
    /// disks
    #[command(
        after_help = "Examples:\n  plyfold inspect alpine\n  plyfold inspect images.tar\n  plyfold inspect layer.erofs\n  plyfold inspect vm1\n  plyfold inspect --remote alpine --json | jq .config.config.Env"
    )]
    Inspect(Inspect),
    /// Make block devices out of an image
    #[command(
        after_help = "Examples:\n  plyfold materialize alpine --as vmdk --upper 8G --out vm1\n  plyfold materialize alpine --as erofs --upper 8G --out vm1 --boot -- -m 4G"
    )]
    Materialize(Materialize),
    /// Start QEMU with the disks in a directory, as they are; the exit code is that of the image's command
    #[command(
        after_help = "The directory is one of `materialize` or `snapshot load`. What guests have written stays: in its upper, or in its ext4 \
        disk. Ctrl-A X ends the machine.\n\n\
        Examples:\n  plyfold boot vm1\n  plyfold boot vm1 --kernel vmlinuz -- -m 4G -nic user"
    )]
    Boot(Boot),
    /// Make an EROFS image, or another format, out of one layer
    #[command(
        after_help = "Examples:\n  plyfold layer layer.tar.gz --out layer.erofs\n  plyfold layer rootfs.tar --as erofs --out rootfs.erofs\n  plyfold layer rootfs.tar --as ext4 --size 8G --out rootfs.ext4\n  tar -C rootfs -c . | plyfold layer - --out layer.erofs"
    )]
    Layer(Layer),
    /// Make an empty ext4 disk, to be the upper of an overlay
    #[command(after_help = "Examples:\n  plyfold disk --size 8G --out upper.ext4")]
    Disk(Disk),
    /// Add files to a finished EROFS image, replace and remove files, by appending to it
    #[command(
        after_help = "Changes are made in this order: the tars in theirs, what is removed, what is added. A tar is one as of a layer: it \
        brings files, and removes by whiteouts (.wh.NAME, .wh..wh..opq). An added file belongs to root, and has the permissions and the \
        time of FILE.\n\
        The data of files that stay is not copied, and the old image is valid until one write makes it the new one. Refused are \
        read-only files, and those of several names, such as the artifacts of a store: patch a copy. Each patch appends all metadata \
        anew, and with it the ends of files that stand behind their inodes: some 700 bytes for each small file.\n\n\
        Examples:\n  plyfold patch rootfs.erofs --add /etc/hostname=hostname --remove /etc/motd\n  tar -C changes -c . | plyfold patch rootfs.erofs --tar -"
    )]
    Patch(Patch),
    /// Make an ext4 disk of plyfold's larger, in its place, while it is not mounted
    #[command(
        after_help = "The disk is one of `materialize --as ext4` or an upper. It takes milliseconds, and no room: what is added is a hole of \
        the file.\n\n\
        Examples:\n  plyfold resize vm1/rootfs.ext4 20G"
    )]
    Resize(Resize),
    /// Make the dm-verity hash tree of a file, verify a file against a root hash, or show the root hashes of an image
    #[command(
        after_help = "The root hash and the tree are those of `veritysetup format` with the same options. Without --hash-tree and \
        --append the root hash is shown, and nothing is written.\n\
        Exit code 5 says that the file is not what the root hash is of, and which block is the first.\n\n\
        Examples:\n  plyfold verity layer.erofs --hash-tree layer.verity\n  plyfold verity layer.erofs --append --sidecar\n  plyfold verity layer.erofs --check ROOT\n  plyfold verity alpine --as erofs --out alpine.json"
    )]
    Verity(Verity),
    /// Save the disks of an image with what a guest has written to them, and make them again
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Bring the images of an archive or a layout directory into the store, all or none, without any network
    #[command(
        after_help = "All that the archive has of an image is loaded: every platform, attestations, signatures. With --platform an image has \
        to be complete for that one.\n\
        What the store has already may be missing in the archive.\n\n\
        Examples:\n  plyfold load images.tar\n  docker save app:1 | plyfold load -\n  plyfold load images.tar --list\n  plyfold load images.tar --image app:1 --image @3"
    )]
    Load(Load),
    /// Try a user name and a password on a registry, and store them where docker and podman find them too
    #[cfg(feature = "registry")]
    #[command(after_help = "Examples:\n  plyfold login registry.lan:5000 -u me --password-stdin < password")]
    Login(Login),
    /// Forget a registry's stored credentials
    #[cfg(feature = "registry")]
    Logout {
        /// Which registry, as HOST[:PORT]
        registry: String,
        #[arg(
            long,
            value_name = "FILE",
            help = "The file they are stored in [default: REGISTRY_AUTH_FILE, or Docker's config.json]"
        )]
        authfile: Option<PathBuf>,
    },
    /// Write an image's root file system as one tar
    #[command(
        after_help = "Examples:\n  plyfold export alpine --out alpine.tar\n  plyfold export alpine --out - | tar -t"
    )]
    Export(Export),
    /// Write images as one archive, which docker, podman, containerd, skopeo and `load` read
    #[command(
        after_help = "An index is saved with every manifest of it that the store has; with --platform as the image of that platform, with \
        several --platform as the index with those. An image of the store by its digest is named there by that. The same images give \
        the same bytes.\n\
        With --since the archive is loaded over what is left out, which plyfold-delta.json in it lists.\n\n\
        Examples:\n  plyfold save alpine --out alpine.tar\n  plyfold save app:1 app:2 --out - | ssh host docker load\n  plyfold save app:2 --since app:1 --out delta.tar\n  plyfold save app:1 --platform linux/arm64 --format docker --out app.tar"
    )]
    Save(Save),
    /// Write the SBOM of an image to standard output, or how the image was built; no layer is fetched
    #[command(
        after_help = "SBOMs and provenance are found beside the image in its index, where buildx puts them, and as what refers to it, where \
        cosign and oras put them; they are written as JSON, without the statement and the envelope around them. Signatures are not verified.\n\
        A pull of one platform does not bring them: the registry is asked then, for what belongs to the image in the store.\n\n\
        Examples:\n  plyfold sbom ghcr.io/org/app:1 > app.spdx.json\n  plyfold sbom --list oci:layouts/app:1\n  plyfold sbom --digest 8daaab18c097 oci:layouts/app:1\n  plyfold sbom --provenance app | jq .buildDefinition.buildType"
    )]
    Sbom(Sbom),
    /// Copy an image from one place to another, without the store: all platforms of it, or those of --platform
    #[command(
        after_help = "With one --platform the copy is that image alone, without the index. With several it is an index of which not all is copied: \
        --sparse says what becomes of it. Every digest is kept, unless --format or --compress asks for other documents or layers: \
        configurations and the digests of the uncompressed layers stay then.\n\n\
        Examples:\n  plyfold copy alpine oci:layouts/alpine:3\n  plyfold copy alpine oci-archive:images.tar:3\n  plyfold copy oci:layouts/alpine:3 registry.lan:5000/alpine:3 -o ca=lan.pem\n  plyfold copy --referrers ghcr.io/org/app:1 registry.lan:5000/app:1\n  plyfold copy --compress zstd:19 oci:layouts/app:1 registry.lan:5000/app:1-zstd"
    )]
    Copy(Copy),
    /// Copy an image of the store to another place
    #[command(
        after_help = "Examples:\n  plyfold push alpine registry.lan:5000/alpine:3\n  plyfold push alpine oci:layouts/alpine:3 --platform linux/arm64\n  plyfold push app:1 registry.lan:5000/app:1 --format docker --compress gzip"
    )]
    Push(Push),
    /// Bring the images of a list, or all images of a place, to an archive, a layout directory, a registry or the store
    #[command(
        after_help = "What the target has is not moved: an image whose name stands for the same there is left alone, of others only blobs that \
        are missing come. All names are set at the end, together; a registry sets one after the other. A run that was ended goes on \
        with the next.\n\
        A list has `version = 1`, and of each image a table [[image]] with `name`. It may have `tags` (patterns), `semver` with `newest`, \
        `platforms` with `sparse`, `referrers`, `optional`, and `to`, the repository at the target; [defaults] may have `platforms`, \
        `sparse` and `referrers` for all images.\n\n\
        Examples:\n  plyfold sync site.toml site/ --dry-run\n  plyfold sync site.toml site.tar --report site.json\n  plyfold sync site.toml delta.tar --since site.tar\n  plyfold sync site.tar registry.lan:5000/mirror -o ca=lan.pem"
    )]
    Sync(Sync),
    /// List the tags of a repository; with HOST/ alone the repositories of a registry
    #[command(after_help = "Examples:\n  plyfold tags ghcr.io/org/app\n  plyfold tags registry.lan:5000/")]
    Tags {
        /// Which repository
        repository: String,
    },
    /// Delete from where an image is: a tag, or by digest a manifest and all its tags
    #[command(after_help = "Examples:\n  plyfold delete registry.lan:5000/app:1")]
    Delete {
        /// What to delete, with its tag or digest
        image: String,
        /// The digest is that of a blob
        #[arg(long)]
        blob: bool,
    },
    /// Put layers on an image of the store, and give the result a name
    #[command(
        after_help = "A layer is a tar, as it is or compressed by gzip or zstd, and is stored as it comes, or as --compress says. Of an index every image is \
        changed that the store has, or those of --platform; attestations are left out, because they are about the images before. The \
        same layers on the same image give the same digests.\n\n\
        Examples:\n  tar -C certificates -c . | plyfold append alpine - --tag registry.lan:5000/alpine:3\n  plyfold append app:1 agent.tar.gz site.tar --compress gzip --tag app:1-site"
    )]
    Append(Append),
    /// Change the configuration of an image of the store, and give the result a name
    #[command(
        after_help = "What is not given stays. WORDS are words of a shell, or a list in JSON; none at all with \"\". An entrypoint without --cmd removes \
        the image's command, which was written for another program.\n\n\
        Examples:\n  plyfold config alpine --tag alpine:proxy --env https_proxy=http://proxy.lan:3128\n  plyfold config app:1 --tag app:debug --entrypoint '[\"/bin/sh\", \"-c\"]' --user 0"
    )]
    Config(Config),
    /// Give an image of the store one more name
    #[command(after_help = "Examples:\n  plyfold tag alpine registry.lan:5000/alpine:3")]
    Tag {
        /// Which image
        image: String,
        /// The name, which is taken from another image if it has it
        name: String,
    },
    /// Remove names of images from the store, also pinned ones; `gc` removes their content
    #[command(visible_aliases = ["rm", "rmi"])]
    Remove {
        /// Which images: all of the names go or, when one is not there, none
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Keep images whatever budget `gc` is given
    Pin {
        /// Which images
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Let `gc` remove pinned images again
    Unpin {
        /// Which images
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Remove from the store what no image needs; safe while other commands run
    #[command(
        after_help = "Examples:\n  plyfold gc --dry-run\n  plyfold gc --budget 20G --grace 1h\n  plyfold gc --partial"
    )]
    Gc {
        /// Show what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Remove images, least recently used first, until the rest takes at most this; never pinned ones
        #[arg(long, value_name = "SIZE", value_parser = size::parse)]
        budget: Option<u64>,
        /// Leave what was stored or used within this time, such as 90s, 15m, 12h or 7d
        #[arg(long, value_name = "DURATION", value_parser = age::parse, default_value = "0s", hide_default_value = true)]
        grace: Duration,
        /// Also drop partial downloads; without it they wait a day for the next pull to go on from them
        #[arg(long)]
        partial: bool,
    },
    /// Read everything in the store again, and say what is damaged or missing
    #[command(
        after_help = "Exit code 0 says that everything is complete now, 5 that something is damaged or missing: \
        also what --repair has just moved away and an image needs. `plyfold pull` brings that again."
    )]
    Verify {
        /// Which images; everything in the store if there are none
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
        /// Move damaged blobs to the store's folder quarantine, remove damaged block devices, and replace an
        /// index.json that cannot be read by one with every name that can
        #[arg(long)]
        repair: bool,
    },
    /// List the backends and their schemes
    Backends,
    /// List the formats that `materialize` makes
    Formats,
    /// List the schemes of what --store and --fleet open beside directories, with their options
    Stores,
    /// Write a completion script for a shell
    #[command(
        after_help = "Examples:\n  plyfold completions bash > /etc/bash_completion.d/plyfold\n  plyfold completions zsh > \"${fpath[1]}/_plyfold\"\n  plyfold completions fish > ~/.config/fish/completions/plyfold.fish"
    )]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Options of `login`.
#[cfg(feature = "registry")]
#[derive(Debug, Group)]
pub(crate) struct Login {
    /// Which registry, as HOST[:PORT]
    pub(crate) registry: String,
    /// The user name; asked for on a terminal
    #[arg(short, long, value_name = "USER")]
    pub(crate) username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    #[arg(
        long,
        value_name = "FILE",
        help = "The file to store them in [default: REGISTRY_AUTH_FILE, or Docker's config.json]"
    )]
    pub(crate) authfile: Option<PathBuf>,
}

/// Options of `pull`.
#[derive(Debug, Group)]
pub(crate) struct Pull {
    /// What to pull
    pub(crate) image: String,
    /// When to ask the image's backend [default: if-missing for registries, always for directories and archives]
    #[arg(long, value_enum)]
    pub(crate) policy: Option<Policy>,
    /// Verify everything that the store has of the image, and ask the backend
    #[arg(long)]
    pub(crate) force: bool,
    /// Verify everything that the store has of the image, and fetch what is damaged
    #[arg(long)]
    pub(crate) verify: bool,
    /// Keep an index with each gzip layer, by which several threads decode it later
    #[arg(long)]
    pub(crate) index: bool,
}

/// Options of `ls`.
#[derive(Debug, Group)]
pub(crate) struct Ls {
    /// Which image, which is pulled if it is not in the store; or the file of a disk
    pub(crate) image: Option<OsString>,
    /// What to list: a directory, or a file [default: the root]
    pub(crate) path: Option<OsString>,
    /// Show type, permissions, links, owner, group, size and time (UTC), too
    #[arg(short, long)]
    pub(crate) long: bool,
    /// List all that is below, by its path
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

/// Options of `cat`.
#[derive(Debug, Group)]
pub(crate) struct Cat {
    /// Which image, which is pulled if it is not in the store; or the file of a disk
    pub(crate) image: OsString,
    /// Which files; symbolic links are followed inside the image
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<OsString>,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

/// Options of `inspect`.
#[derive(Debug, Group)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Inspect {
    /// Which image; or the file of a disk, or a directory that `materialize` has made
    pub(crate) image: String,
    /// Ask the image's backend, not the store; no layer is fetched
    #[arg(long)]
    pub(crate) remote: bool,
    /// Write what the name stands for, a manifest or an index, exactly as it was received
    #[arg(long)]
    pub(crate) raw: bool,
    /// Show whole digests and values
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Write its configuration as that of an OCI runtime (config.json), with the user as the files of the image have it; it is
    /// pulled if it is not in the store
    #[arg(long, conflicts_with_all = ["no_trunc", "raw", "remote"])]
    pub(crate) runtime_spec: bool,
}

/// Options of `materialize`.
#[derive(Debug, Group)]
pub(crate) struct Materialize {
    /// Which image; it is pulled if it is not in the store
    pub(crate) image: String,
    /// What to make
    #[arg(long = "as", value_name = "FORMAT", value_parser = plugins::formats_named())]
    pub(crate) format: String,
    #[command(flatten)]
    pub(crate) of_format: FormatOptions,
    /// The directory to write to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Add an empty ext4 disk of this size, to be the upper of an overlay
    #[arg(long, value_name = "SIZE", value_parser = disk_size)]
    pub(crate) upper: Option<u64>,
    /// Fail if overlayfs cannot show the image as it is, in place of adding a merged image to its layers
    #[arg(long)]
    pub(crate) strict: bool,
    /// Make no disk without a hash tree: a format, or options of it, that make none are refused before the image is pulled
    #[arg(long, value_name = "WHEN", value_enum)]
    pub(crate) verity: Option<HashTrees>,
    /// Make clones or copies, never hard links to the store: such files may be written to
    #[arg(long)]
    pub(crate) copy: bool,
    /// The permissions of the copies, such as 640 [default: as the umask says]
    #[arg(long, requires = "copy", value_parser = mode)]
    pub(crate) mode: Option<u32>,
    /// The owner of the copies, by name or number
    #[arg(long, requires = "copy", value_name = "USER[:GROUP]", value_parser = owner)]
    pub(crate) owner: Option<Owner>,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    #[command(flatten)]
    pub(crate) durably: Durably,
    #[command(flatten)]
    pub(crate) machine: BootOptions,
}

/// Options for the format.
#[derive(Debug, Group)]
pub(crate) struct FormatOptions {
    /// An option of the format, such as block-size=512; may be given several times; `formats` lists them
    #[arg(short = 'm', long = "format-option", value_name = "KEY=VALUE")]
    format_option: Vec<String>,
    /// The size of the disk, of a format that has the option size: the same as -m size=SIZE
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
}

impl FormatOptions {
    /// The options of this format.
    pub(crate) fn of(&self, format: &str) -> Result<Options> {
        let size = self.size.iter().map(|size| format!("size={size}"));
        plugins::options_of(format, &self.format_option.iter().cloned().chain(size).collect::<Vec<_>>())
    }
}

/// Options of `layer`.
#[derive(Debug, Group)]
pub(crate) struct Layer {
    /// A layer's tar, plain or compressed by gzip or zstd; `-` is standard input
    pub(crate) tar: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE.erofs", value_parser = file)]
    pub(crate) out: PathBuf,
    /// What to make: a format that is made of a layer, or of an image, which the layer then is all of
    #[arg(long = "as", value_name = "FORMAT", default_value = "erofs-layers", value_parser = plugins::formats_of_layers())]
    pub(crate) format: String,
    #[command(flatten)]
    pub(crate) of_format: FormatOptions,
    /// Do not hash, which is faster: the image then has no UUID, and no digest is shown
    #[arg(long)]
    pub(crate) no_digests: bool,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    #[command(flatten)]
    pub(crate) durably: Durably,
}

/// Options of `export`.
#[derive(Debug, Group)]
pub(crate) struct Export {
    /// Which image; it is pulled if it is not in the store
    pub(crate) image: String,
    /// The file to write; `-` is standard output
    #[arg(long, value_name = "FILE.tar")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    #[command(flatten)]
    pub(crate) durably: Durably,
}
