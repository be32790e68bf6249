//! What is made: known root hashes, the same for any number of threads.

use std::num::NonZero;

use plyfold_core::blocking::Stop;
use plyfold_core::{ErrorKind, digest};
use plyfold_verity::{Parameters, RootHash, TreeLayout, Uuid, Work};

use crate::data::{bytes, noise, work, write};
use crate::file;

fn parameters(data_block: u32, hash_block: u32, salt: &str) -> Parameters {
    let parameters = Parameters::default().with_data_block_size(data_block).unwrap();
    parameters.with_hash_block_size(hash_block).unwrap().with_salt_text(salt).unwrap()
}

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// As `veritysetup format` 2.6.1 made them of the same data.
#[test]
fn root_hashes_are_those_of_veritysetup() {
    for (data_block, hash_block, salt, blocks, root) in [
        (4096, 4096, ZEROS, 1, "321f9deca36dcd82cf244ac5ca7041e1499a2bcdac883d81fb4fae4573f0899e"),
        (4096, 4096, ZEROS, 2, "2962d2a95de77ed1ba10c592717318f814544b045b2b796b12421e733b625337"),
        (4096, 4096, ZEROS, 128, "02f85146a1e72c1068f6018d7faee3c3d503207831720bc2e28cb37834592074"),
        (4096, 4096, ZEROS, 129, "fafc25052e54ae22172729e60675bb86ae3a9a1b651fd56d4c99b6bcbe1e10b6"),
        (4096, 4096, "-", 129, "1fd18cd42c0efb4c3458309924ebb0b8625870d831663a7ca21929ad38418d4c"),
        (512, 512, ZEROS, 4097, "8bae9c1797ac58dba989bd02dff3d92e347dccef61c574024720db9cd69c3856"),
        (
            512,
            4096,
            "0123456789abcdef",
            300,
            "8f82994fd9ae7d1cd7465c8fd3c47b85db72b26f8f9dc6d150fc0f20088f73db",
        ),
        (4096, 512, "ff", 300, "6b75ac77237501f9c93f98d19504b0f1b8eafc9d50d6999c530a2bf3634d4de0"),
        (1024, 2048, "00", 300, "0fb1b18da10216c8f6fcaf03256df750ade0805882fa86d67ecc6a13457da418"),
    ] {
        let data = noise(blocks * data_block as usize);
        let layout = TreeLayout::beside(parameters(data_block, hash_block, salt), data.len() as u64).unwrap();
        let made = layout.root_hash(&file(&data), &work()).unwrap();
        assert_eq!(made.to_string(), root, "{blocks} blocks of {data_block}, {hash_block}, {salt}");
    }
}

/// Each digest in the tree is the sha256 of the salt and the block.
#[test]
fn a_tree_is_made_of_digests_of_salt_and_block() {
    let (data, tree) =
        (file(&noise(3 * 4096)), file(b"something longer than the tree".repeat(1000).as_slice()));
    let layout = TreeLayout::beside(parameters(4096, 4096, "a1b2"), 3 * 4096).unwrap();
    let root = write(&layout, &data, &tree);
    let digest = |block: &[u8]| digest::sha256(&[&[0xa1, 0xb2], block].concat()).digest().to_owned();
    let tree = bytes(&tree);
    assert_eq!(tree.len(), 8192);
    let digests: Vec<String> = bytes(&data).chunks(4096).map(digest).collect();
    let found = tree[4096..4096 + 96].chunks(32).map(|digest| RootHash::new(digest.try_into().unwrap()));
    assert_eq!(found.map(|digest| digest.to_string()).collect::<Vec<_>>(), digests);
    assert!(tree[4096 + 96..].iter().all(|byte| *byte == 0));
    assert_eq!(root.to_string(), digest(&tree[4096..]));
}

/// The offsets of the wiki of cryptsetup.
#[test]
fn a_superblock_is_as_documented() {
    let (data, tree) = (file(&noise(9 * 512)), file(&[]));
    let layout = TreeLayout::beside(parameters(512, 1024, "a1b2"), 9 * 512).unwrap();
    let uuid: Uuid = "6fbd1df7-2b21-4e69-8bf3-6f5a2f1f5b3c".parse().unwrap();
    let mut out = tree.try_clone().unwrap();
    let root = layout.write(&data, &mut out, Some(uuid), &work()).unwrap();
    let mut expected = [0; 512];
    for (offset, field) in [
        (0, &b"verity\0\0"[..]),
        (8, &1_u32.to_le_bytes()),
        (12, &1_u32.to_le_bytes()),
        (
            16,
            &[0x6f, 0xbd, 0x1d, 0xf7, 0x2b, 0x21, 0x4e, 0x69, 0x8b, 0xf3, 0x6f, 0x5a, 0x2f, 0x1f, 0x5b, 0x3c],
        ),
        (32, b"sha256"),
        (64, &512_u32.to_le_bytes()),
        (68, &1024_u32.to_le_bytes()),
        (72, &9_u64.to_le_bytes()),
        (80, &2_u16.to_le_bytes()),
        (88, &[0xa1, 0xb2]),
    ] {
        expected[offset..offset + field.len()].copy_from_slice(field);
    }
    assert_eq!(bytes(&tree)[..512], expected);
    assert_eq!(TreeLayout::read(&tree, 0).unwrap(), (layout.clone(), uuid));
    // Without one given it is that of the root hash.
    write(&layout, &data, &tree);
    let (_, derived) = TreeLayout::read(&tree, 0).unwrap();
    assert_eq!(derived, Uuid::derived(&root));
    assert_eq!(derived.to_string().as_bytes()[14], b'5');
}

#[test]
fn threads_change_no_byte() {
    // Several chunks for each thread, and a last one that is short.
    let data = file(&noise(40_001 * 512));
    for (data_block, hash_block) in [(512, 512), (512, 4096)] {
        let layout = TreeLayout::beside(parameters(data_block, hash_block, ZEROS), 40_001 * 512).unwrap();
        let made = |threads: usize| {
            let tree = file(&[]);
            let work = work().threads(NonZero::new(threads).unwrap());
            let root = layout.write(&data, &mut tree.try_clone().unwrap(), None, &work).unwrap();
            (root, bytes(&tree))
        };
        let one = made(1);
        assert_eq!(one.1.len() as u64, layout.end());
        for threads in [2, 3, 8, 1000] {
            assert!(made(threads) == one, "{threads} threads");
        }
        assert_eq!(layout.root_hash(&data, &work()).unwrap(), one.0);
    }
}

#[test]
fn a_tree_behind_data_is_found() {
    for data_block in [512, 1024, 2048, 4096_usize] {
        for hash_block in [512, 1024, 2048, 4096] {
            for blocks in [1, 2, 16, 17, 300] {
                let parameters = parameters(data_block as u32, hash_block, "77");
                let content = noise(blocks * data_block);
                let data = file(&content);
                assert_eq!(TreeLayout::find(&data).unwrap(), None);
                let layout = TreeLayout::appended(parameters.clone(), content.len() as u64).unwrap();
                let root = write(&layout, &data, &data);
                let (found, _) = TreeLayout::find(&data).unwrap().unwrap();
                assert_eq!(found, layout);
                found.verify(&root, &data, &data, &work()).unwrap();
                assert_eq!(bytes(&data)[..content.len()], content);
                // One more byte, and it is not the end.
                data.set_len(layout.end() + 1).unwrap();
                assert_eq!(TreeLayout::find(&data).unwrap(), None);

                let data = file(&content);
                let bare = layout.without_superblock().unwrap();
                let root = write(&bare, &data, &data);
                let found = TreeLayout::bare(&parameters, bytes(&data).len() as u64);
                // Several sizes of smaller blocks are padded to one size.
                let is_known = data_block >= hash_block as usize;
                assert!(found.as_ref() == Some(&bare) || found.is_none() && !is_known, "{bare:?}");
                bare.verify(&root, &data, &data, &work()).unwrap();
            }
        }
    }
}

#[test]
fn work_that_is_cancelled_ends() {
    let data = file(&noise(3 << 20));
    let layout = TreeLayout::beside(Parameters::default(), 3 << 20).unwrap();
    let tree = file(&[]);
    let root = write(&layout, &data, &tree);
    let stop = Stop::default();
    stop.flag().store(true, std::sync::atomic::Ordering::Relaxed);
    let work = Work::new(&stop);
    for outcome in [layout.root_hash(&data, &work).map(drop), layout.verify(&root, &data, &tree, &work)] {
        assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}

#[test]
fn an_output_that_is_full_is_an_error() {
    let data = file(&noise(40 << 20));
    let layout =
        TreeLayout::beside(Parameters::default().with_data_block_size(512).unwrap(), 40 << 20).unwrap();
    let mut full = std::fs::File::options().read(true).write(true).open("/dev/full").unwrap();
    let error = layout.write(&data, &mut full, None, &work()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Io);
}

#[test]
fn texts_are_read_strictly() {
    let root = RootHash::new([0xab; 32]);
    assert_eq!("AB".repeat(32).parse::<RootHash>().unwrap(), root);
    for text in ["", "ab", &"ab".repeat(33), &"zz".repeat(32), &format!("sha256:{}", "ab".repeat(32))] {
        assert_eq!(*text.parse::<RootHash>().unwrap_err().kind(), ErrorKind::Config, "{text}");
    }
    for text in ["", "0", "00000000-0000-0000-0000-000000000000", "6fbd1df7-2b21-4e69-8bf3"] {
        assert_eq!(*text.parse::<Uuid>().unwrap_err().kind(), ErrorKind::Config, "{text}");
    }
}
