//! Rules that need no look into the disk; `tests/oracles` judges the others through the kernel.

use std::path::Path;

use plyfold_conformance::tree::TreeLine;
use plyfold_conformance::{MaterializerFixture, rules};
use plyfold_core::{InputArtifact, Materializer};
use plyfold_ext4::{Ext4Rootfs, Ext4Upper, MIN_SIZE};

/// A disk that nothing reads.
struct Unread(Box<dyn Materializer>);

impl MaterializerFixture for Unread {
    fn materializer(&self) -> Box<dyn Materializer> {
        self.0.clone()
    }

    fn tree(&self, _: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        unreachable!("the rule looks into no disk")
    }

    fn check(&self, _: &Path, _: &[InputArtifact]) {
        unreachable!("the rule asks for no check")
    }
}

#[test]
fn memory_bounded_for_any_layer_size() {
    let rule = rules::materializer().find(|rule| rule.name == "memory_bounded_for_any_layer_size").unwrap();
    let test = concat!(module_path!(), "::memory_bounded_for_any_layer_size");
    rule.judge_in(&Unread(Box::new(Ext4Rootfs::new())), test);
}

#[test]
fn an_upper_takes_no_more() {
    let rule = rules::materializer().find(|rule| rule.name == "memory_bounded_for_any_layer_size").unwrap();
    let test = concat!(module_path!(), "::an_upper_takes_no_more");
    rule.judge_in(&Unread(Box::new(Ext4Upper::new(16_384 * MIN_SIZE).unwrap())), test);
}
