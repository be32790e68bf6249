//! R: which endpoint is asked, and which credentials it sees.

use std::time::Duration;

use bytes::Bytes;
use plyfold_core::memory::MemoryCache;
use plyfold_core::pull::Retry;
use plyfold_core::{BlobRange, CacheProvider, ErrorKind, ImageRegistry, PullOptions, reference};

use super::origin::{
    LIFE, LOGIN, PASSWORD, USER, bearer, bearers, by_tag, login, opened, program, read_all, serve, stored,
    tokens, write,
};
use super::probe::{assert_kind, read, sound};
use crate::rule::rules;
use crate::samples::{self, Sample};
use crate::server::{Auth, Exchange, Fault, FaultServer, On};
use crate::{HttpFixture, HttpSetup};

rules! {
    $ __http_endpoint_rules of dyn HttpFixture;
    "R 30" mirror_order_then_origin_fallback:
        "mirrors are asked in their order and told whose content it is, the registry itself last and without that; \
         any failure of one leads to the next, and an error tells how each of them failed",
    "R 174" failed_hosts_have_their_turn_again:
        "a host that has answered well is asked first again; one that has failed stands back, and is asked again when \
         the others fail",
    "R 31" mirror_digest_only_policy:
        "a mirror that is not trusted to resolve names sees no request for a name, and serves content by digest",
    "R 32" credentials_never_sent_to_mirror_or_cross_origin_redirect:
        "credentials stay with the host they are for: mirrors, redirects to other origins and foreign token servers \
         see none",
    "R 33" identity_token_and_helper_auth_flows:
        "an identity token is posted to the token server and nowhere else; a credential helper is asked for the \
         registry, and what it knows is used",
    "R 34" token_reused_across_blobs_and_refreshed_on_401:
        "one token serves all requests of a repository; a refused one is replaced once, and no other \
         repository sees it",
    "R 172" challenge_scope_is_answered_as_asked:
        "a token is asked for under the names that the registry's challenge uses, and never with more rights than are \
         needed",
    "R 173" options_of_a_host_stay_with_it:
        "header fields and the proxy of a registry are not used for its mirrors, its token server on another port, or \
         the targets of its redirects",
}

async fn mirror_order_then_origin_fallback(fixture: &dyn HttpFixture) {
    let sample = samples::image();
    let layer = sample.images[0].layers[0].descriptor.clone();
    let failures: [&[Fault]; 7] = [
        &[],
        &[Fault::Close],
        &[Fault::Status(404)],
        &[Fault::Status(401)],
        &[Fault::Status(429), Fault::Header("Retry-After", Some("3600".to_owned()))],
        &[Fault::Status(503)],
        &[Fault::Body(Bytes::from_static(b"<html>log in</html>"))],
    ];
    for failure in failures {
        let [first, second, origin] = std::array::from_fn(|_| serve(Auth::Anonymous, &sample));
        let setup = HttpSetup::of(&origin).with_mirror(&first, true).with_mirror(&second, true);
        let registry = opened(fixture, &setup).await;
        if !failure.is_empty() {
            first.script(On::any(), failure.to_vec());
        }
        let by_digest = reference::by_digest(&setup.reference("library/app:1.2"), sample.top.digest());
        for name in [setup.reference("library/app:1.2"), by_digest] {
            let raw = sound(registry.manifest(&name).await);
            assert!(raw.bytes() == sample.top_bytes(), "{failure:?}: the manifest");
        }
        let blob = read(registry.blob(&by_tag(&setup), &layer, BlobRange::FULL).await).await;
        // A blob is only known to be wrong when it has been read.
        if !matches!(failure, [Fault::Body(_)]) {
            assert!(Some(&sound(blob)) == sample.blob(layer.digest()), "{failure:?}: the layer");
        }
        assert!(!first.requests().is_empty(), "{failure:?}: the first mirror is asked");
        assert_eq!(second.requests().is_empty(), failure.is_empty(), "{failure:?}: the second mirror");
        assert!(origin.requests().is_empty(), "{failure:?}: no mirror had to be passed over");
        let says_whose = |exchange: &Exchange| namespace(exchange) == Some(setup.host.clone());
        assert!(
            first.requests().iter().chain(&second.requests()).all(says_whose),
            "mirrors get the registry's name"
        );
    }
    let [first, second, origin] = std::array::from_fn(|_| serve(Auth::Anonymous, &sample));
    let setup = HttpSetup::of(&origin).with_mirror(&first, true).with_mirror(&second, true);
    let registry = opened(fixture, &setup).await;
    first.script(On::any(), [Fault::Status(503)]);
    second.script(On::any(), [Fault::Close]);
    sound(registry.manifest(&by_tag(&setup)).await);
    assert!(!origin.requests().is_empty() && origin.requests().iter().all(|seen| namespace(seen).is_none()));
    origin.script(On::any(), [Fault::Status(404)]);
    let error = assert_kind(registry.manifest(&by_tag(&setup)).await, &ErrorKind::NotFound);
    let told = format!("{error}");
    for server in [&first, &second, &origin] {
        assert!(told.contains(server.host()), "the error names {}: {told}", server.host());
    }
    pull_past_wrong_content(fixture).await;
}

/// A pull gets every byte right although its mirror gets some of them wrong.
async fn pull_past_wrong_content(fixture: &dyn HttpFixture) {
    let sample = samples::image();
    for fault in [Fault::Flip(5), Fault::TruncateAt(50), Fault::Body(Bytes::from_static(b"<html></html>"))] {
        let [mirror, origin] = std::array::from_fn(|_| serve(Auth::Anonymous, &sample));
        mirror.script(On::blobs(), [fault]);
        let setup = HttpSetup::of(&origin).with_mirror(&mirror, true);
        pull_all(fixture, &setup, &sample).await;
        assert!(mirror.requests().iter().any(|seen| seen.target.contains("/blobs/")), "the mirror is asked");
    }
}

/// A pull that ends well, with every byte.
async fn pull_all(fixture: &dyn HttpFixture, setup: &HttpSetup, sample: &Sample) {
    let registry = opened(fixture, setup).await;
    let options = PullOptions {
        platform: sound("linux/amd64".parse()),
        retry: Retry { base: Duration::from_millis(1), ..Retry::default() },
        ..PullOptions::default()
    };
    let cache = sound(MemoryCache::new());
    sound(fixture.client().pull(&*registry, &by_tag(setup), &cache, &options).await);
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        let held = read(cache.open(&blob.descriptor, BlobRange::FULL).await).await;
        assert!(sound(held) == blob.bytes, "the bytes of {}", blob.descriptor.digest());
    }
}

async fn failed_hosts_have_their_turn_again(fixture: &dyn HttpFixture) {
    let sample = samples::image();
    let layer = sample.images[0].layers[0].descriptor.clone();
    let scene = || {
        let [mirror, origin] = std::array::from_fn(|_| serve(Auth::Anonymous, &sample));
        let setup = HttpSetup::of(&origin).with_mirror(&mirror, true);
        (mirror, origin, setup)
    };
    // An answer is no failure.
    let (mirror, origin, setup) = scene();
    let registry = opened(fixture, &setup).await;
    let of_layer = format!("/blobs/{}", layer.digest());
    for round in 1..4 {
        read_all(&*registry, &by_tag(&setup), &sample).await;
        let asked = mirror.requests().iter().filter(|seen| seen.target.contains(&of_layer)).count();
        assert_eq!(asked, round, "the mirror is asked first, each time");
    }
    assert!(origin.requests().is_empty(), "the registry is not asked: {:?}", origin.requests());
    // The mirror cuts a transfer, and no other host has the content.
    for cuts in 1..4 {
        let (mirror, origin, setup) = scene();
        mirror.script(On::blob(layer.digest()).times(cuts), [Fault::TruncateAt(10)]);
        origin.script(On::any(), [Fault::Close]);
        pull_all(fixture, &setup, &sample).await;
    }
    // The registry is down for a while, too: one answer of each is enough.
    let (mirror, origin, setup) = scene();
    mirror.script(On::blob(layer.digest()), [Fault::ResetAt(10)]);
    origin.script(On::blob(layer.digest()).times(2), [Fault::Status(503)]);
    pull_all(fixture, &setup, &sample).await;
    assert!(origin.served(layer.digest()).bytes > 0, "the registry sends what the mirror does not");
}

async fn mirror_digest_only_policy(fixture: &dyn HttpFixture) {
    let sample = samples::image();
    let [mirror, origin] = std::array::from_fn(|_| serve(Auth::Anonymous, &sample));
    // A mirror that would lie about the name.
    mirror.tag("library/app", "1.2", samples::uncompressed().top.digest());
    let setup = HttpSetup::of(&origin).with_mirror(&mirror, false);
    let registry = opened(fixture, &setup).await;
    let name = by_tag(&setup);
    let raw = sound(registry.manifest(&name).await);
    assert_eq!(raw.digest(), sample.top.digest(), "what the name stands for is the registry's to say");
    assert!(mirror.requests().is_empty(), "no request for a name: {:?}", mirror.requests());
    origin.clear_requests();
    let by_digest = reference::by_digest(&name, sample.top.digest());
    let raw = sound(registry.manifest(&by_digest).await);
    assert!(raw.bytes() == sample.top_bytes());
    read_all(&*registry, &name, &sample).await;
    assert!(!mirror.requests().is_empty(), "content by digest comes from the mirror");
    assert!(origin.requests().is_empty(), "and not from the registry: {:?}", origin.requests());
    // Content with another digest is refused from every host.
    mirror.script(On::manifests(), [Fault::Flip(10)]);
    let raw = sound(registry.manifest(&by_digest).await);
    assert!(raw.bytes() == sample.top_bytes());
    assert!(!origin.requests().is_empty());
}

async fn credentials_never_sent_to_mirror_or_cross_origin_redirect(fixture: &dyn HttpFixture) {
    let sample = samples::image();
    let layer = sample.images[0].layers[0].descriptor.clone();
    for auth in [Auth::Basic(login()), bearer()] {
        // The mirror asks for a login too, in words that any client understands.
        let (mirror, origin) = (serve(auth.clone(), &sample), serve(auth.clone(), &sample));
        let stored = stored(&origin, &serde_json::json!({ "auth": LOGIN }));
        let plain = HttpSetup::of(&origin).with_mirror(&mirror, true);
        let from_file = HttpSetup { docker_config: Some(stored.path().to_owned()), ..plain.clone() };
        for setup in [plain.with_login(&login()), from_file] {
            mirror.clear_requests();
            let registry = opened(fixture, &setup).await;
            sound(registry.manifest(&by_tag(&setup)).await);
            sound(read(registry.blob(&by_tag(&setup), &layer, BlobRange::FULL).await).await);
            assert!(!mirror.requests().is_empty(), "the mirror is asked");
            assert_unseen(&mirror, "a mirror");
        }
    }
    for auth in [Auth::Basic(login()), bearer()] {
        let (storage, origin) = (serve(Auth::Anonymous, &sample), serve(auth, &sample));
        let to = format!("{}/v2/library/app/blobs/{}", storage.url(), layer.digest());
        // The first answer may be the challenge.
        origin.script(On::blob(layer.digest()).skip(1), [Fault::Redirect(307, to)]);
        let setup = HttpSetup::of(&origin).with_login(&login());
        let registry = opened(fixture, &setup).await;
        sound(read(registry.blob(&by_tag(&setup), &layer, BlobRange::FULL).await).await);
        assert!(!storage.requests().is_empty(), "the redirect is followed");
        assert_unseen(&storage, "the target of a redirect");
    }
    let foreign = serve(bearer(), &sample);
    // Another loopback address is another host.
    let realm = format!("{}/token", foreign.url().replace("127.0.0.1", "127.0.0.2"));
    let origin = serve(Auth::Bearer { login: Some(login()), ttl: LIFE, realm: Some(realm) }, &sample);
    let setup = HttpSetup::of(&origin).with_login(&login());
    assert_kind(opened(fixture, &setup).await.manifest(&by_tag(&setup)).await, &ErrorKind::Auth);
    assert!(foreign.requests().iter().all(|seen| seen.header("authorization").is_none()));
}

async fn identity_token_and_helper_auth_flows(fixture: &dyn HttpFixture) {
    let sample = samples::image();
    let server = serve(bearer(), &sample);
    let folder = stored(&server, &serde_json::json!({ "identitytoken": PASSWORD }));
    let setup = HttpSetup { docker_config: Some(folder.path().to_owned()), ..HttpSetup::of(&server) };
    sound(opened(fixture, &setup).await.manifest(&by_tag(&setup)).await);
    let asked = tokens(&server);
    assert!(!asked.is_empty() && asked.iter().all(|seen| seen.method == "POST"), "{asked:?}");
    assert!(server.requests().iter().all(|seen| !seen.target.contains(PASSWORD)), "not in a URL");
    let helpers = tempfile::tempdir().expect("a temporary directory");
    let named = |name: &str, script: &str| {
        program(helpers.path(), &format!("docker-credential-{name}"), script);
        let folder = tempfile::tempdir().expect("a temporary directory");
        write(folder.path(), &serde_json::json!({ "credHelpers": { server.host(): name } }));
        folder
    };
    let answer = |user: &str, secret: &str| {
        // It is asked on standard input, for this registry and for nothing else.
        let answer = format!(r#"{{"ServerURL":"%s","Username":"{user}","Secret":"{secret}"}}"#);
        let host = server.host();
        format!(
            r#"read -r server; [ "$1" = get ] && [ "$server" = "{host}" ] && printf '{answer}' "$server""#
        )
    };
    for (name, user, method) in [("basic", USER, "GET"), ("identity", "<token>", "POST")] {
        server.clear_requests();
        let folder = named(name, &answer(user, PASSWORD));
        let setup = HttpSetup {
            docker_config: Some(folder.path().to_owned()),
            helpers: Some(helpers.path().to_owned()),
            ..HttpSetup::of(&server)
        };
        sound(opened(fixture, &setup).await.manifest(&by_tag(&setup)).await);
        assert!(tokens(&server).iter().all(|seen| seen.method == method), "{name}: {:?}", tokens(&server));
    }
    let folder = named("broken", &format!("echo {PASSWORD}; exit 1"));
    let setup = HttpSetup {
        docker_config: Some(folder.path().to_owned()),
        helpers: Some(helpers.path().to_owned()),
        ..HttpSetup::of(&server)
    };
    assert_kind(opened(fixture, &setup).await.manifest(&by_tag(&setup)).await, &ErrorKind::Auth);
}

async fn token_reused_across_blobs_and_refreshed_on_401(fixture: &dyn HttpFixture) {
    let sample = samples::image();
    let server = serve(bearer(), &sample);
    server.put("library/other", "1", &sample);
    let setup = HttpSetup::of(&server).with_login(&login());
    let (registry, name) = (opened(fixture, &setup).await, setup.reference("library/app:1.2"));
    read_all(&*registry, &name, &sample).await;
    assert_eq!(tokens(&server).len(), 1, "all blobs of a repository share a token");
    server.revoke_tokens();
    read_all(&*registry, &name, &sample).await;
    assert_eq!(tokens(&server).len(), 2, "a refused token is replaced by one new one");
    let other = setup.reference("library/other:1");
    sound(registry.manifest(&other).await);
    assert_eq!(tokens(&server).len(), 3, "another repository needs a token of its own");
    let shared = server.requests().into_iter().filter(|exchange| exchange.target.contains("library/other"));
    let used = bearers(&server.requests(), "library/app");
    assert!(
        shared
            .filter_map(|exchange| exchange.header("authorization").map(str::to_owned))
            .all(|header| !used.contains(&header)),
        "a token goes to its own repository only"
    );
    // A registry that accepts none of its own server's tokens is asked again once, not for ever.
    let challenge = format!(r#"Bearer realm="{}/token",service="s""#, server.url());
    let refusal = [Fault::Status(401), Fault::Header("WWW-Authenticate", Some(challenge))];
    server.script(On::manifests(), refusal);
    server.clear_requests();
    assert_kind(registry.manifest(&name).await, &ErrorKind::Auth);
    assert!(tokens(&server).len() <= 1 && server.requests().len() <= 3, "{:?}", server.requests());
}

async fn challenge_scope_is_answered_as_asked(fixture: &dyn HttpFixture) {
    for (asked, answer) in [
        ("repository:library/app:pull", "repository:library/app:pull"),
        ("repository:hub/library/app:pull", "repository:hub/library/app:pull"),
        ("repository:Library/App:pull", "repository:Library/App:pull"),
        ("repository:127.0.0.1:5000/library/app:pull", "repository:127.0.0.1:5000/library/app:pull"),
        ("aws", "aws"),
        ("repository:library/app:pull,push,delete", "repository:library/app:pull"),
        ("repository:hub/library/app:pull,push", "repository:hub/library/app:pull"),
    ] {
        let server = serve(bearer(), &samples::image());
        let challenge = format!(r#"Bearer realm="{}/token",service="s",scope="{asked}""#, server.url());
        let refusal = [Fault::Status(401), Fault::Header("WWW-Authenticate", Some(challenge))];
        server.script(On::manifests().times(1), refusal);
        let setup = HttpSetup::of(&server).with_login(&login());
        sound(opened(fixture, &setup).await.manifest(&by_tag(&setup)).await);
        let scopes: Vec<_> = tokens(&server).iter().flat_map(scopes).collect();
        assert_eq!(scopes, [answer], "asked for {asked}");
    }
}

async fn options_of_a_host_stay_with_it(fixture: &dyn HttpFixture) {
    const FIELD: (&str, &str) = ("x-key", "key-of-the-registry");
    let sample = samples::image();
    let layer = sample.images[0].layers[0].descriptor.clone();
    for is_proxied in [false, true] {
        let [registry, proxy, mirror, storage] = std::array::from_fn(|_| serve(Auth::Anonymous, &sample));
        let tokens = serve(Auth::Bearer { login: None, ttl: LIFE, realm: None }, &sample);
        mirror.script(On::any(), [Fault::Status(404)]);
        // Who answers in the registry's name.
        let (answering, other) = if is_proxied { (&proxy, &registry) } else { (&registry, &proxy) };
        let challenge = format!(r#"Bearer realm="{}/token",service="s""#, tokens.url());
        let refusal = [Fault::Status(401), Fault::Header("WWW-Authenticate", Some(challenge))];
        answering.script(On::manifests().times(1), refusal);
        let to = format!("{}/v2/library/app/blobs/{}", storage.url(), layer.digest());
        answering.script(On::blobs(), [Fault::Redirect(307, to)]);
        let setup = HttpSetup {
            header: vec![(FIELD.0.to_owned(), FIELD.1.to_owned())],
            proxy: is_proxied.then(|| proxy.url()),
            ..HttpSetup::of(&registry).with_mirror(&mirror, false)
        };
        let opened = opened(fixture, &setup).await;
        sound(opened.manifest(&by_tag(&setup)).await);
        sound(read(opened.blob(&by_tag(&setup), &layer, BlobRange::FULL).await).await);
        assert!(other.requests().is_empty(), "the proxy is asked where there is one: {is_proxied}");
        let asked = answering.requests();
        assert!(
            asked.len() > 2 && asked.iter().all(|seen| seen.header(FIELD.0) == Some(FIELD.1)),
            "{asked:?}"
        );
        let whole = |seen: &Exchange| seen.target.starts_with(&format!("{}/v2/", registry.url()));
        assert!(asked.iter().all(|seen| whole(seen) == is_proxied), "{asked:?}");
        for (who, server) in
            [("the mirror", &mirror), ("the token server", &tokens), ("the storage", &storage)]
        {
            let asked = server.requests();
            assert!(
                !asked.is_empty() && asked.iter().all(|seen| seen.target.starts_with('/')),
                "{who}: {asked:?}"
            );
            assert!(asked.iter().all(|seen| seen.header(FIELD.0).is_none()), "{who}: {asked:?}");
        }
    }
}

/// The scopes that a request asks for a token for.
fn scopes(exchange: &Exchange) -> Vec<String> {
    let query = exchange.target.split_once('?').map_or("", |(_, query)| query);
    let values = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    values.map(|value| value.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",")).collect()
}

/// Nothing that proves who we are has reached this server.
#[track_caller]
fn assert_unseen(server: &FaultServer, who: &str) {
    for seen in server.requests() {
        let shown = format!("{seen:?}");
        assert!(seen.header("authorization").is_none() && !shown.contains(PASSWORD), "{who} saw {shown}");
        assert!(!shown.contains(LOGIN), "{who} saw {shown}");
    }
}

/// The registry that a request is said to be for.
fn namespace(exchange: &Exchange) -> Option<String> {
    let (_, query) = exchange.target.split_once('?')?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix("ns="))?;
    Some(value.replace("%3A", ":"))
}
