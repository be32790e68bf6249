//! Whatever text stands where a number, a platform, a name or a document should: an outcome, never a panic.

use plyfold_core::layer::{LayerLimits, LayerOptions, LayerTar};
use plyfold_core::layout_index::{LayoutIndex, image_in};
use plyfold_core::{
    BlobRange, Location, MediaType, Options, Platform, RawManifest, digest, manifest, platform, reference,
};
use proptest::prelude::*;

/// Numbers as hostile writers spell them.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        "-?[0-9]{1,40}",
        "[0-9]{1,5}e[+-]?[0-9]{1,4}",
        "0x[0-9a-f]{1,20}",
        "[0-9]{1,20}\\.[0-9]{0,30}",
        Just("NaN".to_owned()),
        Just("-inf".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("9223372036854775808".to_owned()),
        Just("-9223372036854775809".to_owned()),
        Just(String::new()),
    ]
}

/// Texts that begin as the right ones do.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![number(), "[a-z0-9./:@_\\-]{0,12}", ".{0,8}", Just("sha256:".to_owned())];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// A header of a tar whose numbers are any bytes.
fn header(numbers: &[u8], kind: u8, content: usize) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    block[..4].copy_from_slice(b"name");
    block[100..148].copy_from_slice(&numbers[..48]);
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[329..345].copy_from_slice(&numbers[48..64]);
    if numbers[64] < 200 {
        // The size is sound, so that the other numbers are read.
        block[124..136].copy_from_slice(format!("{content:011o}\0").as_bytes());
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn read_all(tar: Vec<u8>) {
    let options = LayerOptions { limits: LayerLimits::default(), ..LayerOptions::default() };
    let Ok(mut layer) = LayerTar::new(std::io::Cursor::new(tar), options) else { return };
    while let Ok(Some(_)) = layer.next_entry() {}
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn texts_are_parsed_or_refused(text in text(), other in text(), limit in any::<u64>(), start in any::<u64>()) {
        if let Ok(wanted) = text.parse::<Platform>() {
            prop_assert_eq!(wanted.to_string().parse::<Platform>().unwrap(), wanted.clone());
            let offered = Platform::new("linux", &text, Some(&other));
            let _ = (wanted.distance(&offered), offered.distance(&wanted), platform::candidates(&[], &wanted));
        }
        let odd = Platform::new("linux", "amd64", Some(&format!("v{other}")));
        let _ = odd.distance(&Platform::host());
        let arm = Platform::new("linux", "arm", Some(&format!("v{other}")));
        let _ = (arm.distance(&odd), Platform::new(&text, "arm64", Some(&other)).distance(&arm));
        for name in [text.clone(), format!("host:{text}"), format!("r.lan:{text}/a:{other}"), format!("a@{text}")] {
            if let Ok(parsed) = reference::parse(&name) {
                let _ = (reference::digest_of(&parsed), reference::repository_of(&parsed));
            }
            let _ = image_in("/srv/base".as_ref(), &name);
        }
        let _ = digest::parse(&text);
        if let Ok(location) = Location::parse(&format!("oci:{text}")) {
            let (path, image) = location.path_and_image();
            prop_assert!(location.rest.starts_with(path) && image.is_none_or(|image| location.rest.ends_with(image)));
        }
        let _ = BlobRange::new(start, limit).resolve(start ^ limit);
    }

    #[test]
    fn options_are_parsed_or_refused(key in "[a-z]{1,8}", value in text(), number in number()) {
        #[derive(serde::Deserialize)]
        #[serde(default)]
        #[derive(Default)]
        struct Config { small: u32, large: u64, real: f64, text: String, list: Vec<u16> }
        for (key, value) in [(key.as_str(), &value), ("small", &number), ("large", &number), ("real", &number), ("text", &number), ("list", &value)] {
            let options = Options::parse([format!("{key}={value}").as_str()]).unwrap();
            let config = options.config::<Config>();
            prop_assert!(key != "text" || config.as_ref().is_ok_and(|config| config.text == *value));
            if let Ok(config) = config {
                let _ = (config.small, config.large, config.real, config.list);
            }
        }
    }

    /// A number in a document is one, or the document is refused.
    #[test]
    fn documents_with_any_number_are_parsed_or_refused(number in number(), text in "[ -~]{0,12}") {
        let descriptor = |size: &str| format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":{size},"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}"#
        );
        let quoted = serde_json::to_string(&text).unwrap();
        for value in [number.as_str(), &quoted, "null", "[]", "{}", "true"] {
            let one = descriptor(value);
            let documents = [
                format!(r#"{{"schemaVersion":2,"config":{one},"layers":[{one}]}}"#),
                format!(r#"{{"schemaVersion":2,"manifests":[{one}]}}"#),
                format!(r#"{{"schemaVersion":{value},"manifests":[]}}"#),
                format!(r#"{{"schemaVersion":2,"manifests":{value}}}"#),
            ];
            for document in documents {
                if let Ok(raw) = RawManifest::new(document.clone(), Some(&MediaType::ImageIndex)) {
                    let sizes = raw.references().iter().fold(0_u64, |sum, one| sum.saturating_add(one.size()));
                    prop_assert!(i64::try_from(sizes).is_ok());
                }
                let _ = RawManifest::new(document.clone(), None);
                let _ = LayoutIndex::parse(document.as_bytes(), "/srv/base".as_ref());
                let _ = LayoutIndex::salvage(document.as_bytes(), "/srv/base".as_ref());
            }
            let config = format!(r#"{{"os":"linux","created":{value},"rootfs":{{"type":"layers","diff_ids":{value}}}}}"#);
            let _ = manifest::configuration(config.as_bytes());
        }
    }

    /// Modes, owners, sizes, times and devices of a tar's header, in octal, in base 256, and as neither.
    #[test]
    fn numbers_of_tar_headers_are_parsed_or_refused(
        numbers in proptest::collection::vec(any::<u8>(), 65),
        octal in "[0-9 +\\-\\x00]{48}",
        kind in proptest::sample::select(b"012345670SLKxgDMVAN\0".to_vec()),
    ) {
        let with_octal: Vec<u8> = octal.bytes().take(48).chain(numbers[48..].iter().copied()).collect();
        for numbers in [&numbers, &with_octal] {
            let mut tar = header(numbers, kind, 0);
            tar.extend(header(&[b'0'; 65], b'0', 0));
            tar.extend([0; 1024]);
            read_all(tar);
        }
    }

    #[test]
    fn numbers_of_pax_records_are_parsed_or_refused(
        key in proptest::sample::select(vec![
            "mtime", "atime", "ctime", "size", "uid", "gid", "GNU.sparse.size", "GNU.sparse.realsize",
            "GNU.sparse.map", "GNU.sparse.offset", "GNU.sparse.numbytes", "GNU.sparse.numblocks",
            "GNU.sparse.major", "SCHILY.devmajor", "SCHILY.devminor", "hdrcharset",
        ]),
        value in number(),
        other in number(),
        length in number(),
    ) {
        for value in [value.clone(), format!("{value}.{other}"), format!("{value},{other}"), format!("-{value}")] {
            let body = format!(" {key}={value}\n");
            let mut size = body.len() + 1;
            while size.to_string().len() + body.len() != size {
                size = size.to_string().len() + body.len();
            }
            for records in [format!("{size}{body}"), format!("{length}{body}")] {
                let mut tar = header(&[b'0'; 65], b'x', records.len());
                tar.extend(records.as_bytes());
                tar.resize(tar.len().next_multiple_of(512), 0);
                tar.extend(header(&[b'0'; 65], b'0', 0));
                tar.extend([0; 1024]);
                read_all(tar);
            }
        }
    }
}
