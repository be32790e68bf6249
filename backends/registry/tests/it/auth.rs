//! Challenges, tokens and realms: what we send to whom.

use std::time::Duration;

use bytes::Bytes;
use plyfold_conformance::samples;
use plyfold_conformance::server::{Auth, Exchange, Fault, FaultServer, Login, On, Options};
use plyfold_core::{
    Blob, BlobRange, Credential, ErrorKind, ImageRegistry, ImageRegistryExt, Platform, reference,
};

use crate::{assert_kind, open, serve, with_login};

/// The login as it is sent.
const BASIC: &str = "dXNlcjpzM2NyZXQtd29yZA==";

fn login() -> Login {
    Login::new("user", "s3cret-word")
}

fn bearer(realm: Option<String>) -> Options {
    let auth = Auth::Bearer { login: Some(login()), ttl: Duration::from_secs(300), realm };
    Options { auth, ..Options::default() }
}

fn tokens(server: &FaultServer) -> Vec<Exchange> {
    server.requests().into_iter().filter(|exchange| exchange.target.starts_with("/token")).collect()
}

#[tokio::test]
async fn basic_and_bearer_with_a_login() {
    for options in [Options { auth: Auth::Basic(login()), ..Options::default() }, bearer(None)] {
        let (server, name) = serve(options, &samples::image());
        let registry = open(server.host(), with_login);
        registry.fetch_config(&name, &Platform::new("linux", "amd64", None)).await.unwrap();
        let refused = open(server.host(), |_| ());
        assert_kind(refused.manifest(&name).await, &ErrorKind::Auth);
        let wrong = registry.with_credential(Credential::basic("user", "s3cret-word2"));
        assert_kind(wrong.manifest(&name).await, &ErrorKind::Auth);
        let right = wrong.with_credential(Credential::basic("user", "s3cret-word"));
        right.manifest(&name).await.unwrap();
    }
}

#[tokio::test]
async fn tokens_are_for_everyone_when_the_server_says_so() {
    let auth = Auth::Bearer { login: None, ttl: Duration::from_secs(300), realm: None };
    let (server, name) = serve(Options { auth, ..Options::default() }, &samples::image());
    open(server.host(), |_| ()).manifest(&name).await.unwrap();
    assert!(tokens(&server)[0].header("authorization").is_none());
    assert!(tokens(&server)[0].target.contains("scope=repository%3Alibrary%2Fapp%3Apull"));
}

#[tokio::test]
async fn stored_credentials_and_identity_tokens_are_found() {
    let (server, name) = serve(bearer(None), &samples::image());
    for entry in [
        r#"{"username":"user","password":"s3cret-word"}"#,
        r#"{"auth":"dXNlcjpzM2NyZXQtd29yZA=="}"#,
        r#"{"identitytoken":"s3cret-word"}"#,
    ] {
        let directory = tempfile::tempdir().unwrap();
        let json = format!(r#"{{"auths":{{"{}":{entry}}}}}"#, server.host());
        std::fs::write(directory.path().join("config.json"), json).unwrap();
        let registry = open(server.host(), |config| config.docker_config = Some(directory.path().into()));
        registry.manifest(&name).await.unwrap();
        let anonymous = open(server.host(), |config| {
            config.docker_config = Some(directory.path().into());
            config.anonymous = true;
        });
        assert_kind(anonymous.manifest(&name).await, &ErrorKind::Auth);
    }
}

/// Rule R 34 `token_reused_across_blobs_and_refreshed_on_401`.
#[tokio::test]
async fn one_token_serves_all_blobs_and_is_renewed_once() {
    let sample = samples::image();
    let (server, name) = serve(bearer(None), &sample);
    let registry = open(server.host(), with_login);
    let read_all = async || {
        for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
            let opened = registry.blob(&name, &blob.descriptor, BlobRange::FULL).await?;
            opened.bytes(1 << 20).await?;
        }
        plyfold_core::Result::Ok(())
    };
    read_all().await.unwrap();
    assert_eq!(tokens(&server).len(), 1);
    server.revoke_tokens();
    read_all().await.unwrap();
    assert_eq!(tokens(&server).len(), 2);
    // A registry that accepts none of its own server's tokens is asked twice, not for ever.
    server.script(
        On::blobs(),
        [Fault::Status(401), Fault::Header("WWW-Authenticate", Some(challenge(&server)))],
    );
    server.clear_requests();
    assert_kind(read_all().await, &ErrorKind::Auth);
    assert_eq!((tokens(&server).len(), server.requests().len()), (1, 3));
}

/// A token that has run out by our own clock is replaced, and not shown to the registry again.
#[tokio::test]
async fn a_token_that_ran_out_is_replaced() {
    let ttl = Duration::from_secs(1);
    let auth = Auth::Bearer { login: Some(login()), ttl, realm: None };
    let (server, name) = serve(Options { auth, ..Options::default() }, &samples::image());
    let registry = open(server.host(), with_login);
    for asked in 1..3 {
        registry.manifest(&name).await.unwrap();
        assert_eq!(tokens(&server).len(), asked);
        tokio::time::sleep(ttl).await;
    }
}

/// The bytes of an upload are sent once, and have no second try with a new token.
#[tokio::test]
async fn an_upload_goes_with_the_token_that_it_began_with() {
    let sample = samples::image();
    let (server, name) = serve(bearer(None), &sample);
    let soon = r#"{"token":"token-1","expires_in":1}"#;
    server.script(On::token(), [Fault::Body(soon.into())]);
    server.script(On::any().method("POST"), [Fault::Delay(Duration::from_secs(1))]);
    let layer = &sample.images[0].layers[0].descriptor;
    let blob = Blob::from_bytes(layer, BlobRange::FULL, sample.blob(layer.digest()).unwrap()).unwrap();
    let name = reference::parse(&name.whole().replace("library/app", "other")).unwrap();
    open(server.host(), with_login).push_blob(&name, blob).await.unwrap();
}

fn challenge(server: &FaultServer) -> String {
    format!(r#"Bearer realm="{}/token",service="s",scope="repository:library/app:pull""#, server.url())
}

#[tokio::test]
async fn many_tasks_ask_for_one_token() {
    let (server, name) = serve(bearer(None), &samples::image());
    server.script(On::token(), [Fault::Delay(Duration::from_millis(100))]);
    let registry = open(server.host(), with_login);
    let pulls = (0..8).map(|_| registry.manifest(&name));
    for outcome in futures_util::future::join_all(pulls).await {
        outcome.unwrap();
    }
    assert_eq!(tokens(&server).len(), 1);
}

/// Hostile row 58: no credential leaves for a realm on another host, in the clear, or on no host at all.
#[tokio::test]
async fn credentials_never_reach_a_foreign_realm() {
    let other = FaultServer::with(bearer(None)).unwrap();
    // Another loopback address is another host.
    let foreign = other.url().replace("127.0.0.1", "127.0.0.2");
    for realm in [
        format!("{foreign}/token"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://registry.example/token".to_owned(),
        "https://evil.example/token".to_owned(),
        "file:///etc/passwd".to_owned(),
        "token".to_owned(),
    ] {
        let (server, name) = serve(bearer(Some(realm.clone())), &samples::image());
        let registry = open(server.host(), with_login);
        let error = assert_kind(registry.manifest(&name).await, &ErrorKind::Auth);
        assert!(error.message().contains("untrusted realm"), "{realm}: {error}");
        assert_eq!(server.requests().len(), 1, "{realm}");
        assert!(server.requests()[0].header("authorization").is_none());
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_token_server_on_another_port_is_the_same_host() {
    let tokens_only = FaultServer::with(bearer(None)).unwrap();
    let (server, name) = serve(bearer(Some(format!("{}/token", tokens_only.url()))), &samples::image());
    // Its tokens are not the registry's, but it was asked, with the login.
    assert_kind(open(server.host(), with_login).manifest(&name).await, &ErrorKind::Auth);
    assert!(tokens(&tokens_only)[0].header("authorization").unwrap().starts_with("Basic "));
}

/// Rule R 35 `errors_and_debug_never_contain_secrets` and hostile row 60.
#[tokio::test]
async fn an_invalid_answer_of_the_token_server_is_an_auth_error() {
    let body = |text: &'static str| vec![Fault::Body(Bytes::from_static(text.as_bytes()))];
    let faults = [
        body(r#"{"token":"s3cret-word\nX-Evil: 1"}"#),
        body("<html>log in, s3cret-word</html>"),
        body(r#"{"token":["s3cret-word"]}"#),
        body(r#"{"token":"","expires_in":0}"#),
        vec![Fault::Body(Bytes::from(vec![b' '; 10 << 20]))],
        vec![Fault::Endless],
        vec![Fault::Redirect(302, "http://127.0.0.2:1/token".to_owned())],
        vec![
            Fault::Status(401),
            Fault::Body(
                format!(r#"{{"errors":[{{"code":"s3cret-word","message":"bad {BASIC} of s3cret-word"}}]}}"#)
                    .into(),
            ),
        ],
        vec![Fault::Status(400)],
        vec![Fault::Status(403)],
        vec![Fault::Status(404)],
    ];
    for fault in faults {
        let shown = format!("{fault:.100?}");
        let (server, name) = serve(bearer(None), &samples::image());
        server.script(On::token(), fault);
        let error = assert_kind(open(server.host(), with_login).manifest(&name).await, &ErrorKind::Auth);
        assert!(!format!("{error} {error:?}").contains(BASIC), "{shown}: {error}");
        assert!(error.context("image").is_some() && error.context("endpoint").is_some(), "{shown}: {error}");
    }
    for (fault, kind) in [
        (Fault::Status(429), ErrorKind::RateLimited { retry_after: None }),
        (Fault::Status(503), ErrorKind::Unavailable),
        (Fault::Close, ErrorKind::Unavailable),
    ] {
        let (server, name) = serve(bearer(None), &samples::image());
        server.script(On::token(), [fault]);
        assert_kind(open(server.host(), with_login).manifest(&name).await, &kind);
    }
}

#[tokio::test]
async fn configured_credentials_are_for_one_registry() {
    let (home, _) = serve(bearer(None), &samples::image());
    let (other, name) =
        serve(Options { auth: Auth::Basic(login()), ..Options::default() }, &samples::image());
    let registry = open(home.host(), with_login);
    assert_kind(registry.manifest(&name).await, &ErrorKind::Auth);
    assert!(other.requests().iter().all(|exchange| exchange.header("authorization").is_none()));
    assert!(!format!("{registry:?} {registry}").contains("s3cret-word"));
}

/// Rule R 32 `credentials_never_sent_to_mirror_or_cross_origin_redirect`.
#[tokio::test]
async fn a_redirect_to_another_port_loses_the_token_and_still_delivers() {
    let sample = samples::image();
    let layer = &sample.images[0].layers[0].descriptor;
    let (storage, _) = serve(Options::default(), &sample);
    let (server, name) = serve(bearer(None), &sample);
    let to = format!("{}/v2/library/app/blobs/{}", storage.url(), layer.digest());
    server.script(On::blob(layer.digest()).skip(1), [Fault::Redirect(307, to)]);
    let registry = open(server.host(), with_login);
    for range in [BlobRange::FULL, BlobRange::new(10, 20)] {
        let blob = registry.blob(&name, layer, range).await.unwrap();
        blob.bytes(1 << 20).await.unwrap();
    }
    let seen = storage.requests();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|exchange| exchange.header("authorization").is_none()));
    assert_eq!(seen[1].header("range"), Some("bytes=10-19"));
    // A challenge of the storage is not the registry's: it is not answered.
    let challenge = Fault::Header("WWW-Authenticate", Some(challenge(&storage)));
    storage.script(On::blobs(), [Fault::Status(401), challenge]);
    assert_kind(registry.blob(&name, layer, BlobRange::FULL).await, &ErrorKind::Auth);
    assert!(tokens(&storage).is_empty());
    assert!(storage.requests().iter().all(|exchange| exchange.header("authorization").is_none()));
}

#[tokio::test]
async fn names_made_by_hand_are_refused_before_any_request() {
    let (server, _) = serve(Options::default(), &samples::image());
    let registry = open(server.host(), |_| ());
    let host = server.host().to_owned();
    for (repository, tag) in
        [("../secret", "1"), ("a/../../b", "1"), ("a", "1?x=y"), ("a", "../b"), ("A", "1")]
    {
        let name = reference::Reference::with_tag(host.clone(), repository.to_owned(), tag.to_owned());
        assert_kind(registry.manifest(&name).await, &ErrorKind::Config);
    }
    assert!(server.requests().is_empty());
}

/// A token that is good but not enough is a missing permission, not a missing login.
#[tokio::test]
async fn insufficient_scope_is_denied() {
    let (server, name) = serve(bearer(None), &samples::image());
    let challenge = format!(r#"{},error="insufficient_scope""#, challenge(&server));
    server.script(On::manifests(), [Fault::Status(401), Fault::Header("WWW-Authenticate", Some(challenge))]);
    assert_kind(open(server.host(), with_login).manifest(&name).await, &ErrorKind::Denied);
}

#[tokio::test]
async fn uris_open_by_both_schemes() {
    let (server, name) = serve(bearer(None), &samples::image());
    let options = plyfold_core::Options::parse(["username=user", "password=s3cret-word"]).unwrap();
    let backends = plyfold_core::Backends::linked().unwrap();
    for scheme in ["registry:", "docker://"] {
        let opened = backends.open(&format!("{scheme}{name}"), &options).await.unwrap();
        assert_eq!(opened.reference.as_ref(), Some(&name));
        opened.registry.manifest(&name).await.unwrap();
        let place = backends.open(&format!("{scheme}{}/", server.host()), &options).await.unwrap();
        assert_eq!(place.references().await.unwrap(), std::slice::from_ref(&name));
    }
    for bad in ["registry:", "registry:a b", "docker://UPPER/x", "registry:user@host/"] {
        assert_kind(backends.open(bad, &options).await, &ErrorKind::Config);
    }
    let unknown = plyfold_core::Options::parse(["retry=3"]).unwrap();
    assert_kind(backends.open("registry:r.example/a", &unknown).await, &ErrorKind::Config);
}
