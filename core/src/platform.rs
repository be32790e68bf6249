//! Platforms: parsing, this host's, and the choice among an index's children.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Arch, Os, Platform as PlatformDocument};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::{Descriptor, Error, Result};

/// The feature of images whose layers are EROFS images. plyfold has it always: see [`Platform::features`].
pub const EROFS_FEATURE: &str = "erofs";

/// What is encoded of a feature in a platform's text.
const FEATURE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-');

/// A wanted or offered platform, normalised as containerd's `platforms` package does: `aarch64` is `arm64`,
/// `arm` is `arm/v7`, `arm64/v8` is `arm64`, `amd64/v1` is `amd64`. Features of the operating system stand in brackets
/// behind it, each after a `+`: `linux(+erofs)/amd64`. In them every byte but letters, digits, `_`, `.` and `-` is written as
/// `%` and two hexadecimal digits.
///
/// ```
/// use plyfold_core::Platform;
///
/// let platform: Platform = "linux/aarch64".parse()?;
/// assert_eq!(platform.to_string(), "linux/arm64");
/// assert_eq!("linux/arm".parse::<Platform>()?.to_string(), "linux/arm/v7");
/// assert_eq!("linux(+erofs)/x86_64".parse::<Platform>()?.features(), ["erofs"]);
/// # Ok::<(), plyfold_core::Error>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
    features: Vec<String>,
}

impl Platform {
    /// A platform of an operating system, an architecture (Go's names) and a CPU variant.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = os.to_lowercase();
        let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_lowercase);
        let (architecture, variant) = match (architecture.to_lowercase().as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64".to_owned(), None),
            ("x86_64" | "x86-64", _) => ("amd64".to_owned(), variant),
            ("aarch64" | "arm64", Some("8" | "v8") | None) => ("arm64".to_owned(), None),
            ("aarch64", _) => ("arm64".to_owned(), variant),
            ("armhf", _) | ("arm", Some("7") | None) => ("arm".to_owned(), Some("v7".to_owned())),
            ("armel", _) => ("arm".to_owned(), Some("v6".to_owned())),
            ("arm", Some(digit @ ("5" | "6" | "8"))) => ("arm".to_owned(), Some(format!("v{digit}"))),
            ("i386" | "i486" | "i586" | "i686", _) => ("386".to_owned(), None),
            (other, _) => (other.to_owned(), variant),
        };
        Self { os, architecture, variant, features: Vec::new() }
    }

    /// The same with these features of the operating system (`os.features` of an OCI document), in place of any others.
    #[must_use]
    pub fn with_features(mut self, features: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.features = features.into_iter().map(Into::into).filter(|feature| !feature.is_empty()).collect();
        self.features.sort();
        self.features.dedup();
        self
    }

    /// Linux on this machine's processor, with the highest amd64 level that it runs.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new("linux", architecture, host_variant())
    }

    /// The operating system, in Go's spelling.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture, in Go's spelling.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The CPU variant; `None` is the architecture's baseline.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// Features of the operating system, sorted: those that an image needs, or those that a caller has or asks for.
    ///
    /// Where `erofs` is wanted, an image of EROFS layers comes before others for the same processor. Where it is not,
    /// such an image is chosen only if an index has no other one for the platform.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// How well content for `offered` runs where `self` is wanted: 0 is exact, higher is further down the
    /// ladder of variants, `None` does not run, such as what needs a feature that is not wanted.
    pub fn distance(&self, offered: &Self) -> Option<u8> {
        if self.os != offered.os || !offered.features.iter().all(|needed| self.features.contains(needed)) {
            return None;
        }
        let ladder = self.ladder();
        let same = |(arch, variant): &(&str, Option<String>)| {
            *arch == offered.architecture && *variant == offered.variant
        };
        ladder.iter().position(same).and_then(|position| u8::try_from(position).ok())
    }

    /// Every (architecture, variant) that runs here, best first.
    fn ladder(&self) -> Vec<(&str, Option<String>)> {
        let architecture = self.architecture.as_str();
        let level = self.variant.as_deref().and_then(|variant| variant.strip_prefix('v')?.parse::<u8>().ok());
        let down = |architecture, from: u8, to: u8| {
            (to..from).rev().map(move |level| (architecture, Some(format!("v{level}"))))
        };
        let mut ladder = vec![(architecture, self.variant.clone())];
        match architecture {
            "amd64" => ladder.extend(down("amd64", level.unwrap_or(1).min(8), 2)),
            "arm" => ladder.extend(down("arm", level.unwrap_or(7).min(8), 5)),
            _ => {}
        }
        // An arm without a variant is v7.
        if architecture != "arm" {
            ladder.push((architecture, None));
        }
        if architecture == "arm64" {
            ladder.extend(down("arm", 9, 5));
        }
        ladder.dedup();
        ladder
    }

    /// `unknown/unknown`: what `BuildKit` gives to attestations. Never chosen.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }
}

#[cfg(target_arch = "x86_64")]
fn host_variant() -> Option<&'static str> {
    // The x86-64 psABI's micro-architecture levels; a few features stand for each.
    let v2 = is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("popcnt");
    let v3 = v2
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt");
    let v4 = v3
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => Some("v4"),
        (_, true, _) => Some("v3"),
        (true, ..) => Some("v2"),
        _ => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn host_variant() -> Option<&'static str> {
    None
}

impl Default for Platform {
    fn default() -> Self {
        Self::host()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.features.is_empty() {
            f.write_str("(")?;
            for feature in &self.features {
                write!(f, "+{}", percent_encode(feature.as_bytes(), FEATURE))?;
            }
            f.write_str(")")?;
        }
        write!(f, "/{}", self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts: Vec<&str> = text.split('/').collect();
        let mut features = Vec::new();
        let opened = parts[0].split_once('(').and_then(|(os, rest)| Some((os, rest.strip_suffix(')')?)));
        if let Some((os, list)) = opened
            && let Some(list) = list.strip_prefix('+')
        {
            parts[0] = os;
            features.extend(list.split('+').map(feature));
        }
        let features: Option<Vec<String>> = features.into_iter().collect();
        let valid = |part: &&str| {
            !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
        };
        let platform = match (parts.iter().all(valid), parts.as_slice()) {
            (true, [os, architecture]) => Some(Self::new(os, architecture, None)),
            (true, [os, architecture, variant]) => Some(Self::new(os, architecture, Some(variant))),
            _ => None,
        };
        let platform = platform.zip(features).map(|(platform, features)| platform.with_features(features));
        platform.ok_or_else(|| {
            Error::config(format!("invalid platform {text:?}")).with_hint(
                "a platform is os/arch or os/arch/variant, such as linux/arm64, or os(+feature)/arch, such as linux(+erofs)/amd64",
            )
        })
    }
}

/// A feature out of its text form; `None` for what is none.
fn feature(text: &str) -> Option<String> {
    let valid = |c: u8| c.is_ascii_alphanumeric() || b"_.-%".contains(&c);
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    (!text.is_empty() && text.bytes().all(valid)).then(|| decoded.into_owned())
}

impl From<&PlatformDocument> for Platform {
    fn from(document: &PlatformDocument) -> Self {
        let os = document.os().to_string();
        let architecture = document.architecture().to_string();
        let features = document.os_features().clone().unwrap_or_default();
        Self::new(&os, &architecture, document.variant().as_deref()).with_features(features)
    }
}

impl From<&Platform> for PlatformDocument {
    fn from(platform: &Platform) -> Self {
        let mut document = Self::default();
        document.set_os(Os::from(platform.os.as_str()));
        document.set_architecture(Arch::from(platform.architecture.as_str()));
        document.set_variant(platform.variant.clone());
        document.set_os_features(Some(platform.features.clone()).filter(|list| !list.is_empty()));
        document
    }
}

/// An index's children in the order in which they should be tried for `wanted`: exact before compatible, more of the
/// wanted features before fewer, index order among equals, then nested indexes and children without a platform, whose own
/// documents must decide. Attestations, `unknown/unknown` and children that need features which are not wanted are never
/// candidates.
pub fn candidates<'a>(children: &'a [Descriptor], wanted: &Platform) -> Vec<&'a Descriptor> {
    let mut ranked: Vec<(Rank, &Descriptor)> =
        children.iter().filter_map(|child| Some((rank(child, wanted)?, child))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, child)| child).collect()
}

/// The place on the ladder, then the features that are not used.
type Rank = (u16, usize);

fn rank(child: &Descriptor, wanted: &Platform) -> Option<Rank> {
    const UNDECIDED: Rank = (256, 0);
    if is_attestation(child) {
        return None;
    }
    let Some(document) = child.platform() else { return Some(UNDECIDED) };
    let offered = Platform::from(document);
    let unused = wanted.features.len().saturating_sub(offered.features.len());
    Some((wanted.distance(&offered)?.into(), unused))
}

/// Whether a child of an index is an attestation about another one, as `BuildKit` marks it.
pub fn is_attestation(child: &Descriptor) -> bool {
    let is_marked =
        child.annotations().as_ref().is_some_and(|map| map.contains_key("vnd.docker.reference.type"));
    is_marked || child.platform().as_ref().is_some_and(|platform| Platform::from(platform).is_unknown())
}

/// The platforms of an index's children, for [`PlatformNotFound`](crate::ErrorKind::PlatformNotFound).
pub fn available(children: &[Descriptor]) -> Vec<String> {
    let platforms = children.iter().filter_map(|child| child.platform().as_ref()).map(Platform::from);
    let mut names: Vec<String> =
        platforms.filter(|platform| !platform.is_unknown()).map(|platform| platform.to_string()).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn variants_of_arm_are_distinct_and_ordered() {
        let v7 = platform("linux/arm/v7");
        assert_eq!(v7.distance(&platform("linux/arm/v7")), Some(0));
        assert_eq!(v7.distance(&platform("linux/arm/v6")), Some(1));
        assert_eq!(v7.distance(&platform("linux/arm/v8")), None);
        assert_eq!(v7.distance(&platform("linux/arm64")), None);
        assert_eq!(platform("linux/arm64").distance(&platform("linux/arm/v7")), Some(2));
    }

    #[test]
    fn amd64_levels_never_exceed_the_wanted_one() {
        let v2 = platform("linux/amd64/v2");
        assert_eq!(v2.distance(&platform("linux/amd64/v3")), None);
        assert_eq!(v2.distance(&platform("linux/amd64")), Some(1));
        let v3 = platform("linux/amd64/v3");
        assert!(v3.distance(&platform("linux/amd64/v2")) < v3.distance(&platform("linux/amd64")));
        assert_eq!(platform("linux/amd64").distance(&platform("linux/amd64/v2")), None);
    }

    #[test]
    fn features_are_needed_by_images_and_asked_for_by_callers() {
        let (plain, native) = (platform("linux/amd64"), platform("linux(+erofs)/amd64"));
        assert_eq!(plain.distance(&native), None, "a feature that is not there");
        assert_eq!(native.distance(&plain), Some(0), "a feature that is not needed");
        assert_eq!(native.distance(&native), Some(0));
        assert_eq!(platform("linux(+erofs+erofs+a)/amd64").to_string(), "linux(+a+erofs)/amd64");
        assert_eq!(PlatformDocument::from(&native).os_features(), &Some(vec!["erofs".to_owned()]));
        assert_eq!(PlatformDocument::from(&plain).os_features(), &None);
        let odd = plain.with_features(["a/b +(é)", "", "%"]);
        assert_eq!(odd.to_string(), "linux(+%25+a%2Fb%20%2B%28%C3%A9%29)/amd64");
        assert_eq!(odd, platform(&odd.to_string()));
        for text in [
            "linux()/amd64",
            "linux(+)/amd64",
            "linux(erofs)/amd64",
            "linux(+a/amd64",
            "linux(+a b)/amd64",
            "(+a)/amd64",
            "linux(+%ff)/amd64",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn spellings_are_one_platform() {
        for text in ["linux/x86_64", "linux/amd64/v1", "Linux/AMD64"] {
            assert_eq!(platform(text), platform("linux/amd64"), "{text}");
        }
        assert_eq!(platform("linux/arm64/v8"), platform("linux/aarch64"));
        for text in ["", "linux", "linux//v8", "a/b/c/d", "linux/arm\u{1b}"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }
}
