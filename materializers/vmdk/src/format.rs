//! The format by its name: what `-m` takes.

use plyfold_core::{Error, FormatEntry, TreePlace};
use serde::Deserialize;

use crate::{Vmdk, VmdkStream};

plyfold_core::register!(FormatEntry {
    name: "vmdk",
    package: env!("CARGO_PKG_NAME"),
    summary: "the merged image and the layers, joined to one disk by a VMDK descriptor",
    options: "split=true, verity=append|beside",
    open: |options| {
        if options.contains("compress") {
            let error = Error::config("vmdk cannot refer to compressed files");
            return Err(error.with_hint("the format erofs makes one disk with compressed files"));
        }
        let Options { split, verity } = options.config()?;
        Ok(Box::new(verity.into_iter().fold(Vmdk::new().split(split), Vmdk::with_hash_tree)))
    },
});

plyfold_core::register!(FormatEntry {
    name: "vmdk-stream",
    package: env!("CARGO_PKG_NAME"),
    summary: "one disk as a compressed VMDK in one file, for uploads",
    options: "level=1-9, of=erofs|gpt|raw, verity=append|partition",
    open: |options| {
        let Stream { level, of, verity } = options.config()?;
        let stream = level.into_iter().try_fold(VmdkStream::new(), VmdkStream::level)?;
        let stream = of.iter().try_fold(stream, |stream, of| stream.of(of))?;
        Ok(Box::new(verity.iter().try_fold(stream, |stream, place| stream.with_hash_tree(place))?))
    },
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stream {
    level: Option<u32>,
    of: Option<String>,
    /// Where hash trees are.
    verity: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Extents of at most 2 GiB, as VMware wants them.
    split: bool,
    /// Where the hash tree is.
    verity: Option<TreePlace>,
}

#[cfg(test)]
mod tests {
    use plyfold_core::{Input, Materializers, Options};

    #[test]
    fn extents_are_split_on_demand() {
        let formats = Materializers::linked().unwrap();
        for (option, name) in [
            (None, "vmdk-v1"),
            (Some("split=true"), "vmdk-v1-split"),
            (Some("verity=append"), "vmdk-v1-verity-append"),
            (Some("verity=beside"), "vmdk-v1-verity-beside"),
        ] {
            let made = formats.open("vmdk", &Options::parse(option).unwrap()).unwrap();
            assert_eq!(made.format().to_string(), name);
            assert_eq!(made.has_hash_tree(), name.contains("verity"));
        }
        assert!(formats.open("vmdk", &Options::parse(["verity=inside"]).unwrap()).is_err());
        assert!(formats.open("vmdk", &Options::parse(["split=2"]).unwrap()).is_err());
        let error = formats.open("vmdk", &Options::parse(["compress=lz4"]).unwrap()).unwrap_err();
        assert!(*error.kind() == plyfold_core::ErrorKind::Config && error.hint().is_some(), "{error:?}");
    }

    #[test]
    fn a_stream_is_of_one_disk() {
        let formats = Materializers::linked().unwrap();
        for (options, name, of) in [
            (&[][..], "vmdk-stream-v1", "raw"),
            (&["level=6", "of=raw"], "vmdk-stream-v1", "raw"),
            (&["of=gpt"], "vmdk-stream-v1-gpt", "gpt"),
            (&["level=9", "of=erofs"], "vmdk-stream-v1-erofs-l9", "erofs"),
            (&["verity=append"], "vmdk-stream-v1-verity-append", "raw"),
            (&["of=gpt", "verity=partition"], "vmdk-stream-v1-gpt-verity-partition", "gpt"),
        ] {
            let tree = options.iter().find(|option| option.starts_with("verity")).copied();
            let options = Options::parse(options.iter().copied()).unwrap();
            let made = formats.open("vmdk-stream", &options).unwrap();
            assert_eq!(made.format().to_string(), name);
            assert_eq!(made.input(), Input::Artifacts { format: of, options: Options::parse(tree).unwrap() });
            assert!(made.is_self_contained() && made.has_hash_tree() == tree.is_some());
        }
        for bad in ["level=0", "level=10", "of=vmdk", "size=1", "verity=beside", "verity=partition"] {
            assert!(formats.open("vmdk-stream", &Options::parse([bad]).unwrap()).is_err(), "{bad}");
        }
    }
}
