//! What other tools get wrong, from the tar to the image.
//!
//! mkfs.erofs 1.9.3 exits with 0 after most of these; microsandbox-image 0.7.13 refuses or loses the others.

use plyfold_conformance::samples::{LayerBuilder, gzip};
use plyfold_core::ErrorKind;
use plyfold_erofs::Options;
use tar::EntryType;

use crate::common::image;
use crate::listing;

fn lines(layer: LayerBuilder) -> Vec<String> {
    listing(&image(layer.finish(), Options::default()).unwrap())
}

#[test]
fn a_file_of_typeflag_nul_is_a_file() {
    let layer = LayerBuilder::new().entry(EntryType::new(0), "f", 0o644, b"data", |_| {});
    assert_eq!(lines(layer)[1], "/f f\"data\" 644 0:0 x1");
}

#[test]
fn a_size_on_an_entry_without_data_loses_nothing() {
    let layer = LayerBuilder::new()
        .entry(EntryType::Directory, "d", 0o755, b"", |header| header.set_size(700))
        .file("d/f", 0o644, b"1")
        .entry(EntryType::Symlink, "s", 0o777, b"", |header| {
            header.set_size(700);
            header.set_link_name("d").unwrap();
        })
        .entry(EntryType::Link, "h", 0o644, b"", |header| {
            header.set_size(1);
            header.set_link_name("d/f").unwrap();
        })
        .file("last", 0o644, b"2");
    assert_eq!(
        lines(layer)[1..],
        [
            "/d d 755 0:0 x2",
            "/d/f f\"1\" 644 0:0 x2",
            "/h f\"1\" 644 0:0 x2",
            "/last f\"2\" 644 0:0 x1",
            "/s ld 777 0:0 x1",
        ]
    );
}

#[test]
fn an_owner_beyond_32_bits_is_refused() {
    let layer = LayerBuilder::new().owner(1 << 32, 0).file("f", 0o644, b"").finish();
    let error = image(layer, Options::default()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Limit), "{error}");
}

#[test]
fn a_root_without_an_entry_is_0755() {
    let expected = "/ d 755 0:0 x2 0+0 trusted.overlay.plyfold.implied=y";
    assert_eq!(lines(LayerBuilder::new().file("f", 0o644, b""))[0], expected);
}

#[test]
fn a_path_with_a_nul_byte_is_refused() {
    let layer = LayerBuilder::new().pax("path", b"f\0g").file("f", 0o644, b"").finish();
    assert_eq!(image(layer, Options::default()).unwrap_err().kind(), &ErrorKind::Corrupt);
}

#[test]
fn a_truncated_last_header_is_refused() {
    let mut layer = LayerBuilder::new().file("f", 0o644, b"").file("g", 0o644, b"").finish();
    layer.truncate(512 + 300);
    assert_eq!(image(layer, Options::default()).unwrap_err().kind(), &ErrorKind::Corrupt);
}

#[test]
fn garbage_behind_gzip_is_refused_and_members_are_joined() {
    let layer = LayerBuilder::new().file("f", 0o644, b"data").finish();
    let (head, tail) = layer.split_at(700);
    let mut members = gzip(&[head, tail]);
    let path = image(members.clone(), Options::default()).unwrap();
    assert_eq!(listing(&path)[1], "/f f\"data\" 644 0:0 x1");
    members.extend_from_slice(b"garbage");
    assert_eq!(image(members, Options::default()).unwrap_err().kind(), &ErrorKind::Corrupt);
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_one() {
    let layer = LayerBuilder::new().symlink("s", "to").hard_link("h", "s");
    assert_eq!(lines(layer)[1..], ["/h lto 777 0:0 x2", "/s lto 777 0:0 x2"]);
}

#[test]
fn a_directory_replaced_by_a_file_is_a_file() {
    let layer = LayerBuilder::new().dir("d", 0o755).file("d/f", 0o644, b"1").file("d", 0o644, b"2");
    assert_eq!(lines(layer)[1..], ["/d f\"2\" 644 0:0 x1"]);
}

#[test]
fn a_whiteout_beside_its_directory_makes_it_opaque_in_any_order() {
    let before = LayerBuilder::new().whiteout("d").dir("d", 0o755).file("d/f", 0o644, b"");
    let after = LayerBuilder::new().dir("d", 0o755).file("d/f", 0o644, b"").whiteout("d");
    for layer in [before, after] {
        assert_eq!(lines(layer)[1..], ["/d d 755 0:0 x2 trusted.overlay.opaque=y", "/d/f f\"\" 644 0:0 x1"]);
    }
}
