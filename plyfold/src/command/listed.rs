//! Lists of files, as text and as JSON, written file by file.

use std::io::Write;

use crate::files::{FileInfo, FileType};
use crate::layer::Timestamp;
use crate::{Error, Result, printable};
use serde_json::{Map, Value, json};

const DAY: i64 = 86_400;

/// A name a line, with `-l` behind what `ls -l` shows: type and permissions, links, owner, group, size, time.
pub(crate) struct TextList<W> {
    out: W,
    long: bool,
}

impl<W: Write> TextList<W> {
    pub(crate) fn new(out: W, long: bool) -> Self {
        Self { out, long }
    }

    pub(crate) fn put(&mut self, path: &[u8], info: &FileInfo) -> Result<()> {
        let mut line = if self.long { facts(info) } else { String::new() };
        line += &escaped(path);
        if let Some(target) = info.target.as_ref().filter(|_| self.long) {
            line += " -> ";
            line += &escaped(target);
        }
        line.push('\n');
        self.out.write_all(line.as_bytes()).map_err(failed)
    }

    pub(crate) fn end(mut self) -> Result<()> {
        self.out.flush().map_err(failed)
    }
}

fn facts(info: &FileInfo) -> String {
    let links = info.links.map_or_else(|| "-".to_owned(), |links| links.to_string());
    let size = match (info.kind, info.device) {
        (FileType::BlockDevice | FileType::CharDevice, Some((major, minor))) => format!("{major}, {minor}"),
        (FileType::BlockDevice | FileType::CharDevice, None) => "-".to_owned(),
        _ => info.size.to_string(),
    };
    let permissions = permissions(info.kind, info.mode);
    let (uid, gid, time) = (info.uid, info.gid, utc(info.mtime));
    format!("{permissions} {links:>3} {uid:>5} {gid:>5} {size:>10} {time} ")
}

/// `drwxr-xr-x`, as `ls` shows it.
fn permissions(kind: FileType, mode: u16) -> String {
    let mut shown = String::from(match kind {
        FileType::BlockDevice => 'b',
        FileType::CharDevice => 'c',
        FileType::Directory => 'd',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::Symlink => 'l',
        _ => '-',
    });
    for (who, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> who;
        shown.push(if bits & 4 != 0 { 'r' } else { '-' });
        shown.push(if bits & 2 != 0 { 'w' } else { '-' });
        shown.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    shown
}

/// A time as `2026-11-28 22:50:00`, in UTC.
pub(crate) fn utc(time: Timestamp) -> String {
    let (days, seconds) = (time.seconds.div_euclid(DAY), time.seconds.rem_euclid(DAY));
    // Days of the proleptic Gregorian calendar, in eras of 400 years that begin on 1 March of year 0.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02} {hours:02}:{minutes:02}:{seconds:02}")
}

/// A name with its control characters, and its bytes that are no UTF-8, as `\n` and `\xff`.
pub(crate) fn escaped(name: &[u8]) -> String {
    let part = |chunk: std::str::Utf8Chunk<'_>| {
        let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        printable(chunk.valid()) + &invalid.collect::<String>()
    };
    name.utf8_chunks().map(part).collect()
}

/// One array with an object a line.
pub(crate) struct JsonList<W> {
    out: W,
    is_empty: bool,
}

impl<W: Write> JsonList<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, is_empty: true }
    }

    pub(crate) fn put(&mut self, path: &[u8], info: &FileInfo) -> Result<()> {
        self.object(&document(path, info))
    }

    /// The same for what is no file.
    pub(crate) fn object(&mut self, object: &Value) -> Result<()> {
        let before = if self.is_empty { "[\n" } else { ",\n" };
        self.is_empty = false;
        write!(self.out, "{before}{object}").map_err(failed)
    }

    pub(crate) fn end(mut self) -> Result<()> {
        let end = if self.is_empty { "[]\n" } else { "\n]\n" };
        self.out.write_all(end.as_bytes()).and_then(|()| self.out.flush()).map_err(failed)
    }
}

fn document(path: &[u8], info: &FileInfo) -> Value {
    let kind = match info.kind {
        FileType::BlockDevice => "block-device",
        FileType::CharDevice => "char-device",
        FileType::Directory => "directory",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Symlink => "symlink",
        _ => "file",
    };
    let mut object = Map::new();
    text(&mut object, "path", path);
    object.insert("type".to_owned(), kind.into());
    object.insert("mode".to_owned(), format!("{:04o}", info.mode).into());
    object.insert("uid".to_owned(), info.uid.into());
    object.insert("gid".to_owned(), info.gid.into());
    object.insert("size".to_owned(), info.size.into());
    object.insert("mtime".to_owned(), json!({ "seconds": info.mtime.seconds, "nanos": info.mtime.nanos }));
    object.insert("links".to_owned(), info.links.into());
    if let Some((major, minor)) = info.device {
        object.insert("device".to_owned(), json!({ "major": major, "minor": minor }));
    }
    if let Some(target) = &info.target {
        text(&mut object, "target", target);
    }
    if let Some(xattrs) = &info.xattrs {
        let set = xattrs
            .into_iter()
            .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), hex(value).into()));
        object.insert("xattrs".to_owned(), Value::Object(set.collect()));
    }
    Value::Object(object)
}

/// JSON has no bytes: what is no UTF-8 is there in hexadecimal digits, too.
pub(crate) fn text(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    object.insert(key.to_owned(), String::from_utf8_lossy(bytes).into());
    if std::str::from_utf8(bytes).is_err() {
        object.insert(format!("{key}_hex"), hex(bytes).into());
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
    bytes.iter().flat_map(digits).collect()
}

fn failed(error: std::io::Error) -> Error {
    Error::io("writing to standard output", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_795_906_200, "2026-11-28 22:50:00"),
            (-1, "1969-12-31 23:59:59"),
            (-62_135_596_800, "0001-01-01 00:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (i64::MIN, "-292277022657-01-27 08:29:52"),
            (i64::MAX, "292277026596-12-04 15:30:07"),
        ] {
            assert_eq!(utc(Timestamp { seconds, nanos: 0 }), shown);
        }
    }

    #[test]
    fn permissions_are_shown_as_ls_does() {
        for (kind, mode, shown) in [
            (FileType::Directory, 0o1777, "drwxrwxrwt"),
            (FileType::Regular, 0o4755, "-rwsr-xr-x"),
            (FileType::Regular, 0o6644, "-rwSr-Sr--"),
            (FileType::Symlink, 0o777, "lrwxrwxrwx"),
            (FileType::CharDevice, 0o1000, "c--------T"),
        ] {
            assert_eq!(permissions(kind, mode), shown);
        }
    }

    #[test]
    fn names_are_shown_on_one_line() {
        assert_eq!(escaped(b"a\nb\xff\xfe\xc3\xa9"), "a\\nb\\xff\\xfeé");
    }
}
