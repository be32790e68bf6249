//! What one more entry takes, whatever it is and whatever is made of it: the slope between two numbers of entries, each in a
//! process of its own whose peak is measured.

use std::env;
use std::fs::File;
use std::io;

use plyfold_conformance::samples::LayerBuilder;
use plyfold_core::layer::{LayerTar, TreeLimits};
use plyfold_core::tree::{LayerFile, LayerReader, LayerSource, MergedTree};
use plyfold_core::{InputArtifact, Materializer as _, Result, flatten};
use plyfold_erofs::{ErofsFlat, ErofsLayer, ErofsMerged};

use crate::memory::{CASE, layer_within, peak, tell_peak};

const FEW: u64 = 20_000;
const MANY: u64 = 90_000;
/// What trees count for an entry (`NODE_BYTES` and `NAME_BYTES` of `plyfold_core::tree`), its name, and its part of the
/// directory that it is in.
const COUNTED: u64 = 110 + 17 + 8 + 1;
const KINDS: [&str; 5] = ["attributes", "directories", "files", "links", "times"];

fn entry(kind: &str, number: u64) -> LayerBuilder {
    let name = |number: u64| format!("d{:03}/f{number:07}", number / 1000);
    let (builder, own) = (LayerBuilder::new(), name(number));
    match kind {
        "attributes" => builder.xattr("security.capability", vec![1; 20]).file(own, 0o755, b""),
        "directories" => builder.dir(own, 0o755),
        // Files of two names each.
        "links" if number % 2 == 1 => builder.hard_link(own, &name(number - 1)),
        "files" | "links" => builder.file(own, 0o644, b""),
        "times" => {
            let time = format!("{}.{number:09}", 1_700_000_000 + number);
            builder.pax("mtime", time).file(own, 0o644, b"")
        }
        other => panic!("{other}"),
    }
}

fn limits() -> TreeLimits {
    TreeLimits::of(1 << 30)
}

fn layer(kind: &str, count: u64) -> Result<LayerTar> {
    let kind = kind.to_owned();
    layer_within(limits(), Box::new(move |number| entry(&kind, number)), count)
}

/// Makes something of so many entries, and says that one takes no more than is counted.
fn assert_slope(test: &str, make: impl Fn(&str, u64)) {
    if let Ok(case) = env::var(CASE) {
        let (kind, count) = case.split_once(' ').unwrap();
        make(kind, count.parse().unwrap());
        return tell_peak();
    }
    let test = format!("memory_per_entry::{test}");
    let each = KINDS.map(|kind| {
        let [few, many] = [FEW, MANY].map(|count| peak(&test, &format!("{kind} {count}")));
        (kind, many.saturating_sub(few) / (MANY - FEW))
    });
    assert!(each.iter().all(|(_, bytes)| *bytes <= COUNTED), "more than {COUNTED}: {each:?}");
}

#[test]
fn an_entry_of_a_layer_takes_what_is_counted() {
    assert_slope("an_entry_of_a_layer_takes_what_is_counted", |kind, count| {
        let mut out = tempfile::tempfile().unwrap();
        ErofsLayer::default().layer(&mut layer(kind, count).unwrap(), &mut out).unwrap();
    });
}

#[test]
fn an_entry_of_a_whole_image_takes_what_is_counted() {
    assert_slope("an_entry_of_a_whole_image_takes_what_is_counted", |kind, count| {
        let image = MergedTree::read([layer(kind, count)], limits(), &env::temp_dir()).unwrap();
        ErofsFlat::default().image(&image, &mut tempfile::tempfile().unwrap()).unwrap();
    });
}

/// Out of the file of a layer: its tree becomes another one.
#[test]
fn an_entry_of_a_flattened_image_takes_what_is_counted() {
    assert_slope("an_entry_of_a_flattened_image_takes_what_is_counted", |kind, count| {
        let mut file = tempfile::tempfile().unwrap();
        ErofsLayer::default().layer(&mut layer(kind, count).unwrap(), &mut file).unwrap();
        let reader = *LayerReader::linked().find(|reader| reader.format == "erofs-layers").unwrap();
        let layers = [LayerFile::new(file, reader, None).map(LayerSource::from)];
        let image = MergedTree::with_every_xattr(layers, limits(), &env::temp_dir()).unwrap();
        flatten(&image, &mut io::sink()).unwrap();
    });
}

/// Two layers, each of half of the entries, under the same names.
#[test]
fn an_entry_of_merged_layers_takes_what_is_counted() {
    assert_slope("an_entry_of_merged_layers_takes_what_is_counted", |kind, count| {
        let folder = tempfile::tempdir().unwrap();
        let layers = [0, 1].map(|at: u8| {
            let path = folder.path().join(at.to_string());
            let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
            ErofsLayer::default().layer(&mut layer(kind, count / 2).unwrap(), &mut file).unwrap();
            InputArtifact::local(&path, None).unwrap()
        });
        let merged = ErofsMerged::default().with_limits(limits());
        merged.join(&layers, &mut tempfile::tempfile().unwrap()).unwrap();
    });
}
