//! A file of a tar as a run of bytes, its holes as zeros.

use plyfold_core::Result;
use plyfold_core::layer::{DataExtent, LayerTar};

use crate::compress::buffers::Buffer;
use crate::data;
use crate::fault::ErofsFault;

/// The current file of a tar.
pub(super) struct Data<'a> {
    size: u64,
    position: u64,
    /// The runs of data, those that are read left out.
    runs: &'a [DataExtent],
}

impl<'a> Data<'a> {
    /// A file of these runs.
    pub(super) fn new(size: u64, runs: &'a [DataExtent]) -> Self {
        Self { size, position: 0, runs }
    }

    /// Whether at least half of it is holes, of those that stay holes.
    pub(super) fn is_mostly_holes(&self) -> bool {
        let ends = self.runs.iter().map(|run| run.offset.saturating_add(run.length));
        let starts = self.runs.iter().map(|run| run.offset).chain([self.size]);
        let holes = starts.zip([0].into_iter().chain(ends)).map(|(start, end)| start.saturating_sub(end));
        let holes: u64 = holes.filter(|hole| *hole >= data::hole_size(self.size)).sum();
        holes > 0 && holes >= self.size / 2
    }

    /// Appends the next `length` bytes.
    pub(super) fn read(&mut self, tar: &mut LayerTar, length: u64, buffer: &mut Buffer) -> Result<()> {
        let end = self.position + length;
        while self.position < end {
            let Some(run) = self.runs.first() else {
                buffer.zeros((end - self.position) as usize);
                self.position = end;
                break;
            };
            let run_end = run.offset.checked_add(run.length).filter(|run_end| *run_end <= self.size);
            let run_end =
                run_end.ok_or(ErofsFault::Malformed("the runs of a sparse file reach beyond its end"))?;
            if self.position < run.offset {
                let zeros = run.offset.min(end) - self.position;
                buffer.zeros(zeros as usize);
                self.position += zeros;
                continue;
            }
            let count = run_end.checked_sub(self.position);
            let count = count.ok_or(ErofsFault::Malformed("the runs of a sparse file are not in order"))?;
            let count = count.min(end - self.position);
            tar.copy_data(count, |bytes| {
                buffer.append(bytes);
                Ok(())
            })?;
            self.position += count;
            if self.position == run_end {
                self.runs = &self.runs[1..];
            }
        }
        Ok(())
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<()> {
        if self.runs.iter().any(|run| run.length > 0) {
            return Err(ErofsFault::Malformed("the runs of a sparse file reach beyond its end").into());
        }
        Ok(())
    }
}
