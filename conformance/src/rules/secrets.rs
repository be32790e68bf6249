//! R: what proves who we are is never shown.

use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use plyfold_core::memory::MemoryCache;
use plyfold_core::progress::{Event, Progress};
use plyfold_core::pull::Retry;
use plyfold_core::{BlobRange, Error, ImageRegistry, PullOptions, PullPolicy};
use serde_json::json;

use super::origin::{
    LIFE, LOGIN, PASSWORD, USER, bearer, by_tag, login, opened, program, serve, stored, tokens, write,
};
use super::probe::{error_of, read, sound};
use crate::rule::rules;
use crate::samples;
use crate::server::{Auth, Fault, Login, On};
use crate::{HttpFixture, HttpSetup};

rules! {
    $ __http_secret_rules of dyn HttpFixture;
    "R 35" errors_and_debug_never_contain_secrets:
        "no error, source, Debug, Display or progress event shows a password, a token, an Authorization field or \
         the query of a redirect",
}

/// Stands in the query of redirects, as storages sign theirs.
pub(super) const SIGNATURE: &str = "sig-93af61";

async fn errors_and_debug_never_contain_secrets(fixture: &dyn HttpFixture) {
    let shown = Shown::default();
    wrong_passwords(fixture, &shown).await;
    token_servers_that_talk(fixture, &shown).await;
    broken_stores_and_helpers(fixture, &shown).await;
    signed_redirects(fixture, &shown).await;
    a_pull_with_trouble(fixture, &shown).await;
    let texts = shown.0.lock().expect("no test has panicked");
    assert!(texts.len() > 20, "there was much to show: {}", texts.len());
    for text in texts.iter() {
        for secret in [PASSWORD, SIGNATURE, LOGIN, "token-1", "token-2"] {
            assert!(!text.contains(secret), "{secret} is shown: {text}");
        }
    }
}

async fn wrong_passwords(fixture: &dyn HttpFixture, shown: &Shown) {
    let sample = samples::image();
    let other = Login::new(USER, "something-else");
    for auth in [
        Auth::Basic(other.clone()),
        Auth::Bearer { login: Some(other), ttl: LIFE, realm: None },
        Auth::Bearer { login: Some(login()), ttl: LIFE, realm: Some("http://127.0.0.2:9/token".to_owned()) },
    ] {
        let server = serve(auth, &sample);
        let setup = HttpSetup::of(&server).with_login(&login());
        let registry = opened(fixture, &setup).await;
        shown.error(&error_of(registry.manifest(&by_tag(&setup)).await));
        shown.registry(&*registry);
    }
    // A registry that refuses the tokens of its own server.
    let server = serve(bearer(), &sample);
    let challenge = format!(r#"Bearer realm="{}/token",service="s""#, server.url());
    server.script(On::manifests(), [Fault::Status(401), Fault::Header("WWW-Authenticate", Some(challenge))]);
    let setup = HttpSetup::of(&server).with_login(&login());
    let registry = opened(fixture, &setup).await;
    shown.error(&error_of(registry.manifest(&by_tag(&setup)).await));
    assert!(!tokens(&server).is_empty(), "a token was asked for");
    shown.registry(&*registry);
}

async fn token_servers_that_talk(fixture: &dyn HttpFixture, shown: &Shown) {
    for body in [
        format!(r#"{{"token":"{PASSWORD}\nX-Evil: 1"}}"#),
        format!(r#"{{"token":["{PASSWORD}"]}}"#),
        format!(r#"{{"token":"{PASSWORD}"#),
        format!("<html>{PASSWORD}</html>"),
    ] {
        let server = serve(bearer(), &samples::image());
        server.script(On::token(), [Fault::Body(Bytes::from(body))]);
        let setup = HttpSetup::of(&server).with_login(&login());
        let registry = opened(fixture, &setup).await;
        shown.error(&error_of(registry.manifest(&by_tag(&setup)).await));
        shown.registry(&*registry);
    }
}

async fn broken_stores_and_helpers(fixture: &dyn HttpFixture, shown: &Shown) {
    let server = serve(bearer(), &samples::image());
    let helpers = tempfile::tempdir().expect("a temporary directory");
    program(helpers.path(), "docker-credential-broken", &format!("echo {PASSWORD}; exit 1"));
    program(helpers.path(), "docker-credential-babbling", &format!("echo '{{\"Username\":\"{PASSWORD}\"'"));
    for config in [
        json!({ "credHelpers": { server.host(): "broken" } }),
        json!({ "credHelpers": { server.host(): "babbling" } }),
        json!({ "auths": { server.host(): { "auth": format!("!{PASSWORD}!") } } }),
        json!({ "auths": { server.host(): { "auth": [PASSWORD] } } }),
        json!({ "auths": { server.host(): { "identitytoken": format!("{PASSWORD}-wrong") } } }),
    ] {
        let folder = tempfile::tempdir().expect("a temporary directory");
        write(folder.path(), &config);
        let setup = HttpSetup {
            docker_config: Some(folder.path().to_owned()),
            helpers: Some(helpers.path().to_owned()),
            ..HttpSetup::of(&server)
        };
        // Some clients read it when they open, some when they ask.
        match fixture.open(&setup).await {
            Ok(registry) => {
                shown.error(&error_of(registry.manifest(&by_tag(&setup)).await));
                shown.registry(&*registry);
            }
            Err(e) => shown.error(&e),
        }
    }
}

async fn signed_redirects(fixture: &dyn HttpFixture, shown: &Shown) {
    let sample = samples::image();
    let layer = sample.images[0].layers[0].descriptor.clone();
    for fault in [Fault::Status(403), Fault::Status(503), Fault::Close, Fault::TruncateAt(10), Fault::Flip(3)]
    {
        let (server, storage) = (serve(bearer(), &sample), serve(Auth::Anonymous, &sample));
        storage.script(On::any(), [fault]);
        let to = format!("{}/v2/library/app/blobs/{}?sig={SIGNATURE}", storage.url(), layer.digest());
        server.script(On::blob(layer.digest()).skip(1), [Fault::Redirect(307, to)]);
        let setup = HttpSetup::of(&server).with_login(&login());
        let registry = opened(fixture, &setup).await;
        shown.error(&error_of(read(registry.blob(&by_tag(&setup), &layer, BlobRange::FULL).await).await));
        assert!(storage.requests().iter().any(|seen| seen.target.contains(SIGNATURE)));
        shown.registry(&*registry);
    }
    let server = serve(bearer(), &sample);
    let nowhere = format!("http://127.0.0.1:1/blob?sig={SIGNATURE}");
    server.script(On::blob(layer.digest()).skip(1), [Fault::Redirect(307, nowhere)]);
    let setup = HttpSetup::of(&server).with_login(&login());
    let registry = opened(fixture, &setup).await;
    shown.error(&error_of(read(registry.blob(&by_tag(&setup), &layer, BlobRange::FULL).await).await));
}

/// What a whole pull tells while its token server, its mirror and its storage give trouble.
async fn a_pull_with_trouble(fixture: &dyn HttpFixture, shown: &Shown) {
    let sample = samples::image();
    let layer = sample.images[0].layers[0].descriptor.clone();
    let server = serve(bearer(), &sample);
    let folder = stored(&server, &json!({ "auth": LOGIN }));
    let mirror = serve(bearer(), &sample);
    server.script(On::token().times(1), [Fault::Status(503)]);
    server.script(On::manifests().skip(1).times(1), [Fault::Status(500)]);
    server.script(On::blob(layer.digest()).times(2), [Fault::Close]);
    let setup = HttpSetup { docker_config: Some(folder.path().to_owned()), ..HttpSetup::of(&server) };
    let setup = setup.with_mirror(&mirror, true);
    let registry = opened(fixture, &setup).await;
    let (progress, mut events) = Progress::channel();
    let options = PullOptions {
        platform: sound("linux/amd64".parse()),
        policy: PullPolicy::Always,
        progress,
        retry: Retry { base: Duration::from_millis(1), ..Retry::default() },
        ..PullOptions::default()
    };
    let cache = sound(MemoryCache::new());
    let pulled = fixture.client().pull(&*registry, &by_tag(&setup), &cache, &options).await;
    drop(options);
    shown.text(format!("{:?}", sound(pulled)));
    let mut retries = 0;
    while let Some(event) = events.next().await {
        retries += usize::from(matches!(event, Event::Retrying { .. }));
        shown.text(format!("{event:?}"));
    }
    assert!(retries > 0, "there was trouble to tell about");
    assert!(server.requests().iter().any(|seen| seen.header("authorization").is_some()));
}

/// Everything that was shown.
#[derive(Clone, Debug, Default)]
struct Shown(Arc<Mutex<Vec<String>>>);

impl Shown {
    fn text(&self, text: String) {
        self.0.lock().expect("no test has panicked").push(text);
    }

    /// The error in every form, and what caused it.
    fn error(&self, error: &Error) {
        self.text(format!("{error} {error:?} {error:#?}"));
        let mut cause = error.source();
        while let Some(next) = cause {
            self.text(format!("{next} {next:?}"));
            cause = next.source();
        }
    }

    fn registry(&self, registry: &dyn ImageRegistry) {
        self.text(format!("{registry} {registry:?} {registry:#?}"));
    }
}
