//! The cases, in the order of the page.

use super::bench::Bench;
use super::record::Record;
use crate::result::Result;

mod archives;
mod disks;
mod fleet;
mod layers;
pub(crate) mod pulls;
mod shared;
mod stores;

/// A comparison by its name.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Bench) -> Result<Record>,
}

const fn case(name: &'static str, run: fn(&Bench) -> Result<Record>) -> Case {
    Case { name, run }
}

/// All of them.
pub(crate) const CASES: &[Case] = &[
    case("layer-gzip", layers::gzip),
    case("layer-tar", layers::plain),
    case("layer-undigested", layers::undigested),
    case("layer-zstd", layers::zstandard),
    case("layer-small-files", layers::small_files),
    case("layer-one-directory", layers::one_directory),
    case("layer-million", layers::million),
    case("layer-4g", layers::four_gib),
    case("cold-start", pulls::cold_start),
    case("materialize", pulls::materialize),
    case("indexed", pulls::indexed),
    case("pull", pulls::pull),
    case("pull-again", pulls::again),
    case("layers-40", pulls::forty),
    case("layers-120", pulls::hundred_and_twenty),
    case("layers-128", pulls::hundred_and_twenty_eight),
    case("pulls-64", pulls::concurrent),
    case("merge", disks::merge),
    case("flat", disks::flat),
    case("flat-lz4", disks::lz4),
    case("flat-lz4hc", disks::lz4hc),
    case("flat-zstd", disks::zstandard),
    case("whole-erofs", disks::whole_erofs),
    case("whole-ext4", disks::whole_ext4),
    case("ext4-tar", disks::ext4_of_tar),
    case("verity", disks::verity),
    case("upper", disks::upper),
    case("save", archives::save),
    case("save-docker", archives::save_docker),
    case("load", archives::load),
    case("export", archives::export),
    case("sync", archives::sync),
    case("fleet", fleet::second_machine),
    case("fleet-again", fleet::again),
    case("verify", stores::verify),
    case("gc", stores::collect),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::curves::CURVES;
    use super::*;

    #[test]
    fn names_are_unique() {
        let names: Vec<_> =
            CASES.iter().map(|case| case.name).chain(CURVES.iter().map(|curve| curve.name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
