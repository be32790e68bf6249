//! From seeds to digests: what every linked format makes of two images, with each of its options, in one file.
//!
//! An image that has the key of another one has its bytes, for every user's cache. A digest that changes needs another
//! version of its format, and is accepted on purpose alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Cursor, Read as _};
use std::path::Path;

use plyfold::digest::Hasher;
use plyfold::layer::{LayerOptions, LayerTar, TreeLimits};
use plyfold::materializers::erofs::{Compression, ErofsFlat};
use plyfold::tree::MergedTree;
use plyfold::{Images, Materializer as _, Materializers, Options, PullOptions, Rootfs};
use plyfold_conformance::samples::{self, LayerBuilder};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::baseline;

/// Each format without options, and with each of them. Compression that leaves files of this size as small as another is
/// told apart by the second image.
const SETS: &[(&str, &[&str])] = &[
    ("erofs", &[]),
    ("erofs", &["block-size=512"]),
    ("erofs", &["block-size=1024", "label=seed"]),
    ("erofs", &["mtime=1"]),
    ("erofs", &["uuid=01010101-0101-0101-0101-010101010101"]),
    ("erofs", &["compress=lz4"]),
    ("erofs", &["compress=lz4", "cluster=4K"]),
    ("erofs", &["compress=lz4hc"]),
    ("erofs", &["compress=lz4", "fragments=true"]),
    ("erofs", &["compress=zstd"]),
    ("erofs", &["compress=zstd", "fragments=true", "cluster=16K"]),
    ("erofs", &["compress=zstd,9", "cluster=128K"]),
    ("erofs", &["verity=append"]),
    ("erofs", &["verity=beside", "compress=lz4"]),
    ("erofs-layers", &[]),
    ("erofs-layers", &["block-size=512"]),
    ("erofs-layers", &["verity=append"]),
    ("erofs-layers", &["verity=beside"]),
    ("erofs-layers", &["compress=lz4"]),
    ("erofs-layers", &["compress=zstd", "cluster=128K"]),
    ("erofs-merged", &[]),
    ("erofs-merged", &["block-size=512", "label=seed"]),
    ("erofs-merged", &["verity=append"]),
    ("erofs-merged", &["verity=beside"]),
    ("erofs-tar", &[]),
    ("erofs-tar", &["verity=append"]),
    ("erofs-tar", &["verity=beside"]),
    ("ext4", &[]),
    ("ext4", &["size=96M"]),
    ("ext4", &["verity=append"]),
    ("ext4", &["verity=beside", "size=96M"]),
    ("ext4", &["journal=none", "label=seed", "uuid=01010101-0101-0101-0101-010101010101"]),
    ("gpt", &[]),
    ("gpt", &["block-size=512"]),
    ("gpt", &["verity=partition"]),
    ("raw", &[]),
    ("raw", &["block-size=512"]),
    ("raw", &["verity=beside"]),
    ("vmdk", &[]),
    ("vmdk", &["split=true"]),
    ("vmdk", &["verity=append"]),
    ("vmdk", &["verity=beside"]),
    ("vmdk-gpt", &[]),
    ("vmdk-gpt", &["block-size=512"]),
    ("vmdk-gpt", &["verity=partition"]),
    ("vmdk-stream", &[]),
    ("vmdk-stream", &["of=raw", "level=9"]),
    ("vmdk-stream", &["of=gpt", "verity=append"]),
];

/// The layers of the images, by name.
fn seeds() -> [(&'static str, Vec<Vec<u8>>); 2] {
    let rootfs = samples::rootfs().images[0].layers.iter().map(|layer| layer.tar.to_vec()).collect();
    [("rootfs", rootfs), ("mixed", vec![mixed(), upper()])]
}

/// Files of many sizes, of bytes that compress well, badly and not at all: work for several threads.
fn mixed() -> Vec<u8> {
    let files = (1..40_usize).fold(LayerBuilder::new().dir("./", 0o755), |layer, number| {
        let masks = [0xff, 0x0f, 0x03];
        let content = noise(number as u64, number * 2_111, masks[number % 3]);
        layer.file(format!("d{}/{number}", number % 4), 0o644, &content)
    });
    files.file("large", 0o644, &noise(99, 3 << 20, 0x07)).finish()
}

fn upper() -> Vec<u8> {
    LayerBuilder::new().dir("./", 0o755).whiteout("d1/5").file("d2/2", 0o600, b"replaced").finish()
}

/// A sequence that follows from its seed (xorshift, Marsaglia 2003).
fn noise(seed: u64, length: usize, mask: u8) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' ^ ((state >> 32) as u8 & mask)
    };
    (0..length).map(step).collect()
}

/// A title for each image and set of options, `IMAGE FORMAT OPTIONS / KEY`, and lines of its files with their digests.
async fn digests(folder: &Path, seeds: &[(&'static str, Vec<Vec<u8>>)]) -> Vec<(String, String)> {
    let layout = folder.join("layout");
    let samples: Vec<_> =
        seeds.iter().map(|(name, layers)| (*name, samples::of_layers(name, layers))).collect();
    let images: Vec<_> = samples.iter().map(|(name, sample)| ((*name).to_owned(), sample)).collect();
    samples::write_layout(&layout, &images).unwrap();
    let store = Images::open(folder.join("store")).await.unwrap();
    let formats = Materializers::linked().unwrap();
    let mut rows = Vec::new();
    for (seed, _) in &samples {
        let options = PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() };
        let image = store.pull(&format!("oci:{}:{seed}", layout.display()), options).await.unwrap();
        for (number, (format, options)) in SETS.iter().enumerate() {
            let set = Options::parse(options.iter().copied()).unwrap();
            let opened = formats.open(format, &set).unwrap();
            // What is cut in two outside of the cache has the key of what is not.
            let cut = if opened.separates_hash_trees() { ", cut" } else { "" };
            let key = format!("{}{cut}", opened.format());
            let rootfs = Rootfs::named(format, &set, &formats).unwrap();
            let out = folder.join(format!("{seed}-{number}"));
            let disks = store.materialize(&image, &rootfs, &out).await.unwrap();
            let title = format!(
                "{seed} {format} {}/ {key}",
                options.iter().fold(String::new(), |all, o| all + o + " ")
            );
            let mut files = String::new();
            for path in disks.paths() {
                let name = path.file_name().unwrap().to_string_lossy();
                writeln!(files, "  {name} {}", digest(path)).unwrap();
            }
            fs::remove_dir_all(&out).unwrap();
            rows.push((title, files));
        }
    }
    rows
}

fn digest(path: &Path) -> String {
    let (mut file, mut hasher, mut buffer) = (File::open(path).unwrap(), Hasher::sha256(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hasher.finish().digest().to_owned(),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// All of it on those processors that there are, or on one, where the second image has work for several.
fn run(one_processor: bool) -> Vec<(String, String)> {
    let run = move || {
        if one_processor {
            // Threads have the processors of the one that starts them.
            let (allowed, mut one) = (sched_getaffinity(None).unwrap(), CpuSet::new());
            one.set((0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap());
            sched_setaffinity(None, &one).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(digests(folder.path(), &seeds()[usize::from(one_processor)..]))
    };
    std::thread::spawn(run).join().unwrap()
}

/// `PLYFOLD_BLESS=1 cargo test -p plyfold` accepts what there is now.
#[test]
fn every_format_makes_the_bytes_of_its_version() {
    let rows = run(false);
    let of_one = run(true);
    assert_eq!(rows[rows.len() - of_one.len()..], of_one, "one processor makes other bytes");
    let text = rows.iter().fold(String::new(), |text, (title, files)| text + title + "\n" + files);
    baseline::check("plyfold/tests/it/seeds.txt", text.as_bytes());
    // Rule M 160, `options_in_key`: other bytes have another key. A size belongs to the copy alone.
    let mut by_key = BTreeMap::new();
    for (title, files) in rows.iter().filter(|(title, _)| !title.contains(" size=")) {
        let (of, key) = title.split_once('/').unwrap();
        let seed = of.split(' ').next().unwrap();
        let other = by_key.insert((seed.to_owned(), key.to_owned()), files);
        assert!(other.is_none_or(|other| other == files), "{title} has the key of other bytes");
    }
    // Eight threads, whatever this machine has.
    for (_, layers) in seeds() {
        for (algorithm, cluster) in [("lz4", 4096), ("zstd,9", 128 << 10)] {
            let digest = with_threads(&layers, algorithm, cluster, 8);
            assert!(text.contains(&format!("  rootfs.erofs {digest}\n")), "{algorithm} with eight threads");
        }
    }
}

fn with_threads(layers: &[Vec<u8>], algorithm: &str, cluster: u32, threads: usize) -> String {
    let open = |tar: &Vec<u8>| LayerTar::new(Cursor::new(tar.clone()), LayerOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let image = MergedTree::read(layers.iter().map(open), TreeLimits::default(), folder.path()).unwrap();
    let compression = Compression::new(algorithm.parse().unwrap()).unwrap().with_cluster(cluster).unwrap();
    let compression = compression.with_threads(threads.try_into().unwrap());
    let path = folder.path().join("rootfs.erofs");
    let mut out = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    ErofsFlat::default().with_compression(compression).unwrap().image(&image, &mut out).unwrap();
    digest(&path)
}

/// A format or an option that is new needs a line here.
#[test]
fn every_format_and_option_has_a_seed() {
    let listed: BTreeSet<(String, String)> = Materializers::linked()
        .unwrap()
        .iter()
        .flat_map(|entry| {
            let options = entry.options.split(", ").filter_map(|option| option.split_once('='));
            let named = options.map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
            let all = named.into_iter().chain([String::new()]);
            all.map(|option| (entry.name.to_owned(), option))
        })
        .collect();
    let here = SETS.iter().flat_map(|(format, options)| {
        let names = options.iter().map(|option| option.split_once('=').unwrap().0);
        let all = if options.is_empty() { vec![""] } else { names.collect() };
        all.into_iter().map(|option| ((*format).to_owned(), option.to_owned()))
    });
    assert_eq!(here.collect::<BTreeSet<_>>(), listed);
}
