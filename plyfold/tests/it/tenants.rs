//! Many pulls of one `Images`: what they share, and what those of different credentials do not.

use std::path::Path;
use std::time::{Duration, Instant};

use plyfold::pull::Retry;
use plyfold::{Credential, Error, ErrorKind, Images, Options, PullOptions, PullPolicy, PulledImage, Result};
use plyfold_conformance::samples;
use plyfold_conformance::server::{self, Auth, Exchange, Fault, FaultServer, Login, On};

const REPOSITORIES: [&str; 4] = ["org/a", "org/b", "org/c", "org/d"];

/// A registry that gives tokens to user `a` with password `s3cret-a`, or to everybody.
fn serve(login: Option<Login>) -> FaultServer {
    let auth = Auth::Bearer { login, ttl: Duration::from_secs(300), realm: None };
    let server = FaultServer::with(server::Options { auth, ..server::Options::default() }).unwrap();
    for repository in REPOSITORIES {
        server.put(repository, "1", &samples::image());
    }
    server
}

fn login() -> Login {
    Login::new("a", "s3cret-a")
}

async fn images(dir: &Path, options: &[&str]) -> Images {
    let options = options.iter().copied().chain(["docker-config=/nonexistent", "hosts-dir="]);
    Images::open(dir.join("store")).await.unwrap().with_options(Options::parse(options).unwrap())
}

fn options() -> PullOptions {
    PullOptions {
        platform: "linux/amd64".parse().unwrap(),
        retry: Retry { attempts: 1, ..Retry::default() },
        ..PullOptions::default()
    }
}

fn tokens(server: &FaultServer) -> Vec<Exchange> {
    server.requests().into_iter().filter(|seen| seen.target.starts_with("/token")).collect()
}

async fn pull(images: &Images, server: &FaultServer, repository: &str) -> PulledImage {
    let image = format!("{}/{repository}:1", server.host());
    images.pull(&image, PullOptions { policy: PullPolicy::Always, ..options() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_share_a_token_and_connections() {
    let (dir, server) = (tempfile::tempdir().unwrap(), serve(Some(login())));
    let images = images(dir.path(), &["username=a", "password=s3cret-a"]).await;
    for _ in 0..3 {
        pull(&images.clone(), &server, "org/a").await;
    }
    assert_eq!(tokens(&server).len(), 1);
    let connections = server.connections();
    pull(&images, &server, "org/a").await;
    assert_eq!(server.connections(), connections, "a connection is there");
    // Other options are another registry.
    let other = images.with_options(Options::parse(["docker-config=/nonexistent", "hosts-dir="]).unwrap());
    let image = format!("{}/org/a:1", server.host());
    let refused = other.pull(&image, PullOptions { policy: PullPolicy::Always, ..options() }).await;
    assert_eq!(*refused.unwrap_err().kind(), ErrorKind::Auth);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_pulls_that_run_at_the_same_time() {
    let (dir, server) = (tempfile::tempdir().unwrap(), serve(None));
    server.script(On::any(), [Fault::Delay(Duration::from_millis(5))]);
    let one = images(dir.path(), &["max-connections=1"]).await;
    futures_util::future::join_all(REPOSITORIES.map(|repository| pull(&one, &server, repository))).await;
    assert_eq!(server.busiest(), 1);

    let (dir, server) = (tempfile::tempdir().unwrap(), serve(None));
    let slow = images(dir.path(), &["requests-per-second=50"]).await;
    let start = Instant::now();
    futures_util::future::join_all(REPOSITORIES.map(|repository| pull(&slow, &server, repository))).await;
    // What a token server is asked for is not paced.
    let paced = server.requests().len() - tokens(&server).len();
    let least = Duration::from_millis(20) * u32::try_from(paced - 1).unwrap();
    assert!(paced > 8 && start.elapsed() >= least, "{paced} requests in {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_is_answered_to_those_who_may_read_it() {
    let (dir, server) = (tempfile::tempdir().unwrap(), serve(Some(login())));
    // The machine's own credentials are right: they are for no call that has its own.
    let images = images(dir.path(), &["username=a", "password=s3cret-a"]).await;
    let image = format!("{}/org/a:1", server.host());
    let a = Credential::basic("a", "s3cret-a");
    let as_who = async |credential: &Credential, change: fn(&mut PullOptions)| -> Result<PulledImage> {
        let mut options = PullOptions { credential: Some(credential.clone()), ..options() };
        change(&mut options);
        let pulled = images.pull(&image, options).await;
        assert!(!format!("{pulled:?}").contains("s3cret"), "{pulled:?}");
        pulled
    };
    assert!(!as_who(&a, |_| ()).await.unwrap().cached);
    server.clear_requests();
    assert!(as_who(&a, |_| ()).await.unwrap().cached);
    let asked: Vec<String> = server.requests().into_iter().map(|seen| seen.method).collect();
    assert_eq!(asked, ["HEAD"], "one question, with the token of the first pull");

    let b = [
        Credential::basic("a", "s3cret-b"),
        Credential::Anonymous,
        Credential::IdentityToken(plyfold::Secret::new("s3cret-b")),
        Credential::RegistryToken(plyfold::Secret::new("s3cret-b")),
    ];
    for credential in &b {
        for policy in
            [|_: &mut PullOptions| (), |options: &mut PullOptions| options.policy = PullPolicy::Always]
        {
            server.clear_requests();
            let error = as_who(credential, policy).await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Auth, "{credential:?}: {error}");
            assert_eq!(error.context("image"), Some(&*image), "the digest is the cache's");
            assert!(!format!("{error} {error:?}").contains("sha256:"), "{error:?}");
            let sent = server
                .requests()
                .into_iter()
                .filter_map(|seen| seen.header("authorization").map(str::to_owned));
            let of_a = |text: &String| text.starts_with("Bearer token-") || text.ends_with(":s3cret-a");
            assert_eq!(sent.filter(of_a).count(), 0, "{credential:?} is asked with what A has");
        }
    }
    assert!(as_who(&a, |_| ()).await.unwrap().cached, "A's answer is not changed by B's");
    // A login that is right, and a repository that it may not read.
    server.script(On::manifests(), [Fault::Status(403)]);
    let denied: Error = as_who(&a, |_| ()).await.unwrap_err();
    assert_eq!(*denied.kind(), ErrorKind::Denied, "{denied}");
    assert_eq!(denied.context("image"), Some(&*image), "{denied}");
    server.clear_requests();
    assert!(as_who(&b[0], |options| options.confirm = Some(false)).await.unwrap().cached);
    let never = |options: &mut PullOptions| options.policy = PullPolicy::Never;
    assert_eq!(*as_who(&a, never).await.unwrap_err().kind(), ErrorKind::Config);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_backend_that_knows_no_credentials_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    let images = images(dir.path(), &[]).await.with_options(Options::default());
    let options = PullOptions { credential: Some(Credential::Anonymous), ..options() };
    let error = images.pull(&format!("oci:{}:1", dir.path().display()), options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Config);
    assert!(error.message().contains("takes no credential"), "{error}");
}
