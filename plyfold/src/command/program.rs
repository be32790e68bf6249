//! The program's name: `plyfold`, or that of another program with the same verbs.

use std::sync::LazyLock;

/// The name of this program when the crate plyfold builds it.
pub(super) const PLYFOLD: &str = "plyfold";
/// What `--version` shows behind another name.
pub(super) const BUILT_ON: &str = concat!("(plyfold ", env!("CARGO_PKG_VERSION"), ")");

/// The file name that the program was started by.
pub(crate) fn name() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let path = std::env::args_os().next().unwrap_or_default();
        let name = std::path::Path::new(&path).file_name().and_then(|name| name.to_str());
        // It becomes part of shell scripts: other characters would need quotes there.
        let plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
        let name = name.filter(|name| name.chars().all(plain) && !name.starts_with(['-', '.']));
        name.unwrap_or(PLYFOLD).to_owned()
    });
    &NAME
}

/// A hint with this program's name in its commands.
pub(crate) fn named(hint: &str) -> String {
    match name() {
        PLYFOLD => hint.to_owned(),
        name => ["`", "| "].iter().fold(hint.to_owned(), |hint, before| {
            hint.replace(&format!("{before}{PLYFOLD} "), &format!("{before}{name} "))
        }),
    }
}
