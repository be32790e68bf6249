//! The format by its name: what `-m` takes.

use plyfold_core::{Error, FormatEntry};
use serde::Deserialize;

use crate::Vmdk;

plyfold_core::register!(FormatEntry {
    name: "vmdk",
    package: env!("CARGO_PKG_NAME"),
    summary: "the merged image and the layers, joined to one disk by a VMDK descriptor",
    options: "split=true",
    open: |options| {
        if options.contains("compress") {
            let error = Error::config("vmdk cannot refer to compressed files");
            return Err(error.with_hint("the format erofs makes one disk with compressed files"));
        }
        let Options { split } = options.config()?;
        Ok(Box::new(Vmdk::new().split(split)))
    },
});

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Extents of at most 2 GiB, as VMware wants them.
    split: bool,
}

#[cfg(test)]
mod tests {
    use plyfold_core::{Materializers, Options};

    #[test]
    fn extents_are_split_on_demand() {
        let formats = Materializers::linked().unwrap();
        for (option, name) in [(None, "vmdk-v1"), (Some("split=true"), "vmdk-v1-split")] {
            let made = formats.open("vmdk", &Options::parse(option).unwrap()).unwrap();
            assert_eq!(made.format().to_string(), name);
        }
        assert!(formats.open("vmdk", &Options::parse(["split=2"]).unwrap()).is_err());
        let error = formats.open("vmdk", &Options::parse(["compress=lz4"]).unwrap()).unwrap_err();
        assert!(*error.kind() == plyfold_core::ErrorKind::Config && error.hint().is_some(), "{error:?}");
    }
}
