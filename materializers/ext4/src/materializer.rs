//! The upper disk as a materializer.

use plyfold_core::{Format, Input, InputArtifact, Made, Materializer, Result, Role, Sink};

use crate::fault::Ext4Fault;
use crate::upper::Ext4Upper;
use crate::writer::write;

impl Materializer for Ext4Upper {
    /// `ext4-upper`; the options are the size in bytes and, unless all others are the defaults, a digest of them.
    fn format(&self) -> Format {
        let plain = Self::new(self.size).is_ok_and(|plain| plain == *self);
        let options = if plain {
            self.size.to_string()
        } else {
            format!("{}-{:032x}", self.size, u128::from_be_bytes(self.derived(b"format")))
        };
        Format { name: "ext4-upper", version: 1, options, extension: "ext4" }
    }

    fn input(&self) -> Input {
        Input::Nothing
    }

    /// Writes the empty disk into `out`, which must be empty: what is not written has to read as zeros.
    ///
    /// # Errors
    /// [`Config`](plyfold_core::ErrorKind::Config) when there are `artifacts`, [`Io`](plyfold_core::ErrorKind::Io)
    /// from `out`.
    fn join(&self, artifacts: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        if !artifacts.is_empty() {
            return Err(Ext4Fault::Layers(artifacts.len()).into());
        }
        write(self, out.output(Role::Image)?)?;
        Ok(Made::default())
    }
}
