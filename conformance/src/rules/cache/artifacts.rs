//! Files that are made from layers.

use std::fs::{self, Permissions};
use std::io::{SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plyfold_core::{Artifact, ArtifactKey, ArtifactWriter, CacheProvider, Format, digest};

use super::setup::{assert_waits, promptly};
use crate::CacheStage;
use crate::rule::{Rule, rules};
use crate::rules::probe::sound;

pub(super) const RULES: &[Rule<dyn CacheStage>] = rules! {
    "C 185" a_changed_artifact_is_made_again:
        "a file made from a layer that was written to through a hard link is not handed out with that content",
    "C 186" a_dropped_artifact_leaves_nothing:
        "a file whose maker gives up is seen by nobody, and the next maker begins with an empty one",
};

const CONTENT: &[u8] = b"what was made of a layer";
/// As long as [`CONTENT`].
const CHANGED: &[u8] = b"what a guest has written";

async fn a_changed_artifact_is_made_again(stage: &dyn CacheStage) {
    /// Longer than a tick of a file system's clock.
    const TICK: Duration = Duration::from_millis(20);
    let subject = stage.open().await;
    let made = present(&*subject.cache).await;
    assert_eq!(bytes(&made), CONTENT);
    assert_eq!(present(&*subject.cache).await, made, "it is made once");
    // Beside it, because a link cannot lead to another file system.
    let beside = tempfile::tempdir_in(made.parent().expect("it is in a folder"));
    let link = beside.as_ref().expect("a folder can be made beside it").path().join("output");
    fs::hard_link(&made, &link).expect("a second name can be made");
    tokio::time::sleep(TICK).await;
    write_to(&link);
    let other = sound(subject.medium.reopen().await);
    for cache in [&subject.cache, &other] {
        assert_eq!(bytes(&present(&**cache).await), CONTENT, "what others have written was handed out");
    }
    assert_eq!(bytes(&link), CHANGED, "what others have written is theirs");
    assert_eq!(subject.medium.leftovers(), [""; 0]);
}

/// Other content of the same length in place, under the mode that the file had.
fn write_to(link: &Path) {
    let before = fs::metadata(link).expect("it is there").permissions();
    fs::set_permissions(link, Permissions::from_mode(0o644)).expect("its mode can be changed");
    let file = fs::OpenOptions::new().write(true).open(link);
    file.and_then(|mut file| file.write_all(CHANGED)).expect("it can be written to");
    fs::set_permissions(link, before).expect("its mode can be set back");
}

async fn a_dropped_artifact_leaves_nothing(stage: &dyn CacheStage) {
    let subject = stage.open().await;
    let other = sound(subject.medium.reopen().await);
    let mut writer = vacant(&*subject.cache).await;
    writer.output().write_all(&CONTENT[..10]).expect("it can be written");
    let waiting = tokio::spawn(async move { vacant(&*other).await });
    assert_waits("a second maker", &waiting).await;
    // As a conversion whose caller is gone: it ends on its own thread.
    let dropped = tokio::task::spawn_blocking(move || drop(writer)).await;
    dropped.expect("a writer can be dropped on any thread");
    let next = promptly(stage, "the next maker", waiting).await;
    let mut next = next.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let (mut left, output) = (Vec::new(), next.output());
    output.seek(SeekFrom::Start(0)).expect("it can be read from its start");
    output.read_to_end(&mut left).expect("it can be read");
    assert_eq!(left, [0; 0], "what the one before has left");
    drop(next);
    assert_eq!(subject.medium.leftovers(), [""; 0]);
    assert_eq!(bytes(&present(&*subject.cache).await), CONTENT);
}

fn key() -> ArtifactKey {
    let format = Format { name: "conformance", version: 1, options: String::new(), extension: "rule" };
    ArtifactKey { format, diff_id: digest::sha256(b"a layer") }
}

async fn vacant(cache: &dyn CacheProvider) -> Box<dyn ArtifactWriter> {
    match sound(cache.artifact(&key()).await) {
        Artifact::Vacant(writer) => writer,
        Artifact::Present(path, _) => panic!("{} was never finished", path.display()),
    }
}

/// Where the file is, which is made if the cache says that it is not there.
async fn present(cache: &dyn CacheProvider) -> PathBuf {
    let (path, size) = match sound(cache.artifact(&key()).await) {
        Artifact::Present(path, size) => (path, size),
        Artifact::Vacant(mut writer) => {
            writer.output().write_all(CONTENT).expect("it can be written");
            sound(writer.commit())
        }
    };
    assert_eq!(size, CONTENT.len() as u64);
    path
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).expect("it can be read")
}
