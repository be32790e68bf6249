//! A third party's materializer that knows no file system: it joins the finished files of another format to one raw disk,
//! for virtual machines that take no VMDK, and says in a second file where each of them begins.
//!
//! A program that links this crate (`use example_concat as _;`) makes it by `--as concat`.

use std::io::{self, BufWriter, Write as _};

use plyfold_core::{
    ArtifactReader, Error, Format, FormatEntry, Input, InputArtifact, Made, Materializer, Options,
    OutputSpec, Result, Role, Sink,
};

/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 20;

plyfold_core::register!(FormatEntry {
    name: "concat",
    package: env!("CARGO_PKG_NAME"),
    summary: "a merged EROFS image and its layers, one after the other, as one raw disk",
    options: "",
    open: |options| {
        options.refuse()?;
        Ok(Box::new(Concat))
    },
});

/// Makes a raw disk of a merged EROFS image and of the layers that it refers to, in this order, as the kernel finds them
/// on one device. The sidecar has a line for each file: where it begins, its size in bytes, its name.
#[derive(Clone, Copy, Debug)]
pub struct Concat;

impl Materializer for Concat {
    fn format(&self) -> Format {
        Format { name: "concat", version: 1, options: String::new(), extension: "raw" }
    }

    fn input(&self) -> Input {
        Input::Artifacts { format: "erofs-merged", options: Options::default() }
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        vec![OutputSpec::new(Role::Image, "raw"), OutputSpec::new(Role::Sidecar, "offsets")]
    }

    fn join(&self, artifacts: &[InputArtifact], out: &mut dyn Sink) -> Result<Made> {
        let mut disk = BufWriter::with_capacity(CHUNK, out.output(Role::Image)?);
        // From this version on EROFS finds the devices of a merged image behind it on one disk.
        let mut made = Made::default().with_kernel(6, 4);
        let (mut offset, mut offsets) = (0, Vec::new());
        for InputArtifact { name, artifact, .. } in artifacts {
            let size = artifact.size();
            offsets.push(format!("{offset} {size} {name}\n"));
            let mut file = ArtifactReader::open(&**artifact)?;
            offset += io::copy(&mut file, &mut disk).map_err(|e| Error::io(format!("copying {name}"), e))?;
            made = made.and(artifact.made());
        }
        disk.flush().map_err(writing)?;
        drop(disk);
        out.output(Role::Sidecar)?.write_all(offsets.concat().as_bytes()).map_err(writing)?;
        Ok(made)
    }
}

fn writing(error: std::io::Error) -> Error {
    Error::io("writing the disk", error)
}
