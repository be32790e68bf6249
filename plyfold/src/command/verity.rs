//! `verity`: dm-verity hash trees of files.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::atomic_file::{AtomicFile, FileOptions, Owner};
use crate::blocking::{Stop, blocking};
use crate::disk_file::open_error;
use crate::materializers::verity::{Parameters, RootHash, TreeLayout, Uuid, VerityFault, Work};
use crate::shell::quoted;
use crate::{Error, LocalArtifact, Made, Result, TreePlace};
use serde_json::{Value, json};

use super::disk_args::Verity;
use super::size::Size;
use super::terminal::Terminal;

/// Makes a tree, or verifies a file.
pub(crate) async fn run(options: Verity, terminal: Terminal) -> Result<()> {
    let path = options.file.clone();
    let outcome = match options.check {
        Some(root) => blocking(move |stop| verify(&options, root, stop)).await,
        None => blocking(move |stop| make(&options, stop)).await,
    };
    let has_path = |e: &Error| e.contexts().any(|(key, _)| key == "path");
    let at = |e: Error| {
        let e = if has_path(&e) { e } else { e.with_context("path", path.display()) };
        if path.exists() {
            return e;
        }
        e.with_hint("for an image give a format, too: `plyfold verity IMAGE --as erofs`")
    };
    let done = outcome.map_err(at)?;
    terminal.show(&done.document(), || done.text())
}

/// What was made or verified.
struct Done {
    file: PathBuf,
    layout: TreeLayout,
    root: RootHash,
    uuid: Option<Uuid>,
    /// The file with the tree, and its size.
    tree: Option<(PathBuf, u64)>,
    sidecar: Option<PathBuf>,
    is_verified: bool,
}

fn make(options: &Verity, stop: &Stop) -> Result<Done> {
    let (file, work) = (&options.file, Work::new(stop));
    let data = open(file)?;
    let size = size(&data)?;
    if let Some((found, _)) = TreeLayout::find(&data)? {
        let error = Error::config("the file ends with a hash tree already");
        let hint = format!(
            "`plyfold verity FILE --check ROOT` verifies it; `truncate -s {} FILE` removes it",
            found.data_size()
        );
        return Err(error.with_hint(hint));
    }
    let layout = match parameters(options)? {
        parameters if options.append => TreeLayout::appended(parameters, size)?,
        parameters => TreeLayout::beside(parameters, size)?,
    };
    let layout = if options.no_superblock { layout.without_superblock()? } else { layout };
    let (root, tree, sidecar) = if options.append {
        let (root, size, sidecar) = append(options, &layout, stop)?;
        (root, Some((file.clone(), size)), sidecar)
    } else if let Some(tree) = &options.hash_tree {
        let mut out = AtomicFile::create_new(tree, options.durably.options(), stop)?;
        let root = layout.write(&data, &mut out, options.uuid, &work)?;
        (root, Some((tree.clone(), out.publish()?)), None)
    } else {
        (layout.root_hash(&data, &work)?, None, None)
    };
    let uuid = tree.is_some() && layout.has_superblock();
    let uuid = uuid.then(|| options.uuid.unwrap_or_else(|| Uuid::derived(&root)));
    Ok(Done { file: file.clone(), layout, root, uuid, tree, sidecar, is_verified: false })
}

/// Replaces the file by one with a tree behind the same data: at any moment, it is the one or the other.
///
/// The file may be a link to an artifact of a store, so that nothing is written to it.
fn append(options: &Verity, layout: &TreeLayout, stop: &Stop) -> Result<(RootHash, u64, Option<PathBuf>)> {
    let file = &options.file;
    let metadata = file.symlink_metadata().map_err(|e| Error::io("looking at the file", e))?;
    let beside = options.sidecar.then(|| {
        let mut name = file.clone().into_os_string();
        name.push(".dmverity");
        let name = PathBuf::from(name);
        let created = AtomicFile::create_new(&name, options.durably.options(), stop);
        created.map(|created| (created, name))
    });
    let beside = beside.transpose()?;
    let like = FileOptions {
        copy: true,
        mode: Some(metadata.permissions().mode() & 0o777),
        owner: Some(Owner { user: Some(metadata.uid()), group: Some(metadata.gid()) }),
        ..options.durably.options()
    };
    let mut out = AtomicFile::create(file, like, stop)?;
    out.fill_from(&LocalArtifact::new(file.clone(), layout.data_size(), Made::default()))?;
    // What is hashed is what gets the name.
    layout.check_covers(out.size()?)?;
    let data = out.file().try_clone().map_err(|e| Error::io("reading the file", e))?;
    let root = layout.write(&data, &mut out, options.uuid, &Work::new(stop))?;
    let size = out.publish()?;
    // A sidecar says that there is a tree, so it comes last.
    let sidecar = beside.map(|(mut beside, name)| {
        beside.write_all(layout.hash_tree(&root, TreePlace::Append)?.sidecar().as_bytes())?;
        beside.publish().map(|_| name)
    });
    Ok((root, size, sidecar.transpose()?))
}

fn verify(options: &Verity, root: RootHash, stop: &Stop) -> Result<Done> {
    let (file, work) = (&options.file, Work::new(stop));
    let data = open(file)?;
    let size = size(&data)?;
    let of = |layout: TreeLayout, uuid, tree: Option<&Path>| Done {
        file: file.clone(),
        layout,
        root,
        uuid,
        tree: tree.map(|path| (path.to_owned(), path.metadata().map_or(0, |metadata| metadata.len()))),
        sidecar: None,
        is_verified: true,
    };
    if let Some(path) = &options.hash_tree {
        let at = |e: Error| e.with_context("path", path.display());
        let tree = open(path).map_err(at)?;
        let (layout, uuid) = if options.no_superblock {
            (TreeLayout::beside(parameters(options)?, size)?.without_superblock()?, None)
        } else {
            let (layout, uuid) = TreeLayout::read(&tree, 0).map_err(at)?;
            (layout, Some(uuid))
        };
        check_same(options, &layout)?;
        layout.check_covers(size)?;
        layout.verify(&root, &data, &tree, &work)?;
        return Ok(of(layout, uuid, Some(path)));
    }
    if !options.no_superblock
        && let Some((layout, uuid)) = TreeLayout::find(&data)?
    {
        check_same(options, &layout)?;
        layout.verify(&root, &data, &data, &work)?;
        return Ok(of(layout, Some(uuid), Some(file)));
    }
    if options.append {
        let bare = TreeLayout::bare(&parameters(options)?, size).filter(|_| options.no_superblock);
        let layout = bare.ok_or_else(|| {
            let error = Error::corrupt("the file does not end with a hash tree of these options");
            error.with_hint("name the file of the tree by --hash-tree, if it is another one")
        })?;
        layout.verify(&root, &data, &data, &work)?;
        return Ok(of(layout, None, Some(file)));
    }
    // Without a tree it is not known which block is bad.
    let layout = TreeLayout::beside(parameters(options)?, size)?;
    let found = layout.root_hash(&data, &work)?;
    if found != root {
        return Err(VerityFault::Root(root.to_string(), found.to_string()).into());
    }
    Ok(of(layout, None, None))
}

/// The parameters of the command line.
fn parameters(options: &Verity) -> Result<Parameters> {
    let mut parameters = Parameters::default();
    if let Some(bytes) = options.data_block_size {
        parameters = parameters.with_data_block_size(bytes)?;
    }
    if let Some(bytes) = options.hash_block_size {
        parameters = parameters.with_hash_block_size(bytes)?;
    }
    options.salt.iter().try_fold(parameters, |parameters, salt| parameters.with_salt_text(salt))
}

/// Refuses parameters that a superblock contradicts.
fn check_same(options: &Verity, layout: &TreeLayout) -> Result<()> {
    let (given, there) = (parameters(options)?, layout.parameters());
    let differs = [
        ("--salt", options.salt.is_some() && given.salt() != there.salt(), there.salt_text()),
        (
            "--data-block-size",
            options.data_block_size.is_some_and(|bytes| bytes != there.data_block_size()),
            there.data_block_size().to_string(),
        ),
        (
            "--hash-block-size",
            options.hash_block_size.is_some_and(|bytes| bytes != there.hash_block_size()),
            there.hash_block_size().to_string(),
        ),
    ];
    match differs.into_iter().find(|(_, differs, _)| *differs) {
        Some((option, _, there)) => {
            let error = Error::config(format!("the superblock of the hash tree says {there}"));
            Err(error.with_context("option", option).with_hint("leave the option out"))
        }
        None => Ok(()),
    }
}

/// A regular file: others have no size, or change.
fn open(path: &Path) -> Result<File> {
    let at = |e: Error| e.with_context("path", path.display());
    let is_file = path.metadata().map_or(true, |metadata| metadata.is_file());
    if !is_file {
        return Err(at(Error::config("it is not a regular file")));
    }
    File::open(path).map_err(|e| at(open_error("opening the file", e)))
}

fn size(file: &File) -> Result<u64> {
    Ok(file.metadata().map_err(|e| Error::io("looking at the file", e))?.len())
}

impl Done {
    fn document(&self) -> Value {
        let parameters = self.layout.parameters();
        let tree = self.tree.as_ref();
        // Not every path is UTF-8, as JSON is.
        let path = |path: &Path| path.display().to_string();
        json!({
            "path": path(&self.file),
            "root_hash": self.root.to_string(),
            "algorithm": "sha256",
            "salt": parameters.salt_text().trim_matches('-'),
            "data_blocks": self.layout.data_blocks(),
            "data_block_size": parameters.data_block_size(),
            "hash_block_size": parameters.hash_block_size(),
            "uuid": self.uuid.map(|uuid| uuid.to_string()),
            "hash_tree": tree.map(|(tree, _)| path(tree)),
            "hash_offset": tree.map(|_| self.layout.hash_offset()),
            "size": tree.map(|(_, size)| size),
            "sidecar": self.sidecar.as_deref().map(path),
            "table": tree.map(|_| self.table()),
            "verified": self.is_verified,
        })
    }

    fn text(&self) -> String {
        let (parameters, blocks) = (self.layout.parameters(), self.layout.data_blocks());
        let mut text = format!("root hash  {}\n", self.root);
        let done = if self.is_verified { "verified " } else { "data     " };
        let unit = if blocks == 1 { "block" } else { "blocks" };
        let bytes = parameters.data_block_size();
        let _ = writeln!(text, "{done}  {}  {blocks} {unit} of {bytes} bytes", self.file.display());
        let Some((tree, size)) = &self.tree else { return text };
        let offset = match self.layout.hash_offset() {
            0 => Size(*size).to_string(),
            offset => format!("at byte {offset}"),
        };
        let _ = writeln!(text, "hash tree  {}  {offset}", tree.display());
        let _ = writeln!(text, "salt       {}", parameters.salt_text());
        text.extend(self.uuid.map(|uuid| format!("uuid       {uuid}\n")));
        text.extend(self.sidecar.as_ref().map(|path| format!("sidecar    {}\n", path.display())));
        if self.is_verified {
            return text;
        }
        let _ = writeln!(text, "\nTo open it here, as root:\n\n  {}", self.open_line(tree));
        let devices = if self.is_appended() { "/dev/vda" } else { "/dev/vda, the hash tree /dev/vdb" };
        let table = self.table();
        text + &format!(
            "\nFor the command line of a guest's kernel, where the data is {devices}:\n\n  dm-mod.create=\"verity,,,ro,{table}\"\n"
        )
    }

    fn is_appended(&self) -> bool {
        self.tree.as_ref().is_some_and(|(tree, _)| *tree == self.file)
    }

    /// The table for a guest, where the file is the first disk, and a file with the tree the second.
    fn table(&self) -> String {
        self.layout.table(&self.root, "/dev/vda", if self.is_appended() { "/dev/vda" } else { "/dev/vdb" })
    }

    /// The command that opens the device as `/dev/mapper/NAME`.
    fn open_line(&self, tree: &Path) -> String {
        let absolute = |path: &Path| quoted(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let mut line =
            format!("veritysetup open {} verity {} {}", absolute(&self.file), absolute(tree), self.root);
        if self.layout.hash_offset() > 0 {
            let _ = write!(line, " --hash-offset={}", self.layout.hash_offset());
        }
        if !self.layout.has_superblock() {
            let parameters = self.layout.parameters();
            let _ = write!(
                line,
                " --no-superblock --data-blocks={} --data-block-size={} --hash-block-size={} --salt={}",
                self.layout.data_blocks(),
                parameters.data_block_size(),
                parameters.hash_block_size(),
                parameters.salt_text()
            );
        }
        line
    }
}
