//! M: what any materializer must do.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{
    Artifact, ArtifactKey, CacheProvider, Digest, ErrorKind, InputArtifact, Materializer, OneFile, Output,
    PullOptions, Result, digest,
};
use tempfile::TempDir;

use super::probe::{NAME, assert_kind, error_of, sound};
use crate::rule::{Rule, not_judged, rules};
use crate::samples::{self, LayerBuilder, gzip};
use crate::stages::fill;
use crate::tree::{TreeLine, read_layer, stacked};
use crate::{Client as _, CoreClient, Makes, MaterializerStage, Staged, path_of};

pub(super) const RULES: &[Rule<dyn MaterializerStage>] = rules! {
    "M 147" same_input_same_bytes:
        "the same input gives the same bytes, however it arrives and however many run at once",
    "M 148" kernel_mount_equals_reference_tree:
        "what is mounted is the tree that the layers say: names, kinds, modes, owners, times, links, devices, \
         extended attributes and content",
    "M 149" fsck_is_clean:
        "the format's own checker finds nothing in any sample",
    "M 150" stacked_layers_equal_flat_image:
        "the layers stacked by overlayfs and the image made of them show one tree",
    "M 151" whiteouts_and_opaque_in_overlay_form:
        "whiteouts become character devices 0:0, opaque directories say so in `trusted.overlay.opaque`, and a tar's \
         own overlay attributes mean nothing",
    "M 153" output_absent_after_any_error:
        "an error at any byte of the input or the output is an error of the materializer, and nothing of its output \
         can be seen",
};

async fn same_input_same_bytes(stage: &dyn MaterializerStage) {
    let made = Made::of(stage, &rootfs());
    let first = made.bytes();
    assert!(Made::of(stage, &rootfs()).bytes() == first, "two runs");
    let others: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| Made::of(stage, &rootfs()).bytes())).collect();
        runs.into_iter().map(|run| run.join().expect("no run panics")).collect()
    });
    assert!(others.iter().all(|other| *other == first), "three runs at once");
    if stage.makes() == Makes::Layers {
        let tar = rootfs().remove(0);
        let plain = layer_bytes(stage, io::Cursor::new(tar.clone()));
        assert!(layer_bytes(stage, Trickle(io::Cursor::new(tar.clone()), 1)) == plain, "in small pieces");
        let (head, tail) = tar.split_at(12_345);
        assert!(layer_bytes(stage, io::Cursor::new(gzip(&[head, tail]))) == plain, "compressed");
    }
}

async fn kernel_mount_equals_reference_tree(stage: &dyn MaterializerStage) {
    if stage.makes() == Makes::Disks {
        // An empty disk is the same whatever the image: it has no layers to say anything.
        assert_kind(layer_of(stage, rootfs().remove(0)), &ErrorKind::Unsupported);
        assert!(!Made::of(stage, &[]).tree().is_empty());
        return not_judged("an empty disk holds nothing of an image");
    }
    let bottom = vec![rootfs().remove(0)];
    for layers in [if stage.makes() == Makes::Layers { bottom } else { rootfs() }, vec![samples::huge_file()]]
    {
        let tree = Made::of(stage, &layers).tree();
        assert_trees(&tree, &sound(stacked(entries(&layers))), |line| {
            // Overlayfs' own marks are another rule's (M 151).
            let mut line = line.clone();
            line.xattrs.retain(|xattr| !xattr.starts_with("trusted.overlay."));
            line.to_string()
        });
    }
}

async fn fsck_is_clean(stage: &dyn MaterializerStage) {
    for layers in [rootfs(), vec![LayerBuilder::new().finish()], vec![samples::huge_file()], wide(), small()]
    {
        Made::of(stage, &layers).check();
    }
}

async fn stacked_layers_equal_flat_image(stage: &dyn MaterializerStage) {
    if stage.makes() == Makes::Disks {
        assert_kind(layer_of(stage, rootfs().remove(0)), &ErrorKind::Unsupported);
        return not_judged("an empty disk holds nothing of an image");
    }
    // Overlayfs counts links of its own.
    let comparable = |line: &TreeLine| TreeLine { links: 0, ..line.clone() }.to_string();
    for layers in [rootfs(), small(), marks()] {
        let made = Made::of(stage, &layers);
        let reference = sound(stacked(entries(&layers)));
        assert_trees(&stage.overlaid(&made.layers), &reference, comparable);
        if stage.makes() == Makes::Images {
            assert_trees(&made.tree(), &reference, comparable);
        }
    }
}

async fn whiteouts_and_opaque_in_overlay_form(stage: &dyn MaterializerStage) {
    let layer = LayerBuilder::new()
        .dir("d", 0o755)
        .whiteout("d/gone")
        .xattr("trusted.overlay.redirect", "/etc")
        .xattr("trusted.overlay.opaque", "y")
        .xattr("user.overlay.metacopy", "")
        .xattr("user.kept", "1")
        .dir("claims", 0o755)
        .dir("opaque", 0o755)
        .opaque("opaque")
        .file("opaque/file", 0o644, b"")
        .whiteout("again")
        .dir("again", 0o700)
        .file("again/file", 0o644, b"")
        .whiteout("new")
        .file("new", 0o644, b"not hidden");
    if stage.makes() != Makes::Layers {
        assert_kind(layer_of(stage, layer.finish()), &ErrorKind::Unsupported);
        return not_judged("the format is not made for overlayfs");
    }
    let tree = Made::of(stage, &[layer.finish()]).tree();
    let node = |path: &str| {
        tree.iter().find(|line| line.path == path).unwrap_or_else(|| panic!("{path} is missing"))
    };
    assert_eq!(node("/d/gone").what, "char 0:0");
    let has = |path: &str, xattr: &str| node(path).xattrs.iter().any(|own| own == xattr);
    assert!(
        has("/d", "trusted.overlay.origin="),
        "a directory with a whiteout has an origin: {:?}",
        node("/d")
    );
    for opaque in ["/opaque", "/again"] {
        assert!(has(opaque, "trusted.overlay.opaque=y"), "{:?}", node(opaque));
    }
    assert_eq!(node("/claims").xattrs, ["user.kept=1"], "a tar's own overlay attributes are stripped");
    assert_eq!(node("/new").what, r#"file 10 "not hidden""#);
    assert!(tree.iter().all(|line| !line.path.contains(".wh.")), "{tree:?}");
}

async fn output_absent_after_any_error(stage: &dyn MaterializerStage) {
    let materializer = stage.materializer();
    let made = Made::of(stage, &rootfs());
    let size = made.size();
    for budget in (0..16).map(|part| size * part / 16).chain([size.saturating_sub(1)]) {
        let error = error_of(made.again(&mut Small::new(budget)));
        assert_eq!(*error.kind(), ErrorKind::Io, "out of space after {budget} bytes of {size}: {error}");
    }
    if stage.makes() != Makes::Layers {
        return;
    }
    let tar = rootfs().remove(0);
    // One bit at the end of the data, a truncation, and a diff_id that only the last byte disproves.
    let mut flipped = tar.clone();
    let last = flipped.iter().rposition(|byte| *byte != 0).unwrap_or_default();
    flipped[last] ^= 1;
    for bad in [flipped, tar[..tar.len() / 2].to_vec(), tar[..tar.len() - 512].to_vec()] {
        let error = error_of(make_layer(
            &*materializer,
            io::Cursor::new(bad),
            Some(digest::sha256(&tar)),
            &mut spool(),
        ));
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    }
    nothing_is_published(&*materializer).await;
}

/// A pull of a layer that its `diff_id` disproves leaves no artifact behind.
async fn nothing_is_published(materializer: &dyn Materializer) {
    let sample = samples::wrong_diff_id();
    let registry = plyfold_core::memory::MemoryRegistry::new("origin");
    let staged = Staged::new(NAME, &sample);
    fill(&registry, &staged);
    let cache = sound(MemoryCache::new());
    let options = PullOptions {
        materializer: Some(dyn_clone::clone_box(materializer)),
        platform: sound("linux/amd64".parse()),
        ..PullOptions::default()
    };
    let pulled = CoreClient.pull(&registry, &staged.reference, &cache, &options).await;
    assert_kind(pulled, &ErrorKind::Corrupt);
    let diff_id = sample.images[0].layers[0].diff_id.clone();
    let key = ArtifactKey::layer(materializer.format(), diff_id);
    assert!(matches!(sound(cache.artifact(&key).await), Artifact::Vacant(_)), "a bad layer was published");
}

/// A finished file, and the files of the layers it is made of.
struct Made<'a> {
    stage: &'a dyn MaterializerStage,
    file: PathBuf,
    tars: Vec<Vec<u8>>,
    layers: Vec<InputArtifact>,
    _folder: TempDir,
}

impl<'a> Made<'a> {
    /// Makes an image of these tars, or layers of all of them of which the first is the file.
    fn of(stage: &'a dyn MaterializerStage, tars: &[Vec<u8>]) -> Self {
        let folder = TempDir::new().expect("a temporary directory can be made");
        let mut layers = Vec::new();
        let layer_maker = match stage.makes() {
            Makes::Layers => Some(stage.materializer()),
            Makes::Images | Makes::Disks => stage.layers(),
        };
        if let Some(maker) = layer_maker {
            for (number, tar) in tars.iter().enumerate() {
                let path = folder.path().join(format!("layer-{number}.{}", maker.format().extension));
                let diff_id = digest::sha256(tar);
                let mut out = create(&path);
                let tar = io::Cursor::new(tar.clone());
                sound(make_layer(&*maker, tar, Some(diff_id.clone()), &mut out));
                layers.push(sound(InputArtifact::local(&path, Some(diff_id))));
            }
        }
        let file = match layers.first() {
            Some(layer) if stage.makes() == Makes::Layers => path_of(layer).to_owned(),
            _ => folder.path().join(format!("image.{}", stage.materializer().format().extension)),
        };
        let made = Self { stage, file, tars: tars.to_vec(), layers, _folder: folder };
        if stage.makes() != Makes::Layers {
            sound(made.again(&mut create(&made.file)));
        }
        made
    }

    /// Makes the file once more, into `out`.
    fn again(&self, out: &mut dyn Output) -> Result<()> {
        let materializer = self.stage.materializer();
        match self.stage.makes() {
            Makes::Disks => self.stage.join(&[], &self.file, out),
            Makes::Images => self.stage.join(&self.layers, &self.file, out),
            Makes::Layers => make_layer(&*materializer, io::Cursor::new(self.tars[0].clone()), None, out),
        }
    }

    fn bytes(&self) -> Digest {
        let mut hasher = digest::Hasher::sha256();
        let mut file = File::open(&self.file).expect("the finished file opens");
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).expect("the finished file can be read") {
                0 => return hasher.finish(),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// Bytes that were written: holes cost no space.
    fn size(&self) -> u64 {
        let mut out = Small::new(u64::MAX);
        sound(self.again(&mut out));
        u64::MAX - out.left
    }

    fn tree(&self) -> Vec<TreeLine> {
        self.stage.tree(&self.file, &self.layers)
    }

    fn check(&self) {
        if self.stage.makes() == Makes::Layers {
            self.layers.iter().for_each(|layer| self.stage.check(path_of(layer), &[]));
        } else {
            self.stage.check(&self.file, &self.layers);
        }
    }
}

fn layer_of(stage: &dyn MaterializerStage, tar: Vec<u8>) -> Result<()> {
    make_layer(&*stage.materializer(), io::Cursor::new(tar), None, &mut spool())
}

fn layer_bytes(stage: &dyn MaterializerStage, source: impl Read + Send + 'static) -> Vec<u8> {
    let mut out = spool();
    sound(make_layer(&*stage.materializer(), source, None, &mut out));
    let mut bytes = Vec::new();
    out.seek(SeekFrom::Start(0))
        .and_then(|_| out.read_to_end(&mut bytes))
        .expect("the layer can be read again");
    bytes
}

fn make_layer(
    materializer: &dyn Materializer,
    source: impl Read + Send + 'static,
    diff_id: Option<Digest>,
    out: &mut dyn Output,
) -> Result<()> {
    let mut tar = LayerTar::new(source, LayerOptions { diff_id, ..LayerOptions::default() })?;
    materializer.layer(&mut tar, &mut OneFile(materializer.outputs()[0].role, out)).map(drop)
}

fn entries(tars: &[Vec<u8>]) -> Vec<Vec<crate::tree::LayerEntry>> {
    let read = |tar: &Vec<u8>| {
        let tar = LayerTar::new(io::Cursor::new(tar.clone()), LayerOptions::default());
        sound(read_layer(&mut sound(tar)))
    };
    tars.iter().map(read).collect()
}

fn rootfs() -> Vec<Vec<u8>> {
    samples::rootfs().images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect()
}

/// The layers of the usual small image.
fn small() -> Vec<Vec<u8>> {
    samples::image().images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect()
}

/// Marks in a directory that then becomes a link to another one.
fn marks() -> Vec<Vec<u8>> {
    let names = ["a", "b", "c"];
    let lower = names.iter().fold(LayerBuilder::new().dir("./", 0o755), |layer, name| {
        layer.dir(name, 0o755).file(format!("{name}/f"), 0o644, name.as_bytes())
    });
    let upper =
        LayerBuilder::new().dir("./", 0o755).whiteout("a/f").symlink("a", "/b").opaque("c").symlink("c", "b");
    vec![lower.finish(), upper.finish()]
}

/// A directory of 1,000 files, and one path of 60 components.
fn wide() -> Vec<Vec<u8>> {
    let files = (0..1000).fold(LayerBuilder::new().dir("wide", 0o755), |layer, number| {
        layer.file(format!("wide/{number:05}"), 0o644, b"x")
    });
    vec![files.file("deep/".repeat(60) + "file", 0o644, b"").finish()]
}

fn create(path: &Path) -> File {
    let options = File::options().read(true).write(true).create_new(true).open(path);
    options.expect("a file can be made in a temporary directory")
}

fn spool() -> File {
    tempfile::tempfile().expect("a temporary file can be made")
}

#[track_caller]
fn assert_trees(actual: &[TreeLine], expected: &[TreeLine], text: impl Fn(&TreeLine) -> String) {
    for (actual, expected) in actual.iter().zip(expected) {
        assert_eq!(text(actual), text(expected));
    }
    assert_eq!(actual.len(), expected.len(), "number of names");
}

/// A source that yields a few bytes at a time.
struct Trickle<R>(R, usize);

impl<R: Read> Read for Trickle<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 % 997 + 1;
        let count = buffer.len().min(self.1);
        self.0.read(&mut buffer[..count])
    }
}

/// A disk with room for so many bytes.
struct Small {
    file: Arc<File>,
    left: u64,
}

impl Small {
    fn new(left: u64) -> Self {
        Self { file: Arc::new(spool()), left }
    }
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
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = (&*self.file).write(&bytes[..count])?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Small {
    fn set_len(&mut self, length: u64) -> io::Result<()> {
        File::set_len(&self.file, length)
    }
}
