//! What a reader can do about an error, as values: each program has its own words for it.

/// What a reader can do about an [`Error`](crate::Error).
///
/// Its `Display` is what [`Error::hint`](crate::Error::hint) says: for programmers, without the flags and verbs of any
/// program. A program that has flags and verbs matches on it and says which.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Advice {
    /// Check the credentials for the registry that refused them, or store some.
    #[error("check the spelling of the credentials and their age, or store some")]
    CheckCredentials,
    /// Choose another format.
    #[error("{}", self.plain())]
    ChooseFormat {
        /// The advice, with `{}` for each format.
        words: &'static str,
        /// Their [names](crate::Format::name).
        formats: Vec<&'static str>,
    },
    /// Choose platforms that are there, or copy an index of what is there.
    #[error(
        "choose platforms of it, or copy an index of what is there, with another digest (`Sparse::Rewrite`)"
    )]
    ChoosePart,
    /// Choose a platform that the image is available for.
    #[error("it is available for {}; choose one of these platforms", available.join(", "))]
    ChoosePlatform {
        /// Those there are.
        available: Vec<String>,
    },
    /// Remove from the cache what no image needs.
    #[error("a collection removes what no image needs")]
    Collect,
    /// Collect the cache when what uses the content has ended.
    #[error("a collection removes it afterwards")]
    CollectLater,
    /// Convert the file as a layer: it is a tar of files, and no image.
    #[error("a plain root file system is not an image; a materializer converts a layer's tar as it is")]
    ConvertLayer,
    /// Ask for copies of files, in place of links.
    #[error("ask for copies")]
    CopyFiles,
    /// Delete by digest.
    #[error("delete {image} by its digest, which takes all tags of it along")]
    DeleteByDigest {
        /// The image whose digest is to be found.
        image: String,
    },
    /// Free some space on the disk, or write to another one.
    #[error("the disk is full: free some space, or write to another one")]
    FreeSpace,
    /// Give credentials for a registry, or store them.
    #[error("store credentials for {registry}, or give them as `username` and `password`")]
    GiveCredentials {
        /// Its host, with a port if it has one.
        registry: String,
    },
    /// Give a folder for temporary files.
    #[error("give one by `PullOptions::scratch` or `Images::with_scratch`")]
    GiveFolder,
    /// Keep a disk that has been written to.
    #[error("remove it if it is no longer needed, or choose another path")]
    KeepWritten,
    /// Trust the image with more memory.
    #[error("raise `{field}` of the layer's `TreeLimits` if the layer is trusted")]
    RaiseLimit {
        /// The field of [`TreeLimits`](crate::layer::TreeLimits).
        field: &'static str,
    },
    /// Load the images without what refers to them.
    #[error("the images are complete: load them without what refers to them (`LoadOptions::referrers`)")]
    LeaveReferrers,
    /// Load first what a delta archive was made against.
    #[error("the archive was made against {}: load that first, and then the archive", bases.join(", "))]
    LoadBase {
        /// What that was, in the words of the archive.
        bases: Vec<String>,
    },
    /// Pull the image.
    #[error("pull {image} first")]
    Pull {
        /// Its name.
        image: String,
    },
    /// Pull the image for the platform, or choose one that is here.
    #[error("pull the image for {platform}{}", Self::or_here(here))]
    PullPlatform {
        /// The one that was asked for.
        platform: String,
        /// Those that are here.
        here: Vec<String>,
    },
    /// Pull the rest of an image before it is pushed, or push a part of it.
    #[error("pull what is missing, or push one platform, or an index of what is here (`Sparse::Rewrite`)")]
    PushPart,
    /// Repair the cache: damaged content goes to quarantine, and the next pull fetches it again.
    #[error("a repair quarantines damaged content, and the next pull fetches it again (`Verify::repair`)")]
    RepairContent,
    /// Repair the cache: its damaged list of names is quarantined, and what can be read of it is kept.
    #[error(
        "a repair sets the file aside and goes on with every name that can still be read (`Verify::repair`)"
    )]
    RepairNames,
    /// Copy an index of what is copied.
    #[error(
        "an index of what is copied has another digest (`Sparse::Rewrite`); the same index is kept where the target takes it (`Sparse::Keep`)"
    )]
    RewriteIndex,
    /// Set [options](crate::Options).
    #[error("{}", self.plain())]
    SetOptions {
        /// The advice, with `{}` for each option.
        words: &'static str,
        /// Their names and values.
        options: Vec<(&'static str, String)>,
    },
    /// Store credentials in place of those that cannot be read.
    #[error("store the credentials again")]
    StoreAgain,
    /// Store credentials, in place of writing them here.
    #[error("store the credentials, and leave them out of the configuration")]
    StoreCredentials,
    /// Write to another place.
    #[error("nothing can be written there: choose another place")]
    WriteElsewhere,
    /// Write an option as `KEY=VALUE`.
    #[error("write KEY=VALUE")]
    WriteOption,
}

impl Advice {
    /// Options that would help, as `KEY=VALUE`; `words` has `{}` for each.
    ///
    /// ```
    /// use plyfold_core::{Advice, Error};
    ///
    /// let advice = Advice::options("raise it with {}", [("spool-limit", "BYTES")]);
    /// let error = Error::limit("the archive is too large").with_advice(advice);
    /// assert_eq!(error.hint(), Some("raise it with `spool-limit=BYTES`"));
    /// ```
    pub fn options<V: Into<String>>(
        words: &'static str,
        options: impl IntoIterator<Item = (&'static str, V)>,
    ) -> Self {
        let options = options.into_iter().map(|(key, value)| (key, value.into()));
        Self::SetOptions { words, options: options.collect() }
    }

    /// The advice with the program's own way to write an option, or to choose a format.
    ///
    /// `None` for advice without any.
    pub fn worded(
        &self,
        option: impl Fn(&str, &str) -> String,
        format: impl Fn(&str) -> String,
    ) -> Option<String> {
        match self {
            Self::SetOptions { words, options } => {
                Some(filled(words, options.iter().map(|(key, value)| option(key, value))))
            }
            Self::ChooseFormat { words, formats } => {
                Some(filled(words, formats.iter().map(|name| format(name))))
            }
            _ => None,
        }
    }

    /// `; here it is for linux/amd64`.
    fn or_here(here: &[String]) -> String {
        if here.is_empty() { String::new() } else { format!("; here it is for {}", here.join(", ")) }
    }

    /// Such advice in the words of the library.
    fn plain(&self) -> String {
        let option = |key: &str, value: &str| format!("`{key}={value}`");
        self.worded(option, |name| format!("the format {name}")).unwrap_or_default()
    }
}

/// `words` with each `{}` replaced by the next part.
fn filled(words: &str, parts: impl Iterator<Item = String>) -> String {
    parts.fold(words.to_owned(), |words, part| words.replacen("{}", &part, 1))
}
