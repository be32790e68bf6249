//! Spans of time as people write them: `90s`, `15m`, `12h`, `7d`.

use std::time::{Duration, SystemTime};

const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)];

/// A whole number with a unit: seconds, minutes, hours or days.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| "a time begins with a whole number".to_owned())?;
    let seconds = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| seconds);
    let seconds = seconds.ok_or("write a number with s, m, h or d, such as 15m or 7d")?;
    number.checked_mul(*seconds).map(Duration::from_secs).ok_or_else(|| "the time is too long".to_owned())
}

/// How long ago something was, rounded down: `now` below two minutes, then minutes, hours from two on, days likewise.
pub(crate) fn ago(then: SystemTime) -> String {
    // After a clock was set back the age is 0.
    let seconds = then.elapsed().unwrap_or_default().as_secs();
    let unit = UNITS.iter().rev().find(|(name, unit)| *name != "s" && seconds >= 2 * unit);
    unit.map_or_else(|| "now".to_owned(), |(name, unit)| format!("{}{name} ago", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "7", "d", "1.5h", "-1s", "1 h", "1w", "1D", "18446744073709551615d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_are_rounded_down() {
        for (seconds, text) in [
            (0, "now"),
            (100, "now"),
            (150, "2m ago"),
            (7100, "118m ago"),
            (7300, "2h ago"),
            (200_000, "2d ago"),
        ] {
            assert_eq!(ago(SystemTime::now() - Duration::from_secs(seconds)), text);
        }
        assert_eq!(ago(SystemTime::now() + Duration::from_secs(1000)), "now");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_is_a_time_or_an_error(
            text in "-?[0-9]{0,40}(\\.[0-9]*)?(e[0-9]{1,3})?( ?(s|m|h|d|w|ms)){0,2}|NaN|.{0,12}",
            seconds in 0..(1_u64 << 60),
        ) {
            if let Ok(age) = parse(&text) {
                proptest::prop_assert!(text.starts_with(|c: char| c.is_ascii_digit()));
                // A time before the epoch must not panic.
                let _ = SystemTime::now().checked_sub(age);
            }
            let future = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            proptest::prop_assert!(!ago(future).is_empty() && !ago(SystemTime::UNIX_EPOCH).is_empty());
        }
    }
}
