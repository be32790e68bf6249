//! Changes of images: layers that are added, and other values in the configuration of what runs in them; and [images of
//! layers alone](NewImage).
//!
//! [`CacheProviderExt::edit`](crate::CacheProviderExt::edit) makes one image of another one. It rewrites the documents as JSON:
//! fields that plyfold does not know stay, and so do the layers, byte for byte. An edit after which all images say what they said before
//! makes none. The same edit of the same image gives the
//! same digests: no clock is read, and the new image says of its creation what the first one says.

mod change;
mod documents;
mod image;
mod layer;

pub use self::change::ConfigChange;
pub(crate) use self::documents::{Edited, edited};
pub use self::image::NewImage;
pub use self::layer::NewLayer;

use crate::Platforms;
use crate::progress::Progress;

crate::fault! {
    /// Why an image is not changed.
    pub enum EditFault;
    Annotation => (Config, "an annotation without a name"),
    DockerAnnotation => (Unsupported, "a Docker manifest has no annotations",
        "set a label, or convert the image to OCI first"),
    DockerZstd(String) => (Unsupported, "{0} is compressed by zstd, and a Docker manifest has no media type for that",
        "give the layer without compression or as gzip, or convert the image to OCI first"),
    EnvName(String) => (Config, "{0:?} is no name of an environment variable",
        "a name is not empty, and has neither = nor a byte of zero"),
    Label => (Config, "a label without a name"),
    LayerForm(String) => (Unsupported, "a layer of the image is no tar but {0}, and a tar cannot be put on it"),
    NoImage => (NotFound, "none of the images of the index is here", "pull or load one of them first"),
    Nothing => (Config, "nothing is to be changed"),
    Port(String) => (Config, "{0:?} is no port", "write PORT, or PORT/tcp, PORT/udp or PORT/sctp"),
    Relative(String) => (Config, "{0:?} is not an absolute path"),
    Signal(String) => (Config, "{0:?} is no signal", "write a name such as SIGTERM or SIGRTMIN+3, or a number from 1 to 64"),
    User(String) => (Config, "{0:?} is no user", "write USER, UID, USER:GROUP or UID:GID"),
    Zero(&'static str) => (Config, "{0} has a byte of zero, which no process can be given"),
}

/// What is changed of an image.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Layers that are added on top, the lowest first.
    pub layers: Vec<NewLayer>,
    /// What is changed of the configuration.
    pub config: ConfigChange,
    /// Who is named in the image's history (`created_by`); plyfold where it is empty.
    pub created_by: String,
    /// Which images of an index are changed. The result is one image for [`One`](Platforms::One), and otherwise an index of
    /// those that were changed: without attestations, which are about the images before the change. A warning says so.
    pub platforms: Platforms,
    /// Where warnings go.
    pub progress: Progress,
}
