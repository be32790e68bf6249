//! The formats by their names: what `-m` takes.

use plyfold_core::{FormatEntry, Options, Result};
use serde::Deserialize;

use crate::fault::DiskFault;
use crate::{Gpt, Raw, VmdkGpt};

plyfold_core::register!(FormatEntry {
    name: "gpt",
    package: env!("CARGO_PKG_NAME"),
    summary: "the merged image and each layer as a partition of one disk",
    options: "block-size=BYTES, verity=append|partition",
    open: |options| {
        refuse_compression("gpt", options)?;
        let DiskOptions { block_size, verity } = options.config()?;
        let gpt = block_size.map(Gpt::with_block_size).unwrap_or_default();
        Ok(Box::new(verity.into_iter().fold(gpt, Gpt::with_hash_trees)))
    },
});

plyfold_core::register!(FormatEntry {
    name: "raw",
    package: env!("CARGO_PKG_NAME"),
    summary: "the merged image and the layers behind each other as one raw disk",
    options: "block-size=BYTES, verity=append|beside",
    open: |options| {
        refuse_compression("raw", options)?;
        let DiskOptions { block_size, verity } = options.config()?;
        let raw = block_size.map(Raw::with_block_size).unwrap_or_default();
        Ok(Box::new(verity.into_iter().fold(raw, Raw::with_hash_tree)))
    },
});

plyfold_core::register!(FormatEntry {
    name: "vmdk-gpt",
    package: env!("CARGO_PKG_NAME"),
    summary: "the disk of gpt as a VMDK descriptor that names the merged image and the layers",
    options: "block-size=BYTES, verity=append|partition",
    open: |options| {
        refuse_compression("vmdk-gpt", options)?;
        let DiskOptions { block_size, verity } = options.config()?;
        let gpt = block_size.map(VmdkGpt::with_block_size).unwrap_or_default();
        Ok(Box::new(verity.into_iter().fold(gpt, VmdkGpt::with_hash_trees)))
    },
});

/// A merged image refers to the blocks of its layers, which are those of no file where files are compressed.
fn refuse_compression(format: &'static str, options: &Options) -> Result<()> {
    if options.contains("compress") { Err(DiskFault::Compressed(format).into()) } else { Ok(()) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DiskOptions<P> {
    block_size: Option<u32>,
    /// Where hash trees are.
    verity: Option<P>,
}

#[cfg(test)]
mod tests {
    use plyfold_core::{Input, Materializers, Options};

    #[test]
    fn the_block_size_is_that_of_the_files_below() {
        let formats = Materializers::linked().unwrap();
        for name in ["gpt", "raw", "vmdk-gpt"] {
            for (option, key, below) in [
                (None, format!("{name}-v1"), None),
                (Some("block-size=4096"), format!("{name}-v1"), None),
                (Some("block-size=512"), format!("{name}-v1-b512"), Some("block-size=512")),
            ] {
                let made = formats.open(name, &Options::parse(option).unwrap()).unwrap();
                assert_eq!(made.format().to_string(), key);
                let options = Options::parse(below).unwrap();
                assert_eq!(made.input(), Input::Artifacts { format: "erofs-merged", options });
            }
            let verified = formats.open(name, &Options::parse(["verity=append"]).unwrap()).unwrap();
            assert_eq!(verified.format().to_string(), format!("{name}-v1-verity-append"));
            for bad in ["block-size=x", "label=a", "compress=lz4", "verity=inside"] {
                assert!(formats.open(name, &Options::parse([bad]).unwrap()).is_err(), "{bad}");
            }
        }
    }
}
