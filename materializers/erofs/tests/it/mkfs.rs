//! Images that mkfs.erofs 1.9.4 made of [`varied_layer`], each by a command that `samples/README.md` has.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use plyfold_core::tree::Kind;
use plyfold_erofs::{Options, Reader};

use crate::common::{flat, varied_layer};
use crate::listing;

/// The images by their names.
pub(crate) fn samples() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/samples");
    let files = fs::read_dir(folder).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().strip_suffix(".erofs.zst")?.to_owned();
        Some((name, zstd::decode_all(fs::File::open(path).unwrap()).unwrap()))
    });
    files.collect()
}

#[test]
fn images_of_mkfs_are_read() {
    let samples = samples();
    assert!(samples.len() >= 12, "{:?}", samples.keys());
    let expected = listing(&flat(&[varied_layer()], Options::default()).unwrap());
    for (name, bytes) in samples {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        assert!(listing(file.path()) == expected, "{name}");
    }
}

/// The reader keeps what it decoded last: it must not be taken for that of another file.
#[test]
fn files_can_be_read_in_any_order() {
    for (name, bytes) in samples() {
        let mut reader = Reader::new(Cursor::new(bytes)).unwrap();
        let tree = reader.tree().unwrap();
        let files: Vec<_> = tree
            .walk()
            .filter_map(|(_, id)| match &tree.node(id).kind {
                Kind::File { size, content } => Some((*size, content.clone())),
                _ => None,
            })
            .collect();
        let whole: Vec<_> =
            files.iter().map(|(size, content)| crate::data(&mut reader, content, *size)).collect();
        let mut buffer = [0; 64];
        for step in 0..400_usize {
            let at = step * 7 % files.len();
            let (size, content) = &files[at];
            let offset = step as u64 * 9_973 % size.max(&1);
            let count = reader.read(content, *size, offset, &mut buffer).unwrap();
            let start = usize::try_from(offset).unwrap();
            assert!(buffer[..count] == whole[at][start..start + count], "{name}");
        }
    }
}
