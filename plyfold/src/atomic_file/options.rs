//! How files are written: synced or not, mode and owner.

use std::fs;
use std::str::FromStr;

use plyfold_core::{Advice, Error, Result};

/// How files are written that are not in a store.
///
/// ```
/// # use plyfold::atomic_file::FileOptions;
/// let options = FileOptions { copy: true, mode: Some(0o640), owner: Some("0:0".parse()?), ..FileOptions::default() };
/// # Ok::<_, plyfold::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileOptions {
    /// Whether success waits until the files and their names are on the disk, as it does by default. Without that a power
    /// cut soon afterwards may leave files that are empty, or none.
    pub sync: bool,
    /// Whether every file is one of its own, never a hard link: a clone that shares blocks where the file system can,
    /// else a copy. Such files may be written to. By default a file whose content is in the store may be a link to it.
    pub copy: bool,
    /// The permissions of the files, such as `0o640`; by default the user's umask decides.
    pub mode: Option<u32>,
    /// Who owns the files; by default the user who makes them.
    pub owner: Option<Owner>,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { sync: true, copy: false, mode: None, owner: None }
    }
}

impl FileOptions {
    /// Refuses a mode or an owner for files that may be hard links to files of the store.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config).
    pub fn check(&self) -> Result<()> {
        if self.mode.is_some_and(|mode| mode > 0o777) {
            return Err(Error::config("a mode has three octal digits, such as 640"));
        }
        if self.copy || (self.mode.is_none() && self.owner.is_none()) {
            return Ok(());
        }
        let error = Error::config("files that may be links to the store have its mode and owner");
        Err(error.with_advice(Advice::CopyFiles))
    }
}

/// A user, a group, or both, by number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The user; `None` leaves it.
    pub user: Option<u32>,
    /// The group; `None` leaves it.
    pub group: Option<u32>,
}

impl FromStr for Owner {
    type Err = Error;

    /// Reads `USER`, `USER:GROUP` or `:GROUP`, each a number or a name of `/etc/passwd` or `/etc/group`.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) for a name that is not there.
    fn from_str(text: &str) -> Result<Self> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let user = if user.is_empty() && group.is_some() { None } else { Some(id(user, "/etc/passwd")?) };
        let group = group.map(|group| id(group, "/etc/group")).transpose()?;
        Ok(Self { user, group })
    }
}

/// A number, or that of a name in a file of `NAME:PASSWORD:NUMBER:…` (passwd(5), group(5)).
fn id(text: &str, names: &str) -> Result<u32> {
    // The number with all bits set means "leave it" to chown(2).
    if let Some(number) = text.parse().ok().filter(|number| *number != u32::MAX) {
        return Ok(number);
    }
    let known = fs::read_to_string(names).unwrap_or_default();
    let of_name = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(text)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    known.lines().find_map(of_name).ok_or_else(|| {
        Error::config(format!("{text:?} is neither a number nor a name in {names}"))
            .with_hint("write the number, as `id` shows it; an owner is USER[:GROUP]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_user_a_group_or_both() {
        for (text, user, group) in [
            ("1000", Some(1000), None),
            ("root", Some(0), None),
            ("root:root", Some(0), Some(0)),
            ("7:8", Some(7), Some(8)),
            (":8", None, Some(8)),
        ] {
            assert_eq!(text.parse::<Owner>().unwrap(), Owner { user, group }, "{text}");
        }
        for text in ["", ":", "1:", "nobody-has-this-name", "4294967295", "-1", "1:2:3"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }

    #[test]
    fn links_have_the_mode_of_the_store() {
        let linked = FileOptions::default();
        let owner = Some(Owner { user: Some(1), group: None });
        assert!(FileOptions { mode: Some(0o640), ..linked }.check().is_err());
        assert!(FileOptions { owner, ..linked }.check().is_err());
        assert!(FileOptions { copy: true, mode: Some(0o640), ..linked }.check().is_ok());
        assert!(FileOptions { copy: true, mode: Some(0o4755), ..linked }.check().is_err());
    }
}
