//! Sizes for readers.

use std::fmt::{self, Display};

/// Bytes for a reader, rounded down to a tenth of a binary unit.
///
/// ```
/// use plyfold_core::Size;
///
/// assert_eq!(Size(17).to_string(), "17 B");
/// assert_eq!(Size(5 << 19).to_string(), "2.5 MiB");
/// ```
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Size(pub u64);

impl Size {
    /// Bytes out of a number with an optional binary unit: `K`, `M`, `G`, `T`, also as `KiB` and so on.
    ///
    /// # Errors
    /// The reason, for a reader.
    ///
    /// ```
    /// use plyfold_core::Size;
    ///
    /// assert_eq!(Size::parse("8GiB"), Ok(Size(8 << 30)));
    /// assert!(Size::parse("8GB").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            // "8GB" means 8,000,000,000 to some and 8 GiB to others.
            _ => return Err("write a number with K, M, G or T, such as 512M or 8GiB"),
        };
        if number.is_empty() {
            return Err("a size begins with a whole number");
        }
        // Digits alone: what cannot be parsed is too large.
        let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(1 << shift));
        bytes.map(Self).ok_or("the size is too large: every size is below 16 EiB")
    }

    /// The text of this size where it is compared with another one: in bytes if both look alike otherwise.
    ///
    /// ```
    /// use plyfold_core::Size;
    ///
    /// assert_eq!(Size(4096).against(Size(2048)), "4.0 KiB");
    /// assert_eq!(Size(4097).against(Size(4096)), "4097 B");
    /// ```
    pub fn against(self, other: Self) -> String {
        let text = self.to_string();
        if self != other && text == other.to_string() { format!("{} B", self.0) } else { text }
    }

    /// What is too large, and the largest that is not, in the words of every such error: `6.0 MiB, the limit is 4.0 MiB`.
    pub fn beyond(self, limit: Self) -> String {
        format!("{}, the limit is {}", self.against(limit), limit.against(self))
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let Some(unit) = (self.0.max(1).ilog2() as usize / 10).checked_sub(1) else {
            return f.pad(&format!("{} B", self.0));
        };
        let tenths = (u128::from(self.0) * 10) >> (10 * (unit + 1));
        f.pad(&format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_rounded_down() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((8 << 30) - 1, "7.9 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
