//! The images of these tests.

use crate::samples::{self, LayerBuilder, Sample};

/// The image that is in the cache from the start.
pub(super) const OLD: &str = "registry.example/library/old:1";
/// The image that is pulled: it shares a layer with the old one, and has one that takes several writes.
pub(super) const NEW: &str = "registry.example/library/new:1";

/// An image with layers of one file each.
pub(super) fn image(name: &str) -> Sample {
    let sizes: &[usize] = match name {
        OLD => &[200, 3],
        NEW => &[200, 300_000, 5],
        _ => &[200, 70_000, 300_000],
    };
    let layers: Vec<_> = sizes.iter().enumerate().map(|(index, size)| layer(name, index, *size)).collect();
    samples::of_layers("durability", &layers)
}

/// The bottom layers of all images are the same.
fn layer(name: &str, index: usize, size: usize) -> Vec<u8> {
    let seed = if index == 0 { "base".to_owned() } else { format!("{name} {index}") };
    let mut state = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let content: Vec<u8> = words.take(size.div_ceil(8)).flatten().take(size).collect();
    LayerBuilder::new().dir("etc", 0o755).file(format!("etc/{index}"), 0o644, &content).finish()
}
