//! Archives as libarchive unpacks them and GNU cpio reads them.

#[path = "../it/reader.rs"]
mod reader;

use std::path::Path;

use example_cpio::Cpio;
use plyfold_conformance::oracle::{Mount, Need, Run, Verdict};
use plyfold_conformance::tree::{TreeLine, mounted};
use plyfold_conformance::{FormatFidelity, MaterializerFixture, oracle_tests, rules};
use plyfold_core::{InputArtifact, Materializer};

oracle_tests! {
    the_suite_through_libarchive_and_gnu_cpio needs [CPIO, BSDTAR, Need::Mounts];
}

const BSDTAR: Need = Need::Tool { name: "bsdtar", package: "libarchive-tools" };
const CPIO: Need = Need::Tool { name: "cpio", package: "cpio" };

/// Every rule, on what is unpacked.
fn the_suite_through_libarchive_and_gnu_cpio() -> Verdict {
    for rule in rules::materializer() {
        rule.judge(&Unpacked);
    }
    Ok(())
}

struct Unpacked;

impl MaterializerFixture for Unpacked {
    fn materializer(&self) -> Box<dyn Materializer> {
        Box::new(Cpio)
    }

    fn fidelity(&self) -> FormatFidelity {
        reader::fidelity()
    }

    /// Into a file system in memory: the kernel unpacks an initramfs into one, too.
    fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
        let root = Mount::new("tmpfs", "none", "size=256m").expect("a tmpfs is mounted");
        let unpack = Run::new("bsdtar").args(["-x", "-p", "-S", "--same-owner", "--numeric-owner", "-f"]);
        unpack.arg(file).arg("-C").arg(root.path()).success().expect("bsdtar unpacks the archive");
        let mut lines = mounted(root.path()).expect("the files can be read");
        // No unpacker sets the time of a folder that was there before; the kernel does.
        lines[0].mtime = reader::read(file)[0].mtime;
        lines
    }

    /// GNU cpio reads it to its end. It is no judge of directories: that of Debian 12 forgets their times.
    fn check(&self, file: &Path, _: &[InputArtifact]) {
        let list = Run::new("cpio").args(["--list", "--quiet", "--file"]).arg(file);
        list.success().expect("cpio lists the archive");
    }

    /// It has no options.
    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "appended_patch_reads_back",
            "memory_bounded_for_any_layer_size",
            "options_that_change_bytes_are_in_the_format",
            "whiteouts_and_opaque_in_overlay_form",
        ]
    }
}
