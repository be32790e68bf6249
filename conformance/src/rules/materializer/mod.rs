//! M: what a materializer makes of layers and images, judged by looking at it.

mod content;
mod forms;
mod hash_tree;
pub(super) mod large;
mod made;

use std::collections::HashSet;
use std::io::{self, Read};

use plyfold_core::layer::{LayerOptions, LayerTar};
use plyfold_core::memory::MemoryCache;
use plyfold_core::tree::is_overlay_xattr;
use plyfold_core::{
    Artifact, ArtifactKey, CacheProvider, ErrorKind, Input, Materializer, Materializers, PullOptions, Result,
    Role, TreePlace, digest,
};

use self::content::content_makes_the_same_bytes_wherever_it_lies;
use self::forms::a_format_of_tars_alone_says_so;
pub(super) use self::large::noise;
use self::large::{holes_stay_holes, memory_bounded_for_any_layer_size, threads_change_no_byte};
use self::made::{Files, make_layer};
pub(super) use self::made::{Made, SmallDisk};
use super::probe::{NAME, assert_kind, error_of, sound};
use crate::fixtures::fill;
use crate::rule::{not_judged, rules};
use crate::samples::{self, LayerBuilder, gzip};
use crate::tree::{LayerEntry, TreeLine, read_layer, stacked};
use crate::{Client as _, CoreClient, FixtureImage, MaterializerFixture};

rules! {
    $ __materializer_rules of dyn MaterializerFixture;
    "M 147" same_input_same_bytes:
        "the same input gives the same bytes, however it arrives and however many run at once",
    "M 148" kernel_mount_equals_reference_tree:
        "what is mounted is the tree that the layers say: names, kinds, modes, owners, times, links, devices, \
         extended attributes and content, as far as the format holds them, and without the files it is made of if it \
         says that it is self-contained; a file that is too large for it is refused",
    "M 149" fsck_is_clean:
        "the format's own checker finds nothing in any sample",
    "M 150" stacked_layers_equal_flat_image:
        "the layers stacked by overlayfs and the image made of them show one tree",
    "M 151" whiteouts_and_opaque_in_overlay_form:
        "whiteouts become character devices 0:0, opaque directories say so in `trusted.overlay.opaque`, and a tar's \
         own overlay attributes mean nothing",
    "M 152" memory_bounded_for_any_layer_size:
        "a layer with a sparse file of 10 GiB, where the format holds one, and with 160 MiB of data takes 128 MiB of address \
         space at most, on two processors",
    "M 153" output_absent_after_any_error:
        "an error at any byte of the input or the output is an error of the materializer, and nothing of its output \
         can be seen",
    "M 159" appended_patch_reads_back:
        "a finished file that is patched shows what an image of one layer more shows, after one patch and after several, \
         and is the same as another one so patched; a bad change, and each change where the format has no patches, is an \
         error that leaves the file as it was",
    "M 196" a_bad_layer_is_an_error_not_a_smaller_image:
        "a layer that is damaged, cut short or not what its diff_id says is an error, wherever it stands in the image, \
         and nothing is made of the other ones",
    "M 209" every_listed_file_is_made_and_two_runs_report_the_same:
        "each file that is listed is made, the list is the same at each call, and two runs report the same kernel and \
         notes",
    "M 211" names_are_plain_short_unambiguous_and_not_taken:
        "names and options are of lower-case letters, digits and `-`, within their bounds, and are not read as those of \
         another format; no file is called as a layer or an upper is; a format of layers has one file",
    "M 225" options_that_change_bytes_are_in_the_format:
        "one format with two sets of options that make other bytes of the same image has two texts of options: it is the \
         key under which a cache keeps what was made",
    "M 231" an_adapted_copy_holds_the_same:
        "a file that users write to, adapted outside of the cache, shows the tree that it showed before, passes the format's \
         checker, and is the same as another one of the same image; files that users do not write to stay as they are",
    "M 232" threads_change_no_byte:
        "one processor and all of them, one thread and eight, make the same bytes",
    "M 234" holes_stay_holes:
        "the zeros of a sparse file are not written: 64 MiB of them take 4 MiB at most",
    "M 245" a_hash_tree_is_of_all_of_its_image:
        "a format, with the options of each variant, says that its image has a hash tree if it tells one; the root hash, the superblock and the blocks are those of dm-verity for every byte of the image, and nothing follows them; trees that are to be separated are behind the data",
    "M 266" content_makes_the_same_bytes_wherever_it_lies:
        "a whole image gives the same bytes whether its content lies in a temporary file, in plain tars or in the files of \
         layers, in one run or in pieces, with or without holes for zeros, and in whatever order its nodes are",
    "M 268" a_format_of_tars_alone_says_so:
        "a format of single layers takes one that is no tar, or says beforehand that it takes tars alone",
}

/// Why a rule about content does not judge an empty disk.
const EMPTY: &str = "an empty disk holds nothing of an image";

async fn same_input_same_bytes(fixture: &dyn MaterializerFixture) {
    let made = Made::of(fixture, &rootfs());
    let first = made.bytes();
    assert!(Made::of(fixture, &rootfs()).bytes() == first, "two runs");
    let others: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| Made::of(fixture, &rootfs()).bytes())).collect();
        runs.into_iter().map(|run| run.join().expect("no run panics")).collect()
    });
    assert!(others.iter().all(|other| *other == first), "three runs at once");
    let packed = |tar: &Vec<u8>| {
        let (head, tail) = tar.split_at(12_345.min(tar.len()));
        gzip(&[head, tail])
    };
    match fixture.materializer().input() {
        Input::Layer => {
            let tar = rootfs().remove(0);
            let plain = layer_bytes(fixture, io::Cursor::new(tar.clone()));
            assert!(
                layer_bytes(fixture, Trickle(io::Cursor::new(tar.clone()), 1)) == plain,
                "in small pieces"
            );
            assert!(layer_bytes(fixture, io::Cursor::new(packed(&tar))) == plain, "compressed");
        }
        Input::Image => {
            let packed: Vec<_> = rootfs().iter().map(packed).collect();
            assert!(Made::of(fixture, &packed).bytes() == first, "compressed");
        }
        _ => {}
    }
}

async fn every_listed_file_is_made_and_two_runs_report_the_same(fixture: &dyn MaterializerFixture) {
    let listed = fixture.materializer().outputs();
    assert!(listed == fixture.materializer().outputs() && !listed.is_empty(), "{listed:?}");
    let roles: HashSet<Role> = listed.iter().map(|file| file.role).collect();
    let extensions: HashSet<&str> = listed.iter().map(|file| file.extension).collect();
    assert!(roles.len() == listed.len() && extensions.len() == listed.len(), "{listed:?} are not told apart");
    assert_eq!(listed[0].extension, fixture.materializer().format().extension, "the first file is its image");
    let made = Made::of(fixture, &rootfs());
    let run = || {
        let mut out = Files::spools(fixture);
        let told = sound(made.again(&mut out));
        assert_eq!(out.unasked(), [], "listed, and not made");
        told
    };
    assert_eq!(run(), run());
}

async fn names_are_plain_short_unambiguous_and_not_taken(fixture: &dyn MaterializerFixture) {
    // Other formats that it is made from are not linked here.
    if let Err(e) = Materializers::none().chain(fixture.materializer()) {
        assert_ne!(*e.kind(), ErrorKind::Internal, "{e}");
    }
}

async fn options_that_change_bytes_are_in_the_format(fixture: &dyn MaterializerFixture) {
    let variants = fixture.variants();
    if variants.is_empty() {
        return not_judged("the fixture has no `variants`: with other options");
    }
    let all = std::iter::once(fixture).chain(variants.iter().map(|variant| &**variant));
    let made: Vec<_> =
        all.map(|fixture| (fixture.materializer().format(), Made::of(fixture, &small()).bytes())).collect();
    for (place, (format, bytes)) in made.iter().enumerate() {
        let (first, of_first) = &made[0];
        assert_eq!(
            (format.name, format.version),
            (first.name, first.version),
            "a variant is the same format"
        );
        assert!(place == 0 || bytes != of_first, "the options of variant {place} change no byte: {format:?}");
        for (other, others) in &made[..place] {
            let differ = format.options != other.options;
            assert!(bytes == others || differ, "other bytes under one key: {format:?}");
        }
    }
}

async fn an_adapted_copy_holds_the_same(fixture: &dyn MaterializerFixture) {
    let made = Made::of(fixture, &rootfs());
    let (tree, bytes) = (made.tree(), made.bytes());
    made.adapt();
    if !fixture.materializer().outputs().iter().any(|file| file.writable) {
        assert!(made.bytes() == bytes, "a file that its users do not write to was changed");
        return;
    }
    made.check();
    assert_trees(&made.tree(), &tree, TreeLine::to_string);
    let again = Made::of(fixture, &rootfs());
    again.adapt();
    assert!(again.bytes() == made.bytes(), "two copies of one file differ");
}

async fn a_hash_tree_is_of_all_of_its_image(fixture: &dyn MaterializerFixture) {
    let variants = fixture.variants();
    for fixture in std::iter::once(fixture).chain(variants.iter().map(|variant| &**variant)) {
        let format = fixture.materializer().format();
        for layers in [small(), rootfs()] {
            let mut out = Files::spools(fixture);
            let made = Made::of(fixture, &layers);
            let told = sound(made.again(&mut out));
            let is_said = fixture.materializer().has_hash_tree();
            assert_eq!(told.is_hashed(), is_said, "`has_hash_tree` of {format}");
            if !told.is_hashed() {
                continue;
            }
            let files = out.contents();
            let disk = fixture.disk(&files, &made.layers);
            if !told.partitions.is_empty() {
                hash_tree::assert_are_of_partitions(&told.partitions, layers.len(), &disk);
            }
            let Some(tree) = told.hash_tree else { continue };
            let is_behind = tree.place == TreePlace::Append;
            let is_separated = fixture.materializer().separates_hash_trees();
            assert!(is_behind || !is_separated, "{format} has nothing behind its data to be separated");
            let apart = files.iter().find(|(role, _)| *role == Role::HashTree);
            let holder = if is_behind { Some(&disk) } else { apart.map(|(_, bytes)| bytes) };
            let holder = holder.unwrap_or_else(|| panic!("{format} has no {}", Role::HashTree));
            hash_tree::assert_is_of(&tree, &disk, holder, is_behind);
        }
    }
}

async fn appended_patch_reads_back(fixture: &dyn MaterializerFixture) {
    let whole = rootfs();
    let input = fixture.materializer().input();
    let base = if input == Input::Nothing { Vec::new() } else { vec![whole[0].clone()] };
    let made = Made::of(fixture, &base);
    let before = made.bytes();
    if let Err(error) = made.patch(&whole[1]) {
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(made.bytes() == before, "a patch that is refused changes the file");
        return not_judged("the format refuses patches");
    }
    let (other, fidelity) = (Made::of(fixture, &base), fixture.fidelity());
    sound(other.patch(&whole[1]));
    for (place, change) in whole.iter().enumerate().skip(1) {
        if place > 1 {
            sound(made.patch(change));
            sound(other.patch(change));
        }
        let reference = sound(stacked(entries(&whole[..=place])));
        let reference: Vec<_> = reference.iter().map(|line| fidelity.held(line)).collect();
        assert_trees(&made.tree(), &reference, TreeLine::to_string);
        made.check();
        let patched = made.bytes();
        assert!(patched == other.bytes(), "the same changes give other bytes");
        // Within a block: a tar may end without its end.
        let error = error_of(made.patch(&change[..change.len() / 1024 * 512 + 100]));
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(made.bytes() == patched, "a bad change leaves the file as it was");
    }
}

async fn kernel_mount_equals_reference_tree(fixture: &dyn MaterializerFixture) {
    let input = fixture.materializer().input();
    if input == Input::Nothing {
        refuses_layers(fixture);
        assert!(!Made::of(fixture, &[]).tree().is_empty());
        return not_judged(EMPTY);
    }
    let fidelity = fixture.fidelity();
    let bottom = vec![rootfs().remove(0)];
    for layers in [if input == Input::Layer { bottom } else { rootfs() }, vec![samples::huge_file()]] {
        let reference = sound(stacked(entries(&layers)));
        if !fidelity.holds_files(&reference) {
            assert_kind(Made::attempt(fixture, &layers), &ErrorKind::Limit);
            continue;
        }
        let expected: Vec<_> = reference.iter().map(|line| fidelity.held(line)).collect();
        assert_trees(&Made::of(fixture, &layers).tree_alone(), &expected, |line| {
            // Overlayfs' own marks are another rule's (M 151).
            let mut line = line.clone();
            line.xattrs.retain(|xattr| !xattr.starts_with("trusted.overlay."));
            line.to_string()
        });
    }
}

async fn fsck_is_clean(fixture: &dyn MaterializerFixture) {
    let empty = vec![LayerBuilder::new().finish()];
    for layers in [rootfs(), empty, vec![samples::huge_file()], wide(), small(), odd()] {
        if fixture.fidelity().holds_files(&sound(stacked(entries(&layers)))) {
            Made::of(fixture, &layers).check();
        }
    }
}

async fn stacked_layers_equal_flat_image(fixture: &dyn MaterializerFixture) {
    let (input, fidelity) = (fixture.materializer().input(), fixture.fidelity());
    if input == Input::Nothing {
        refuses_layers(fixture);
        return not_judged(EMPTY);
    }
    if input == Input::Layer && !fidelity.overlay_form {
        return not_judged("overlayfs cannot stack layers of this format");
    }
    // Overlayfs counts links of its own.
    let comparable = |line: &TreeLine| TreeLine { links: 0, ..line.clone() }.to_string();
    for layers in [rootfs(), small(), marks()] {
        let made = Made::of(fixture, &layers);
        let reference = sound(stacked(entries(&layers)));
        let reference: Vec<_> = reference.iter().map(|line| fidelity.held(line)).collect();
        if input != Input::Image && fidelity.overlay_form {
            assert_trees(&fixture.overlaid(&made.layers), &reference, comparable);
        }
        if input != Input::Layer {
            assert_trees(&made.tree(), &reference, comparable);
        }
    }
    if input != Input::Layer {
        // A tar's own overlay attributes mean nothing to overlayfs either: layers have none (M 151).
        let claims = LayerBuilder::new()
            .dir("./", 0o755)
            .xattr("trusted.overlay.opaque", "y")
            .xattr("user.overlay.metacopy", "")
            .xattr("user.kept", "1")
            .dir("claims", 0o755);
        for line in Made::of(fixture, &[claims.finish()]).tree() {
            let is_overlays = |xattr: &String| is_overlay_xattr(xattr.as_bytes());
            assert!(!line.xattrs.iter().any(is_overlays), "overlayfs' own attributes are kept: {line:?}");
        }
    }
}

async fn whiteouts_and_opaque_in_overlay_form(fixture: &dyn MaterializerFixture) {
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
    if fixture.materializer().input() != Input::Layer {
        refuses_layers(fixture);
        return not_judged("the format is not made of single layers");
    }
    if !fixture.fidelity().overlay_form {
        return not_judged("overlayfs cannot stack layers of this format");
    }
    let tree = Made::of(fixture, &[layer.finish()]).tree();
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

async fn output_absent_after_any_error(fixture: &dyn MaterializerFixture) {
    let materializer = fixture.materializer();
    let made = Made::of(fixture, &rootfs());
    let size = made.size();
    for budget in (0..16).map(|part| size * part / 16).chain([size.saturating_sub(1)]) {
        let error = error_of(made.again(&mut SmallDisk::new(&*materializer, budget)));
        assert_eq!(*error.kind(), ErrorKind::Io, "out of space after {budget} bytes of {size}: {error}");
    }
    if materializer.input() == Input::Layer {
        nothing_is_published(&*materializer).await;
    }
}

async fn a_bad_layer_is_an_error_not_a_smaller_image(fixture: &dyn MaterializerFixture) {
    let materializer = fixture.materializer();
    let tar = rootfs().remove(0);
    // One bit at the end of the data, a truncation, and a diff_id that only the last byte disproves.
    let mut flipped = tar.clone();
    let last = flipped.iter().rposition(|byte| *byte != 0).unwrap_or_default();
    flipped[last] ^= 1;
    let bad = [flipped, tar[..tar.len() / 2].to_vec(), tar[..tar.len() - 512].to_vec()];
    match materializer.input() {
        Input::Image => {
            for bad in bad {
                for place in 0..3 {
                    let error = error_of(of_bad_layer(fixture, &bad, &tar, place));
                    assert_eq!(*error.kind(), ErrorKind::Corrupt, "layer {place} of 3: {error}");
                }
            }
        }
        Input::Layer => {
            for bad in bad {
                let diff_id = Some(digest::sha256(&tar));
                let made =
                    make_layer(&*materializer, io::Cursor::new(bad), diff_id, &mut Files::spools(fixture));
                let error = error_of(made);
                assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
            }
        }
        Input::Nothing => not_judged(EMPTY),
        _ => not_judged("what it joins was verified by the format that made it"),
    }
}

/// An image of three layers, of which the one at `place` has `bad` in place of `tar`.
fn of_bad_layer(fixture: &dyn MaterializerFixture, bad: &[u8], tar: &[u8], place: usize) -> Result<()> {
    let layers = (0..3).map(|at| {
        let content = if at == place { bad } else { tar };
        let options = LayerOptions { diff_id: Some(digest::sha256(tar)), ..LayerOptions::default() };
        LayerTar::new(io::Cursor::new(content.to_vec()), options)
    });
    let scratch = tempfile::tempdir()?;
    let image = fixture.read(layers.collect(), scratch.path())?;
    fixture.materializer().image(&image, &mut Files::spools(fixture)).map(drop)
}

/// A pull of a layer that its `diff_id` disproves leaves no artifact behind.
async fn nothing_is_published(materializer: &dyn Materializer) {
    let sample = samples::wrong_diff_id();
    let registry = plyfold_core::memory::MemoryRegistry::new("origin");
    let image = FixtureImage::new(NAME, &sample);
    fill(&registry, &image);
    let cache = sound(MemoryCache::new());
    let options = PullOptions {
        materializer: Some(dyn_clone::clone_box(materializer)),
        platform: sound("linux/amd64".parse()),
        ..PullOptions::default()
    };
    let pulled = CoreClient.pull(&registry, &image.reference, &cache, &options).await;
    assert_kind(pulled, &ErrorKind::Corrupt);
    let diff_id = sample.images[0].layers[0].diff_id.clone();
    let key = ArtifactKey::layer(materializer.format(), diff_id);
    assert!(matches!(sound(cache.artifact(&key).await), Artifact::Vacant(_)), "a bad layer was published");
}

/// A single layer is refused.
fn refuses_layers(fixture: &dyn MaterializerFixture) {
    let tar = io::Cursor::new(rootfs().remove(0));
    let made = make_layer(&*fixture.materializer(), tar, None, &mut Files::spools(fixture));
    assert_kind(made, &ErrorKind::Unsupported);
}

fn layer_bytes(fixture: &dyn MaterializerFixture, source: impl Read + Send + 'static) -> Vec<u8> {
    let mut out = Files::spools(fixture);
    sound(make_layer(&*fixture.materializer(), source, None, &mut out));
    out.bytes()
}

fn entries(tars: &[Vec<u8>]) -> Vec<Vec<LayerEntry>> {
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

/// Names that mean something to a format, and further names of what is no regular file.
fn odd() -> Vec<Vec<u8>> {
    let layer = LayerBuilder::new()
        .file("TRAILER!!!", 0o644, b"what ends a cpio archive")
        .file("-", 0o644, b"")
        .file("new\nline", 0o644, b"\n")
        .fifo("fifo", 0o600)
        .hard_link("fifo-again", "fifo")
        .char_device("null", 0o666, 1, 3)
        .hard_link("null-again", "null")
        .symlink("link", "fifo")
        .hard_link("link-again", "link")
        .file("empty", 0o644, b"")
        .hard_link("empty-again", "empty");
    vec![layer.finish()]
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
