//! Sizes as people write them: `512M`, `8G`, `1TiB`.

pub(crate) use crate::Size;

/// Bytes out of a number with an optional binary unit: `K`, `M`, `G`, `T`, also as `KiB` and so on.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    Size::parse(text).map(|size| size.0).map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1K", 1024),
            ("512M", 512 << 20),
            ("8g", 8 << 30),
            ("8GiB", 8 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "G", "8GB", "8.5G", "-1", "8 G", "1P", "99999999999999999999", "18446744073709551615K"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_is_a_size_or_an_error(
            text in "-?[0-9]{0,40}(\\.[0-9]*)?(e[0-9]{1,3})?( ?[kKmMgGtTpP]?(iB|B|b)?)?|NaN|.{0,12}",
            bytes in proptest::prelude::any::<u64>(),
        ) {
            let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            if let Ok(bytes) = parse(&text) {
                proptest::prop_assert!(text[..digits].parse::<u64>().is_ok_and(|number| bytes >= number));
                // The disk format checks the range.
                let _ = crate::Rootfs::erofs_layers().upper(bytes).check();
            }
            let _ = crate::Rootfs::erofs_layers().upper(bytes).check();
            proptest::prop_assert!(Size(bytes).to_string().ends_with('B'));
        }
    }
}
