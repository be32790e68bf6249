//! Where images are kept, as it is written: a directory, or the URI of a cache; and the fleet behind it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::global::Global;
use crate::{Caches, Error, Location, OptionFault, Options, Result, printable};

/// The place of the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum StorePlace {
    /// A directory.
    Directory(PathBuf),
    /// The URI of a cache that other machines may use, too.
    Uri(String),
}

impl StorePlace {
    /// That of `--store`, of `PLYFOLD_STORE`, or the default directory.
    pub(crate) fn of(global: &Global) -> Result<Self> {
        match &global.store {
            Some(given) => Ok(Self::parse(given)),
            None => Self::by_default(),
        }
    }

    /// What is written: a URI begins with a scheme, and no directory has its name.
    pub(crate) fn parse(written: &Path) -> Self {
        let is_path = |text: &str| {
            text.starts_with(['/', '.']) || Location::parse(text).is_err() || Path::new(text).is_dir()
        };
        match written.to_str() {
            Some(text) if !is_path(text) => Self::Uri(text.to_owned()),
            _ => Self::Directory(written.to_owned()),
        }
    }

    /// Where none is given.
    pub(crate) fn by_default() -> Result<Self> {
        let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(store) = given("PLYFOLD_STORE") {
            return Ok(Self::parse(&store));
        }
        let absolute = |name: &str| given(name).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
        data.map(|data| Self::Directory(data.join("plyfold"))).ok_or_else(|| {
            Error::config("the default directory of the store is not known")
                .with_hint("give one by --store DIR")
        })
    }
}

impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Uri(uri) => f.write_str(&printable(uri)),
        }
    }
}

/// The caches of the command: without `memory:`, which is empty in a new process.
pub(crate) fn caches() -> Result<Caches> {
    Ok(Caches::linked()?.without("memory"))
}

/// What `--store-option` says, for the store or the fleet that has a URI.
pub(crate) fn options(global: &Global) -> Result<Options> {
    Options::parse(global.store_option.iter().map(String::as_str))
}

/// Refuses options where the store is a directory, and has no fleet: it takes none.
pub(crate) fn refuse_options(global: &Global) -> Result<()> {
    options(global)?.refuse().map_err(|e| {
        e.with_hint("--store-option is for a store or a fleet that has a URI: --store URI, --fleet URI")
    })
}

/// The error of an option that there is not, or that is wrong, with where they are listed.
pub(crate) fn with_options(error: Error) -> Error {
    if error.detail::<OptionFault>().is_none() || error.hint().is_some() {
        return error;
    }
    error.with_hint("`plyfold stores` lists the options of --store-option")
}

/// Refuses a URI of a store whose scheme is not known.
pub(crate) fn check_scheme(uri: &str, caches: &Caches) -> Result<()> {
    let words = format!("`plyfold stores` lists the schemes; a directory of this name is ./{uri}");
    caches.of(uri).map(drop).map_err(|e| e.with_better_hint(words))
}

/// The URI of the fleet in front of which a store is, by `--fleet` or by `PLYFOLD_FLEET`.
///
/// A store that is a URI is the fleet's own: what the environment says does not apply to it.
pub(crate) fn fleet(global: &Global) -> Result<Option<String>> {
    match (&global.fleet, StorePlace::of(global)) {
        (Some(_), Ok(store @ StorePlace::Uri(_))) => {
            let error = Error::config("the store in front of a fleet is a directory, and this one is a URI");
            Err(error.with_endpoint(store).with_hint(
                "write --store DIR --fleet URI, or leave --store and PLYFOLD_STORE out for the default directory",
            ))
        }
        (Some(uri), _) => Ok(Some(uri.clone())),
        (None, Ok(StorePlace::Uri(_))) => Ok(None),
        (None, _) => Ok(std::env::var("PLYFOLD_FLEET").ok().filter(|uri| !uri.is_empty())),
    }
}

/// Refuses a fleet that is no URI of a known scheme.
pub(crate) fn check_fleet(uri: &str, caches: &Caches) -> Result<()> {
    let hint = "write its URI, such as s3://BUCKET/PREFIX, or file:///FOLDER for a folder; `plyfold stores` lists the schemes";
    caches.of(uri).map(drop).map_err(|e| e.with_better_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_uri_or_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("s3:dir");
        std::fs::create_dir(&named).unwrap();
        for path in ["/a:b", "./s3:x", "../s3:x", "store", "a/b:c", "Mine:store", named.to_str().unwrap()] {
            assert_eq!(StorePlace::parse(Path::new(path)), StorePlace::Directory(path.into()));
        }
        for uri in ["s3://bucket/prefix", "file:///srv/fleet", "s4://bucket", "other:place"] {
            assert_eq!(StorePlace::parse(Path::new(uri)), StorePlace::Uri(uri.to_owned()));
        }
    }
}
