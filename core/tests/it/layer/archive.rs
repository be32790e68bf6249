//! Tars made byte by byte, right and wrong ones, and a reader that keeps what it saw.

use std::io::{Cursor, Write};

use plyfold_core::layer::{Entry, LayerOptions, LayerSummary, LayerTar};
use plyfold_core::{ErrorKind, Result};

pub(super) const BLOCK: usize = 512;

/// A header with the fields that tests vary.
pub(super) struct Header(pub(super) [u8; BLOCK]);

impl Header {
    /// A ustar header of type `flag` for `size` bytes of data.
    pub(super) fn new(name: impl AsRef<[u8]>, flag: u8, size: u64) -> Self {
        let mut header = Self([0; BLOCK]);
        header.put(0, name.as_ref());
        header.put(100, b"0000644\0");
        header.put(108, b"0000001\0");
        header.put(116, b"0000002\0");
        header.put(124, format!("{size:011o}\0").as_bytes());
        header.put(136, b"00000000003\0");
        header.0[156] = flag;
        header.put(257, b"ustar\x0000");
        header.put(329, b"0000000\0");
        header.put(337, b"0000000\0");
        header
    }

    pub(super) fn link(name: &str, flag: u8, target: impl AsRef<[u8]>) -> Self {
        let mut header = Self::new(name, flag, 0);
        header.put(157, target.as_ref());
        header
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The block with its checksum.
    pub(super) fn block(mut self) -> [u8; BLOCK] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// A tar in the making.
#[derive(Clone, Default)]
pub(super) struct Archive(pub(super) Vec<u8>);

impl Archive {
    pub(super) fn header(mut self, header: Header) -> Self {
        self.0.extend(header.block());
        self
    }

    /// Data, padded to a block.
    pub(super) fn data(mut self, data: &[u8]) -> Self {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    pub(super) fn file(self, name: impl AsRef<[u8]>, data: &[u8]) -> Self {
        self.header(Header::new(name, b'0', data.len() as u64)).data(data)
    }

    /// An extension of type `flag` with this body.
    pub(super) fn extension(self, flag: u8, body: &[u8]) -> Self {
        self.header(Header::new("extension", flag, body.len() as u64)).data(body)
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key.as_bytes(), value)).collect();
        self.extension(b'x', &body)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

/// `"%d %s=%s\n"`.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// An entry with its stored data.
pub(super) type Seen = (Entry, Vec<u8>);

pub(super) fn open(bytes: &[u8], options: LayerOptions) -> LayerTar {
    LayerTar::new(Cursor::new(bytes.to_vec()), options).unwrap()
}

pub(super) fn read_with(bytes: &[u8], options: LayerOptions) -> Result<(Vec<Seen>, LayerSummary)> {
    let mut tar = open(bytes, options);
    let mut seen = Vec::new();
    while let Some(entry) = tar.next_entry()? {
        let mut data = Vec::new();
        loop {
            let bytes = tar.data()?;
            if bytes.is_empty() {
                break;
            }
            data.extend_from_slice(bytes);
            let count = bytes.len();
            tar.consume(count);
        }
        seen.push((entry, data));
    }
    Ok((seen, tar.finish()?))
}

pub(super) fn read(bytes: &[u8]) -> Result<Vec<Seen>> {
    Ok(read_with(bytes, LayerOptions::default())?.0)
}

/// The names and data of a tar that must be good.
pub(super) fn names(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let name = |entry: &Entry| String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
    read(bytes).unwrap().into_iter().map(|(entry, data)| (name(&entry), data)).collect()
}

/// The kind of error of a tar that must be bad.
#[track_caller]
pub(super) fn fault(bytes: &[u8]) -> ErrorKind {
    match read(bytes) {
        Ok(seen) => panic!("accepted as {seen:?}"),
        Err(e) => e.kind().clone(),
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
