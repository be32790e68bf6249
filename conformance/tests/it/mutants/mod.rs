//! The suite can fail: for every rule there is a mutant that it catches, and what is sound passes all rules.

mod archive;
mod base;
mod cache;
mod client;
mod http;
mod layers;
mod layout;
mod materializer;
mod registry;
mod sanitised;
mod tars;

use std::collections::BTreeSet;

use plyfold_conformance::{Verdict, is_child, rules};

use self::archive::{ArchiveFault, BrokenArchives};
use self::base::{Broken, Fault};
pub(crate) use self::cache::{BrokenCaches, CacheFault};
pub(crate) use self::http::{HttpFault, Small};
pub(crate) use self::layout::{BrokenLayouts, LayoutFault};
pub(crate) use self::materializer::{ListingFault, Listings, Makes};

/// For each registry rule the faults that it must catch.
const REGISTRY: &[(&str, &[Fault])] = &[
    ("R 1", &[Fault::ManifestReserialised]),
    ("R 2", &[Fault::ManifestNotVerifiedByDigest]),
    ("R 3", &[Fault::ManifestNotVerifiedByTag]),
    ("R 4", &[Fault::ResolvesElsewhere]),
    ("R 5", &[Fault::IndexNotVerified]),
    ("R 6", &[Fault::ChildNotVerified]),
    ("R 7", &[Fault::TagWins]),
    ("R 8", &[Fault::LibraryForgotten]),
    ("R 9", &[Fault::ReferenceNotChecked]),
    ("R 10", &[Fault::FirstCompatibleWins, Fault::VariantIgnored]),
    ("R 11", &[Fault::VariantIgnored]),
    ("R 12", &[Fault::PlatformsHidden]),
    ("R 13", &[Fault::UnknownPlatformTaken]),
    ("R 14", &[Fault::PlatformlessIgnored]),
    ("R 257", &[Fault::FeaturesIgnored]),
    ("R 15", &[Fault::NestingIgnored]),
    ("R 16", &[Fault::NestingUnbounded]),
    ("S 76", &[Fault::ManifestReserialised]),
    ("S 77", &[Fault::BlobNotVerified]),
    ("S 78", &[Fault::LayersReordered]),
    ("S 79", &[Fault::DiffIdIgnored]),
    ("S 80", &[Fault::MediaTypeTrusted]),
    ("S 81", &[Fault::WhiteoutsIgnored, Fault::XattrsLost]),
    ("S 82", &[Fault::WhiteoutsByOrder, Fault::WhiteoutsIgnored, Fault::WhiteoutsLast]),
    ("S 83", &[Fault::HardLinksCopied, Fault::LinksLast, Fault::WhiteoutsLast]),
    ("S 84", &[Fault::ForwardLinksLost, Fault::FlatTarReversed]),
    ("S 85", &[Fault::ErrorsEndTheLayer]),
    ("S 86", &[Fault::XattrsLost]),
    ("S 87", &[Fault::ParentsForced, Fault::FlatTarReversed]),
    ("S 88", &[Fault::FirstKindWins]),
    ("S 89", &[Fault::NameNotOverridden]),
    ("S 90", &[Fault::OciTarMislabelled]),
    ("S 91", &[Fault::TarsStamped]),
    ("S 92", &[Fault::TarsEndEarly]),
    ("S 93", &[Fault::ProducersOutlive]),
    ("S 94", &[Fault::LayersOpenedEarly]),
    ("S 97", &[Fault::ArtifactsAsImages]),
    ("S 95", &[Fault::OneSbomOnly, Fault::PredicatesWrapped, Fault::StatementsReadEarly]),
    ("S 96", &[Fault::ReferrersForgotten]),
    ("S 204", &[Fault::OnePlatformSearched]),
    ("S 270", &[Fault::BlobsReadTwice]),
    ("S 271", &[Fault::FlatLinksLost]),
    ("X 98", &[Fault::LayersReordered]),
    ("X 99", &[Fault::CopyReserialises, Fault::PushReserialises]),
    ("X 100", &[Fault::PushReserialises]),
    ("X 101", &[Fault::WhiteoutsIgnored, Fault::FlatTarUnstable]),
    ("X 102", &[Fault::WhiteoutsIgnored]),
    ("X 103", &[Fault::BlobsClaimed, Fault::PushReserialises, Fault::ResolvesElsewhere]),
    ("X 105", &[Fault::NamesHidden, Fault::TagsMixed, Fault::UntaggedHidden]),
    ("E 108", &[Fault::ErrorsSwallowed]),
    ("E 109", &[Fault::DelayLost]),
    ("E 110", &[Fault::BlobNotVerified, Fault::MismatchLost]),
    ("E 111", &[Fault::UnknownTypeIsAbsent]),
    ("E 112", &[Fault::PlatformIgnored]),
    ("E 113", &[Fault::CapabilitiesLie]),
    ("E 114", &[Fault::SourceLost]),
    ("E 115", &[Fault::OutageNotRetryable]),
    ("E 116", &[Fault::SecondPushFails]),
    ("X 223", &[Fault::PushUnverified]),
    ("X 224", &[Fault::TagBeforeContent]),
    ("X 269", &[Fault::ReferrersUnlisted]),
    ("X 274", &[Fault::NamesOneByOne]),
    ("X 275", &[Fault::SubsetForgetsAttestations, Fault::SubsetLosesItsDigest]),
    ("X 276", &[Fault::CosignTagsLost, Fault::ReferrersUnlisted]),
    ("X 277", &[Fault::ConversionForgotten, Fault::CopyRecompresses]),
    ("X 278", &[Fault::PartsForgotten, Fault::PartsNotVerified]),
    ("X 279", &[Fault::NamesPlaceByPlace]),
    ("X 280", &[Fault::ReferrersLost]),
];

/// For each rule about archives the faults that it must catch.
const ARCHIVE: &[(&str, &[ArchiveFault])] = &[
    ("X 106", &[ArchiveFault::DockerSidePreferred, ArchiveFault::LayerlessTaken]),
    ("X 285", &[ArchiveFault::OldDropped, ArchiveFault::ReferrersLost, ArchiveFault::Reserialises]),
    ("X 286", &[ArchiveFault::ChangedOnFailure, ArchiveFault::WrittenInPlace]),
    ("X 287", &[ArchiveFault::LayersRepeated]),
    ("X 288", &[ArchiveFault::PipeTruncated]),
];

/// For each cache rule the faults that it must catch.
const CACHE: &[(&str, &[CacheFault])] = &[
    ("C 40", &[CacheFault::AbsenceIsError]),
    ("C 41", &[CacheFault::ChildrenUnknown]),
    ("C 42", &[CacheFault::RepositoriesMixed]),
    ("C 43", &[CacheFault::DigestUnchecked]),
    ("C 44", &[CacheFault::SizeUnchecked]),
    ("C 45", &[CacheFault::VisibleBeforeCommit]),
    ("C 46", &[CacheFault::DamageKept]),
    ("C 47", &[CacheFault::ExistenceLies]),
    ("C 48", &[CacheFault::NothingIsHere]),
    ("C 49", &[CacheFault::AlwaysAsks]),
    ("C 50", &[CacheFault::NeverRefreshes]),
    ("C 51", &[CacheFault::FetchesAll]),
    ("C 52", &[CacheFault::NamesTheManifest]),
    ("C 53", &[CacheFault::PlatformIgnored]),
    ("C 54", &[CacheFault::VerifyIgnored]),
    ("C 55", &[CacheFault::VariantForgotten]),
    ("C 56", &[CacheFault::DanglingKept]),
    ("C 57", &[CacheFault::IndexInOrder]),
    ("C 58", &[CacheFault::FirstNameStays]),
    ("C 59", &[CacheFault::OneNameForEachDigest]),
    ("C 60", &[CacheFault::RemovesByDigest]),
    ("C 61", &[CacheFault::RemovesContent]),
    ("C 62", &[CacheFault::RemoveNeedsName]),
    ("C 63", &[CacheFault::CollectsLeased, CacheFault::CollectsReferrers]),
    ("C 64", &[CacheFault::CollectsInFlight, CacheFault::CollectsLeased]),
    ("C 65", &[CacheFault::EvictsNewest, CacheFault::EvictsPinned]),
    ("C 66", &[CacheFault::CountsTwice]),
    ("C 67", &[CacheFault::ListUnsorted]),
    ("C 68", &[CacheFault::ContentUnverified]),
    ("C 75", &[CacheFault::PushRefuses, CacheFault::PushRewrites]),
    ("C 183", &[CacheFault::NamesWithoutContent, CacheFault::NothingIsRequired]),
    ("C 184", &[CacheFault::PartialsHidden, CacheFault::PartialsKept]),
    ("C 185", &[CacheFault::ChangedArtifactsTrusted]),
    ("C 186", &[CacheFault::DroppedArtifactsPublished, CacheFault::TwoMakers]),
    ("C 187", &[CacheFault::NameAskedAgain]),
    ("C 188", &[CacheFault::FetchesOnAnyError]),
    ("C 189", &[CacheFault::EndUnsaid, CacheFault::PullsOutlive]),
    ("C 190", &[CacheFault::PagesRepeat, CacheFault::PagesStop]),
    ("C 191", &[CacheFault::LayoutLies, CacheFault::ReadOnlyLies, CacheFault::ScratchLies]),
    ("C 192", &[CacheFault::ArtifactsForgotten]),
    ("C 193", &[CacheFault::NotesLost]),
    ("C 200", &[CacheFault::HitsUnconfirmed]),
    ("K 194", &[CacheFault::OneMakerForAFormat, CacheFault::OutputsMixed]),
    ("C 230", &[CacheFault::RefusalsTellDigests, CacheFault::WarnsBeforeAsking]),
    (
        "C 207",
        &[
            CacheFault::ArtifactsMisnamed,
            CacheFault::ArtifactsReadFromTheStart,
            CacheFault::RangesFromTheStart,
        ],
    ),
    ("K 208", &[CacheFault::MadeByEach, CacheFault::TwoMakers]),
    ("C 210", &[CacheFault::KeyedByText]),
    ("C 267", &[CacheFault::ChangedArtifactsTrusted, CacheFault::LooksWait]),
    ("C 280", &[CacheFault::ArtifactsAppended]),
    ("C 281", &[CacheFault::ReplacesAll, CacheFault::ReplacesSilently]),
    ("C 282", &[CacheFault::OnePlatformLoaded]),
    ("C 283", &[CacheFault::LoadsInPieces]),
    ("C 290", &[CacheFault::EditNamesEarly, CacheFault::EditReserialises]),
    ("C 291", &[CacheFault::EditStamped]),
    ("C 292", &[CacheFault::IndexesCollected]),
    ("X 104", &[CacheFault::FollowsUrls]),
    ("X 107", &[CacheFault::DeltaBlobsForgotten]),
    ("C 220", &[CacheFault::ArtifactsUnverified, CacheFault::ChangedArtifactsTrusted]),
    ("C 221", &[CacheFault::Forgetful, CacheFault::PinsForgotten]),
    (
        "C 222",
        &[
            CacheFault::ContentsMixed,
            CacheFault::FormatsMixed,
            CacheFault::OptionsMixed,
            CacheFault::OutputsMixed,
            CacheFault::VersionsMixed,
        ],
    ),
    ("K 117", &[CacheFault::LosesUpdates]),
    ("K 118", &[CacheFault::TwoWriters]),
    ("K 119", &[CacheFault::DroppedWriterKeepsTurn]),
    ("K 120", &[CacheFault::PublishesInPieces, CacheFault::NamesVanish]),
    ("K 121", &[CacheFault::HandlesIgnoreEachOther]),
    ("K 122", &[CacheFault::NestedWriteFrees]),
    ("K 123", &[CacheFault::OneLockForAll]),
    ("K 124", &[CacheFault::OneLockForAll]),
    ("K 125", &[CacheFault::CollectsLeased]),
    ("K 126", &[CacheFault::ReaderLosesContent]),
    ("D 133", &[CacheFault::ContentUnverified, CacheFault::RepairsNothing, CacheFault::VerifyReadsNothing]),
];

/// For each rule about layout directories the faults that it must catch.
const LAYOUT: &[(&str, &[LayoutFault])] = &[
    (
        "C 69",
        &[
            LayoutFault::FieldsLost,
            LayoutFault::ForeignFilesSwept,
            LayoutFault::NamelessUnknown,
            LayoutFault::NullRefused,
            LayoutFault::PortsCutOff,
            LayoutFault::TagsAlone,
            LayoutFault::UntypedRefused,
        ],
    ),
    (
        "C 70",
        &[
            LayoutFault::BlobsInUpperCase,
            LayoutFault::RefNamesUnwritten,
            LayoutFault::SizesUnknown,
            LayoutFault::TempsAmongBlobs,
            LayoutFault::VersionOfItsOwn,
        ],
    ),
    ("C 71", &[LayoutFault::FieldsLost]),
    ("C 72", &[LayoutFault::OverwritesCorruptVersion, LayoutFault::VersionIgnored]),
    ("C 73", &[LayoutFault::NotesOpening, LayoutFault::NotesReading, LayoutFault::NotesRegistry]),
    ("C 74", &[LayoutFault::OverwritesCorruptIndex]),
    ("D 128", &[LayoutFault::WritesInPlace]),
    ("D 130", &[LayoutFault::SweepsAll]),
    ("D 131", &[LayoutFault::LockIsAFile]),
    ("K 180", &[LayoutFault::PushesUnleased]),
    ("K 181", &[LayoutFault::NamesUnchecked]),
    ("K 182", &[LayoutFault::DeletesLeased]),
];

/// For each rule about HTTP the faults that it must catch.
const HTTP: &[(&str, &[HttpFault])] = &[
    ("R 17", &[HttpFault::RangesOpen]),
    ("R 18", &[HttpFault::RangesNever]),
    ("R 19", &[HttpFault::WholeTakenForPart]),
    ("R 20", &[HttpFault::ContentRangeIgnored]),
    ("R 21", &[HttpFault::UnsatisfiedIsFinal]),
    ("R 22", &[HttpFault::PartialsDropped]),
    ("R 23", &[HttpFault::PartialsTrusted]),
    ("R 24", &[HttpFault::AttemptsGrow]),
    ("R 25", &[HttpFault::DelaysIgnored]),
    ("R 26", &[HttpFault::NothingRetried, HttpFault::PermanentRetried]),
    ("R 27", &[HttpFault::AttemptsGrow]),
    ("R 28", &[HttpFault::ConcurrencyIgnored, HttpFault::OneLayerAtATime]),
    ("R 29", &[HttpFault::DuplicatesFetched]),
    (
        "R 30",
        &[
            HttpFault::EndpointsHidden,
            HttpFault::FallbackOnAbsenceOnly,
            HttpFault::MirrorContentTrusted,
            HttpFault::MirrorsIgnored,
            HttpFault::MirrorsReversed,
            HttpFault::NamespaceToOrigin,
            HttpFault::NamespaceUnsaid,
        ],
    ),
    ("R 174", &[HttpFault::AnswersRotate, HttpFault::FailedGivenUp]),
    ("R 31", &[HttpFault::MirrorsIgnored, HttpFault::MirrorsTrusted]),
    ("R 32", &[HttpFault::AnyRealm, HttpFault::CredentialsFollowRedirects, HttpFault::CredentialsToMirrors]),
    ("R 33", &[HttpFault::HelpersIgnored, HttpFault::IdentityTokensIgnored]),
    ("R 34", &[HttpFault::TokensForgotten, HttpFault::TokensKept, HttpFault::TokensShared]),
    ("R 35", &[HttpFault::SecretsInDebug, HttpFault::SecretsInErrors]),
    (
        "R 36",
        &[
            HttpFault::BareLinksIgnored,
            HttpFault::BrokenLinksIgnored,
            HttpFault::LinksAnywhere,
            HttpFault::LinksIgnored,
        ],
    ),
    ("R 37", &[HttpFault::FallbackTagUnknown, HttpFault::FiltersTrusted]),
    ("R 38", &[HttpFault::HeadAlone, HttpFault::HeadForbiddenIsFinal]),
    ("R 39", &[HttpFault::LabelsIgnored]),
    ("R 171", &[HttpFault::CodingsRefused]),
    ("R 172", &[HttpFault::ScopesAsKnown, HttpFault::ScopesWidened]),
    ("R 173", &[HttpFault::HeaderFollows, HttpFault::HeaderToTokenServers, HttpFault::ProxyForAll]),
];

/// For each materializer rule the faults that it must catch, in what makes layers or images.
const MATERIALIZER: &[(&str, &[(Makes, ListingFault)])] = &[
    (
        "M 147",
        &[
            (Makes::Layers, ListingFault::RunNumberInOutput),
            (Makes::Images, ListingFault::RunNumberInOutput),
            (Makes::Whole, ListingFault::RunNumberInOutput),
        ],
    ),
    (
        "M 148",
        &[
            (Makes::Layers, ListingFault::OwnersLost),
            (Makes::Images, ListingFault::LayersNeeded),
            (Makes::Images, ListingFault::LayersReversed),
            (Makes::Whole, ListingFault::LimitIgnored),
            (Makes::Whole, ListingFault::OwnersLost),
        ],
    ),
    ("M 149", &[(Makes::Layers, ListingFault::FormatBroken), (Makes::Disks, ListingFault::FormatBroken)]),
    (
        "M 150",
        &[
            (Makes::Layers, ListingFault::WhiteoutsAsFiles),
            (Makes::Images, ListingFault::LayersReversed),
            (Makes::Whole, ListingFault::LayersReversed),
            (Makes::Whole, ListingFault::OverlayAttributesKept),
        ],
    ),
    (
        "M 151",
        &[
            (Makes::Layers, ListingFault::OverlayAttributesKept),
            (Makes::Layers, ListingFault::WhiteoutsAsFiles),
        ],
    ),
    ("M 152", &[(Makes::Layers, ListingFault::ContentHeld), (Makes::Whole, ListingFault::ContentHeld)]),
    (
        "M 153",
        &[
            (Makes::Layers, ListingFault::ErrorsSwallowed),
            (Makes::Disks, ListingFault::ErrorsSwallowed),
            (Makes::Whole, ListingFault::ErrorsSwallowed),
        ],
    ),
    (
        "M 159",
        &[
            (Makes::Whole, ListingFault::PatchAppended),
            (Makes::Whole, ListingFault::PatchHalfKept),
            (Makes::Whole, ListingFault::PatchIgnored),
            (Makes::Whole, ListingFault::PatchLosesOld),
            (Makes::Whole, ListingFault::PatchNumbered),
            (Makes::Whole, ListingFault::PatchRefusedLate),
        ],
    ),
    (
        "M 196",
        &[(Makes::Layers, ListingFault::ErrorsSwallowed), (Makes::Whole, ListingFault::BadLayersDropped)],
    ),
    (
        "M 209",
        &[
            (Makes::Images, ListingFault::FileForgotten),
            (Makes::Whole, ListingFault::FileForgotten),
            (Makes::Layers, ListingFault::RunNumberTold),
            (Makes::Whole, ListingFault::RunNumberTold),
        ],
    ),
    ("M 211", &[(Makes::Layers, ListingFault::FileForgotten), (Makes::Whole, ListingFault::NameTaken)]),
    ("M 225", &[(Makes::Layers, ListingFault::OptionUnnamed), (Makes::Whole, ListingFault::OptionUnnamed)]),
    (
        "M 231",
        &[
            (Makes::Whole, ListingFault::AdaptedLosesFiles),
            (Makes::Whole, ListingFault::AdaptedOnEachCall),
            (Makes::Layers, ListingFault::AdaptedReadOnly),
            (Makes::Images, ListingFault::AdaptedReadOnly),
        ],
    ),
    (
        "M 232",
        &[
            (Makes::Layers, ListingFault::ThreadsInOutput(1)),
            (Makes::Whole, ListingFault::ThreadsInOutput(1)),
        ],
    ),
    ("M 234", &[(Makes::Layers, ListingFault::BytesInOutput), (Makes::Whole, ListingFault::BytesInOutput)]),
    (
        "M 245",
        &[
            (Makes::Layers, ListingFault::HashTreeOfPart),
            (Makes::Whole, ListingFault::HashTreeOfPart),
            (Makes::Layers, ListingFault::HashTreeOfPartition),
            (Makes::Whole, ListingFault::HashTreeSeparated),
            (Makes::Images, ListingFault::HashTreeUnsaid),
            (Makes::Whole, ListingFault::HashTreeUntold),
        ],
    ),
    (
        "M 266",
        &[
            (Makes::Whole, ListingFault::FilesMixed),
            (Makes::Whole, ListingFault::NodesInOrder),
            (Makes::Whole, ListingFault::RunsWritten),
        ],
    ),
    (
        "M 268",
        &[
            (Makes::Layers, ListingFault::TarsAlone),
            (Makes::Layers, ListingFault::TarsAloneUnsaid),
            (Makes::Whole, ListingFault::TarsAlone),
        ],
    ),
];

/// For each rule about disks of one kind the faults that it must catch.
const DISK: &[(&str, &[(Makes, ListingFault)])] = &[
    ("M 154", &[(Makes::Described, ListingFault::BytesInOutput)]),
    (
        "M 155",
        &[
            (Makes::Described, ListingFault::DescriptionShort),
            (Makes::Described, ListingFault::LayersReversed),
        ],
    ),
    ("M 156", &[(Makes::Disks, ListingFault::WritesLost)]),
    ("M 157", &[(Makes::Whole, ListingFault::LayersReversed)]),
    ("M 233", &[(Makes::Whole, ListingFault::SizeGuessed), (Makes::Whole, ListingFault::SizeToldLate)]),
];

/// Rules that run their test again as a child process: each of their mutants is a test.
const IN_CHILDREN: &[&str] = &["M 152"];

/// What the listings of mutants are made from.
const ALL: [Makes; 5] = [Makes::Described, Makes::Disks, Makes::Images, Makes::Layers, Makes::Whole];

#[test]
fn what_is_sound_passes() {
    for rule in rules::registry() {
        assert!(rule.holds(&Broken(Fault::None)), "{rule}");
    }
    for rule in rules::archive() {
        assert!(rule.holds(&BrokenArchives(ArchiveFault::None)), "{rule}");
    }
    for rule in rules::cache() {
        assert!(rule.holds(&BrokenCaches(CacheFault::None)), "{rule}");
    }
    for rule in rules::http() {
        assert!(rule.holds(&Small(HttpFault::None)), "{rule}");
    }
    for rule in rules::layout() {
        assert!(rule.holds(&BrokenLayouts(LayoutFault::None)), "{rule}");
    }
    for rule in rules::materializer() {
        for makes in ALL {
            assert!(rule.holds(&Listings { makes, fault: ListingFault::None }), "{rule} for {makes:?}");
        }
    }
    for rule in rules::disk() {
        for makes in ALL {
            assert!(rule.holds(&Listings { makes, fault: ListingFault::None }), "{rule} for {makes:?}");
        }
    }
}

#[test]
fn every_registry_rule_catches_its_mutants() {
    for rule in rules::registry() {
        for fault in faults(REGISTRY, rule.id) {
            assert!(!rule.holds(&Broken(*fault)), "{rule} does not see {fault:?}");
        }
    }
}

#[test]
fn every_archive_rule_catches_its_mutants() {
    for rule in rules::archive() {
        for fault in faults(ARCHIVE, rule.id) {
            assert!(!rule.holds(&BrokenArchives(*fault)), "{rule} does not see {fault:?}");
        }
    }
}

#[test]
fn every_cache_rule_catches_its_mutants() {
    for rule in rules::cache() {
        for fault in faults(CACHE, rule.id) {
            assert!(!rule.holds(&BrokenCaches(*fault)), "{rule} does not see {fault:?}");
        }
    }
}

#[test]
fn every_http_rule_catches_its_mutants() {
    for rule in rules::http() {
        for fault in faults(HTTP, rule.id) {
            assert!(!rule.holds(&Small(*fault)), "{rule} does not see {fault:?}");
        }
    }
}

#[test]
fn every_layout_rule_catches_its_mutants() {
    for rule in rules::layout() {
        for fault in faults(LAYOUT, rule.id) {
            assert!(!rule.holds(&BrokenLayouts(*fault)), "{rule} does not see {fault:?}");
        }
    }
}

#[test]
fn every_materializer_rule_catches_its_mutants() {
    for rule in rules::materializer().filter(|rule| !IN_CHILDREN.contains(&rule.id)) {
        for (makes, fault) in faults(MATERIALIZER, rule.id) {
            let fixture = Listings { makes: *makes, fault: *fault };
            assert!(!rule.holds(&fixture), "{rule} does not see {fixture:?}");
        }
    }
}

#[test]
fn every_disk_rule_catches_its_mutants() {
    for rule in rules::disk() {
        for (makes, fault) in faults(DISK, rule.id) {
            let fixture = Listings { makes: *makes, fault: *fault };
            assert!(!rule.holds(&fixture), "{rule} does not see {fixture:?}");
        }
    }
}

/// Judges the mutant at a place in its row, or a sound one, in the test of this path.
fn judge_in_child(id: &str, mutant: Option<usize>, makes: Makes, test: &str) {
    let rule = rules::materializer().find(|rule| rule.id == id).unwrap();
    let (makes, fault) = mutant.map_or((makes, ListingFault::None), |at| faults(MATERIALIZER, id)[at]);
    let verdict = rule.verdict_in(&Listings { makes, fault }, test);
    let expected = if mutant.is_some() && !is_child() { Verdict::Broken } else { Verdict::Kept };
    assert_eq!(verdict, expected, "{makes:?} {fault:?}");
}

/// A test for each, whose path it knows.
macro_rules! in_children {
    ($($test:ident: $id:literal, $mutant:expr, $makes:expr;)+) => {
        $(#[test]
        fn $test() {
            judge_in_child($id, $mutant, $makes, concat!(module_path!(), "::", stringify!($test)));
        })+
    };
}

in_children! {
    bounded_layers_are_kept: "M 152", None, Makes::Layers;
    bounded_joined_files_are_kept: "M 152", None, Makes::Images;
    bounded_images_are_kept: "M 152", None, Makes::Whole;
    a_layer_in_memory_is_seen: "M 152", Some(0), Makes::Layers;
    an_image_in_memory_is_seen: "M 152", Some(1), Makes::Whole;
}

#[test]
fn no_rule_lacks_a_mutant() {
    let rules = rules::registry().map(|rule| rule.id).chain(rules::cache().map(|rule| rule.id));
    let rules = rules.chain(rules::archive().map(|rule| rule.id));
    let rules = rules.chain(rules::layout().map(|rule| rule.id));
    let rules = rules.chain(rules::http().map(|rule| rule.id));
    let rules = rules.chain(rules::materializer().map(|rule| rule.id));
    let rules: BTreeSet<_> = rules.chain(rules::disk().map(|rule| rule.id)).collect();
    let tables = REGISTRY.iter().map(|row| row.0).chain(CACHE.iter().map(|row| row.0));
    let tables = tables.chain(ARCHIVE.iter().map(|row| row.0));
    let tables = tables.chain(LAYOUT.iter().map(|row| row.0));
    let tables = tables.chain(HTTP.iter().map(|row| row.0));
    let tables = tables.chain(MATERIALIZER.iter().map(|row| row.0));
    let tables: BTreeSet<_> = tables.chain(DISK.iter().map(|row| row.0)).collect();
    assert_eq!(rules, tables);
}

fn faults<T>(table: &'static [(&str, &[T])], id: &str) -> &'static [T] {
    let row = table.iter().find(|row| row.0 == id);
    row.unwrap_or_else(|| panic!("{id} has no mutant")).1
}
