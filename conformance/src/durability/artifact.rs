//! Artifacts that show by themselves whether they are complete.

use std::fs;
use std::io::SeekFrom;
use std::path::Path;

use plyfold_core::digest::{self, Hasher};
use plyfold_core::layer::LayerTar;
use plyfold_core::{Format, Input, Made, Materializer, Result, Role, Sink};

use crate::oracle::Failure;

/// Bytes in front of the content: the digest of all that follows, and zeros.
const HEADER: usize = 512;

/// Makes of each layer the content of its files with a digest in front. Written as disk images are: not in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summed;

impl Materializer for Summed {
    fn format(&self) -> Format {
        Format { name: "summed", version: 1, options: String::new(), extension: "sum" }
    }

    fn input(&self) -> Input {
        Input::Layer
    }

    fn layer(&self, tar: &mut LayerTar, out: &mut dyn Sink) -> Result<Made> {
        let out = out.output(Role::Image)?;
        out.set_len(HEADER as u64)?;
        out.seek(SeekFrom::Start(HEADER as u64))?;
        let mut hasher = Hasher::sha256();
        while tar.next_entry()?.is_some() {
            loop {
                let data = tar.data()?;
                if data.is_empty() {
                    break;
                }
                hasher.update(data);
                out.write_all(data)?;
                let count = data.len();
                tar.consume(count);
            }
        }
        out.seek(SeekFrom::Start(0))?;
        out.write_all(hasher.finish().as_ref().as_bytes())?;
        Ok(Made::default())
    }
}

/// Whether a file is what [`Summed`] makes, to its last byte.
pub(super) fn is_whole(file: &Path) -> Result<bool, Failure> {
    let bytes = match fs::read(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        bytes => bytes?,
    };
    let Some((header, content)) = bytes.split_at_checked(HEADER) else { return Ok(false) };
    let sum = digest::sha256(content);
    Ok(header.starts_with(sum.as_ref().as_bytes()))
}
