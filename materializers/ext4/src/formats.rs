//! The format by its name: what `-m` takes.

use plyfold_core::{Error, FormatEntry, OptionFault, Result, Size, TreePlace};
use serde::Deserialize;
use uuid::Uuid;

use crate::{Ext4Rootfs, Journal};

plyfold_core::register!(FormatEntry {
    name: "ext4",
    package: env!("CARGO_PKG_NAME"),
    summary: "one ext4 file system of the whole root file system, to be written to",
    options: "size=SIZE, journal=none|SIZE, label=TEXT, uuid=UUID, verity=append|beside",
    open: |options| Ok(Box::new(options.config::<Rootfs>()?.open()?)),
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Rootfs {
    size: Option<String>,
    journal: Option<String>,
    #[serde(default)]
    label: String,
    uuid: Option<String>,
    verity: Option<TreePlace>,
}

impl Rootfs {
    fn open(self) -> Result<Ext4Rootfs> {
        let mut rootfs = Ext4Rootfs::new().label(&self.label)?;
        if let Some(text) = self.size {
            rootfs = rootfs.size(bytes("size", &text)?)?;
        }
        match self.journal.as_deref() {
            None => {}
            Some("none") => rootfs = rootfs.journal(Journal::None)?,
            Some(text) => rootfs = rootfs.journal(Journal::Bytes(bytes("journal", text)?))?,
        }
        if let Some(text) = self.uuid {
            let uuid = Uuid::try_parse(&text).map_err(|_| refused("uuid", "not a UUID"))?;
            rootfs = rootfs.uuid(uuid.into_bytes());
        }
        Ok(self.verity.into_iter().fold(rootfs, Ext4Rootfs::with_hash_tree))
    }
}

fn bytes(option: &str, text: &str) -> Result<u64> {
    Size::parse(text).map(|size| size.0).map_err(|why| refused(option, why))
}

fn refused(option: &str, why: &str) -> Error {
    OptionFault::Value(option.into(), why.into()).into()
}

#[cfg(test)]
mod tests {
    use plyfold_core::{ErrorKind, Input, Materializers, Options};

    #[test]
    fn options_change_the_format() {
        let formats = Materializers::linked().unwrap();
        let open = |options: &[&str]| {
            formats.open("ext4", &Options::parse(options.iter().copied()).unwrap()).map(|format| {
                assert_eq!(format.input(), Input::Image);
                format.format().options
            })
        };
        assert_eq!(open(&[]).unwrap(), "");
        let uuid = "uuid=00000000-0000-0000-0000-0000000000ff";
        let all = open(&["size=8G", "journal=64MiB", "label=16 bytes at most", uuid]).unwrap();
        assert!(all.starts_with("j67108864-l3136206279746573206174206d6f7374-u0000"), "{all}");
        assert!(all.len() <= plyfold_core::Format::OPTIONS_BYTES, "{all}");
        // One artifact serves for all sizes.
        assert_eq!(open(&["journal=none", "size=4096"]).unwrap(), "j0");
        assert_eq!(open(&["label=2024"]).unwrap(), "l32303234");
        // A hash tree is of one size.
        assert_eq!(open(&["verity=append"]).unwrap(), "verity-append");
        assert_eq!(open(&["verity=beside", "size=1M", "journal=none"]).unwrap(), "s1048576-j0-verity-beside");
        for bad in [
            "size=0",
            "size=1",
            "size=4097",
            "size=8GB",
            "size=17T",
            "journal=1M",
            "journal=4095K",
            "journal=64G",
            "journal=yes",
            "label=seventeen bytes!!",
            "uuid=1",
            "verity=inside",
            "depth=3",
        ] {
            assert_eq!(*open(&[bad]).unwrap_err().kind(), ErrorKind::Config, "{bad}");
        }
    }
}
