//! R: which endpoint is asked, and which credentials it sees.

use std::time::Duration;

use plyfold_core::{BlobRange, ErrorKind, ImageRegistry, Reference};

use super::probe::{assert_kind, read, sound};
use crate::rule::{Rule, rules};
use crate::samples::{self, Sample};
use crate::server::{Auth, Exchange, Fault, FaultServer, Login, On, Options};
use crate::{HttpSetup, HttpStage};

pub(super) const RULES: &[Rule<dyn HttpStage>] = rules! {
    "R 34" token_reused_across_blobs_and_refreshed_on_401:
        "one token serves all requests of a repository; a refused one is replaced once, and no other \
         repository sees it",
};

/// What no error, no `Debug` and no other server may ever see.
const PASSWORD: &str = "pw-7b1e4c";

async fn token_reused_across_blobs_and_refreshed_on_401(stage: &dyn HttpStage) {
    let sample = samples::image();
    let server = serve(bearer(), &sample);
    server.put("library/other", "1", &sample);
    let setup = HttpSetup::of(&server).with_login(&login());
    let (registry, name) = (opened(stage, &setup).await, setup.reference("library/app:1.2"));
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

/// A server that has the sample as `library/app:1.2`.
fn serve(auth: Auth, sample: &Sample) -> FaultServer {
    let server = FaultServer::with(Options { auth, ..Options::default() });
    let server = server.expect("the loopback interface has a free port");
    server.put("library/app", "1.2", sample);
    server
}

fn login() -> Login {
    Login::new("user-5d0c", PASSWORD)
}

fn bearer() -> Auth {
    Auth::Bearer { login: Some(login()), ttl: Duration::from_secs(300), realm: None }
}

async fn opened(stage: &dyn HttpStage, setup: &HttpSetup) -> Box<dyn ImageRegistry> {
    sound(stage.open(setup).await)
}

/// Reads every blob of the sample that is no manifest, whole.
async fn read_all(registry: &dyn ImageRegistry, name: &Reference, sample: &Sample) {
    for blob in sample.blobs.iter().filter(|blob| !blob.is_manifest()) {
        let content = read(registry.blob(name, &blob.descriptor, BlobRange::FULL).await).await;
        assert!(sound(content) == blob.bytes, "the bytes of {}", blob.descriptor.digest());
    }
}

/// The requests for tokens.
fn tokens(server: &FaultServer) -> Vec<Exchange> {
    server.requests().into_iter().filter(|exchange| exchange.target.starts_with("/token")).collect()
}

/// The `Authorization` headers of requests whose target contains `text`.
fn bearers(requests: &[Exchange], text: &str) -> Vec<String> {
    let of = requests.iter().filter(|exchange| exchange.target.contains(text));
    of.filter_map(|exchange| exchange.header("authorization").map(str::to_owned)).collect()
}
