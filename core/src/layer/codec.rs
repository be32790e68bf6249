//! Gzip and zstd, step by step, from one buffer into another.

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::Compression;
use super::fault::LayerFault;
use super::gunzip::{Members, Step};
use crate::Result;

/// log2 of the largest window a zstd frame may ask for: what the zstd command accepts without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;

/// `ZSTD_error_prefix_unknown`, `_frameParameter_windowTooLarge` and `_dictionary_wrong` of `zstd_errors.h`.
const PREFIX_UNKNOWN: usize = 10;
const WINDOW_TOO_LARGE: usize = 16;
const DICTIONARY_WRONG: usize = 32;

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
        match self {
            Self::Gzip(members) => members.step(input, output, false),
            Self::Zstd(frames) => frames.step(input, output),
        }
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
            return Ok(Step::default());
        }
        let (step, is_whole) = unzstd(&mut self.context, input, output).map_err(|code| {
            match (0_usize.wrapping_sub(code), self.is_started) {
                (PREFIX_UNKNOWN, true) if self.is_whole => LayerFault::TRAILING,
                _ => zstd_fault(code),
            }
        })?;
        if !step.moved && !input.is_empty() && !output.is_empty() {
            return Err(LayerFault::STUCK.into());
        }
        (self.is_whole, self.is_started) = (is_whole, true);
        Ok(step)
    }
}

/// One step through a frame, skippable ones included.
fn unzstd(context: &mut DCtx<'_>, input: &[u8], output: &mut [u8]) -> Result<(Step, bool), usize> {
    let mut input = InBuffer::around(input);
    let mut output = OutBuffer::around(output);
    let hint = context.decompress_stream(&mut output, &mut input)?;
    let (read, written) = (input.pos(), output.pos());
    Ok((Step { read, written, moved: read > 0 || written > 0, ..Step::default() }, hint == 0))
}

fn zstd_fault(code: usize) -> LayerFault {
    match 0_usize.wrapping_sub(code) {
        WINDOW_TOO_LARGE => LayerFault::ZstdWindow(1 << (ZSTD_WINDOW_LOG - 20)),
        DICTIONARY_WRONG => LayerFault::Malformed("a zstd frame needs a dictionary, which no layer has"),
        _ => LayerFault::ZstdBroken(get_error_name(code)),
    }
}
