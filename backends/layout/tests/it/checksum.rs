//! The checksums beside artifacts: damage anywhere is found, in the artifact and in its checksum.

use std::fs::{self, File};
use std::io::SeekFrom;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use plyfold_core::{Artifact, ArtifactKey, ArtifactWriter, CacheProvider as _, Format, Made, Verify, digest};
use plyfold_layout::Store;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn fresh() -> (Store, TempDir) {
    let folder = TempDir::new().unwrap();
    (Store::open(folder.path().join("store")).unwrap(), folder)
}

async fn vacant(store: &Store) -> Box<dyn ArtifactWriter> {
    let format = Format { name: "erofs", version: 3, options: String::new(), extension: "erofs" };
    match store.artifact(&ArtifactKey::layer(format, digest::sha256(b"layer"))).await.unwrap() {
        Artifact::Vacant(writer) => writer,
        Artifact::Present(artifact) => panic!("{artifact:?} is there"),
    }
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8(bytes.split(|byte| *byte == b'\n').next().unwrap().to_vec()).unwrap()
}

async fn damage(store: &Store) -> Vec<String> {
    let damage = store.verify(&Verify::default()).await.unwrap().damage;
    damage.into_iter().map(|damage| damage.reason).collect()
}

/// Damage of a checksum never makes other content right, and neither does one of an earlier form.
#[tokio::test]
async fn a_damaged_checksum_or_one_of_another_form_proves_nothing() {
    let (store, _folder) = fresh();
    // Two blocks, and a hole between them.
    let write = async || {
        let mut writer = vacant(&store).await;
        writer.output().write_all(b"an image").unwrap();
        writer.output().seek(SeekFrom::Start(5 << 20)).unwrap();
        writer.output().write_all(b"its end").unwrap();
        writer.commit(&Made::default().with_note("a note")).unwrap().path().unwrap().to_owned()
    };
    let path = write().await;
    let checksum = PathBuf::from(format!("{}.checksum", path.display()));
    let sound = fs::read(&checksum).unwrap();
    let replace = |bytes: &[u8]| {
        fs::remove_file(&checksum).unwrap();
        fs::write(&checksum, bytes).unwrap();
    };
    let touch = || File::open(&path).unwrap().set_modified(SystemTime::now()).unwrap();
    let is_damaged = async || damage(&store).await == ["it has no checksum that can be read"];
    for at in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 1 << (at % 8);
        replace(&flipped);
        assert!(is_damaged().await, "a bit of byte {at}");
    }
    let digest = digest::sha256(b"an image");
    let size = fs::metadata(&path).unwrap().len();
    let line = first_line(&sound);
    let earlier = [
        format!(r#"{{"digest":"{digest}","size":{size}}}"#),
        format!(r#"{{"digest":"{digest}","size":{size},"seen":{{"modified":[1,2],"mode":292}}}}"#),
        line,
    ];
    let cut = (0..sound.len()).map(|length| sound[..length].to_vec());
    let longer = [[&sound[..], b"\0"].concat(), [&sound[..], &sound[..]].concat()];
    let others = cut.chain(longer).chain(earlier.map(String::into_bytes));
    for other in others {
        replace(&other);
        assert!(is_damaged().await, "{} bytes", other.len());
        // A hit needs the two lines alone; what has to be read again needs all.
        touch();
        assert_eq!(write().await, path, "it is made again");
        assert_ne!(fs::read(&checksum).unwrap(), other);
        assert_eq!(damage(&store).await, [""; 0]);
    }
}

/// What was written out of order, over what was there, cut and copied is as well proved as what was written in order.
#[tokio::test]
async fn a_byte_that_changes_anywhere_in_an_artifact_is_found() {
    let (store, folder) = fresh();
    let source = folder.path().join("source");
    fs::write(&source, vec![7; 2 << 20]).unwrap();
    let mut writer = vacant(&store).await;
    let out = writer.output();
    out.write_all(&vec![1; 3 << 20]).unwrap();
    out.seek(SeekFrom::Start(100)).unwrap();
    out.write_all(b"over").unwrap();
    out.set_len(2 * MIB + 10).unwrap();
    out.set_len(6 * MIB).unwrap();
    out.seek(SeekFrom::Start(6 * MIB + 5)).unwrap();
    out.copy_range(&File::open(&source).unwrap(), 3, MIB).unwrap();
    out.set_len(40 * MIB + 77).unwrap();
    let path = writer.commit(&Made::default()).unwrap().path().unwrap().to_owned();
    assert_eq!(damage(&store).await, [""; 0]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let end = 40 * MIB + 77;
    let places = [
        0,
        102,
        MIB,
        2 * MIB + 9,
        2 * MIB + 10,
        5 * MIB,
        6 * MIB + 4,
        6 * MIB + 5,
        7 * MIB,
        20 * MIB,
        end - 1,
    ];
    for at in places {
        let (before, mut byte) = (fs::metadata(&path).unwrap().modified().unwrap(), [0]);
        File::open(&path).unwrap().read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        file.set_modified(before).unwrap();
        let (start, length) = (at / MIB * MIB, MIB.min(end - at / MIB * MIB));
        let expected = format!("checksum mismatch: {length} bytes at {start}");
        assert_eq!(damage(&store).await, [expected], "at {at}");
        // A hit that reads it again finds the same.
        file.set_modified(before + Duration::from_secs(1)).unwrap();
        drop(vacant(&store).await);
        file.write_all_at(&byte, at).unwrap();
        file.set_modified(before).unwrap();
    }
    assert_eq!(damage(&store).await, [""; 0]);
    // Neither the size nor the checksums of zeros hide that it has become longer or shorter.
    for length in [end + MIB, end + 1, end - 1, 0] {
        file.set_len(length).unwrap();
        let expected = format!("size mismatch: recorded with {end} bytes, it has {length}");
        assert_eq!(damage(&store).await, [expected]);
    }
}

/// Two artifacts that have changed places, with all that stands beside them: each is sound, and is not the one that is asked for.
#[tokio::test]
async fn an_artifact_under_the_name_of_another_is_not_handed_out() {
    let (store, folder) = fresh();
    let key = |layer: &str| {
        let format = Format { name: "erofs", version: 3, options: String::new(), extension: "erofs" };
        ArtifactKey::layer(format, digest::sha256(layer.as_bytes()))
    };
    let mut paths = Vec::new();
    for layer in ["one", "another"] {
        let Artifact::Vacant(mut writer) = store.artifact(&key(layer)).await.unwrap() else {
            panic!("{layer}")
        };
        writer.output().write_all(layer.as_bytes()).unwrap();
        paths.push(writer.commit(&Made::default()).unwrap().path().unwrap().to_owned());
    }
    for suffix in ["", ".checksum"] {
        let [one, other] = [0, 1].map(|at: usize| PathBuf::from(format!("{}{suffix}", paths[at].display())));
        let aside = folder.path().join("aside");
        fs::rename(&one, &aside).unwrap();
        fs::rename(&other, &one).unwrap();
        fs::rename(&aside, &other).unwrap();
    }
    assert_eq!(damage(&store).await, ["it has no checksum that can be read"; 2]);
    for layer in ["one", "another"] {
        assert!(store.find_artifact(&key(layer)).await.unwrap().is_none());
        assert!(matches!(store.artifact(&key(layer)).await.unwrap(), Artifact::Vacant(_)));
    }
}
