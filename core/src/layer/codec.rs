//! Gzip and zstd, step by step, from one buffer into another.

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::Compression;
use super::fault::LayerFault;
use super::gunzip::{Edge, Members};
use crate::Result;

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
    /// What comes behind them in a gzip stream, whose CRC-32 is still to be compared.
    pub(super) edge: Option<Edge>,
}

/// A decoder of any number of gzip members or zstd frames.
pub(super) enum Codec {
    Gzip(Box<Members>),
    Zstd(Frames),
}

/// A decoder of zstd frames.
pub(super) struct Frames {
    context: Box<DCtx<'static>>,
    /// Whether the input so far ends with a whole frame.
    is_whole: bool,
    /// Whether anything was decoded: what follows the first frame and is not a frame is trailing data.
    is_started: bool,
}

impl Codec {
    /// A decoder, `None` for bytes that are not compressed.
    pub(super) fn new(compression: Compression) -> Result<Option<Self>> {
        Ok(match compression {
            Compression::None => None,
            Compression::Gzip => Some(Self::Gzip(Box::new(Members::unsummed()))),
            Compression::Zstd => {
                let mut context = DCtx::try_create().ok_or(LayerFault::NoMemory)?;
                context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(zstd_fault)?;
                Some(Self::Zstd(Frames { context: Box::new(context), is_whole: true, is_started: false }))
            }
        })
    }

    /// Decodes from `input` into `output` until one of them is used up, or a part of a member or a frame ends.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt), trailing data and checksums included, but not the CRC-32 of gzip;
    /// [`Limit`](crate::ErrorKind::Limit) for a window that is too large.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step> {
        let (step, has_moved) = match self {
            Self::Gzip(members) => {
                let step = members.step(input, output, false)?;
                (Step { read: step.read, written: step.written, edge: step.edge }, step.moved)
            }
            Self::Zstd(frames) => {
                let step = frames.step(input, output)?;
                let has_moved = step.read > 0 || step.written > 0;
                (step, has_moved)
            }
        };
        if !has_moved && !input.is_empty() && !output.is_empty() {
            return Err(LayerFault::Malformed("the decoder made no progress").into());
        }
        Ok(step)
    }

    /// Checks that the input may end here.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) within a member or frame.
    pub(super) fn finish(&self) -> Result<()> {
        match self {
            Self::Gzip(members) => members.finish(),
            Self::Zstd(frames) if frames.is_whole => Ok(()),
            Self::Zstd(_) => Err(LayerFault::Malformed("the zstd data is truncated").into()),
        }
    }
}

impl Frames {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step> {
        if self.is_whole && input.is_empty() {
            return Ok(Step { read: 0, written: 0, edge: None });
        }
        let (step, is_whole) = unzstd(&mut self.context, input, output).map_err(|code| {
            match (0_usize.wrapping_sub(code), self.is_started) {
                (PREFIX_UNKNOWN, true) if self.is_whole => TRAILING,
                _ => zstd_fault(code),
            }
        })?;
        (self.is_whole, self.is_started) = (is_whole, true);
        Ok(step)
    }
}

/// One step through a frame, skippable ones included.
fn unzstd(context: &mut DCtx<'_>, input: &[u8], output: &mut [u8]) -> Result<(Step, bool), usize> {
    let mut input = InBuffer::around(input);
    let mut output = OutBuffer::around(output);
    let hint = context.decompress_stream(&mut output, &mut input)?;
    Ok((Step { read: input.pos(), written: output.pos(), edge: None }, hint == 0))
}

fn zstd_fault(code: usize) -> LayerFault {
    match 0_usize.wrapping_sub(code) {
        WINDOW_TOO_LARGE => LayerFault::ZstdWindow(1 << (ZSTD_WINDOW_LOG - 20)),
        DICTIONARY_WRONG => LayerFault::Malformed("a zstd frame needs a dictionary, which no layer has"),
        _ => LayerFault::ZstdBroken(get_error_name(code)),
    }
}
