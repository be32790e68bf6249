//! Files that a materializer has made, and disks that are too small for them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_core::tree::MergedTree;
use plyfold_core::{
    Digest, Error, Input, InputArtifact, LocalArtifact, Made as Told, Materializer, Output, RangeWrite,
    Result, Role, Sink, digest,
};
use tempfile::TempDir;

use crate::rules::probe::sound;
use crate::tree::TreeLine;
use crate::{MaterializerFixture, path_of};

/// A finished file, and what it is made of.
pub(in crate::rules) struct Made<'a> {
    fixture: &'a dyn MaterializerFixture,
    file: PathBuf,
    files: Vec<PathBuf>,
    tars: Vec<Vec<u8>>,
    /// The files of the layers, where there are such.
    pub(in crate::rules) layers: Vec<InputArtifact>,
    image: Option<MergedTree>,
    folder: TempDir,
}

/// A finished file of a layer with what its materializer has said.
fn finished(path: &Path, told: Told, diff_id: Digest) -> Result<InputArtifact> {
    let size = fs::metadata(path)?.len();
    let artifact = LocalArtifact::new(path.to_owned(), size, told);
    Ok(InputArtifact::new(path.to_string_lossy(), Role::Image, Box::new(artifact), Some(diff_id)))
}

impl<'a> Made<'a> {
    /// Makes an image of these tars, or layers of all of them of which the first is the file.
    pub(in crate::rules) fn of(fixture: &'a dyn MaterializerFixture, tars: &[Vec<u8>]) -> Self {
        sound(Self::attempt(fixture, tars))
    }

    /// As [`Made::of`], if the materializer makes it.
    pub(in crate::rules) fn attempt(fixture: &'a dyn MaterializerFixture, tars: &[Vec<u8>]) -> Result<Self> {
        let folder = TempDir::new().expect("a temporary directory can be made");
        let materializer = fixture.materializer();
        let input = materializer.input();
        let mut layers = Vec::new();
        let mut files = Vec::new();
        let maker = if input == Input::Layer { Some(fixture.materializer()) } else { fixture.layers() };
        if let Some(maker) = maker {
            for (number, tar) in tars.iter().enumerate() {
                let diff_id = digest::sha256(tar);
                let mut out = Files::create(&*maker, &folder.path().join(format!("layer-{number}")));
                let told =
                    make_layer(&*maker, io::Cursor::new(tar.clone()), Some(diff_id.clone()), &mut out)?;
                layers.push(finished(&out.paths()[0], told, diff_id)?);
                files = if number == 0 { out.paths() } else { files };
            }
        }
        let image = match input {
            Input::Image => {
                let open =
                    |tar: &Vec<u8>| LayerTar::new(io::Cursor::new(tar.clone()), LayerOptions::default());
                Some(fixture.read(tars.iter().map(open).collect(), folder.path())?)
            }
            _ => None,
        };
        let mut made = Self {
            fixture,
            file: files.first().cloned().unwrap_or_default(),
            files,
            tars: tars.to_vec(),
            layers,
            image,
            folder,
        };
        if input != Input::Layer {
            let mut out = Files::create(&*materializer, &made.folder.path().join("image"));
            made.files = out.paths();
            made.file.clone_from(&made.files[0]);
            made.again(&mut out)?;
        }
        Ok(made)
    }

    /// Makes the file once more, into `out`; the kernel and the notes that are reported.
    pub(super) fn again(&self, out: &mut dyn Sink) -> Result<Told> {
        let materializer = self.fixture.materializer();
        match (materializer.input(), &self.image) {
            (_, Some(image)) => materializer.image(image, out),
            (Input::Layer, _) => make_layer(&*materializer, io::Cursor::new(self.tars[0].clone()), None, out),
            (Input::Nothing, _) => self.fixture.join(&[], &self.file, out),
            _ => self.fixture.join(&self.layers, &self.file, out),
        }
    }

    /// The first of its files.
    pub(in crate::rules) fn file(&self) -> &Path {
        &self.file
    }

    /// Adapts its files, as copies outside of a cache.
    pub(in crate::rules) fn adapt(&self) {
        let materializer = self.fixture.materializer();
        for (spec, path) in materializer.outputs().iter().zip(&self.files) {
            let file = File::options().read(true).write(true).open(path);
            sound(materializer.adapt(spec.role, &mut file.expect("the finished file opens")));
        }
    }

    /// Changes it by the tar of one layer more, as the format's patches do.
    pub(super) fn patch(&self, change: &[u8]) -> Result<()> {
        let tar = LayerTar::new(io::Cursor::new(change.to_vec()), LayerOptions::default())?;
        self.fixture.patch(&self.file, tar)
    }

    /// The digest of all its files, one after the other.
    pub(super) fn bytes(&self) -> Digest {
        let mut hasher = digest::Hasher::sha256();
        let mut buffer = vec![0; 1 << 20];
        for file in &self.files {
            let mut file = File::open(file).expect("the finished file opens");
            loop {
                match file.read(&mut buffer).expect("the finished file can be read") {
                    0 => break,
                    count => hasher.update(&buffer[..count]),
                }
            }
        }
        hasher.finish()
    }

    /// Bytes that were written: holes cost no space.
    pub(in crate::rules) fn size(&self) -> u64 {
        let mut out = SmallDisk::new(&*self.fixture.materializer(), u64::MAX);
        sound(self.again(&mut out));
        u64::MAX - out.left.load(Ordering::SeqCst)
    }

    pub(in crate::rules) fn tree(&self) -> Vec<TreeLine> {
        self.fixture.tree(&self.file, &self.layers)
    }

    /// As [`Made::tree`]. A format that is self-contained has lost all other files.
    pub(super) fn tree_alone(&self) -> Vec<TreeLine> {
        if !self.fixture.materializer().is_self_contained() {
            return self.tree();
        }
        for entry in self.folder.path().read_dir().expect("the folder can be read").flatten() {
            if !self.files.contains(&entry.path()) {
                fs::remove_file(entry.path()).expect("the file can be removed");
            }
        }
        self.fixture.tree(&self.file, &[])
    }

    pub(in crate::rules) fn check(&self) {
        if self.fixture.materializer().input() == Input::Layer {
            self.layers.iter().for_each(|layer| self.fixture.check(path_of(layer), &[]));
        } else {
            self.fixture.check(&self.file, &self.layers);
        }
    }
}

/// Makes a layer of a tar, read from `source`.
pub(super) fn make_layer(
    materializer: &dyn Materializer,
    source: impl Read + Send + 'static,
    diff_id: Option<Digest>,
    out: &mut dyn Sink,
) -> Result<Told> {
    let mut tar = LayerTar::new(source, LayerOptions { diff_id, ..LayerOptions::default() })?;
    materializer.layer(&mut tar, out)
}

/// The files of a materializer.
pub(super) struct Files(Vec<(Role, PathBuf, File)>, HashSet<Role>);

impl Files {
    /// New ones at `stem`, each with its extension.
    pub(super) fn create(materializer: &dyn Materializer, stem: &Path) -> Self {
        let files = materializer.outputs().into_iter().map(|spec| {
            let path = stem.with_extension(spec.extension);
            let file = File::options().read(true).write(true).create_new(true).open(&path);
            (spec.role, path, file.expect("a file can be made in a temporary directory"))
        });
        Self(files.collect(), HashSet::new())
    }

    /// Files without names.
    pub(super) fn spools(fixture: &dyn MaterializerFixture) -> Self {
        let spool = |role| (role, PathBuf::new(), spool());
        let files = fixture.materializer().outputs().into_iter().map(|spec| spool(spec.role));
        Self(files.collect(), HashSet::new())
    }

    /// Those that the materializer has not asked for.
    pub(super) fn unasked(&self) -> Vec<Role> {
        self.0.iter().map(|(role, ..)| *role).filter(|role| !self.1.contains(role)).collect()
    }

    /// Where the first one is.
    pub(super) fn first(&self) -> PathBuf {
        self.0[0].1.clone()
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.0.iter().map(|(_, path, _)| path.clone()).collect()
    }

    /// All that was written, one file after the other.
    pub(super) fn bytes(self) -> Vec<u8> {
        self.contents().into_iter().flat_map(|(_, bytes)| bytes).collect()
    }

    /// What each file has.
    pub(super) fn contents(self) -> Vec<(Role, Vec<u8>)> {
        let content = |(role, _, mut file): (Role, PathBuf, File)| {
            let mut bytes = Vec::new();
            let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes));
            read.expect("the file can be read again");
            (role, bytes)
        };
        self.0.into_iter().map(content).collect()
    }
}

impl Sink for Files {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        self.1.insert(role);
        let file = self.0.iter_mut().find(|(own, ..)| *own == role);
        file.map_or_else(|| Err(not_listed(role)), |(.., file)| Ok(file as &mut dyn Output))
    }

    fn scratch(&mut self) -> Result<File> {
        Ok(spool())
    }
}

fn not_listed(role: Role) -> Error {
    Error::unsupported(format!("`outputs` of the materializer lists no {role}"))
}

fn spool() -> File {
    tempfile::tempfile().expect("a temporary file can be made")
}

/// A disk with room for so many bytes, in all files together.
pub(in crate::rules) struct SmallDisk {
    files: Vec<(Role, Small)>,
    left: Arc<AtomicU64>,
}

impl SmallDisk {
    pub(in crate::rules) fn new(materializer: &dyn Materializer, left: u64) -> Self {
        let left = Arc::new(AtomicU64::new(left));
        let file = |role| (role, Small { file: Arc::new(spool()), left: Arc::clone(&left) });
        let files = materializer.outputs().into_iter().map(|spec| file(spec.role)).collect();
        Self { files, left }
    }

    /// The bytes of all files, holes too.
    pub(in crate::rules) fn length(&self) -> u64 {
        let length = |file: &File| file.metadata().expect("a file has a length").len();
        self.files.iter().map(|(_, small)| length(&small.file)).sum()
    }
}

impl Sink for SmallDisk {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        let file = self.files.iter_mut().find(|(own, _)| *own == role);
        file.map_or_else(|| Err(not_listed(role)), |(_, file)| Ok(file as &mut dyn Output))
    }

    fn scratch(&mut self) -> Result<File> {
        Ok(spool())
    }
}

/// A file of such a disk.
struct Small {
    file: Arc<File>,
    left: Arc<AtomicU64>,
}

impl Read for Small {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.file).read(buffer)
    }
}

impl Seek for Small {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self.file).seek(to)
    }
}

impl Write for Small {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::SeqCst);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = (&*self.file).write(&bytes[..count])?;
        self.left.fetch_sub(written as u64, Ordering::SeqCst);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RangeWrite for Small {}

impl Output for Small {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        File::set_len(&self.file, length)
    }
}
