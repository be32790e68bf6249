//! Whiteouts: entries that remove something of the lower layers instead of adding something.
//!
//! OCI image spec, "Representing Changes": `.wh.NAME` removes its sibling `NAME`, `.wh..wh..opq` removes all
//! that the lower layers have in its directory. Both concern lower layers only, wherever they stand in the tar.
//! Where the name's directory is, the entries before it decide (see [`tree`](crate::tree)).

use crate::Result;

use super::entry::{ImagePath, PREFIX, join};
use super::fault::TarFault;

const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS' own files (`.wh..wh.plnk`, `.wh..wh.orph`, …) that old tars carry.
const AUFS: &[u8] = b".wh..wh.";

/// What a path's name says about the layers below.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// The entry is bookkeeping of AUFS, part of no image: skip it.
    Ignored,
    /// The lower layers' content of this directory is hidden.
    Opaque(ImagePath),
    /// An entry like any other.
    Plain,
    /// What the lower layers have under this path is gone.
    Whiteout(ImagePath),
}

/// Reads the meaning of `path` off its name.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) for a whiteout of nothing, of `.` or of `..`, and for an entry below a
/// whiteout.
pub fn classify(path: &ImagePath) -> Result<Change> {
    let bytes = path.as_bytes();
    // Hardly any path of any image has the prefix: one scan settles the rest.
    if !bytes.windows(PREFIX.len()).any(|window| window == PREFIX) {
        return Ok(Change::Plain);
    }
    let (parent, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
        None => (&[][..], bytes),
    };
    for component in parent.split(|byte| *byte == b'/') {
        if component.starts_with(AUFS) && component != OPAQUE {
            return Ok(Change::Ignored);
        }
        if component.starts_with(PREFIX) {
            return Err(TarFault::UnderWhiteout(path.to_string()).into());
        }
    }
    if name == OPAQUE {
        return Ok(Change::Opaque(ImagePath::from_clean(parent.to_vec())));
    }
    if name.starts_with(AUFS) {
        return Ok(Change::Ignored);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Change::Plain),
        Some(b"" | b"." | b"..") => Err(TarFault::WhiteoutOfNothing(path.to_string()).into()),
        Some(target) => {
            let mut hidden = parent.to_vec();
            join(&mut hidden, target);
            Ok(Change::Whiteout(ImagePath::from_clean(hidden)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, classify};
    use crate::ErrorKind;
    use crate::layer::ImagePath;

    fn path(text: &str) -> ImagePath {
        ImagePath::from_clean(text.as_bytes().to_vec())
    }

    #[test]
    fn whiteout_names_are_told_from_plain_ones() {
        for (name, change) in [
            ("a/b", Change::Plain),
            ("a/x.wh.b", Change::Plain),
            (".wh.a", Change::Whiteout(path("a"))),
            ("d/.wh.a", Change::Whiteout(path("d/a"))),
            ("d/.wh....", Change::Whiteout(path("d/..."))),
            (".wh..wh..opq", Change::Opaque(path(""))),
            ("d/e/.wh..wh..opq", Change::Opaque(path("d/e"))),
            (".wh..wh.plnk", Change::Ignored),
            ("d/.wh..wh.plnk/12.34", Change::Ignored),
        ] {
            assert_eq!(classify(&path(name)).unwrap(), change, "{name}");
        }
    }

    #[test]
    fn malformed_whiteouts_are_refused() {
        for name in [".wh.", "d/.wh..", "d/.wh...", ".wh.a/b", ".wh..wh..opq/b"] {
            assert_eq!(classify(&path(name)).unwrap_err().kind(), &ErrorKind::Corrupt, "{name}");
        }
    }
}
