//! veritysetup judges our trees, and we its.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../data/mod.rs"]
mod data;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use data::{bytes, noise, work};
use plyfold_conformance::oracle::{Failure, Need, Run, Verdict};
use plyfold_conformance::oracle_tests;
use plyfold_verity::{Parameters, RootHash, TreeLayout, Uuid};
use tempfile::TempDir;

oracle_tests! {
    trees_are_those_of_veritysetup needs [Need::VERITYSETUP];
    veritysetup_verifies_trees_behind_data needs [Need::VERITYSETUP];
    veritysetup_verifies_trees_without_superblock needs [Need::VERITYSETUP];
    both_refuse_the_same_damage needs [Need::VERITYSETUP];
}

const UUID: &str = "6fbd1df7-2b21-4e69-8bf3-6f5a2f1f5b3c";
const SALT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// One block, one block of the tree, one more, and many.
const BLOCKS: [u64; 5] = [1, 2, 128, 129, 100_000];
const SIZES: [(u32, u32); 5] = [(4096, 4096), (512, 512), (512, 4096), (4096, 512), (1024, 2048)];

struct Place(TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of so many blocks: noise at its beginning and its end, and here and there.
    fn data(&self, blocks: u64, block: u32) -> Result<File, Failure> {
        let file = self.create("data")?;
        let size = blocks * u64::from(block);
        file.set_len(size)?;
        let noise = noise(size.min(1 << 20) as usize);
        for offset in [0, size / 3, size / 2, size - noise.len() as u64] {
            file.write_all_at(&noise[..noise.len().min((size - offset) as usize)], offset)?;
        }
        Ok(file)
    }

    fn create(&self, name: &str) -> Result<File, Failure> {
        let options = File::options().read(true).write(true).create(true).truncate(true).clone();
        Ok(options.open(self.path(name))?)
    }
}

fn each_size(check: impl Fn(&Place, u64, &Parameters) -> Verdict) -> Verdict {
    for (data_block, hash_block) in SIZES {
        for blocks in BLOCKS {
            for salt in [SALT, "-"].into_iter().take(if blocks < 1000 { 2 } else { 1 }) {
                let parameters = Parameters::default().with_data_block_size(data_block)?;
                let parameters = parameters.with_hash_block_size(hash_block)?.with_salt_text(salt)?;
                check(&Place(tempfile::tempdir()?), blocks, &parameters)
                    .map_err(|e| Failure::new(format!("{blocks} blocks, {parameters:?}: {e:?}")))?;
            }
        }
    }
    Ok(())
}

fn veritysetup(action: &str, parameters: &Parameters, files: [&Path; 2]) -> Run {
    let option = |name: &str, value: String| format!("--{name}={value}");
    Run::new("veritysetup")
        .arg(action)
        .arg(option("data-block-size", parameters.data_block_size().to_string()))
        .arg(option("hash-block-size", parameters.hash_block_size().to_string()))
        .arg(option("salt", parameters.salt_text()))
        .args(files)
}

fn root_of(said: &str) -> Result<RootHash, Failure> {
    let line = said.lines().find_map(|line| line.strip_prefix("Root hash:"));
    Ok(line.ok_or_else(|| Failure::new(format!("no root hash in {said:?}")))?.trim().parse()?)
}

fn trees_are_those_of_veritysetup() -> Verdict {
    each_size(|place, blocks, parameters| {
        let data = place.data(blocks, parameters.data_block_size())?;
        let theirs = veritysetup("format", parameters, [&place.path("data"), &place.path("theirs")])
            .arg(format!("--uuid={UUID}"))
            .success()?;
        let layout = TreeLayout::beside(parameters.clone(), data.metadata()?.len())?;
        let mut ours = place.create("ours")?;
        let uuid: Uuid = UUID.parse()?;
        let root = layout.write(&data, &mut ours, Some(uuid), &work())?;
        assert_eq!(root, root_of(&theirs.stdout)?);
        let theirs = File::open(place.path("theirs"))?;
        assert!(bytes(&ours) == bytes(&theirs), "{} and {} bytes", bytes(&ours).len(), bytes(&theirs).len());
        let (read, found) = TreeLayout::read(&theirs, 0)?;
        assert_eq!((&read, found), (&layout, uuid));
        read.verify(&root, &data, &theirs, &work())?;
        veritysetup("verify", parameters, [&place.path("data"), &place.path("ours")])
            .arg(root.to_string())
            .success()?;
        Ok(())
    })
}

fn veritysetup_verifies_trees_behind_data() -> Verdict {
    each_size(|place, blocks, parameters| {
        let data = place.data(blocks, parameters.data_block_size())?;
        let layout = TreeLayout::appended(parameters.clone(), data.metadata()?.len())?;
        let root = data::write(&layout, &data, &data);
        let path = place.path("data");
        // What it has to know otherwise is in the superblock.
        Run::new("veritysetup")
            .arg("verify")
            .args([&path, &path])
            .arg(root.to_string())
            .arg(format!("--hash-offset={}", layout.hash_offset()))
            .success()?;
        // It makes the same behind the data.
        data.set_len(layout.data_size())?;
        let theirs = veritysetup("format", parameters, [&path, &path])
            .arg(format!("--data-blocks={blocks}"))
            .arg(format!("--hash-offset={}", layout.hash_offset()))
            .success()?;
        assert_eq!(root, root_of(&theirs.stdout)?);
        let (found, _) = TreeLayout::find(&data)?.ok_or_else(|| Failure::new("its tree is not found"))?;
        assert_eq!(found, layout);
        found.verify(&root, &data, &data, &work())?;
        Ok(())
    })
}

fn veritysetup_verifies_trees_without_superblock() -> Verdict {
    each_size(|place, blocks, parameters| {
        let data = place.data(blocks, parameters.data_block_size())?;
        let size = data.metadata()?.len();
        let beside = TreeLayout::beside(parameters.clone(), size)?.without_superblock()?;
        let appended = TreeLayout::appended(parameters.clone(), size)?.without_superblock()?;
        let tree = place.create("tree")?;
        let root = data::write(&beside, &data, &tree);
        assert_eq!(root, data::write(&appended, &data, &data));
        // Its tree for one block of data would be empty, and it does not take an empty file.
        let trees = [(beside, place.path("tree")), (appended, place.path("data"))];
        for (layout, tree) in trees.into_iter().filter(|_| blocks > 1) {
            veritysetup("verify", parameters, [&place.path("data"), &tree])
                .arg("--no-superblock")
                .arg(format!("--data-blocks={blocks}"))
                .arg(format!("--hash-offset={}", layout.hash_offset()))
                .arg(root.to_string())
                .success()?;
        }
        Ok(())
    })
}

/// Of data and tree, at the beginning, in between and at the end.
fn both_refuse_the_same_damage() -> Verdict {
    let place = Place(tempfile::tempdir()?);
    let data = place.data(1000, 4096)?;
    let layout = TreeLayout::appended(Parameters::default(), data.metadata()?.len())?;
    let root = data::write(&layout, &data, &data);
    let path = place.path("data");
    let judge = || {
        Run::new("veritysetup")
            .arg("verify")
            .args([&path, &path])
            .arg(root.to_string())
            .arg(format!("--hash-offset={}", layout.hash_offset()))
            .output()
    };
    let ours = || layout.verify(&root, &data, &data, &work());
    assert!(judge()?.status.success() && ours().is_ok());
    let (first, tree) = (layout.data_size(), layout.tree_offset());
    for offset in [0, 4095, first / 2, first - 1, tree, tree + 4095, tree + 4096, layout.end() - 1] {
        let mut byte = [0];
        data.read_exact_at(&mut byte, offset)?;
        data.write_all_at(&[byte[0] ^ 0x10], offset)?;
        assert!(!judge()?.status.success() && ours().is_err(), "byte {offset}");
        data.write_all_at(&byte, offset)?;
    }
    assert!(judge()?.status.success() && ours().is_ok());
    Ok(())
}
