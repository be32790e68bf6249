//! Materializers by the name of their format: what is linked into this program, and how one is made.

use std::collections::{BTreeMap, HashSet};

use crate::format::Format;
use crate::materializer::{Input, Materializer, OutputSpec, Role};
use crate::options::{self, Options};
use crate::{Error, ErrorKind, Result};

/// A format that block-device files are made in: one entry for each. Register it with
/// [`register!`](crate::register).
///
/// ```
/// use plyfold_core::{FormatEntry, Materializers, Options};
/// # #[derive(Clone, Debug)]
/// # struct Squash;
/// # impl plyfold_core::Materializer for Squash {
/// #     fn format(&self) -> plyfold_core::Format {
/// #         plyfold_core::Format { name: "squash", version: 1, options: String::new(), extension: "sqfs" }
/// #     }
/// #     fn input(&self) -> plyfold_core::Input {
/// #         plyfold_core::Input::Image
/// #     }
/// # }
///
/// plyfold_core::register!(FormatEntry {
///     name: "squash",
///     package: env!("CARGO_PKG_NAME"),
///     summary: "one SquashFS image of the whole root file system",
///     options: "",
///     open: |options| {
///         options.refuse()?;
///         Ok(Box::new(Squash))
///     },
/// });
///
/// let made = Materializers::linked()?.open("squash", &Options::default())?;
/// assert_eq!(made.format().name, "squash");
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FormatEntry {
    /// What users call it, in `--as`: the [name](Format::name) of the format that [`open`](Self::open) gives.
    pub name: &'static str,
    /// The crate it comes from: `env!("CARGO_PKG_NAME")`.
    pub package: &'static str,
    /// One line for `plyfold formats`.
    pub summary: &'static str,
    /// The options that it takes, such as `block-size=BYTES`; empty when it takes none.
    pub options: &'static str,
    /// Makes the materializer. Reads no image yet, and fails at once on an option that is unknown or malformed.
    pub open: fn(&Options) -> Result<Box<dyn Materializer>>,
}

inventory::collect!(FormatEntry);

/// The formats a program can make.
#[derive(Clone, Debug, Default)]
pub struct Materializers {
    by_name: BTreeMap<&'static str, FormatEntry>,
}

impl Materializers {
    /// No format at all, to add to by [`Materializers::with`].
    pub fn none() -> Self {
        Self::default()
    }

    /// Every format that is linked into this program.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when two crates have a format of one name; it names both.
    pub fn linked() -> Result<Self> {
        inventory::iter::<FormatEntry>.into_iter().try_fold(Self::none(), |all, entry| all.with(*entry))
    }

    /// Adds a format by hand.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when another crate has one of that name; it names both.
    pub fn with(mut self, entry: FormatEntry) -> Result<Self> {
        match self.by_name.insert(entry.name, entry) {
            Some(other) if other.package != entry.package => Err(Error::config(format!(
                "format {}: is claimed by both {} and {}",
                entry.name, other.package, entry.package
            ))
            .with_hint("link only one of the two crates")),
            _ => Ok(self),
        }
    }

    /// The same without the format of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.by_name.remove(name);
        self
    }

    /// The formats, by name.
    pub fn iter(&self) -> impl Iterator<Item = &FormatEntry> {
        self.by_name.values()
    }

    /// Makes the materializer of a format.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for an unknown name, with the list of those that are linked, and for options that
    /// the format does not take; [`Internal`](ErrorKind::Internal) for one whose names no cache can hold.
    pub fn open(&self, name: &str, options: &Options) -> Result<Box<dyn Materializer>> {
        let Some(entry) = self.by_name.get(name) else {
            let known: Vec<&str> = self.by_name.keys().copied().collect();
            let hint = match known.as_slice() {
                [] => format!("no format is linked into this program: {LINKING}"),
                list => format!("known formats are {}; {LINKING}", list.join(", ")),
            };
            return Err(Error::config(format!("unknown format {name:?}")).with_hint(hint));
        };
        let made = (entry.open)(options);
        let made = made.map_err(|e| self.with_those_that_have(e, options).with_context("format", name))?;
        let wrong = |why: &str| {
            let message = format!("the crate {} has a wrong format {name}: {why}", entry.package);
            Error::new(ErrorKind::Internal, message)
        };
        check(&*made).map_err(|e| wrong(e.message()))?;
        if made.format().name != entry.name {
            return Err(wrong(&format!("it is called {}", made.format().name)));
        }
        Ok(made)
    }

    /// The error with the formats that have the option, or the value of it, if it is one that this format has not.
    fn with_those_that_have(&self, error: Error, given: &Options) -> Error {
        let entries = self.by_name.values().map(|entry| (entry.name, entry.options));
        options::with_those_that_have(error, given, "format", entries)
    }

    /// A materializer and those below it, which make what it is made from: the topmost first.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when one of them is not linked, when they form a circle, and for more than 8;
    /// [`Internal`](ErrorKind::Internal) for one with names that are too long, ambiguous or taken (rule M 211).
    pub fn chain(&self, top: Box<dyn Materializer>) -> Result<Vec<Box<dyn Materializer>>> {
        check(&*top)?;
        let (mut upper, mut input) = (top.format().name, top.input());
        let mut chain = vec![top];
        while let Input::Artifacts { format, options } = input {
            let is_circle = chain.iter().any(|link| link.format().name == format);
            if is_circle || chain.len() == LEVELS {
                let why = if is_circle { "a circle" } else { "too many levels" };
                return Err(Error::config(format!("{upper} is made from {format}: {why} of formats")));
            }
            let lower = self.open(format, &options).map_err(|e| e.with_context("for", upper))?;
            (upper, input) = (lower.format().name, lower.input());
            chain.push(lower);
        }
        Ok(chain)
    }
}

/// Formats that one is made from, one from the other, itself among them.
const LEVELS: usize = 8;

/// What adds a format to a program.
const LINKING: &str = "a crate in Cargo.toml is linked only if the program names it: `use CRATE as _;`";

/// Checks what a format says of itself before any work: caches and output folders name files after it. A dot in an
/// extension would make it a temporary file to a collection.
pub(crate) fn check(materializer: &dyn Materializer) -> Result<()> {
    let (format, outputs) = (materializer.format(), materializer.outputs());
    let refuse =
        |why: &str| Err(Error::new(ErrorKind::Internal, format!("the format {} {why}", format.name)));
    let plain = |text: &str, longest| {
        let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        text.len() <= longest && text.bytes().all(known)
    };
    let named = |text: &str, longest| !text.is_empty() && plain(text, longest);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let is_named = named(format.name, Format::NAME_BYTES)
        && plain(&format.options, Format::OPTIONS_BYTES)
        && !format.is_ambiguous();
    if !is_named {
        return refuse(
            "has a name or options that are too long, that read as a version, or that are not of \
                       lower-case letters, digits and `-`",
        );
    }
    let is_plain = |file: &OutputSpec| {
        named(file.extension, Format::EXTENSION_BYTES) && named(file.stem, OutputSpec::STEM_BYTES)
    };
    if !outputs.iter().all(is_plain) {
        return refuse("has a file whose name is too long or not of lower-case letters, digits and `-`");
    }
    if outputs.first().is_none_or(|first| first.extension != format.extension) {
        return refuse("does not list the file of its own extension first");
    }
    if materializer.input() == Input::Layer && outputs.len() > 1 {
        return refuse("lists several files for a layer");
    }
    let is_taken = |file: &OutputSpec| {
        (file.stem, file.extension) == ("upper", "ext4")
            || file.stem.strip_prefix("layer-").is_some_and(is_number)
    };
    if outputs.iter().any(is_taken) {
        return refuse("has a file whose name is that of an upper or of a layer");
    }
    let roles: HashSet<Role> = outputs.iter().map(|file| file.role).collect();
    let extensions: HashSet<&str> = outputs.iter().map(|file| file.extension).collect();
    if roles.len() < outputs.len() || extensions.len() < outputs.len() {
        return refuse("lists two files of one role or of one extension");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug)]
    struct Named(&'static str, &'static str);

    /// A format that is made from another.
    #[derive(Clone, Debug)]
    struct From(&'static str, &'static str);

    impl Materializer for From {
        fn format(&self) -> Format {
            Named(self.0, "img").format()
        }

        fn input(&self) -> Input {
            Input::Artifacts { format: self.1, options: Options::default() }
        }
    }

    impl Materializer for Named {
        fn format(&self) -> Format {
            Format { name: self.0, version: 1, options: String::new(), extension: self.1 }
        }

        fn input(&self) -> Input {
            Input::Layer
        }
    }

    const PLAIN: FormatEntry = FormatEntry {
        name: "plain",
        package: "one",
        summary: "",
        options: "",
        open: |options| {
            options.refuse()?;
            Ok(Box::new(Named("plain", "img")))
        },
    };

    fn message(formats: &Materializers, name: &str) -> (ErrorKind, String) {
        let error = formats.open(name, &Options::default()).unwrap_err();
        (error.kind().clone(), format!("{error:#}"))
    }

    #[test]
    fn a_format_is_made_by_its_name() {
        crate::register!(FormatEntry { name: "linked", ..PLAIN });
        let linked = Materializers::linked().unwrap();
        assert_eq!(linked.iter().filter(|entry| entry.name == "linked").count(), 1);
        let formats = Materializers::none().with(PLAIN).unwrap().with(PLAIN).unwrap();
        assert_eq!(formats.open("plain", &Options::default()).unwrap().format().extension, "img");
        let error = formats.open("plain", &Options::parse(["depth=3"]).unwrap()).unwrap_err();
        assert!(matches!(error.detail(), Some(crate::OptionFault::Unknown(key, _)) if key == "depth"));
        assert_eq!((error.context("format"), error.hint()), (Some("plain"), None));
        let deep = FormatEntry { name: "deep", options: "width=BYTES, depth=NUMBER", ..PLAIN };
        let formats = formats.with(deep).unwrap();
        let hint = |option| {
            let error = formats.open("plain", &Options::parse([option]).unwrap()).unwrap_err();
            error.hint().map(str::to_owned)
        };
        assert_eq!(hint("depth=3").as_deref(), Some("the format deep has the option `depth`"));
        assert_eq!(hint("dept=3"), None);
        let formats = formats.with(FormatEntry { name: "flat", ..deep }).unwrap();
        let error = formats.open("plain", &Options::parse(["width=3"]).unwrap()).unwrap_err();
        assert_eq!(error.hint(), Some("the formats deep, flat have the option `width`"));
        assert!(formats.without("plain").iter().all(|entry| entry.name != "plain"));
    }

    #[test]
    fn an_unknown_format_lists_the_others_and_says_what_links_one() {
        let formats = Materializers::none().with(PLAIN).unwrap();
        let error = formats.open("cpio", &Options::default()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config);
        let hint = error.hint().unwrap();
        assert!(hint.contains("known formats are plain;") && hint.contains("`use CRATE as _;`"), "{hint}");
        let error = Materializers::none().open("cpio", &Options::default()).unwrap_err();
        assert!(error.hint().unwrap().contains("no format is linked"), "{error:?}");
    }

    #[test]
    fn two_crates_with_one_name_are_named() {
        let error = Materializers::none().with(PLAIN).unwrap().with(FormatEntry { package: "two", ..PLAIN });
        let error = error.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Config);
        assert!(error.message().contains("both one and two"), "{error}");
    }

    #[test]
    fn a_chain_ends_or_is_refused() {
        let from = |name, open| FormatEntry { name, open, ..PLAIN };
        let formats = Materializers::none().with(PLAIN).unwrap();
        let formats = formats.with(from("upper", |_| Ok(Box::new(From("upper", "plain"))))).unwrap();
        let formats = formats.with(from("here", |_| Ok(Box::new(From("here", "there"))))).unwrap();
        let formats = formats.with(from("there", |_| Ok(Box::new(From("there", "here"))))).unwrap();
        let names = |top| {
            let chain = formats.chain(Box::new(top))?;
            Ok::<_, Error>(chain.iter().map(|link| link.format().name).collect::<Vec<_>>())
        };
        assert_eq!(names(From("top", "upper")).unwrap(), ["top", "upper", "plain"]);
        for (top, said) in [(From("top", "here"), "circle"), (From("top", "cpio"), "unknown format")] {
            let error = names(top).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Config);
            assert!(error.message().contains(said), "{error}");
        }
    }

    /// It would write into the folder of another format, or a file that a collection takes for a temporary one.
    #[test]
    fn a_format_that_no_cache_can_name_is_refused() {
        for open in [
            |_: &Options| -> Result<Box<dyn Materializer>> { Ok(Box::new(Named("other", "img"))) },
            |_: &Options| -> Result<Box<dyn Materializer>> { Ok(Box::new(Named("plain", "tar.gz"))) },
            |_: &Options| -> Result<Box<dyn Materializer>> { Ok(Box::new(Named("plain", "a/b"))) },
            |_: &Options| -> Result<Box<dyn Materializer>> { Ok(Box::new(Named("plain", ""))) },
        ] {
            let formats = Materializers::none().with(FormatEntry { open, ..PLAIN }).unwrap();
            let (kind, text) = message(&formats, "plain");
            assert_eq!(kind, ErrorKind::Internal);
            assert!(text.contains("the crate one"), "{text}");
        }
    }
}
