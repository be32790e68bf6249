//! Compressed forms whose bytes do not depend on any compressor's version: stored and run-length blocks only.

use flate2::Crc;

/// gzip (RFC 1952), one member for each part, deflate blocks of stored bytes (RFC 1951 3.2.4).
pub fn gzip(members: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        // CM deflate, no flags, no time, no extra flags, OS unknown.
        out.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        let mut blocks = member.chunks(0xffff).peekable();
        if blocks.peek().is_none() {
            out.extend([1, 0, 0, 0xff, 0xff]);
        }
        while let Some(block) = blocks.next() {
            out.push(u8::from(blocks.peek().is_none()));
            let length = block.len() as u16;
            out.extend(length.to_le_bytes());
            out.extend((!length).to_le_bytes());
            out.extend(block);
        }
        let mut crc = Crc::new();
        crc.update(member);
        out.extend(crc.sum().to_le_bytes());
        out.extend((member.len() as u32).to_le_bytes());
    }
    out
}

/// zstd (RFC 8878), one frame for each part with a skippable frame between, raw and run-length blocks, no checksum.
pub fn zstd(frames: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        if index > 0 {
            // Skippable frame: magic, size, user data.
            out.extend(0x184d_2a50_u32.to_le_bytes());
            out.extend(4_u32.to_le_bytes());
            out.extend(*b"plyf");
        }
        out.extend(0xfd2f_b528_u32.to_le_bytes());
        // No content size; window descriptor for 128 KiB (exponent 7).
        out.extend([0, 7 << 3]);
        let mut blocks = frame.chunks(64 << 10).peekable();
        if blocks.peek().is_none() {
            out.extend([1, 0, 0]);
        }
        while let Some(block) = blocks.next() {
            let last = u32::from(blocks.peek().is_none());
            let size = (block.len() as u32) << 3;
            let (kind, content) = match block {
                [first, rest @ ..] if rest.iter().all(|byte| byte == first) => (1, &block[..1]),
                _ => (0, block),
            };
            out.extend(&(last | kind << 1 | size).to_le_bytes()[..3]);
            out.extend(content);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn parts() -> (Vec<u8>, Vec<u8>) {
        let mixed = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        (mixed, vec![0; 300_000])
    }

    #[test]
    fn gzip_reads_back() {
        let (mixed, zeros) = parts();
        let mut content = Vec::new();
        let packed = gzip(&[&mixed, &zeros, b""]);
        flate2::read::MultiGzDecoder::new(&packed[..]).read_to_end(&mut content).unwrap();
        assert!(content == [mixed, zeros].concat());
    }

    #[test]
    fn zstd_reads_back() {
        let (mixed, zeros) = parts();
        let packed = zstd(&[&mixed, &zeros, b""]);
        assert!(zstd::decode_all(&packed[..]).unwrap() == [mixed, zeros].concat());
    }
}
