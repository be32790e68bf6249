//! Stages of materializers.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use plyfold_core::layer::{LayerTar, TreeLimits};
use plyfold_core::tree::MergedTree;
use plyfold_core::{InputArtifact, Materializer, Result, Sink};

use crate::tree::{TreeLine, overlaid};

/// A materializer, and a way to look at what it makes: what [`materializer_suite!`](crate::materializer_suite)
/// judges. The same rules judge it through the kernel where the stage looks through a mount.
///
/// What it is made from is what [`Materializer::input`] says.
pub trait MaterializerStage: Send + Sync {
    /// The materializer under test.
    fn materializer(&self) -> Box<dyn Materializer>;

    /// How much of an image its format holds. The rules ask for no more.
    fn fidelity(&self) -> FormatFidelity {
        FormatFidelity::default()
    }

    /// Where it joins the files of layers: what makes these.
    fn layers(&self) -> Option<Box<dyn Materializer>> {
        None
    }

    /// Reads an image, where it is made from whole ones. Only mutants replace it.
    ///
    /// # Errors
    /// Those of [`MergedTree::read`].
    fn read(&self, layers: Vec<Result<LayerTar>>, scratch: &Path) -> Result<MergedTree> {
        MergedTree::read(layers, TreeLimits::default(), scratch)
    }

    /// Joins the files of layers, all in one folder, or nothing; `file` is where the first of its files will be.
    ///
    /// # Errors
    /// Those of [`Materializer::join`].
    fn join(&self, layers: &[InputArtifact], file: &Path, out: &mut dyn Sink) -> Result<()> {
        let _ = file;
        self.materializer().join(layers, out).map(drop)
    }

    /// What a finished file contains, in the order of [`lines`](crate::tree::lines). Further files of the materializer
    /// stand beside it, with their own extensions.
    fn tree(&self, file: &Path, layers: &[InputArtifact]) -> Vec<TreeLine>;

    /// What overlayfs shows of these layers, bottom first.
    fn overlaid(&self, layers: &[InputArtifact]) -> Vec<TreeLine> {
        overlaid(layers.iter().map(|layer| self.tree(path_of(layer), &[])))
    }

    /// Asks the format's own checker; panics when it finds fault.
    fn check(&self, file: &Path, layers: &[InputArtifact]);

    /// As [`Stage::not_judged`](crate::Stage::not_judged).
    fn not_judged(&self) -> &'static [&'static str] {
        &[]
    }
}

/// Where the suite has put a file.
///
/// # Panics
/// For an artifact that is no file of this machine: the suite makes none.
pub fn path_of(artifact: &InputArtifact) -> &Path {
    artifact.artifact.path().expect("the suite's files are on this machine")
}

/// How much of an image a format holds: by default all of it, layers in overlayfs' form.
///
/// ```
/// use std::time::Duration;
/// use plyfold_conformance::FormatFidelity;
///
/// let cpio = FormatFidelity::default()
///     .with_times(Duration::from_secs(1), 0..=u32::MAX.into())
///     .with_largest_file(u32::MAX.into())
///     .without_xattrs();
/// # let _ = cpio;
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FormatFidelity {
    /// The largest file, in bytes. A larger one is refused as [`Limit`](plyfold_core::ErrorKind::Limit).
    pub largest_file: u64,
    /// Whether a layer is in the form of an overlayfs lower, with whiteouts and opaque directories.
    pub overlay_form: bool,
    /// What it makes of a time: rounded down to a multiple of this.
    pub resolution: Duration,
    /// The seconds that it holds. Times beyond become the nearest one.
    pub seconds: RangeInclusive<i64>,
    /// Whether it holds extended attributes.
    pub xattrs: bool,
}

impl Default for FormatFidelity {
    fn default() -> Self {
        Self {
            largest_file: u64::MAX,
            overlay_form: true,
            resolution: Duration::from_nanos(1),
            seconds: i64::MIN..=i64::MAX,
            xattrs: true,
        }
    }
}

impl FormatFidelity {
    /// The same with times of this resolution, a second at most, and in this range of seconds since 1970.
    #[must_use]
    pub fn with_times(mut self, resolution: Duration, seconds: RangeInclusive<i64>) -> Self {
        (self.resolution, self.seconds) = (resolution, seconds);
        self
    }

    /// The same with files of so many bytes at most.
    #[must_use]
    pub fn with_largest_file(mut self, largest_file: u64) -> Self {
        self.largest_file = largest_file;
        self
    }

    /// The same for layers that overlayfs cannot stack.
    #[must_use]
    pub fn without_overlay_form(mut self) -> Self {
        self.overlay_form = false;
        self
    }

    /// The same without extended attributes.
    #[must_use]
    pub fn without_xattrs(mut self) -> Self {
        self.xattrs = false;
        self
    }

    /// What the format makes of a line.
    pub(crate) fn held(&self, line: &TreeLine) -> TreeLine {
        let mut line = line.clone();
        let (first, last) = (*self.seconds.start(), *self.seconds.end());
        let (seconds, nanos) = line.mtime;
        let resolution = self.resolution.as_nanos().clamp(1, 1_000_000_000) as u32;
        line.mtime = match seconds {
            _ if seconds < first => (first, 0),
            _ if seconds > last => (last, 0),
            _ => (seconds, nanos - nanos % resolution),
        };
        if !self.xattrs {
            line.xattrs.clear();
        }
        line
    }

    /// Whether all files of a tree are small enough.
    pub(crate) fn holds_files(&self, tree: &[TreeLine]) -> bool {
        let size = |line: &TreeLine| line.what.strip_prefix("file ")?.split(' ').next()?.parse::<u64>().ok();
        tree.iter().filter_map(size).all(|size| size <= self.largest_file)
    }
}
