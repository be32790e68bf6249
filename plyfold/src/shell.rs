//! Text for a POSIX shell.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A path as one word of a shell's command.
///
/// Bytes that are no text, and control characters but line feeds at the end are written as octal numbers: the printed command
/// is safe to show, and names the exact path.
pub(crate) fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(is_unsafe) => word(text),
        _ => {
            // A shell drops line feeds at the end of what a command prints.
            let feeds = bytes.iter().rev().take_while(|byte| **byte == b'\n').count();
            let printed = octal(&bytes[..bytes.len() - feeds]);
            let end = if feeds == 0 { String::new() } else { format!("'{}'", "\n".repeat(feeds)) };
            format!("\"$(printf '{printed}')\"{end}")
        }
    }
}

/// The path as it is from any folder: a command is often run from another one, as another user. An absolute path also
/// never begins like a protocol of qemu's, `NAME:…`.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| Path::new(".").join(path))
}

/// Control characters and bidirectional overrides.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text without control characters as one word.
pub(crate) fn word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@,%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Bytes for printf(1).
fn octal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"/._-+=:@,".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "\\{byte:03o}");
        }
        text
    })
}

/// A path as a string of C.
pub(crate) fn c_string(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                // Three of these begin a trigraph.
                '?' => text.push_str("\\?"),
                c if is_unsafe(c) => push_octal(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => text.push(c),
            }
        }
        push_octal(&mut text, chunk.invalid());
    }
    text.push('"');
    text
}

/// Text as a string of JSON.
pub(crate) fn json_string(text: &str) -> String {
    let mut string = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => string.extend(['\\', c]),
            c if is_unsafe(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(string, "\\u{unit:04x}");
                }
            }
            c => string.push(c),
        }
    }
    string.push('"');
    string
}

/// Three digits each: a digit that follows is no part of the number.
fn push_octal(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\{byte:03o}");
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::process::Command;

    use super::*;

    /// Paths that shells, mount(8) and qemu read in their own way.
    const ODD: [&[u8]; 9] = [
        b"plain/layer-00.erofs",
        b"",
        b"it's $HOME `id` \"a\" \\n *",
        b"-rf",
        b"two\nlines\n\n",
        b"\x1b[31mred\x07",
        b"not \xff text \xc3",
        b"%s 100% \\101",
        "gr\u{fc}n \u{202e}kcab".as_bytes(),
    ];

    #[test]
    fn a_shell_reads_what_was_meant() {
        for path in ODD {
            let word = quoted(Path::new(OsStr::from_bytes(path)));
            assert!(!word.contains(|c: char| c.is_control() && c != '\n'), "{word:?}");
            let said = Command::new("sh").arg("-c").arg(format!("printf %s {word}")).output().unwrap();
            assert_eq!(said.stdout, path, "{word}");
        }
    }

    #[test]
    fn json_reads_what_was_meant() {
        for path in ODD {
            let text = String::from_utf8_lossy(path);
            let string = json_string(&text);
            assert!(!string.contains(is_unsafe), "{string:?}");
            assert_eq!(serde_json::from_str::<String>(&string).unwrap(), text);
        }
    }

    #[test]
    fn c_reads_what_was_meant() {
        let read = |bytes: &[u8]| c_string(Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(read(b"/a b/\"c\"\\d"), r#""/a b/\"c\"\\d""#);
        assert_eq!(read(b"x\n1??="), r#""x\0121\?\?=""#);
        assert_eq!(read("\u{fc}\u{202e}".as_bytes()), "\"\u{fc}\\342\\200\\256\"");
        assert_eq!(read(b"\xff0"), r#""\3770""#);
    }
}
