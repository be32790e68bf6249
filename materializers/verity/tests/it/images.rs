//! Trees of images that materializers write: in order or not, those of the finished files.

use std::fs::File;
use std::io::{Read as _, SeekFrom};
use std::num::NonZero;

use plyfold_core::{ErrorKind, HashTree, Made, Output, OutputSpec, Result, Role, Sink, TreePlace};
use plyfold_verity::{Parameters, TreeLayout, tree_key, tree_of, tree_outputs, with_tree};

use crate::data::{bytes, noise, work, write};
use crate::file;

/// The files of one image.
struct Files(File, File);

impl Sink for Files {
    fn output(&mut self, role: Role) -> Result<&mut dyn Output> {
        Ok(if role == Role::Image { &mut self.0 } else { &mut self.1 })
    }

    fn scratch(&mut self) -> Result<File> {
        Ok(file(&[]))
    }
}

/// What a materializer does, and how many bytes it has made.
type Way = (&'static str, fn(&mut dyn Output, &[u8]) -> std::io::Result<usize>);

const WAYS: [Way; 9] = [
    ("at once", |out, content| out.write_all(content).map(|()| content.len())),
    ("in pieces", |out, content| {
        let mut rest = content;
        for size in (1..).map(|number: usize| number * 7919 % 300_000) {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            out.write_all(piece)?;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        Ok(content.len())
    }),
    ("the head last", |out, content| {
        let head = content.len().min(4096);
        out.seek(SeekFrom::Start(head as u64))?;
        out.write_all(&content[head..])?;
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&content[..head]).map(|()| content.len())
    }),
    ("some of it twice", |out, content| {
        let third = content.len() / 3;
        out.write_all(content)?;
        out.seek(SeekFrom::Start(third as u64))?;
        out.write_all(&vec![7; third])?;
        out.seek(SeekFrom::Start(third as u64 + 1))?;
        // Across the end of what was there.
        out.write_all(&content[third + 1..]).map(|()| content.len())
    }),
    ("with a hole", |out, content| {
        out.write_all(content)?;
        let end = content.len() + (2 << 20);
        out.seek(SeekFrom::Start(end as u64))?;
        out.write_all(content).map(|()| end + content.len())
    }),
    ("a hole last", |out, content| {
        out.write_all(content)?;
        out.set_len(content.len() as u64 + (1 << 20) + 4096)?;
        Ok(content.len() + (1 << 20) + 4096)
    }),
    ("cut", |out, content| {
        out.write_all(content)?;
        out.set_len(4096)?;
        out.seek(SeekFrom::Start(4096))?;
        out.write_all(&content[4096.min(content.len())..]).map(|()| content.len().max(4096))
    }),
    ("copied from a file", |out, content| {
        let half = content.len() / 2;
        out.write_all(&content[..half])?;
        out.copy_range(&file(content), half as u64, (content.len() - half) as u64)?;
        out.seek(SeekFrom::Start(0))?;
        out.copy_range(&file(&content[..1]), 0, 1).map(|()| content.len())
    }),
    ("read meanwhile", |out, content| {
        let half = content.len() / 2;
        out.write_all(&content[..half])?;
        out.seek(SeekFrom::Start(0))?;
        let mut again = vec![0; half];
        out.read_exact(&mut again)?;
        assert!(again == content[..half]);
        out.write_all(&content[half..]).map(|()| content.len())
    }),
];

fn made(place: TreePlace, block: u32, threads: usize, way: Way, content: &[u8]) -> (Files, HashTree, usize) {
    let mut files = Files(file(&[]), file(&[]));
    let mut size = 0;
    let told = with_tree(Some(place), block, NonZero::new(threads), &mut files, |out| {
        size = way.1(out.output(Role::Image)?, content)?;
        Ok(Made::default().with_note("made"))
    });
    let told = told.unwrap();
    assert_eq!(told.notes, ["made"]);
    (files, told.hash_tree.unwrap(), size)
}

#[test]
fn a_tree_is_that_of_the_finished_image() {
    for way in WAYS {
        for (place, block, blocks, threads) in [
            (TreePlace::Append, 4096, 1, 2),
            (TreePlace::Separate, 4096, 1, 2),
            (TreePlace::Append, 4096, 2, 1),
            (TreePlace::Append, 4096, 600, 3),
            (TreePlace::Separate, 4096, 129, 2),
            (TreePlace::Append, 512, 4500, 2),
            (TreePlace::Separate, 1024, 1100, 1000),
        ] {
            let content = noise(blocks * block as usize);
            let (files, told, size) = made(place, block, threads, way, &content);
            let case = format!("{}: {blocks} blocks of {block}, {place}", way.0);
            let parameters = Parameters::default().with_data_block_size(block).unwrap();
            let parameters = parameters.with_hash_block_size(block).unwrap();
            let (layout, tree) = match place {
                TreePlace::Append => (TreeLayout::appended(parameters, size as u64).unwrap(), &files.0),
                _ => (TreeLayout::beside(parameters, size as u64).unwrap(), &files.1),
            };
            // The tree of the same data, by the way of `plyfold verity`.
            let mut data = bytes(&files.0);
            data.truncate(size);
            let (data, other) = (file(&data), file(&[]));
            let (data, other) = if place == TreePlace::Append { (&data, &data) } else { (&data, &other) };
            let root = write(&layout, data, other);
            assert!(bytes(tree) == bytes(other), "{case}");
            assert_eq!(told.root_hash(), root.to_string(), "{case}");
            assert_eq!(
                (told.place, told.hash_offset, told.data_size()),
                (place, layout.hash_offset(), size as u64)
            );
            assert_eq!(
                told.table("/dev/vda", "/dev/vdb"),
                layout.table(&root, "/dev/vda", "/dev/vdb"),
                "{case}"
            );
            layout.verify(&root, &files.0, tree, &work()).unwrap();
        }
    }
}

/// Also where a read yields less than is asked for.
#[test]
fn the_tree_of_what_is_read_is_that_of_an_image() {
    for (block, blocks) in [(4096, 1), (4096, 600), (512, 4500)] {
        let content = noise(blocks * block as usize);
        let (files, told, _) = made(TreePlace::Separate, block, 2, WAYS[0], &content);
        let mut out = Files(file(&[]), file(&[]));
        let (first, second) = content.split_at(content.len() / 3);
        let mut disk = first.chain(second);
        let tree = tree_of(&mut disk, content.len() as u64, block, NonZero::new(3), &mut out).unwrap();
        assert_eq!(tree, told);
        assert!(bytes(&out.1) == bytes(&files.1), "{blocks} blocks of {block}");
    }
    let mut out = Files(file(&[]), file(&[]));
    for (size, kind) in [(0, ErrorKind::Config), (4097, ErrorKind::Config), (8192, ErrorKind::Io)] {
        let made = tree_of(&mut &[0; 4096][..], size, 4096, None, &mut out);
        assert_eq!(*made.unwrap_err().kind(), kind, "{size}");
        assert!(bytes(&out.1).is_empty());
    }
}

#[test]
fn without_a_place_there_is_no_tree() {
    let mut files = Files(file(&[]), file(&[]));
    let fill = |out: &mut dyn Sink| {
        out.output(Role::Image)?.write_all(b"no block")?;
        Ok(Made::default())
    };
    assert_eq!(with_tree(None, 4096, None, &mut files, fill).unwrap(), Made::default());
    assert_eq!((bytes(&files.0), bytes(&files.1)), (b"no block".to_vec(), Vec::new()));
    for (block, kind) in [(4096, ErrorKind::Config), (100, ErrorKind::Config)] {
        let made = with_tree(Some(TreePlace::Append), block, None, &mut files, fill);
        assert_eq!(*made.unwrap_err().kind(), kind);
    }
}

#[test]
fn the_format_and_the_files_say_where_the_tree_is() {
    let image = || OutputSpec::new(Role::Image, "img").with_stem("disk");
    assert_eq!(tree_outputs(image(), None), [image()]);
    assert_eq!(tree_outputs(image(), Some(TreePlace::Append)), [image()]);
    let tree = OutputSpec::new(Role::HashTree, "verity").with_stem("disk");
    assert_eq!(tree_outputs(image(), Some(TreePlace::Separate)), [image(), tree]);
    assert_eq!(tree_key("b512".to_owned(), None::<TreePlace>), "b512");
    assert_eq!(tree_key(String::new(), Some(TreePlace::Append)), "verity-append");
    assert_eq!(tree_key("b512".to_owned(), Some(TreePlace::Separate)), "b512-verity-beside");
}
