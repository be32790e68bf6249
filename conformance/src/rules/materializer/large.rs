//! M: memory, threads and holes, on what is larger than the other samples.

use std::io::{self, Cursor, Read};
use std::num::NonZero;
use std::thread;

use plyfold_core::layer::{Hashing, LayerOptions, LayerTar};
use plyfold_core::{Input, InputArtifact, LocalArtifact, Result};
use tempfile::TempDir;

use super::made::{Files, Made};
use crate::child;
use crate::rule::not_judged;
use crate::rules::probe::sound;
use crate::samples::LayerBuilder;
use crate::{FormatFidelity, MaterializerFixture};

const MIB: u64 = 1 << 20;
/// What a materializer may map, in bytes.
const MEMORY: u64 = 128 * MIB;
/// The sparse file of the large layer.
const SPARSE: u64 = 10 << 30;
/// The data of its other file: more than there is memory.
const DATA: u64 = 160 * MIB;
/// The sparse file that takes no room.
const HOLE: u64 = 64 * MIB;

pub(super) async fn memory_bounded_for_any_layer_size(fixture: &dyn MaterializerFixture) {
    child::within(MEMORY, || sound(make_large(fixture)));
}

/// Makes the format of the large layer, and drops it.
fn make_large(fixture: &dyn MaterializerFixture) -> Result<()> {
    let materializer = fixture.materializer();
    let layer = || {
        let options = LayerOptions { hashing: Hashing::Nothing, ..LayerOptions::default() };
        LayerTar::new(large_layer(&fixture.fidelity()), options)
    };
    let folder = TempDir::new()?;
    let mut out = Files::create(&*materializer, &folder.path().join("image"));
    let first = out.first();
    match materializer.input() {
        Input::Layer => materializer.layer(&mut layer()?, &mut out),
        Input::Image => {
            let image = fixture.read(vec![layer()], folder.path())?;
            materializer.image(&image, &mut out)
        }
        Input::Nothing => fixture.join(&[], &first, &mut out),
        _ => {
            let maker = fixture.layers().expect("the fixture says what makes its layers");
            let mut file = Files::create(&*maker, &folder.path().join("layer-0"));
            let made = maker.layer(&mut layer()?, &mut file)?;
            let mut finished = InputArtifact::local(&file.first(), None)?;
            let size = finished.artifact.size();
            finished.artifact = Box::new(LocalArtifact::new(file.first(), size, made));
            fixture.join(&[finished], &first, &mut out)
        }
    }
    .map(drop)
}

/// A sparse file of 10 GiB, where the format holds one, and a file that does not fit into the memory.
fn large_layer(fidelity: &FormatFidelity) -> impl Read + Send + use<> {
    let runs: [(u64, &[u8]); 2] = [(4096, b"in the hole"), (SPARSE - 6, b"at end")];
    let mut sparse = LayerBuilder::new();
    if fidelity.holes && fidelity.largest_file >= SPARSE {
        sparse = sparse.sparse_file("sparse", 0o644, SPARSE, &runs);
    }
    let sparse = sparse.finish();
    let sparse_length = sparse.len() as u64 - 1024;
    let header = LayerBuilder::new().entry(tar::EntryType::Regular, "data", 0o644, b"", |header| {
        header.set_size(DATA);
    });
    let header = Cursor::new(header.finish()).take(512);
    Cursor::new(sparse)
        .take(sparse_length)
        .chain(header)
        .chain(Noise::default().take(DATA))
        .chain(io::repeat(0).take(1024))
}

/// Bytes that do not repeat within a few MiB, and do not compress.
#[derive(Default)]
struct Noise {
    block: Vec<u8>,
    at: u64,
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() {
            self.block = noise(1 << 16, 1);
        }
        let start = (self.at % self.block.len() as u64) as usize;
        let count = buffer.len().min(self.block.len() - start);
        buffer[..count].copy_from_slice(&self.block[start..start + count]);
        // No two blocks are equal.
        for (byte, of) in buffer[..count].iter_mut().zip(self.at.to_le_bytes()) {
            *byte ^= of;
        }
        self.at += count as u64;
        Ok(count)
    }
}

/// So many bytes of a sequence that follows from `seed` (xorshift, Marsaglia 2003).
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(super) async fn threads_change_no_byte(fixture: &dyn MaterializerFixture) {
    let layers = [mixed()];
    let expected = Made::of(fixture, &layers).bytes();
    let of_one = thread::scope(|scope| {
        let made = scope.spawn(|| {
            child::on_processors(1);
            Made::of(fixture, &layers).bytes()
        });
        made.join().expect("the work does not panic")
    });
    assert!(of_one == expected, "on one processor");
    for threads in [1, 2, 3, 8].into_iter().filter_map(NonZero::new) {
        if let Some(fixture) = fixture.with_threads(threads) {
            assert!(Made::of(&*fixture, &layers).bytes() == expected, "with {threads} threads");
        }
    }
}

/// Files of some MiB, of many sizes, half of which compress: work for several threads.
fn mixed() -> Vec<u8> {
    let files = (1..48_usize).fold(LayerBuilder::new(), |layer, number| {
        let noise = noise(number * 1500, number as u64);
        let text: Vec<u8> = noise.iter().map(|byte| b'a' + (byte & 3)).collect();
        let content = if number % 2 == 0 { noise } else { text };
        layer.file(format!("d{}/{number}", number % 5), 0o644, &content)
    });
    let text: Vec<u8> = noise(5 << 20, 7).iter().map(|byte| b'a' + (byte & 7)).collect();
    files.file("large", 0o644, &text).finish()
}

pub(super) async fn holes_stay_holes(fixture: &dyn MaterializerFixture) {
    if fixture.materializer().input() == Input::Nothing {
        return not_judged(super::EMPTY);
    }
    if !fixture.fidelity().holes {
        return not_judged("the format has no holes");
    }
    let runs: [(u64, &[u8]); 2] = [(HOLE / 2, b"in the hole"), (HOLE - 6, b"at end")];
    let sparse = LayerBuilder::new().sparse_file("sparse", 0o644, HOLE, &runs);
    let plain = LayerBuilder::new().sparse_file("sparse", 0o644, 8192, &[(4096, b"in the hole")]);
    let written = |layer: LayerBuilder| Made::of(fixture, &[layer.finish()]).size();
    let (of_sparse, of_plain) = (written(sparse), written(plain));
    assert!(
        of_sparse < of_plain + HOLE / 16,
        "a hole of {HOLE} bytes takes {} bytes more than a small one",
        of_sparse - of_plain
    );
}
