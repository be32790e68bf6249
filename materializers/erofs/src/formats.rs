//! The formats by their names: what `-m` takes.

use plyfold_core::layer::Timestamp;
use plyfold_core::{FormatEntry, OptionFault, Result, TreePlace};
use serde::Deserialize;
use uuid::Uuid;

use crate::compress::algorithm::cluster_size;
use crate::fault::ErofsFault;
use crate::{Compression, ErofsFlat, ErofsLayer, ErofsMerged, ErofsTar, Options};

plyfold_core::register!(FormatEntry {
    name: "erofs",
    package: env!("CARGO_PKG_NAME"),
    summary: "one EROFS image of the whole root file system",
    options: "block-size=BYTES, cluster=SIZE, compress=ALGORITHM[,LEVEL], fragments=true, label=TEXT, mtime=SECONDS, uuid=UUID, verity=append|beside",
    open: |options| {
        let options: Flat = options.config()?;
        let tree = options.verity;
        let flat = options.materializer()?;
        Ok(Box::new(tree.into_iter().fold(flat, ErofsFlat::with_hash_tree)))
    },
});

plyfold_core::register!(FormatEntry {
    name: "erofs-layers",
    package: env!("CARGO_PKG_NAME"),
    summary: "one EROFS image for each layer, whiteouts in overlayfs' form",
    options: "block-size=BYTES, cluster=SIZE, compress=ALGORITHM[,LEVEL], verity=append|beside",
    open: |options| {
        let Layers { block_size, cluster, compress, verity } = options.config()?;
        let mut layers = ErofsLayer::new(Options::default().with_block_size(block_size)?);
        if let Some(compression) = compression(compress.as_deref(), cluster.as_deref())? {
            layers = layers.with_compression(compression)?;
        }
        Ok(Box::new(match verity {
            None => layers,
            Some(TreePlace::Separate) => layers.with_separate_hash_tree(),
            Some(_) => layers.with_hash_tree(),
        }))
    },
});

plyfold_core::register!(FormatEntry {
    name: "erofs-merged",
    package: env!("CARGO_PKG_NAME"),
    summary: "the layers, and one image of metadata that shows them merged",
    options: "block-size=BYTES, label=TEXT, verity=append|beside",
    open: |options| {
        if options.contains("compress") {
            return Err(ErofsFault::CompressedBelow("erofs-merged").into());
        }
        let Merged { block_size, label, verity } = options.config()?;
        let options = Options::default().with_block_size(block_size)?.with_label(&label)?;
        let merged = ErofsMerged::new(options);
        Ok(Box::new(match verity {
            None => merged,
            Some(TreePlace::Separate) => merged.with_separate_hash_trees(),
            Some(_) => merged.with_hash_trees(),
        }))
    },
});

plyfold_core::register!(FormatEntry {
    name: "erofs-tar",
    package: env!("CARGO_PKG_NAME"),
    summary: "each layer's tar as it is, behind an index that makes an EROFS image of it",
    options: "verity=append|beside",
    open: |options| {
        let Tars { verity } = options.config()?;
        let tars = ErofsTar::default();
        Ok(Box::new(match verity {
            None => tars,
            Some(TreePlace::Separate) => tars.with_separate_hash_tree(),
            Some(_) => tars.with_hash_tree(),
        }))
    },
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Layers {
    #[serde(default = "block_size")]
    block_size: u32,
    cluster: Option<String>,
    compress: Option<String>,
    verity: Option<TreePlace>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Merged {
    #[serde(default = "block_size")]
    block_size: u32,
    #[serde(default)]
    label: String,
    verity: Option<TreePlace>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Tars {
    verity: Option<TreePlace>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Flat {
    #[serde(default = "block_size")]
    block_size: u32,
    cluster: Option<String>,
    compress: Option<String>,
    #[serde(default)]
    fragments: bool,
    #[serde(default)]
    label: String,
    mtime: Option<i64>,
    uuid: Option<String>,
    verity: Option<TreePlace>,
}

impl Flat {
    fn materializer(self) -> Result<ErofsFlat> {
        let compression = compression(self.compress.as_deref(), self.cluster.as_deref())?;
        let fragments = self.fragments;
        let flat = ErofsFlat::new(self.options()?);
        match compression {
            None if fragments => Err(ErofsFault::FragmentsAlone.into()),
            Some(compression) if fragments => flat.with_compression(compression.with_fragments()),
            Some(compression) => flat.with_compression(compression),
            None => Ok(flat),
        }
    }

    fn options(self) -> Result<Options> {
        let mut options = Options::default().with_block_size(self.block_size)?.with_label(&self.label)?;
        if let Some(seconds) = self.mtime {
            options = options.with_mtime(Timestamp { seconds, nanos: 0 });
        }
        if let Some(uuid) = self.uuid {
            let known = Uuid::try_parse(&uuid)
                .map_err(|_| OptionFault::Value("uuid".to_owned(), format!("{uuid:?} is no UUID")))?;
            options = options.with_uuid(known.into_bytes());
        }
        Ok(options)
    }
}

/// How files are compressed, out of the options of that.
fn compression(algorithm: Option<&str>, cluster: Option<&str>) -> Result<Option<Compression>> {
    let Some(algorithm) = algorithm else {
        return if cluster.is_some() { Err(ErofsFault::ClusterAlone.into()) } else { Ok(None) };
    };
    let compression = Compression::new(algorithm.parse()?)?;
    let compression =
        cluster.map_or(Ok(compression.clone()), |cluster| compression.with_cluster(cluster_size(cluster)?));
    compression.map(Some)
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
        let options = Options::parse([
            "block-size=512",
            "label=7",
            "mtime=-1",
            "uuid=00000000-0000-0000-0000-0000000000ff",
        ]);
        let flat = formats.open("erofs", &options.unwrap()).unwrap();
        let label = format!("l37{}", "0".repeat(30));
        let key = format!("b512-{label}-tffffffffffffffff-0-u{:032x}", 255);
        assert_eq!((flat.format().options, flat.input()), (key, Input::Image));
        let key = |options: &[&str]| {
            let options = Options::parse(options.iter().copied()).unwrap();
            formats.open("erofs", &options).unwrap().format().options
        };
        assert_eq!(key(&["compress=lz4"]), "zlz4-3-c16384");
        assert_eq!(key(&["compress=lz4", "fragments=true"]), "zlz4-3-c16384-f");
        assert_eq!(key(&["compress=lz4", "fragments=false"]), "zlz4-3-c16384");
        assert_eq!(key(&["compress=lz4hc,12", "cluster=4K"]), "zlz4hc12-5-c4096");
        assert_eq!(key(&["compress=zstd", "cluster=1M", "label=7"]), format!("{label}-zzstd3-3-c1048576"));
        for bad in [
            "block-size=100",
            "cluster=4K",
            "compress=gzip",
            "compress=lz4 cluster=3K",
            "compress=lz4 block-size=512",
            "fragments=true",
            "label=0123456789abcdef",
            "mtime=1.5",
            "uuid=1",
            "depth=3",
        ] {
            let error = formats.open("erofs", &Options::parse(bad.split(' ')).unwrap()).unwrap_err();
            assert_eq!(*error.kind(), plyfold_core::ErrorKind::Config, "{bad}");
        }
        let key = |options: &[&str]| {
            let options = Options::parse(options.iter().copied()).unwrap();
            formats.open("erofs-layers", &options).unwrap().format().options
        };
        assert_eq!(key(&["compress=lz4"]), "zlz4-3-c16384");
        assert_eq!(key(&["compress=zstd,9", "cluster=4K"]), "zzstd9-3-c4096");
        // One artifact serves for both places of a tree.
        for name in ["erofs-layers", "erofs-merged", "erofs-tar"] {
            let open = |place: &str| formats.open(name, &Options::parse([place]).unwrap()).unwrap();
            let (append, beside) = (open("verity=append"), open("verity=beside"));
            assert_eq!((append.format(), append.input()), (beside.format(), beside.input()));
            assert_eq!([&append, &beside].map(|made| made.separates_hash_trees()), [false, true]);
            assert!(formats.open(name, &Options::parse(["verity=inside"]).unwrap()).is_err());
        }
        for bad in ["block-size=100", "block-size=x", "depth=3", "cluster=4K", "compress=lz4 block-size=512"]
        {
            let options = Options::parse(bad.split(' ')).unwrap();
            assert_eq!(
                *formats.open("erofs-layers", &options).unwrap_err().kind(),
                plyfold_core::ErrorKind::Config,
                "{bad}"
            );
        }
        let error = formats.open("erofs-merged", &Options::parse(["compress=lz4"]).unwrap()).unwrap_err();
        assert_eq!(*error.kind(), plyfold_core::ErrorKind::Config);
        assert!(error.hint().is_some_and(|hint| hint.contains("erofs-layers")), "{error:?}");
    }
}
