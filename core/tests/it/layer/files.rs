//! Files of an image, listed and read out of its layers.

use plyfold_core::ErrorKind;
use plyfold_core::files::{FileType, Files as _, FilesFault, LayerFiles};
use plyfold_core::layer::{LayerOptions, LayerTar};

use super::archive::{Archive, Header, open};

fn files(layers: &[Vec<u8>]) -> LayerFiles<impl Fn(usize) -> plyfold_core::Result<LayerTar> + use<>> {
    let layers = layers.to_vec();
    LayerFiles::new(layers.len(), move |at| Ok(open(&layers[at], LayerOptions::default()))).unwrap()
}

fn two_layers() -> [Vec<u8>; 2] {
    let lower = Archive::default()
        .header(Header::new("usr/lib/", b'5', 0))
        .header(Header::link("lib", b'2', "usr/lib"))
        .file("usr/lib/old", b"old")
        .file("usr/lib/gone", b"gone")
        .header(Header::link("usr/lib/up", b'2', "../../../../lib/old"))
        .header(Header::link("usr/lib/nowhere", b'2', "none"))
        .header(Header::link("round", b'2', "around"))
        .header(Header::link("around", b'2', "/round"))
        .header(Header::link("again", b'1', "usr/lib/old"))
        .file(b"\xffname", b"bytes")
        .end();
    let upper = Archive::default()
        .file("usr/lib/.wh.gone", b"")
        .file("lib/new", &[b'n'; 5000])
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", b"9000"),
        ])
        .file("x", &[&b"1\n4096\n3\n"[..], &[0; 503], b"abc"].concat())
        .header({
            let mut device = Header::new("null", b'3', 0);
            device.put(329, b"0000001\0").put(337, b"0000003\0");
            device
        })
        .end();
    [lower, upper]
}

fn read(path: impl AsRef<[u8]>) -> plyfold_core::Result<Vec<u8>> {
    let mut content = Vec::new();
    files(&two_layers()).read(path.as_ref(), &mut |bytes| {
        content.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(content)
}

#[test]
fn directories_are_listed_as_the_layers_stacked_show_them() {
    let mut files = files(&two_layers());
    let names = |files: &mut LayerFiles<_>, path: &[u8]| -> Vec<String> {
        let list = files.list(path).unwrap();
        list.iter().map(|file| String::from_utf8_lossy(&file.name).into_owned()).collect()
    };
    let root = ["again", "around", "lib", "null", "round", "sparse", "usr", "\u{fffd}name"];
    assert_eq!(names(&mut files, b"/"), root);
    for path in [&b"/usr/lib"[..], b"usr/lib/", b"lib", b"/lib/.", b"usr/./lib//../lib", b"../../lib"] {
        assert_eq!(names(&mut files, path), ["new", "nowhere", "old", "up"], "{}", path.escape_ascii());
    }
    let old = files.file(b"again", true).unwrap();
    assert_eq!((old.kind, old.size, old.links, old.mode), (FileType::Regular, 3, Some(2), 0o644));
    let null = files.file(b"null", true).unwrap();
    assert_eq!((null.kind, null.device), (FileType::CharDevice, Some((1, 3))));
    let lib = files.file(b"lib", false).unwrap();
    assert_eq!((lib.kind, lib.target.as_deref()), (FileType::Symlink, Some(&b"usr/lib"[..])));
    assert_eq!(files.file(b"lib/", false).unwrap().kind, FileType::Directory);
    assert_eq!(files.file(b"lib/../..", false).unwrap().name, b"/");
}

#[test]
fn content_is_read_through_links_that_stay_inside() {
    assert_eq!(read("usr/lib/up").unwrap(), b"old");
    assert_eq!(read("/again").unwrap(), b"old");
    assert_eq!(read("/lib/new").unwrap(), [b'n'; 5000]);
    assert_eq!(read(b"\xffname").unwrap(), b"bytes");
    let mut sparse = vec![0; 9000];
    sparse[4096..4099].copy_from_slice(b"abc");
    assert!(read("sparse").unwrap() == sparse);
}

#[test]
fn what_has_no_content_is_a_typed_error() {
    let missing = |path: &str| Some(FilesFault::Missing(path.to_owned()));
    for path in ["/none", "/usr/lib/gone", "/usr/lib/nowhere", "/again/x", "/again/"] {
        let error = read(path).unwrap_err();
        assert_eq!((error.kind(), error.detail().cloned()), (&ErrorKind::NotFound, missing(path)), "{path}");
    }
    let error = read("usr").unwrap_err();
    assert_eq!(error.detail(), Some(&FilesFault::Directory("/usr".to_owned())));
    let error = read("null").unwrap_err();
    assert_eq!(error.detail(), Some(&FilesFault::Special("/null".to_owned(), FileType::CharDevice)));
    assert_eq!(*read("round").unwrap_err().kind(), ErrorKind::Corrupt);
    let error = files(&two_layers()).list(b"again").unwrap_err();
    assert_eq!(error.detail(), Some(&FilesFault::NoDirectory("/again".to_owned())));
    let stopped = files(&two_layers()).read(b"/again", &mut |_| Err(plyfold_core::Error::limit("enough")));
    assert_eq!(*stopped.unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn a_layer_that_changes_is_an_error_and_not_other_content() {
    let [one, two] = [b"one", b"two"].map(|content| Archive::default().file("file", content).end());
    let [longer, other] = [
        Archive::default().file("file", b"longer").end(),
        Archive::default().header(Header::new("file", b'5', 0)).end(),
    ];
    for changed in [longer, other, Vec::new()] {
        let reading = std::cell::Cell::new(0);
        let open = |_| {
            reading.set(reading.get() + 1);
            Ok(open(if reading.get() == 1 { &one } else { &changed }, LayerOptions::default()))
        };
        let error = LayerFiles::new(1, open).unwrap().read(b"file", &mut |_| Ok(())).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    }
    // Other bytes of the same size are found by the digest that the caller expects.
    let first = open(&one, LayerOptions::default()).finish().unwrap().diff_id;
    let reading = std::cell::Cell::new(0);
    let open = |_| {
        reading.set(reading.get() + 1);
        let options = LayerOptions { diff_id: first.clone(), ..LayerOptions::default() };
        Ok(open(if reading.get() == 1 { &one } else { &two }, options))
    };
    let error = LayerFiles::new(1, open).unwrap().read(b"file", &mut |_| Ok(())).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
}
