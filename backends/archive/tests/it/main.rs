//! The conformance suite on both forms of archives, and what only archives can get wrong.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

mod build;
mod daemon;
mod docker25;
mod forms;
mod hostile;
mod rootfs;
mod saved;
mod write_failures;
mod written;

use std::path::PathBuf;

use plyfold_archive::{Archive, Config};
use plyfold_core::{ImageRegistry, Result};

async fn open(path: PathBuf) -> Result<Box<dyn ImageRegistry>> {
    Ok(Box::new(Archive::new(path, Config::default())))
}

struct Archives;

#[async_trait::async_trait]
impl plyfold_conformance::ArchiveFixture for Archives {
    async fn open(&self, path: &std::path::Path) -> Result<Box<dyn ImageRegistry>> {
        open(path.to_owned()).await
    }
}

mod archives {
    plyfold_conformance::archive_suite!(super::Archives);
}

mod oci {
    use plyfold_conformance::fixtures::OciArchive;
    plyfold_conformance::registry_suite!(OciArchive::new(super::open));
    plyfold_conformance::hostile_suite!(OciArchive::new(super::open));
}

mod docker {
    use plyfold_conformance::fixtures::{DockerArchive, Form};
    plyfold_conformance::registry_suite!(DockerArchive::new(Form::Legacy, super::open));
}

mod hybrid {
    use plyfold_conformance::fixtures::{DockerArchive, Form};
    plyfold_conformance::registry_suite!(DockerArchive::new(Form::Hybrid, super::open));
    plyfold_conformance::hostile_suite!(DockerArchive::new(Form::Hybrid, super::open));
}
