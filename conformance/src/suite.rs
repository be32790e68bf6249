//! The macros that turn rules into tests.

/// One `#[test]` for each rule about an image registry (groups R, S, X and E) on a [`Fixture`](crate::Fixture): it puts
/// samples into a fresh medium, and opens that with the backend under test.
///
/// ```no_run
/// use async_trait::async_trait;
/// use plyfold_conformance::{BackendUnderTest, Fixture, FixtureImage};
/// # use plyfold_core::memory::MemoryRegistry;
///
/// struct Folders;
///
/// #[async_trait]
/// impl Fixture for Folders {
///     async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
///         let folder = tempfile::tempdir().expect("a temporary folder");
///         for FixtureImage { reference, sample } in images {
///             // … write down that `reference` stands for `sample.top`, and:
///             # let _ = (reference, sample.top.digest());
///             for blob in &sample.blobs {
///                 let path = folder.path().join(blob.descriptor.digest().as_ref());
///                 std::fs::write(path, &blob.bytes).expect("a blob is written");
///             }
///         }
///         let names = images.iter().map(|image| image.reference.clone()).collect();
///         // … the backend under test, on this folder. The folder is kept as long as it.
/// #       let backend = MemoryRegistry::new("doc");
///         BackendUnderTest::new(Box::new(backend), names, folder)
///     }
/// }
///
/// plyfold_conformance::registry_suite!(Folders);
/// ```
#[macro_export]
macro_rules! registry_suite {
    ($fixture:expr) => {
        $crate::__registry_tables! { __tests ($crate::rules::registry(), $fixture) }
    };
}

/// One `#[test]` for each rule about archives (group X) on an [`ArchiveFixture`](crate::ArchiveFixture): files of several
/// images that a backend reads and writes.
///
/// ```no_run
/// use std::path::Path;
///
/// use plyfold_conformance::ArchiveFixture;
/// use plyfold_core::{ImageRegistry, Result, memory::MemoryRegistry};
///
/// struct Files;
///
/// #[async_trait::async_trait]
/// impl ArchiveFixture for Files {
///     async fn open(&self, path: &Path) -> Result<Box<dyn ImageRegistry>> {
///         // … the backend under test, on this file.
/// #       let _ = path;
/// #       Ok(Box::new(MemoryRegistry::new("doc")))
///     }
/// }
///
/// plyfold_conformance::archive_suite!(Files);
/// ```
#[macro_export]
macro_rules! archive_suite {
    ($fixture:expr) => {
        $crate::__archive_rules! { __tests ($crate::rules::archive(), $fixture) }
    };
}

/// One `#[test]` for each rule about a cache (groups C, K and D) on a [`CacheFixture`](crate::CacheFixture).
///
/// ```no_run
/// use async_trait::async_trait;
/// use plyfold_conformance::{CacheMedium, CacheFixture, CacheUnderTest};
/// use plyfold_core::{CacheProvider, Digest, Result, memory::MemoryCache};
///
/// struct Fresh;
///
/// /// Where the cache under test keeps things: a directory, a bucket, a database; here another cache.
/// #[derive(Debug)]
/// struct Medium(MemoryCache);
///
/// #[async_trait]
/// impl CacheFixture for Fresh {
///     async fn open(&self) -> CacheUnderTest {
///         let cache = MemoryCache::new().expect("a fresh cache opens");
///         CacheUnderTest::new(Box::new(cache.clone()), Medium(cache))
///     }
/// }
///
/// #[async_trait]
/// impl CacheMedium for Medium {
///     async fn reopen(&self) -> Result<Box<dyn CacheProvider>> {
///         Ok(Box::new(self.0.clone()))
///     }
///
///     fn damage(&self, digest: &Digest, content: &[u8]) {
///         self.0.insert_blob(digest.clone(), content.to_vec());
///     }
///
///     fn leftovers(&self) -> Vec<String> {
///         Vec::new()
///     }
/// }
///
/// plyfold_conformance::cache_suite!(Fresh);
/// ```
#[macro_export]
macro_rules! cache_suite {
    ($fixture:expr) => {
        $crate::__cache_tables! { __tests ($crate::rules::cache(), $fixture) }
    };
}

/// One `#[test]` for each rule about a cache that is an OCI layout directory (groups C, K and D) on a
/// [`LayoutFixture`](crate::LayoutFixture): what other programs see in it, and what they leave there.
///
/// ```no_run
/// use std::path::Path;
///
/// use plyfold_conformance::LayoutFixture;
/// use plyfold_core::{CacheProvider, Result, memory::MemoryCache};
///
/// struct Directories;
///
/// #[async_trait::async_trait]
/// impl LayoutFixture for Directories {
///     async fn open(&self, directory: &Path) -> Result<Box<dyn CacheProvider>> {
///         // … the cache under test, in this directory.
/// #       let _ = directory;
/// #       Ok(Box::new(MemoryCache::new()?))
///     }
/// }
///
/// plyfold_conformance::layout_suite!(Directories);
/// ```
#[macro_export]
macro_rules! layout_suite {
    ($fixture:expr) => {
        $crate::__layout_rules! { __tests ($crate::rules::layout(), $fixture) }
    };
}

/// One `#[test]` for each rule about a materializer (group M) on a [`MaterializerFixture`](crate::MaterializerFixture):
/// it reads finished files.
///
/// ```no_run
/// use std::{path::Path, process::Command};
///
/// use plyfold_conformance::{FormatFidelity, MaterializerFixture, tree::TreeLine};
/// use plyfold_core::{InputArtifact, Materializer};
/// # #[derive(Clone, Debug)]
/// # struct Squash;
/// # impl Materializer for Squash {
/// #     fn format(&self) -> plyfold_core::Format {
/// #         plyfold_core::Format { name: "squash", version: 1, options: String::new(), extension: "sqfs" }
/// #     }
/// #     fn input(&self) -> plyfold_core::Input { plyfold_core::Input::Image }
/// # }
/// # fn read_squash(_: &Path) -> Vec<TreeLine> { Vec::new() }
///
/// struct Files;
///
/// impl MaterializerFixture for Files {
///     fn materializer(&self) -> Box<dyn Materializer> {
///         Box::new(Squash)
///     }
///
///     /// What the format cannot hold, the rules do not ask for.
///     fn fidelity(&self) -> FormatFidelity {
///         FormatFidelity::default().with_times(std::time::Duration::from_secs(1), 0..=u32::MAX.into())
///     }
///
///     fn tree(&self, file: &Path, _: &[InputArtifact]) -> Vec<TreeLine> {
///         // … by a reader, with `plyfold_conformance::tree::lines`, or by a mount, with `tree::mounted`.
///         read_squash(file)
///     }
///
///     fn check(&self, file: &Path, _: &[InputArtifact]) {
///         let checked = Command::new("unsquashfs").arg("-stat").arg(file).status();
///         assert!(checked.expect("unsquashfs runs").success());
///     }
/// }
///
/// plyfold_conformance::materializer_suite!(Files);
/// ```
#[macro_export]
macro_rules! materializer_suite {
    ($fixture:expr) => {
        $crate::__materializer_rules! { __tests_in ($crate::rules::materializer(), $fixture) }
    };
}

/// One `#[test]` for each rule about disks of one kind (group M) on a [`DiskFixture`](crate::DiskFixture): disks that refer
/// to other files, that are described by a text, that are written to, that boot, that are made to a size. A format is
/// judged by those that its fixture has the means for, and lists the others.
///
/// ```no_run
/// use std::path::Path;
///
/// use plyfold_conformance::tree::TreeLine;
/// use plyfold_conformance::{DiskFixture, MaterializerFixture};
/// use plyfold_core::{InputArtifact, Materializer};
/// # #[derive(Clone, Debug)]
/// # struct Scratch;
/// # impl Materializer for Scratch {
/// #     fn format(&self) -> plyfold_core::Format {
/// #         plyfold_core::Format { name: "scratch", version: 1, options: String::new(), extension: "img" }
/// #     }
/// #     fn input(&self) -> plyfold_core::Input { plyfold_core::Input::Nothing }
/// # }
///
/// struct Disks;
///
/// impl MaterializerFixture for Disks {
///     // … as for `materializer_suite!`.
/// #   fn materializer(&self) -> Box<dyn Materializer> { Box::new(Scratch) }
/// #   fn tree(&self, _: &Path, _: &[InputArtifact]) -> Vec<TreeLine> { Vec::new() }
/// #   fn check(&self, _: &Path, _: &[InputArtifact]) {}
/// }
///
/// impl DiskFixture for Disks {
///     fn write(&self, file: &Path, work: &mut dyn FnMut(&Path)) -> bool {
///         // … mounts the file, and unmounts it again.
/// #       let mount = file;
///         work(mount);
///         true
///     }
///
///     fn disk_not_judged(&self) -> &'static [&'static str] {
///         &[
///             "merged_image_refers_to_layers_without_copying",
///             "vmdk_reads_back_identical",
///             "guest_boots",
///             "a_size_too_small_is_told_first",
///         ]
///     }
/// }
///
/// plyfold_conformance::disk_suite!(Disks);
/// ```
#[macro_export]
macro_rules! disk_suite {
    ($fixture:expr) => {
        $crate::__disk_rules! { __tests ($crate::rules::disk(), $fixture) }
    };
}

/// One `#[test]` for each rule about registries over HTTP (group R) on an [`HttpFixture`](crate::HttpFixture).
#[macro_export]
macro_rules! http_suite {
    ($fixture:expr) => {
        $crate::__http_tables! { __tests ($crate::rules::http(), $fixture) }
    };
}

/// One `#[test]` for each hostile input on a [`Fixture`](crate::Fixture), the one of
/// [`registry_suite!`](crate::registry_suite): documents that lie, contradict themselves or never end. Each is pulled
/// from a fresh medium, and must get what the table of [`rules`](crate::rules#hostile-inputs) says.
///
/// ```no_run
/// use async_trait::async_trait;
/// use plyfold_conformance::{BackendUnderTest, Fixture, FixtureImage};
/// # use plyfold_core::memory::MemoryRegistry;
///
/// struct Folders;
///
/// #[async_trait]
/// impl Fixture for Folders {
///     async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
///         // … as for `registry_suite!`.
/// #       let names = images.iter().map(|image| image.reference.clone()).collect();
/// #       BackendUnderTest::new(Box::new(MemoryRegistry::new("doc")), names, ())
///     }
/// }
///
/// mod rules {
///     plyfold_conformance::registry_suite!(super::Folders);
/// }
///
/// mod hostile {
///     plyfold_conformance::hostile_suite!(super::Folders);
/// }
/// ```
#[macro_export]
macro_rules! hostile_suite {
    ($fixture:expr) => {
        $crate::__hostile_rows! { __tests ($crate::hostile::rows(), $fixture) }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    (($rules:expr, $fixture:expr) $($name:ident)*) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name);
            let rule = $rules.find(|rule| rule.name == name).expect("the suite has this rule");
            rule.judge(&$fixture);
        })*
    };
}

/// As `__tests`, for rules that may run their test again as a child process.
#[doc(hidden)]
#[macro_export]
macro_rules! __tests_in {
    (($rules:expr, $fixture:expr) $($name:ident)*) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name);
            let rule = $rules.find(|rule| rule.name == name).expect("the suite has this rule");
            rule.judge_in(&$fixture, concat!(module_path!(), "::", stringify!($name)));
        })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __checks {
    (($fixture:expr) $($name:ident)*) => {
        [$($crate::durability::check(stringify!($name), || {
            $crate::durability::judge(&$fixture, stringify!($name))
        })),*]
    };
}

/// The tables of `rules::registry`; a test compares the two.
#[doc(hidden)]
#[macro_export]
macro_rules! __registry_tables {
    ($next:ident $arguments:tt) => {
        $crate::__pull_rules! { $next $arguments }
        $crate::__source_rules! { $next $arguments }
        $crate::__tar_rules! { $next $arguments }
        $crate::__attestation_rules! { $next $arguments }
        $crate::__equivalence_rules! { $next $arguments }
        $crate::__error_rules! { $next $arguments }
        $crate::__push_rules! { $next $arguments }
    };
}

/// The tables of `rules::cache`; a test compares the two.
#[doc(hidden)]
#[macro_export]
macro_rules! __cache_tables {
    ($next:ident $arguments:tt) => {
        $crate::__cache_blobs_rules! { $next $arguments }
        $crate::__cache_names_rules! { $next $arguments }
        $crate::__cache_pulls_rules! { $next $arguments }
        $crate::__cache_ends_rules! { $next $arguments }
        $crate::__cache_indexes_rules! { $next $arguments }
        $crate::__cache_collect_rules! { $next $arguments }
        $crate::__cache_artifacts_rules! { $next $arguments }
        $crate::__cache_tasks_rules! { $next $arguments }
        $crate::__cache_reentry_rules! { $next $arguments }
        $crate::__cache_foreign_handles_rules! { $next $arguments }
        $crate::__cache_damage_rules! { $next $arguments }
        $crate::__cache_kept_rules! { $next $arguments }
        $crate::__cache_loads_rules! { $next $arguments }
        $crate::__cache_edits_rules! { $next $arguments }
    };
}

/// The tables of `rules::http`; a test compares the two.
#[doc(hidden)]
#[macro_export]
macro_rules! __http_tables {
    ($next:ident $arguments:tt) => {
        $crate::__http_transfer_rules! { $next $arguments }
        $crate::__http_endpoint_rules! { $next $arguments }
        $crate::__http_secret_rules! { $next $arguments }
        $crate::__http_listing_rules! { $next $arguments }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __push {
    (($names:ident) $($name:ident)*) => {
        $($names.push(stringify!($name));)*
    };
}
