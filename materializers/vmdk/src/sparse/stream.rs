//! The materializer: a finished disk in, a compressed VMDK out.

use std::num::NonZero;

use plyfold_core::{
    ArtifactReader, Error, Format, Input, InputArtifact, Made, Materializer, OptionFault, Options,
    OutputSpec, Result, Role, Sink,
};
use plyfold_verity::tree_key;

use super::writer;

/// The formats of disks that it is made of; the first is the default.
const DISKS: [&str; 3] = ["raw", "erofs", "gpt"];
/// The default level of DEFLATE.
const LEVEL: u32 = 6;

/// One disk as a `streamOptimized` VMDK, for uploads: one file, its grains of 64 KiB compressed by DEFLATE, those of zeros
/// left out.
///
/// It can be read from its start to its end: tables stand behind the grains that they list. Grains are compressed on all
/// cores, each by itself, so the bytes are the same for any number of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VmdkStream {
    of: &'static str,
    hash_tree: Option<&'static str>,
    level: u32,
    threads: Option<NonZero<usize>>,
}

impl Default for VmdkStream {
    fn default() -> Self {
        Self { of: DISKS[0], hash_tree: None, level: LEVEL, threads: None }
    }
}

impl VmdkStream {
    /// Of the one raw disk of the format `raw`, at level 6.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of another disk: the format `erofs`, `gpt` or `raw`.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for another one.
    pub fn of(mut self, format: &str) -> Result<Self> {
        let found = DISKS.into_iter().find(|known| *known == format);
        self.of = found.ok_or_else(|| {
            Error::config(format!("a VMDK is not made of the format {format}"))
                .with_hint("of is one of erofs, gpt and raw")
        })?;
        Ok(self)
    }

    /// Of a disk with dm-verity hash trees: `append`, behind the disk or, of `gpt`, each in its image's partition, or
    /// `partition` of `gpt`, in partitions of their own.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for another place: a VMDK is one disk.
    pub fn with_hash_tree(mut self, place: &str) -> Result<Self> {
        let places = if self.of == "gpt" { &["append", "partition"][..] } else { &["append"] };
        self.hash_tree = places.iter().find(|known| **known == place).copied();
        if self.hash_tree.is_some() {
            return Ok(self);
        }
        let places = places.iter().map(|place| format!("`{place}`")).collect::<Vec<_>>().join(" or ");
        let error =
            Error::from(OptionFault::Value("verity".to_owned(), format!("{place:?} is not {places}")));
        Err(match place {
            "partition" => error.with_hint("-m of=gpt makes a disk with partitions"),
            _ => error,
        })
    }

    /// At another level of DEFLATE: 1, the fastest, to 9, the smallest.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for another number.
    pub fn level(mut self, level: u32) -> Result<Self> {
        if !(1..=9).contains(&level) {
            return Err(Error::config(format!("level {level} of DEFLATE: there are 1 to 9")));
        }
        self.level = level;
        Ok(self)
    }

    /// On so many threads, which changes no byte; without it on all cores.
    #[must_use]
    pub fn threads(mut self, threads: NonZero<usize>) -> Self {
        self.threads = Some(threads);
        self
    }
}

impl Materializer for VmdkStream {
    fn format(&self) -> Format {
        let of = (self.of != DISKS[0]).then(|| self.of.to_owned());
        let level = (self.level != LEVEL).then(|| format!("l{}", self.level));
        let options: Vec<_> = of.into_iter().chain(level).collect();
        let options = tree_key(options.join("-"), self.hash_tree);
        Format { name: "vmdk-stream", version: 1, options, extension: "vmdk" }
    }

    fn input(&self) -> Input {
        let tree = self.hash_tree.map(|place| format!("verity={place}"));
        // A text with `=` is always an option.
        let options = Options::parse(tree.as_deref()).unwrap_or_default();
        Input::Artifacts { format: self.of, options }
    }

    fn has_hash_tree(&self) -> bool {
        self.hash_tree.is_some()
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        vec![OutputSpec::new(Role::Image, "vmdk")]
    }

    fn is_self_contained(&self) -> bool {
        true
    }

    /// Of the first file, which is the disk.
    fn join(&self, files: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        let [disk, ..] = files else {
            return Err(Error::config("a VMDK is made of a disk, and no file is given"));
        };
        let mut content = ArtifactReader::open(&*disk.artifact)?;
        let out = out.output(Role::Image)?;
        writer::write(&mut content, disk.artifact.size(), self.level, self.threads, out)?;
        let told = disk.artifact.made();
        let made = Made::default().and(told).with_partitions(told.partitions.clone());
        Ok(told.hash_tree.clone().into_iter().fold(made, Made::with_hash_tree))
    }
}
