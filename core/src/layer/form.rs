//! Layers that are no tars.

use std::fs::File;

use super::entry::Entry;
use super::fault::LayerFault;
use super::limits::LayerLimits;
use crate::format::Format;
use crate::{Descriptor, MediaType, Result, digest};

/// A form of layers that is no tar, such as an EROFS image. The crate that reads it registers it by
/// [`register!`](crate::register); [`LayerTar`](super::LayerTar) then hands over such a layer as the entries that a tar
/// of it would have.
///
/// A layer's media type alone says of which form it is. The `diff_id` is the digest of the uncompressed bytes, as for a tar.
#[derive(Clone, Copy, Debug)]
pub struct LayerForm {
    /// What errors and the keys of artifacts call it: lower-case letters and digits, at most 16.
    pub name: &'static str,
    /// The media types of its layers, without a suffix: with `+gzip` or `+zstd` they are compressed as a whole.
    pub media_types: &'static [&'static str],
    /// The crate that reads it: `env!("CARGO_PKG_NAME")`.
    pub package: &'static str,
    /// Refuses layers that their descriptors make something else of than a set of changes to the layers below.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    pub check: fn(&Descriptor) -> Result<()>,
    /// Checks a layer and starts reading it. The file has the uncompressed bytes, which are what the `diff_id` says.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Unsupported`](crate::ErrorKind::Unsupported) and
    /// [`Limit`](crate::ErrorKind::Limit): a layer may be made to do harm.
    pub open: fn(File, &LayerLimits) -> Result<Box<dyn LayerEntries>>,
}

inventory::collect!(LayerForm);

/// The entries of a layer that is no tar, one after the other.
///
/// What the layer removes comes as a tar says it (OCI image spec, `layer.md`, "Whiteouts"): a file `.wh.NAME`, and
/// `.wh..wh..opq` for all that lower layers have in a directory. A file's first name is its entry, and its others are hard
/// links to that; a directory comes before what is in it.
pub trait LayerEntries: Send {
    /// The next entry; what is left of the data of the one before is skipped. `None` at the end. The runs of data of a file
    /// with holes are in order, and within its size.
    ///
    /// # Errors
    /// As [`LayerForm::open`].
    fn next_entry(&mut self) -> Result<Option<Entry>>;

    /// Reads the next bytes of the current file's data; how many, 0 at its end. Of a file with holes its runs of data
    /// follow each other.
    ///
    /// # Errors
    /// As [`LayerForm::open`].
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;
}

impl LayerForm {
    /// The form of a layer, by its media type; `None` for tars, and for types that are not known: those are read as tars.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for EROFS images where no crate that reads them is linked, for a
    /// suffix that stands for no compression of layers, and what [`check`](Self::check) refuses.
    pub fn of(layer: &Descriptor) -> Result<Option<&'static Self>> {
        /// How the media types of EROFS layers start.
        const EROFS: &str = "application/vnd.erofs";
        let media_type = layer.media_type().as_ref();
        let (base, suffix) = split(media_type);
        match (Self::of_base(base), suffix) {
            (Some(form), None | Some("gzip" | "zstd")) => (form.check)(layer).map(|()| Some(form)),
            (Some(_), Some(_)) => Err(LayerFault::Suffix(base.to_owned(), media_type.to_owned()).into()),
            (None, _) if base.starts_with(EROFS) => Err(LayerFault::Form(media_type.to_owned()).into()),
            (None, _) => Ok(None),
        }
    }

    /// The suffix of the type of such a layer, `""` where there is none; `None` for other types.
    pub(super) fn suffix(media_type: &MediaType) -> Option<&str> {
        let (base, suffix) = split(media_type.as_ref());
        Self::of_base(base).map(|_| suffix.unwrap_or_default())
    }

    fn of_base(base: &str) -> Option<&'static Self> {
        inventory::iter::<Self>.into_iter().find(|form| form.media_types.contains(&base))
    }
}

fn split(media_type: &str) -> (&str, Option<&str>) {
    media_type.split_once('+').map_or((media_type, None), |(base, suffix)| (base, Some(suffix)))
}

impl Format {
    /// The format of what is made of a layer that is no tar. The same bytes may be a tar and an image of another form, with
    /// one `diff_id`, and files of both are not one artifact.
    #[must_use]
    pub fn of_form(self, form: Option<&LayerForm>) -> Self {
        match form {
            Some(form) => self.made_from(form.name),
            None => self,
        }
    }

    /// As [`Format::of_form`] for what is made of several layers.
    ///
    /// ```
    /// use plyfold_core::Format;
    ///
    /// let format = Format { name: "squash", version: 1, options: "b512".to_owned(), extension: "img" };
    /// assert_eq!(format.clone().of_forms(&[None, None]), format);
    /// ```
    #[must_use]
    pub fn of_forms(self, forms: &[Option<&LayerForm>]) -> Self {
        let first = forms.first().copied().flatten().map(|form| form.name);
        let names: Vec<&str> = forms.iter().map(|form| form.map_or("tar", |form| form.name)).collect();
        match first {
            _ if forms.iter().all(Option::is_none) => self,
            Some(first) if names.iter().all(|name| *name == first) => self.made_from(first),
            _ => {
                let digest = digest::sha256(names.join(",").as_bytes());
                self.made_from(&digest.digest()[..16])
            }
        }
    }

    fn made_from(mut self, what: &str) -> Self {
        let before = std::mem::take(&mut self.options);
        let dash = if before.is_empty() { "" } else { "-" };
        self.options = format!("{before}{dash}from-{what}");
        if self.options.len() > Self::OPTIONS_BYTES {
            digest::sha256(self.options.as_bytes()).digest().clone_into(&mut self.options);
        }
        self
    }
}
