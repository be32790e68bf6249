//! `oci:DIRECTORY[:IMAGE]`.

use plyfold_core::{Backend, Capabilities, Error, Location, Opened, Options, Result, layout_index};

use crate::Layout;

plyfold_core::register!(Backend {
    schemes: &["oci"],
    package: env!("CARGO_PKG_NAME"),
    summary: "OCI layout directories, also those of skopeo, crane, buildah, umoci and docker",
    syntax: "oci:DIRECTORY[:TAG|:NAME][@DIGEST]",
    capabilities: CAPABILITIES,
    open: |location, options| Box::pin(async move { open(&location, &options) }),
});

pub(crate) const CAPABILITIES: Capabilities =
    Capabilities { delete: true, mount: true, push: true, referrers: false, repositories: true, tags: true };

/// Options of the `oci:` scheme.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Follow symbolic links out of the layout, for layouts whose blobs lie elsewhere (such as ostree stores).
    /// Off by default: a layout from elsewhere could point at any file of this machine. Links that stay inside the
    /// layout are followed in any case.
    pub follow_symlinks: bool,
}

fn open(location: &Location, options: &Options) -> Result<Opened> {
    let config: Config = options.config()?;
    let (path, image) = location.path_and_image();
    if path.is_empty() {
        return Err(Error::config(format!("invalid image URI {location}: no directory"))
            .with_hint("write oci:DIRECTORY:TAG"));
    }
    let layout = Layout::new(path, config);
    let reference = image.map(|image| layout_index::image_in(path.as_ref(), image)).transpose()?;
    Ok(Opened { registry: Box::new(layout), reference })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plyfold_core::{Backends, ErrorKind};

    #[tokio::test]
    async fn uris() {
        let backends = Backends::linked().unwrap();
        let hex = "0".repeat(64);
        for (uri, place, whole) in [
            ("oci:/srv/base".to_owned(), "oci:/srv/base", None),
            ("oci:/srv/base:".to_owned(), "oci:/srv/base", None),
            ("oci:base:3.20".to_owned(), "oci:base", Some("localhost/base:3.20".to_owned())),
            ("oci:base:alpine:3".to_owned(), "oci:base", Some("docker.io/library/alpine:3".to_owned())),
            (format!("oci:base@sha256:{hex}"), "oci:base", Some(format!("localhost/base@sha256:{hex}"))),
            (
                format!("oci:base:v1@sha256:{hex}"),
                "oci:base",
                Some(format!("localhost/base:v1@sha256:{hex}")),
            ),
        ] {
            let opened = backends.open(&uri, &Options::default()).await.unwrap();
            assert_eq!(opened.registry.to_string(), place);
            assert_eq!(opened.reference.map(|reference| reference.whole()), whole, "{uri}");
        }
        for uri in ["oci:", "oci:base:../../etc/passwd", "oci:base:a b", "oci:base:x@sha256:00"] {
            let error = backends.open(uri, &Options::default()).await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Config, "{uri}");
        }
        let trusting = Options::parse(["follow-symlinks=true"]).unwrap();
        backends.open("oci:base", &trusting).await.unwrap();
        let unknown = Options::parse(["colour=red"]).unwrap();
        assert_eq!(*backends.open("oci:base", &unknown).await.unwrap_err().kind(), ErrorKind::Config);
    }
}
