//! Gzip and zstd, step by step, from one buffer into another.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::Compression;
use super::fault::LayerFault;
use crate::{Error, Result};

/// log2 of the largest window a zstd frame may ask for: what the zstd command accepts without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;
const TRAILING: LayerFault = LayerFault::Malformed("trailing data after the end of the compressed layer");

/// `ZSTD_error_prefix_unknown`, `_frameParameter_windowTooLarge` and `_dictionary_wrong` of `zstd_errors.h`.
const PREFIX_UNKNOWN: usize = 10;
const WINDOW_TOO_LARGE: usize = 16;
const DICTIONARY_WRONG: usize = 32;

/// The progress of one step.
pub(super) struct Step {
    /// Bytes taken from the input.
    pub(super) read: usize,
    /// Bytes put into the output.
    pub(super) written: usize,
}

/// A decoder of any number of gzip members or zstd frames.
pub(super) struct Codec {
    decoder: Decoder,
    /// Whether the input so far ends with a whole member or frame.
    whole: bool,
    /// Whether anything was decoded: what follows the first member and is not a member is trailing data.
    started: bool,
}

enum Decoder {
    Gzip(Box<Decompress>),
    Zstd(Box<DCtx<'static>>),
}

impl Codec {
    /// A decoder, `None` for bytes that are not compressed.
    pub(super) fn new(compression: Compression) -> Result<Option<Self>> {
        let decoder = match compression {
            Compression::None => return Ok(None),
            Compression::Gzip => Decoder::Gzip(Box::new(Decompress::new_gzip(15))),
            Compression::Zstd => {
                let mut context = DCtx::try_create().ok_or(LayerFault::NoMemory)?;
                context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(zstd_fault)?;
                Decoder::Zstd(Box::new(context))
            }
        };
        Ok(Some(Self { decoder, whole: true, started: false }))
    }

    /// Decodes from `input` into `output` until one of them is used up or a member or frame ends.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), checksums and trailing data included;
    /// [`Limit`](crate::ErrorKind::Limit) for a window that is too large.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step> {
        if self.whole && input.is_empty() {
            return Ok(Step { read: 0, written: 0 });
        }
        let (step, ended) = match &mut self.decoder {
            Decoder::Gzip(decoder) => {
                if self.whole && self.started {
                    if input[0] != 0x1f {
                        return Err(TRAILING.into());
                    }
                    **decoder = Decompress::new_gzip(15);
                }
                gunzip(decoder, input, output)?
            }
            Decoder::Zstd(context) => unzstd(context, input, output).map_err(|code| {
                match (0_usize.wrapping_sub(code), self.started) {
                    (PREFIX_UNKNOWN, true) if self.whole => TRAILING,
                    _ => zstd_fault(code),
                }
            })?,
        };
        if step.read == 0 && step.written == 0 && !input.is_empty() && !output.is_empty() {
            return Err(LayerFault::Malformed("the decoder made no progress").into());
        }
        self.started = true;
        self.whole = ended;
        Ok(step)
    }

    /// Checks that the input may end here.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) within a member or frame.
    pub(super) fn finish(&self) -> Result<()> {
        match self.decoder {
            _ if self.whole => Ok(()),
            Decoder::Gzip(_) => Err(LayerFault::Malformed("the gzip data is truncated").into()),
            Decoder::Zstd(_) => Err(LayerFault::Malformed("the zstd data is truncated").into()),
        }
    }
}

/// One step through a member; its header, CRC-32 and length (RFC 1952 section 2.3.1) are checked on the way.
fn gunzip(decoder: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<(Step, bool)> {
    let (read, written) = (decoder.total_in(), decoder.total_out());
    let status = decoder
        .decompress(input, output, FlushDecompress::None)
        .map_err(|e| Error::from(LayerFault::Malformed("the gzip data is broken")).with_source(e))?;
    let step = Step {
        read: (decoder.total_in() - read) as usize,
        written: (decoder.total_out() - written) as usize,
    };
    Ok((step, status == Status::StreamEnd))
}

/// One step through a frame, skippable ones included.
fn unzstd(context: &mut DCtx<'_>, input: &[u8], output: &mut [u8]) -> Result<(Step, bool), usize> {
    let mut input = InBuffer::around(input);
    let mut output = OutBuffer::around(output);
    let hint = context.decompress_stream(&mut output, &mut input)?;
    Ok((Step { read: input.pos(), written: output.pos() }, hint == 0))
}

fn zstd_fault(code: usize) -> LayerFault {
    match 0_usize.wrapping_sub(code) {
        WINDOW_TOO_LARGE => LayerFault::ZstdWindow(1 << (ZSTD_WINDOW_LOG - 20)),
        DICTIONARY_WRONG => LayerFault::Malformed("a zstd frame needs a dictionary, which no layer has"),
        _ => LayerFault::ZstdBroken(get_error_name(code)),
    }
}
