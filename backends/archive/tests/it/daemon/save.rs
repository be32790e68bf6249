//! What a daemon saves, and how that fails.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use plyfold_archive::{DaemonConfig, DaemonFault};
use plyfold_conformance::samples::{self, Sample};
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::{
    Backends, CopyOptions, Digest, Error, ErrorKind, ImageRegistry as _, Options, copy, reference,
};
use serde_json::json;
use tempfile::TempDir;

use super::fake::{Answer, Fake, daemon};
use super::{Kept, keeping};

const NAME: &str = "docker.io/library/app:1.2";

/// What is answered, and the kind of the error.
type Case = (&'static str, ErrorKind, Box<dyn Fn() -> Answer + Send + Sync>);

/// A daemon that has an image, and answers `save` as told.
fn saving(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Fake {
    saving_of(samples::image().top.digest(), answer)
}

/// The same with an image of this ID.
fn saving_of(id: &Digest, answer: impl Fn() -> Answer + Send + Sync + 'static) -> Fake {
    let inspected = json!({ "Id": id }).to_string().into_bytes();
    Fake::start(move |request, _| match request {
        "GET /_ping" => Answer::Body(b"OK".to_vec()),
        request if request.ends_with("/json") => Answer::Body(inspected.clone()),
        _ => answer(),
    })
}

async fn asked(fake: &Fake) -> Error {
    fake.daemon().manifest(&reference::parse(NAME).unwrap()).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_saved_once_and_comes_as_it_is() {
    let (image, other) = (samples::image(), samples::index());
    let fake = keeping(vec![Kept::of(NAME, &image), Kept::of("registry.example:5000/org/app:1", &other)]);
    let options = Options::parse([format!("socket={}", fake.socket().display()).as_str()]).unwrap();
    let open = async |uri: &str| Backends::linked().unwrap().open(uri, &options).await;
    let opened = open("docker-daemon:app:1.2").await.unwrap();
    assert_eq!(fake.requests(), [""; 0], "nothing is asked before it is needed");
    let name = opened.reference().await.unwrap();
    assert_eq!(name.whole(), NAME);
    let memory = MemoryRegistry::new("out");
    let top = copy(&*opened.registry, &name, &memory, &name, &CopyOptions::default()).await.unwrap();
    assert_eq!(top.digest(), image.top.digest());
    let saves = fake.requests().iter().filter(|request| request.contains("/get?")).count();
    assert_eq!(saves, 1, "{:?}", fake.requests());
    // All names, and an image by its ID alone.
    let all = open("docker-daemon:").await.unwrap();
    let names: Vec<_> = all.references().await.unwrap().iter().map(reference::Reference::whole).collect();
    assert_eq!(names, [NAME, "registry.example:5000/org/app:1"]);
    let by_id = open(&format!("docker-daemon:{}", other.top.digest())).await.unwrap();
    let name = by_id.reference().await.unwrap();
    assert_eq!(by_id.registry.manifest(&name).await.unwrap().digest(), other.top.digest());
    for (uri, kind) in [
        ("docker-daemon:app:none", ErrorKind::NotFound),
        (&format!("docker-daemon:sha256:{}", "0".repeat(64)), ErrorKind::NotFound),
    ] {
        let opened = open(uri).await.unwrap();
        let asked = async { opened.registry.manifest(&opened.reference().await?).await };
        let error = asked.await.unwrap_err();
        assert_eq!(*error.kind(), kind, "{uri}: {error}");
    }
    for uri in [
        "docker-daemon:sha256:zz",
        "docker-daemon:sha256:0123456789ab",
        "docker-daemon:UPPER",
        &format!("docker-daemon:app@{}", image.top.digest()),
    ] {
        assert_eq!(*open(uri).await.unwrap_err().kind(), ErrorKind::Config, "{uri}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_not_there_is_said() {
    let folder = TempDir::new().unwrap();
    let name = reference::parse(NAME).unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no socket").unwrap();
    for path in [folder.path().join("none"), file] {
        let error = daemon(&path).manifest(&name).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(matches!(error.detail(), Some(DaemonFault::NoDaemon(_))), "{error}");
        assert_eq!(error.attempts(), Some(1));
        assert!(error.hint().is_some_and(|hint| hint.contains("socket=PATH")), "{error:?}");
    }
    // The owner of everything may use every socket.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let fake = keeping(Vec::new());
    std::fs::set_permissions(fake.socket(), std::fs::Permissions::from_mode(0o000)).unwrap();
    let error = asked(&fake).await;
    assert!(matches!(error.detail(), Some(DaemonFault::Denied(_))), "{error}");
}

/// The error of each answer, and no image of any.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_answers_wrongly_is_an_error() {
    let tar = samples::hybrid_archive(&[(NAME.to_owned(), &samples::image())]);
    let half = tar[..tar.len() / 2].to_vec();
    let other = samples::hybrid_archive(&[(NAME.to_owned(), &samples::docker_image())]);
    let answers = |tar: Vec<u8>, as_is: fn(Vec<u8>) -> Answer| Box::new(move || as_is(tar.clone())) as Box<_>;
    let cases: Vec<Case> = vec![
        ("404", ErrorKind::NotFound, Box::new(|| Answer::Error(404, "no such image"))),
        ("403", ErrorKind::Denied, Box::new(|| Answer::Error(403, "authorization denied by plugin"))),
        ("400", ErrorKind::Config, Box::new(|| Answer::Error(400, "invalid reference format"))),
        ("500", ErrorKind::Unavailable, Box::new(|| Answer::Error(500, "driver failed"))),
        ("503", ErrorKind::Unavailable, Box::new(|| Answer::Error(503, "starting"))),
        ("302", ErrorKind::Corrupt, Box::new(|| Answer::Error(302, "elsewhere"))),
        ("no HTTP", ErrorKind::Corrupt, answers(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), Answer::Raw)),
        ("nothing", ErrorKind::Unavailable, answers(Vec::new(), Answer::Raw)),
        ("a stream without its end", ErrorKind::Unavailable, answers(tar.clone(), Answer::Cut)),
        ("half of the stream", ErrorKind::Unavailable, answers(half.clone(), Answer::Cut)),
        ("half of the tar", ErrorKind::Corrupt, answers(half, Answer::Chunked)),
        ("no tar", ErrorKind::Corrupt, answers(b"no tar".to_vec(), Answer::Chunked)),
        ("an empty stream", ErrorKind::Corrupt, answers(Vec::new(), Answer::Chunked)),
        ("another image", ErrorKind::Corrupt, answers(other, Answer::Chunked)),
    ];
    for (what, kind, answer) in cases {
        let error = asked(&saving(answer)).await;
        assert_eq!(*error.kind(), kind, "{what}: {error}");
        assert_eq!(error.context("endpoint"), Some("docker-daemon"), "{what}: {error:?}");
        assert!(error.context("image").is_some(), "{what}: {error:?}");
    }
    // What is no JSON, and one that is not of an image.
    for body in ["<html>", "[]", "{}"] {
        let fake = Fake::start(move |_, _| Answer::Body(body.as_bytes().to_vec()));
        assert!(matches!(asked(&fake).await.detail(), Some(DaemonFault::Garbled)), "{body}");
    }
    // Interim answers (RFC 9110 15.2) come before one that is final.
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    let inspected = "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
    for (count, kind) in [(3, ErrorKind::NotFound), (100_000, ErrorKind::Corrupt)] {
        let answer = interim.repeat(count) + inspected;
        let fake = Fake::start(move |_, _| Answer::Raw(answer.clone().into_bytes()));
        let error = asked(&fake).await;
        assert_eq!(*error.kind(), kind, "{count}: {error}");
    }
    // An error as long as a book is not read to its end.
    let endless = Fake::start(|_, _| {
        let text = "x".repeat(1 << 20);
        Answer::Raw(format!("HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes())
    });
    let error = asked(&endless).await;
    assert!(error.message().contains("500: xxx") && error.message().len() < 70 << 10, "{}", error.message());
}

/// By an ID, and by a name of which the daemon says the ID; of a daemon with containerd's image store, and without.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_saves_another_image_is_refused() {
    let (image, other, index) = (samples::image(), samples::docker_image(), samples::index());
    let of_config = |sample: &Sample| sample.images[0].config.digest().clone();
    let of_top = |sample: &Sample| sample.top.digest().clone();
    let hybrid = |sample: &Sample| samples::hybrid_archive(&[(NAME.to_owned(), sample)]);
    let classic = |sample: &Sample| samples::docker_archive(&[(NAME.to_owned(), sample)]);
    let two = samples::hybrid_archive(&[(NAME.to_owned(), &image), ("b:1".to_owned(), &index)]);
    // What is asked for, what comes, and whether that is it.
    let cases = [
        (of_config(&image), classic(&image), true),
        (of_config(&image), hybrid(&image), true),
        (of_top(&image), hybrid(&image), true),
        (of_top(&index), hybrid(&index), true),
        (of_config(&image), classic(&samples::rootfs()), false),
        (of_top(&image), classic(&image), false),
        (of_top(&image), hybrid(&other), false),
        (of_top(&image), hybrid(&index), false),
        (of_top(&other), hybrid(&image), false),
        // The image asked for is a part of it.
        (index.images[0].manifest.digest().clone(), hybrid(&index), false),
    ];
    for (number, (id, tar, is_it)) in cases.into_iter().enumerate() {
        let fake = saving_of(&id, move || Answer::Chunked(tar.clone()));
        let options = Options::parse([format!("socket={}", fake.socket().display()).as_str()]).unwrap();
        for uri in [format!("docker-daemon:{id}"), format!("docker-daemon:{NAME}")] {
            let opened = Backends::linked().unwrap().open(&uri, &options).await.unwrap();
            let asked = async { opened.registry.manifest(&opened.reference().await?).await };
            match asked.await {
                Ok(_) => assert!(is_it, "{number} {uri}"),
                Err(e) if is_it => panic!("{number} {uri}: {e}"),
                Err(e) => match e.detail() {
                    Some(DaemonFault::Other(asked, saved)) => {
                        assert_eq!(
                            (e.kind(), asked.as_str()),
                            (&ErrorKind::Corrupt, id.as_ref()),
                            "{number}"
                        );
                        assert_ne!(asked, saved, "{number} {uri}");
                    }
                    _ => panic!("{number} {uri}: {e}"),
                },
            }
        }
    }
    // One more image than the one that was asked for.
    let fake = saving_of(&of_top(&image), move || Answer::Chunked(two.clone()));
    let listed = fake.daemon().of_image(&of_top(&image)).repositories(plyfold_core::Page::default()).await;
    assert!(matches!(listed.unwrap_err().detail(), Some(DaemonFault::Other(..))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_never_answers_ends_and_a_slow_one_does_not() {
    let began = Instant::now();
    let silent = Fake::start(|_, _| Answer::Silence);
    let error = asked(&silent).await;
    assert!(matches!(error.detail(), Some(DaemonFault::Silent(1))), "{error}");
    // In the middle of the stream, too.
    let tar = samples::hybrid_archive(&[(NAME.to_owned(), &samples::image())]);
    let half = tar[..tar.len() / 2].to_vec();
    let stalled = Fake::start(move |request, _| match request {
        "GET /_ping" => Answer::Silence,
        request if request.ends_with("/json") => Answer::Body(br#"{"Id":"sha256:00"}"#.to_vec()),
        _ => Answer::Stalled(half.clone()),
    });
    assert!(matches!(asked(&stalled).await.detail(), Some(DaemonFault::Silent(1))));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    // It is asked whether it is there, and waited for.
    let slow = saving(move || {
        std::thread::sleep(Duration::from_millis(4500));
        Answer::Chunked(tar.clone())
    });
    let config = DaemonConfig { socket: Some(slow.socket()), timeout: 2, ..DaemonConfig::default() };
    let daemon = plyfold_archive::Daemon::new(&config).unwrap();
    daemon.manifest(&reference::parse(NAME).unwrap()).await.unwrap();
    assert!(slow.requests().contains(&"GET /_ping".to_owned()), "{:?}", slow.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn images_take_a_bounded_place() {
    let fake = keeping(vec![Kept::of(NAME, &samples::image())]);
    let config = DaemonConfig { socket: Some(fake.socket()), spool_limit: 2000, ..DaemonConfig::default() };
    let daemon = plyfold_archive::Daemon::new(&config).unwrap();
    let error = daemon.manifest(&reference::parse(NAME).unwrap()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Limit, "{error}");
    // Lists that do not end: of names, of one image or of many, and of images without one.
    let tags = format!(r#"{{"RepoTags":[{}"a:1"]}}"#, r#""a:1","#.repeat(1 << 16));
    let images = format!(r#"[{}{{"RepoTags":["a:1"]}}]"#, r#"{"RepoTags":["a:1"]},"#.repeat(1 << 16));
    let bytes = json!(vec![json!({ "x": "x".repeat(1 << 20) }); 65]).to_string();
    for (what, list) in [("tags", format!("[{tags}]")), ("images", images), ("bytes", bytes)] {
        let error = listed(list).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Limit, "{what}: {error}");
    }
    let most =
        format!(r#"[{}{{"RepoTags":null,"Size":[1,{{}}]}}]"#, r#"{"RepoTags":["a:1"]},"#.repeat(1 << 16));
    assert_eq!(listed(most).await.unwrap().names, ["docker.io/library/a"]);
    for list in ["", "[", "{}", "[{\"RepoTags\":[1]}]", "[] []", "[{\"RepoTags\":[\"a:1\"]}"] {
        let error = listed(list.to_owned()).await.unwrap_err();
        assert!(matches!(error.detail(), Some(DaemonFault::Garbled)), "{list}: {error}");
    }
}

async fn listed(list: String) -> plyfold_core::Result<plyfold_core::Names> {
    let fake = Fake::start(move |_, _| Answer::Chunked(list.clone().into_bytes()));
    let config = DaemonConfig { socket: Some(fake.socket()), ..DaemonConfig::default() };
    plyfold_archive::Daemon::new(&config).unwrap().repositories(plyfold_core::Page::default()).await
}
