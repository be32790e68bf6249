//! A materializer that writes trees as text, and mutants of it.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom};
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use plyfold_conformance::tree::{ContentText, LayerEntry, TreeLine, lines, overlaid, read_layer};
use plyfold_conformance::{DiskFixture, FormatFidelity, MaterializerFixture, ReadBack, path_of};
use plyfold_core::layer::{LayerTar, TreeLimits};
use plyfold_core::tree::{Kind, LayerTreeBuilder, MergedTree};
use plyfold_core::{
    Error, Format, HashedPartition, Input, InputArtifact, Made, Materializer, Options, Output, OutputSpec,
    PartitionRange, Result, Role, Sink, TreePlace,
};
use plyfold_verity::{tree_outputs, with_tree};
use serde_json::{Value, json};

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ListingFault {
    AdaptedLosesFiles,
    AdaptedOnEachCall,
    AdaptedReadOnly,
    BadLayersDropped,
    /// As many bytes as the content has.
    BytesInOutput,
    ContentHeld,
    DescriptionShort,
    ErrorsSwallowed,
    FileForgotten,
    FilesMixed,
    FormatBroken,
    /// An option, which a sound fixture has as a variant.
    HashTree,
    HashTreeOfPart,
    HashTreeOfPartition,
    HashTreeSeparated,
    HashTreeUnsaid,
    HashTreeUntold,
    LayersReversed,
    LimitIgnored,
    NameTaken,
    NodesInOrder,
    None,
    /// An option, which a sound fixture has as a variant.
    LayersNeeded,
    OptionNamed,
    OptionUnnamed,
    OverlayAttributesKept,
    OwnersLost,
    PatchAppended,
    PatchHalfKept,
    PatchIgnored,
    PatchLosesOld,
    PatchNumbered,
    PatchRefusedLate,
    RunNumberInOutput,
    RunNumberTold,
    RunsWritten,
    SizeGuessed,
    SizeToldLate,
    TarsAlone,
    TarsAloneUnsaid,
    ThreadsInOutput(usize),
    WhiteoutsAsFiles,
    WritesLost,
}

static RUN: AtomicU32 = AtomicU32::new(0);

/// The largest file that a listing of a whole image takes.
const LARGEST_FILE: u64 = 1 << 30;

/// What a listing is made from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Makes {
    /// Listings of layers, which it names.
    Described,
    /// Nothing.
    Disks,
    /// Listings of layers.
    Images,
    /// A layer.
    Layers,
    /// A whole image, of at most so many bytes.
    Sized(u64),
    /// A whole image.
    Whole,
}

/// Trees as text, one line for each name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listings {
    pub(crate) makes: Makes,
    pub(crate) fault: ListingFault,
}

impl MaterializerFixture for Listings {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(*self)
    }

    fn variants(&self) -> Vec<Box<dyn MaterializerFixture>> {
        let fault = match self.fault {
            ListingFault::OptionUnnamed => ListingFault::None,
            _ => ListingFault::OptionNamed,
        };
        let with_tree = Self { fault: ListingFault::HashTree, ..*self };
        let all: [Box<dyn MaterializerFixture>; 2] = [Box::new(Self { fault, ..*self }), Box::new(with_tree)];
        // A description has no blocks.
        all.into_iter().take(if self.makes == Makes::Described { 1 } else { 2 }).collect()
    }

    fn with_threads(&self, threads: NonZero<usize>) -> Option<Box<dyn MaterializerFixture>> {
        let fault = match self.fault {
            ListingFault::ThreadsInOutput(_) => ListingFault::ThreadsInOutput(threads.get()),
            fault => fault,
        };
        Some(Box::new(Self { fault, ..*self }))
    }

    fn layers(&self) -> Option<Box<dyn Materializer>> {
        let sound = Self { makes: Makes::Layers, fault: ListingFault::None };
        matches!(self.makes, Makes::Described | Makes::Images)
            .then(|| Box::new(sound) as Box<dyn Materializer>)
    }

    fn fidelity(&self) -> FormatFidelity {
        let whole = FormatFidelity::default();
        if matches!(self.makes, Makes::Sized(_) | Makes::Whole) {
            return whole.with_largest_file(LARGEST_FILE);
        }
        whole
    }

    fn read(&self, mut layers: Vec<Result<LayerTar>>, scratch: &Path) -> Result<MergedTree> {
        if self.fault == ListingFault::LayersReversed {
            layers.reverse();
        }
        match MergedTree::read(layers, TreeLimits::default(), scratch) {
            Err(_) if self.fault == ListingFault::BadLayersDropped => {
                MergedTree::read([], TreeLimits::default(), scratch)
            }
            read => read,
        }
    }

    fn tree(&self, file: &Path, layers: &[InputArtifact]) -> Vec<TreeLine> {
        match self.fault {
            ListingFault::LayersNeeded if layers.is_empty() => Vec::new(),
            _ => parsed(file),
        }
    }

    fn patch(&self, file: &Path, mut change: LayerTar) -> Result<()> {
        if self.makes != Makes::Whole {
            return Err(Error::unsupported("no patches"));
        }
        if self.fault == ListingFault::PatchRefusedLate {
            fs::write(file, "")?;
            return Err(Error::unsupported("no patches"));
        }
        if self.fault == ListingFault::PatchHalfKept {
            // As if a part had been appended before the fault was found.
            let half = fs::read(file)?;
            fs::write(file, [&half[..], b"[]\n"].concat())?;
        }
        let layer = self.layer_lines(read_layer(&mut change)?)?;
        change.finish()?;
        let base = parsed(file);
        let mut lines = match self.fault {
            ListingFault::PatchIgnored => base,
            ListingFault::PatchLosesOld => overlaid([layer]),
            ListingFault::PatchAppended => base.into_iter().chain(layer).collect(),
            _ => overlaid([base, layer]),
        };
        let copy = lines.clone();
        for line in &mut lines {
            line.links = links(&copy, line);
        }
        if self.fault == ListingFault::PatchNumbered {
            let number = i64::from(RUN.fetch_add(1, Ordering::SeqCst));
            let text = format!("{}\n", json!([number]));
            self.put(lines, &mut File::create(file)?)?;
            return Ok(fs::write(file, fs::read_to_string(file)? + &text)?);
        }
        self.put(lines, &mut File::create(file)?).map(drop)
    }

    fn check(&self, file: &Path, _: &[InputArtifact]) {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.lines().all(|line| line.starts_with('[')), "a line that is no list");
    }
}

impl DiskFixture for Listings {
    fn read_back(&self, file: &Path, layers: &[InputArtifact]) -> Option<ReadBack> {
        let (text, mut disk) = (fs::read_to_string(file).unwrap(), tempfile::tempfile().unwrap());
        let names = text.lines().filter_map(|line| serde_json::from_str::<[String; 1]>(line).ok());
        for [name] in names {
            io::copy(&mut File::open(file.with_file_name(name)).unwrap(), &mut disk).unwrap();
        }
        disk.rewind().unwrap();
        Some(ReadBack::new(disk, layers.iter().map(|layer| File::open(path_of(layer)).unwrap()).collect()))
    }

    fn write(&self, file: &Path, work: &mut dyn FnMut(&Path)) -> bool {
        let folder = file.with_extension("written");
        fs::create_dir_all(&folder).unwrap();
        work(&folder);
        if self.fault == ListingFault::WritesLost {
            fs::remove_dir_all(&folder).unwrap();
        }
        true
    }

    fn program(&self) -> Option<Vec<u8>> {
        (!matches!(self.makes, Makes::Disks | Makes::Layers)).then(|| b"cat".to_vec())
    }

    /// The only program that there is.
    fn boot(&self, file: &Path, _: &[InputArtifact], command: &[&str]) -> String {
        let ["/bin/cat", paths @ ..] = command else { panic!("{command:?} is unknown") };
        let lines = parsed(file);
        let content = paths.iter().map(|path| {
            let line = lines.iter().find(|line| line.path == **path).unwrap();
            line.what.split('"').nth(1).unwrap()
        });
        content.collect()
    }

    fn with_size(&self, bytes: u64) -> Option<Result<Box<dyn MaterializerFixture>>> {
        let sized = Self { makes: Makes::Sized(bytes), ..*self };
        (self.makes == Makes::Whole).then(|| Ok(Box::new(sized) as Box<dyn MaterializerFixture>))
    }
}

impl Materializer for Listings {
    fn format(&self) -> Format {
        let options = match self.fault {
            ListingFault::HashTree => "tree",
            ListingFault::OptionNamed => "twice",
            _ => "",
        };
        Format { name: "listing", version: 1, options: options.to_owned(), extension: "txt" }
    }

    fn input(&self) -> Input {
        match self.makes {
            Makes::Disks => Input::Nothing,
            Makes::Described | Makes::Images => {
                Input::Artifacts { format: "listing", options: Options::default() }
            }
            Makes::Layers => Input::Layer,
            Makes::Sized(_) | Makes::Whole => Input::Image,
        }
    }

    fn is_self_contained(&self) -> bool {
        matches!(self.makes, Makes::Images | Makes::Sized(_) | Makes::Whole)
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        let forgotten = (self.fault == ListingFault::FileForgotten).then_some(Role::Sidecar);
        let stem = if self.fault == ListingFault::NameTaken { "layer-0" } else { "listing" };
        let image = OutputSpec::new(self.role(), self.format().extension).with_stem(stem);
        let written = [ListingFault::AdaptedLosesFiles, ListingFault::AdaptedOnEachCall];
        let image = if written.contains(&self.fault) { image.writable() } else { image };
        let further = forgotten.map(|role| OutputSpec::new(role, "more"));
        tree_outputs(image, self.hash_tree()).into_iter().chain(further).collect()
    }

    fn has_hash_tree(&self) -> bool {
        let is_told = self.hash_tree().is_some() && self.fault != ListingFault::HashTreeUnsaid;
        is_told || self.fault == ListingFault::HashTreeUntold
    }

    fn separates_hash_trees(&self) -> bool {
        self.fault == ListingFault::HashTreeSeparated
    }

    fn takes_only_tars(&self) -> bool {
        self.fault == ListingFault::TarsAlone
    }

    fn adapt(&self, _: Role, copy: &mut dyn Output) -> Result<()> {
        let length = copy.seek(SeekFrom::End(0))?;
        match self.fault {
            ListingFault::AdaptedLosesFiles => copy.set_len(length / 2)?,
            // A list that is no name.
            ListingFault::AdaptedOnEachCall => {
                writeln!(copy, "{}", json!([RUN.fetch_add(1, Ordering::SeqCst)]))?;
            }
            ListingFault::AdaptedReadOnly => copy.set_len(length + 1)?,
            _ => {}
        }
        Ok(())
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        if self.makes != Makes::Layers {
            return Err(Error::unsupported("no layers"));
        }
        if self.fault == ListingFault::TarsAloneUnsaid {
            tar.copy_to(io::sink())?;
        }
        if self.fault == ListingFault::ContentHeld {
            let mut held = Vec::new();
            while tar.next_entry()?.is_some() {
                loop {
                    held.extend_from_slice(tar.data()?);
                    match tar.data()?.len() {
                        0 => break,
                        count => tar.consume(count),
                    }
                }
            }
            return self.put(Vec::new(), out);
        }
        match read_layer(tar) {
            Err(_) if self.fault == ListingFault::ErrorsSwallowed => Ok(Made::default()),
            entries => self.put(self.layer_lines(entries?)?, out),
        }
    }

    fn image(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        if self.input() != Input::Image {
            return Err(Error::unsupported("no whole images"));
        }
        let mut lines = lines(image.tree(), |_, _| Ok(String::new()))?;
        if self.fault == ListingFault::OverlayAttributesKept {
            // The tree has lost them: as if it had not.
            let claims = lines.iter_mut().filter(|line| !line.xattrs.is_empty());
            claims.for_each(|line| line.xattrs.push("trusted.overlay.opaque=y".to_owned()));
        }
        let (mut buffer, mut held) = (vec![0; 1 << 16], Vec::new());
        let one = image.tree().walk().find_map(|(_, id)| Some(image.extents(id).next()?.file));
        for (line, (_, id)) in lines.iter_mut().zip(image.tree().walk()) {
            let Kind::File { size, .. } = image.tree().node(id).kind else { continue };
            if size > LARGEST_FILE && self.fault != ListingFault::LimitIgnored {
                return Err(Error::limit("the file is too large"));
            }
            if line.what.starts_with("= ") {
                continue;
            }
            let mut text = ContentText::new(size);
            for extent in image.extents(id) {
                let end = extent.offset + extent.length;
                let mut at = extent.offset;
                while at < end {
                    let wanted = buffer.len().min(usize::try_from(end - at).unwrap());
                    let mut count = image.read_at(id, at, &mut buffer[..wanted])?;
                    if let (ListingFault::FilesMixed, Some(file)) = (self.fault, one) {
                        // As if all content were in one file.
                        count = file.read_at(&mut buffer[..wanted], extent.at + at - extent.offset)?.max(1);
                    }
                    text.data(at, &buffer[..count]);
                    if self.fault == ListingFault::ContentHeld {
                        held.extend_from_slice(&buffer[..count]);
                    }
                    at += count as u64;
                }
            }
            line.what = format!("file {}", text.finish());
            if self.fault == ListingFault::RunsWritten {
                line.what.push_str(&image.extents(id).count().to_string());
            }
        }
        if self.fault == ListingFault::NodesInOrder {
            let mut ids = image.tree().walk().map(|(_, id)| id);
            lines.sort_by_cached_key(|_| ids.next());
        }
        self.put(lines, out)
    }

    fn join(&self, layers: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        if self.makes == Makes::Described {
            let mut names: Vec<_> =
                layers.iter().map(|layer| path_of(layer).file_name().unwrap().to_str().unwrap()).collect();
            match self.fault {
                ListingFault::DescriptionShort => drop(names.pop()),
                ListingFault::LayersReversed => names.reverse(),
                _ => {}
            }
            for name in names {
                writeln!(out.output(self.role())?, "{}", json!([name]))?;
            }
        }
        let mut layers: Vec<_> = layers.iter().map(|layer| parsed(path_of(layer))).collect();
        if self.fault == ListingFault::LayersReversed {
            layers.reverse();
        }
        let mut lines = if self.makes == Makes::Disks { vec![empty_root()] } else { overlaid(layers) };
        let copy = lines.clone();
        for line in &mut lines {
            line.links = links(&copy, line);
        }
        self.put(lines, out)
    }
}

impl Listings {
    fn layer_lines(self, entries: Vec<LayerEntry>) -> Result<Vec<TreeLine>> {
        let mut builder = LayerTreeBuilder::new();
        for LayerEntry { mut entry, content } in entries {
            if self.fault != ListingFault::OverlayAttributesKept {
                entry.metadata.xattrs.retain(|(name, _)| {
                    !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
                });
            }
            builder.insert(entry, |_, _| Ok(content))?;
        }
        let layer = builder.finish()?;
        let mut all = lines(&layer.tree, |content, _| Ok(content.clone()))?;
        for (path, id) in layer.tree.walk() {
            let Some(directory) = layer.tree.node(id).directory() else { continue };
            let line = all.iter_mut().find(|line| line.path == path.to_string()).unwrap();
            if directory.opaque {
                line.xattrs.push("trusted.overlay.opaque=y".to_owned());
            }
            if layer.tree.whiteouts(id).next().is_some() {
                line.xattrs.push("trusted.overlay.origin=".to_owned());
            }
            for name in layer.tree.whiteouts(id) {
                all.push(self.whiteout(
                    path.join(name).to_string(),
                    &path.join(&[b".wh.", name].concat()).to_string(),
                ));
            }
        }
        Ok(all)
    }

    fn whiteout(self, hidden: String, own: &str) -> TreeLine {
        match self.fault {
            ListingFault::WhiteoutsAsFiles => {
                TreeLine { path: own.to_owned(), what: "file 0 \"\"".to_owned(), ..empty_root() }
            }
            _ => TreeLine { path: hidden, what: "char 0:0".to_owned(), ..empty_root() },
        }
    }

    fn hash_tree(self) -> Option<TreePlace> {
        let with_tree = [
            ListingFault::HashTree,
            ListingFault::HashTreeOfPart,
            ListingFault::HashTreeOfPartition,
            ListingFault::HashTreeSeparated,
            ListingFault::HashTreeUnsaid,
        ];
        (with_tree.contains(&self.fault) && self.makes != Makes::Described).then_some(TreePlace::Separate)
    }

    fn put(self, lines: Vec<TreeLine>, out: &mut dyn Sink) -> Result<Made> {
        let mut made = with_tree(self.hash_tree(), 512, None, out, |out| self.put_lines(lines, out))?;
        if self.fault == ListingFault::HashTreeOfPart {
            let image = out.output(Role::Image)?;
            image.seek(SeekFrom::End(0))?;
            image.write_all(format!("{:<511}\n", "[]").as_bytes())?;
        }
        if self.fault == ListingFault::HashTreeOfPartition {
            // All but its last block, in a partition that does not have the tree.
            let image = PartitionRange::new(1, 0, out.output(Role::Image)?.seek(SeekFrom::End(0))? - 512);
            let tree = made.hash_tree.take().into_iter();
            let partitions = tree.map(|tree| HashedPartition::new("listing", image, image, tree)).collect();
            return Ok(made.with_partitions(partitions));
        }
        Ok(made)
    }

    fn role(self) -> Role {
        if self.makes == Makes::Described { Role::Descriptor } else { Role::Image }
    }

    /// Refuses a size that is less than a block for each byte.
    fn check_size(self, text: &str) -> Result<()> {
        let Makes::Sized(size) = self.makes else { return Ok(()) };
        let needed = text.len() as u64 * 4096;
        let told = if self.fault == ListingFault::SizeGuessed { needed * 2 } else { needed };
        if size < needed {
            Err(Error::config("too small").with_hint(format!("at least {told}")))
        } else {
            Ok(())
        }
    }

    fn put_lines(self, lines: Vec<TreeLine>, out: &mut dyn Sink) -> Result<Made> {
        let mut text = String::new();
        let size =
            |line: &TreeLine| line.what.strip_prefix("file ")?.split(' ').next()?.parse::<usize>().ok();
        if self.fault == ListingFault::BytesInOutput {
            text.extend(lines.iter().filter_map(size).map(|size| format!("[{}\n", " ".repeat(size))));
        }
        for TreeLine { path, what, mode, mut owner, mtime, links, xattrs } in lines {
            if self.fault == ListingFault::OwnersLost {
                owner = (0, 0);
            }
            text += &json!([path, what, mode, owner.0, owner.1, mtime.0, mtime.1, links, xattrs]).to_string();
            text += "\n";
        }
        match self.fault {
            ListingFault::OptionNamed | ListingFault::OptionUnnamed => text = text.repeat(2),
            ListingFault::FormatBroken => text += "trailing garbage\n",
            // Complete blocks, by spaces in the last line.
            _ if self.hash_tree().is_some() => {
                let missing = text.len().next_multiple_of(512) - text.len();
                text.truncate(text.len() - 1);
                text += &" ".repeat(missing);
                text += "\n";
            }
            ListingFault::RunNumberInOutput => {
                text += &json!([RUN.fetch_add(1, Ordering::SeqCst)]).to_string();
            }
            ListingFault::SizeToldLate => out.output(self.role())?.set_len(1)?,
            ListingFault::ThreadsInOutput(threads) => text += &json!([threads]).to_string(),
            _ => {}
        }
        self.check_size(&text)?;
        let written = out.output(self.role())?.write_all(text.as_bytes());
        if self.fault != ListingFault::ErrorsSwallowed {
            written?;
        }
        if self.fault == ListingFault::RunNumberTold {
            return Ok(Made::default().with_note(RUN.fetch_add(1, Ordering::SeqCst).to_string()));
        }
        Ok(Made::default())
    }
}

fn parsed(file: &Path) -> Vec<TreeLine> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Vec<Value>>(line).ok());
    let number = |value: &Value| value.as_i64().unwrap();
    let lines = lines.filter(|fields| fields.len() == 9).map(|fields| TreeLine {
        path: fields[0].as_str().unwrap().to_owned(),
        what: fields[1].as_str().unwrap().to_owned(),
        mode: number(&fields[2]).try_into().unwrap(),
        owner: (number(&fields[3]).try_into().unwrap(), number(&fields[4]).try_into().unwrap()),
        mtime: (number(&fields[5]), number(&fields[6]).try_into().unwrap()),
        links: number(&fields[7]).try_into().unwrap(),
        xattrs: fields[8]
            .as_array()
            .unwrap()
            .iter()
            .map(|xattr| xattr.as_str().unwrap().to_owned())
            .collect(),
    });
    lines.collect()
}

fn empty_root() -> TreeLine {
    TreeLine {
        path: "/".to_owned(),
        what: "dir".to_owned(),
        mode: 0,
        owner: (0, 0),
        mtime: (0, 0),
        links: 2,
        xattrs: Vec::new(),
    }
}

/// The link count of one name among all of them.
fn links(all: &[TreeLine], line: &TreeLine) -> u32 {
    if line.what == "dir" {
        let parent = |path: &str| path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        let own = line.path.trim_end_matches('/');
        let below =
            all.iter().filter(|other| other.path != "/" && other.what == "dir" && parent(&other.path) == own);
        return 2 + below.count() as u32;
    }
    let first = line.what.strip_prefix("= ").unwrap_or(&line.path);
    1 + all.iter().filter(|other| other.what == format!("= {first}")).count() as u32
}
