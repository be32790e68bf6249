//! The options of `oci:` and `dir:`.

/// Options of the schemes `oci:` and `dir:`.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Follow symbolic links out of the layout, for layouts whose blobs lie elsewhere (such as ostree stores).
    /// Off by default: a layout from elsewhere could point at any file of this machine. Links that stay inside the
    /// layout are followed in any case.
    pub follow_symlinks: bool,
}
