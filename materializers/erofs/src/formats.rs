//! The formats by their names: what `-m` takes.

use plyfold_core::FormatEntry;
use serde::Deserialize;

use crate::{ErofsLayer, ErofsMerged, Options};

plyfold_core::register!(FormatEntry {
    name: "erofs-layers",
    package: env!("CARGO_PKG_NAME"),
    summary: "one EROFS image for each layer, whiteouts in overlayfs' form",
    options: "block-size=BYTES",
    open: |options| {
        let Layers { block_size } = options.config()?;
        Ok(Box::new(ErofsLayer::new(Options::default().with_block_size(block_size)?)))
    },
});

plyfold_core::register!(FormatEntry {
    name: "erofs-merged",
    package: env!("CARGO_PKG_NAME"),
    summary: "the layers, and one image of metadata that shows them merged",
    options: "block-size=BYTES, label=TEXT",
    open: |options| {
        let Merged { block_size, label } = options.config()?;
        Ok(Box::new(ErofsMerged::new(Options::default().with_block_size(block_size)?.with_label(&label)?)))
    },
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Layers {
    #[serde(default = "block_size")]
    block_size: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Merged {
    #[serde(default = "block_size")]
    block_size: u32,
    #[serde(default)]
    label: String,
}

fn block_size() -> u32 {
    Options::default().block_size
}

#[cfg(test)]
mod tests {
    use plyfold_core::{Input, Materializers, Options};

    #[test]
    fn options_change_the_format_and_what_it_is_made_from() {
        let formats = Materializers::linked().unwrap();
        let options = Options::parse(["block-size=512"]).unwrap();
        let layers = formats.open("erofs-layers", &options).unwrap();
        assert_eq!((layers.format().options.as_str(), layers.input()), ("b512", Input::Layer));
        let options = Options::parse(["block-size=512", "label=root"]).unwrap();
        let merged = formats.open("erofs-merged", &options).unwrap();
        assert!(merged.format().options.starts_with("b512-l"), "{:?}", merged.format());
        let Input::Artifacts { format, options } = merged.input() else { panic!("{:?}", merged.input()) };
        assert_eq!(formats.open(format, &options).unwrap().format(), layers.format());
        for bad in ["block-size=100", "block-size=x", "depth=3"] {
            let options = Options::parse([bad]).unwrap();
            assert_eq!(
                *formats.open("erofs-layers", &options).unwrap_err().kind(),
                plyfold_core::ErrorKind::Config,
                "{bad}"
            );
        }
    }
}
