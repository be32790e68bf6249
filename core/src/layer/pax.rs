//! PAX extended headers (POSIX.1-2017 `pax`, "pax Extended Header"), with star's, libarchive's and GNU's keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fault::TarFault;
use super::{LayerLimits, Timestamp};
use crate::{Error, Result, Size};

const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";
const GNU_SPARSE: &[u8] = b"GNU.sparse.";
const OFFSET: &[u8] = b"GNU.sparse.offset";
const NUMBYTES: &[u8] = b"GNU.sparse.numbytes";

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// The records of one extended header that say something about a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Pax {
    records: Records,
    /// Those of the global headers before it, which hold where it has none of that key.
    global: Arc<Records>,
    /// Keys and values of sparse format 0.0, the only ones that repeat, in their order.
    pub(super) sparse_pairs: Vec<(u64, u64)>,
}

impl Pax {
    /// Reads the body of an extended header.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for records that are none; [`Limit`](crate::ErrorKind::Limit) for
    /// too many runs of data.
    pub(super) fn parse(mut body: &[u8], limits: &LayerLimits) -> Result<Self> {
        let mut pax = Self::default();
        let mut offset = None;
        while !body.is_empty() {
            let (key, value, rest) = record(body)?;
            body = rest;
            if key == OFFSET {
                if offset.replace(decimal(key, value)?).is_some() {
                    return Err(invalid(key, value));
                }
            } else if key == NUMBYTES {
                let offset = offset.take().ok_or_else(|| invalid(key, value))?;
                if pax.sparse_pairs.len() == limits.sparse_extents {
                    return Err(TarFault::SparseMore(limits.sparse_extents).into());
                }
                pax.sparse_pairs.push((offset, decimal(key, value)?));
            } else if is_known(key) {
                pax.records.insert(key.to_vec(), value.to_vec());
            }
        }
        if offset.is_some() {
            return Err(TarFault::Malformed("a sparse file's last run of data has no length").into());
        }
        Ok(pax)
    }

    /// This header with the global ones under it.
    pub(super) fn over(mut self, global: &Globals) -> Self {
        self.global = Arc::clone(&global.0);
        self
    }

    /// A record's value; an empty one takes the record away.
    pub(super) fn text(&self, key: &str) -> Option<&[u8]> {
        let value = self.records.get(key.as_bytes()).or_else(|| self.global.get(key.as_bytes()))?;
        Some(value.as_slice()).filter(|value| !value.is_empty())
    }

    /// A record's value as a decimal number.
    pub(super) fn number<T: TryFrom<u64>>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.text(key) else { return Ok(None) };
        let number = T::try_from(decimal(key.as_bytes(), value)?);
        number.map(Some).map_err(|_| invalid(key.as_bytes(), value))
    }

    pub(super) fn mtime(&self) -> Result<Option<Timestamp>> {
        let Some(value) = self.text("mtime") else { return Ok(None) };
        timestamp(value).map(Some).ok_or_else(|| invalid(b"mtime", value))
    }

    /// Extended attributes by name. Star's key holds the bytes as they are, libarchive's repeats them encoded.
    pub(super) fn xattrs(&self, limits: &LayerLimits) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let global = || self.global.iter().filter(|(key, _)| !self.records.contains_key(*key));
        let mut xattrs = BTreeMap::new();
        for (key, value) in self.records.iter().chain(global()) {
            if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
                xattrs.entry(unescape(name, |_| true)).or_insert_with(|| base64(value));
            }
        }
        for (key, value) in global().chain(&self.records) {
            if let Some(name) = key.strip_prefix(SCHILY_XATTR) {
                // GNU tar writes `=` and `%` of a name so, because a key ends at its first `=`.
                xattrs.insert(unescape(name, |code| matches!(code, b'=' | b'%')), value.clone());
            }
        }
        for (name, value) in &xattrs {
            let shown = || String::from_utf8_lossy(name).into_owned();
            if name.is_empty() || name.contains(&0) {
                return Err(TarFault::XattrName(shown()).into());
            }
            if name.len() > 255 {
                return Err(TarFault::XattrNameLong(name.len()).into());
            }
            if value.len() > limits.xattr {
                return Err(TarFault::XattrLong(shown(), value.len(), limits.xattr).into());
            }
        }
        Ok(xattrs.into_iter().collect())
    }
}

/// The records of all global headers so far. Every entry is read with them, so they are few ([`LayerLimits::global_records`]),
/// and entries share them.
#[derive(Debug, Default)]
pub(super) struct Globals(Arc<Records>);

impl Globals {
    /// Puts a later global header over the earlier ones. Names that it gives to all files are left out: Go and libarchive
    /// do not apply them, and a name for all files leaves but one of them.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for a size or a map for all files: readers disagree about it, and
    /// so could be made to see different files. [`Limit`](crate::ErrorKind::Limit) for too much in all.
    pub(super) fn add(&mut self, mut later: Pax, limits: &LayerLimits) -> Result<()> {
        for name in ["path", "linkpath"] {
            later.records.remove(name.as_bytes());
        }
        for key in later.records.keys() {
            if key == b"size" || key.starts_with(GNU_SPARSE) {
                return Err(TarFault::GlobalField(String::from_utf8_lossy(key).into_owned()).into());
            }
        }
        if !later.sparse_pairs.is_empty() {
            return Err(TarFault::Malformed("a global extended header makes all files sparse").into());
        }
        let records = Arc::make_mut(&mut self.0);
        records.extend(later.records);
        let bytes: usize = records.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes as u64 > limits.global_records {
            return Err(TarFault::GlobalSize(Size(limits.global_records)).into());
        }
        Ok(())
    }
}

fn is_known(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime")
        || matches!(key, b"SCHILY.devmajor" | b"SCHILY.devminor")
        || [SCHILY_XATTR, LIBARCHIVE_XATTR, GNU_SPARSE].iter().any(|prefix| key.starts_with(prefix))
}

/// Takes `"%d %s=%s\n"` off the front: key, value, rest. The number counts all of the record.
fn record(body: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let parse = || {
        let space = body.iter().take(20).position(|byte| *byte == b' ')?;
        let length = usize::try_from(digits(&body[..space])?).ok()?;
        let (record, rest) = body.split_at_checked(length)?;
        let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&pair[..equals], &pair[equals + 1..]);
        // A name of an extended attribute is bytes; every other key is text.
        let text = key.starts_with(SCHILY_XATTR) || str::from_utf8(key).is_ok();
        let valid = !key.is_empty() && !key.contains(&0) && text;
        valid.then_some((key, value, rest))
    };
    parse().ok_or_else(|| {
        let start = String::from_utf8_lossy(&body[..body.len().min(32)]);
        TarFault::RecordForm(start.into_owned()).into()
    })
}

fn decimal(key: &[u8], value: &[u8]) -> Result<u64> {
    digits(value).ok_or_else(|| invalid(key, value))
}

fn invalid(key: &[u8], value: &[u8]) -> Error {
    let [key, value] =
        [key, &value[..value.len().min(64)]].map(|text| String::from_utf8_lossy(text).into_owned());
    TarFault::Record(key, value).into()
}

/// Decimal digits and nothing else, at most what file sizes have: 2^63-1.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let value = text.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    (i64::try_from(value).is_ok()).then_some(value)
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are dropped.
fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let dot = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = (&text[..dot], text.get(dot + 1..).unwrap_or_default());
    let mut nanos = 0;
    for at in 0..9 {
        let digit = fraction.get(at).copied().unwrap_or(b'0');
        nanos = nanos * 10 + digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
    }
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // 2^63 has no positive counterpart: -2^63 is read through u64 as well.
    let whole: u64 = str::from_utf8(whole).ok().filter(|text| !text.starts_with('+'))?.parse().ok()?;
    let seconds = i128::from(whole);
    let (seconds, nanos) = match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    };
    Some(Timestamp { seconds: i64::try_from(seconds).ok()?, nanos })
}

/// Resolves `%XX` where `wanted` says so for the byte it means.
fn unescape(text: &[u8], wanted: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| {
            u8::from_str_radix(str::from_utf8(hex).ok().filter(|hex| !hex.starts_with('+'))?, 16).ok()
        });
        if let Some(code) = code.filter(|code| wanted(*code)) {
            out.push(code);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// RFC 4648 section 4, read as libarchive reads what it writes: with or without padding, which ends it, and without
/// regard to line breaks and other bytes that are not of the alphabet.
fn base64(text: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| match byte {
        upper @ b'A'..=b'Z' => Some(upper - b'A'),
        lower @ b'a'..=b'z' => Some(lower - b'a' + 26),
        digit @ b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let end = |byte: &&u8| !matches!(byte, b'=' | b'_');
    let digits: Vec<u8> = text.iter().take_while(end).filter_map(digit).collect();
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let bits =
            (0..4).fold(0, |bits, at| bits << 6 | u32::from(group.get(at).copied().unwrap_or_default()));
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    out
}
