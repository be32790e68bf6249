//! Tags, repositories, referrers.

use plyfold_conformance::samples;
use plyfold_conformance::server::{Fault, FaultServer, On, Options};
use plyfold_core::{Advice, ErrorKind, ImageRegistry, MediaType, Page, digest, reference};

use crate::{assert_kind, open, serve};

/// Rule R 36 `tag_list_pagination_follows_link_same_host_only`.
#[tokio::test]
async fn pages_follow_links_on_the_same_host() {
    let server = FaultServer::with(Options { page: 2, ..Options::default() }).unwrap();
    for tag in ["v3", "v1", "v2", "v5", "v4"] {
        server.put("library/app", tag, &samples::image());
    }
    let repository = format!("{}/library/app", server.host());
    let registry = open(server.host(), |_| ());
    let mut found = Vec::new();
    let mut page = Page::default();
    loop {
        let names = registry.tags(&repository, page).await.unwrap();
        assert!(names.names.len() <= 2);
        found.extend(names.names);
        let Some(after) = names.next else { break };
        page = Page { after: Some(after), limit: None };
    }
    assert_eq!(found, ["v1", "v2", "v3", "v4", "v5"]);
    let named = Page { after: Some("v3".to_owned()), limit: Some(1) };
    assert_eq!(registry.tags(&repository, named).await.unwrap().names, ["v4"]);

    for link in [
        "<http://127.0.0.2:1/v2/library/app/tags/list?n=1>; rel=next",
        "</v2/other/tags/list?n=1>; rel=next",
        "<tags/list>; rel=next",
    ] {
        server.clear_scripts();
        server.script(On::target("/tags/list"), [Fault::Header("Link", Some(link.to_owned()))]);
        assert_kind(registry.tags(&repository, Page::default()).await, &ErrorKind::Corrupt);
    }
    let absent = format!("{}/library/absent", server.host());
    assert_kind(registry.tags(&absent, Page::default()).await, &ErrorKind::NotFound);
    for invalid in ["a b", "", &format!("{repository}@{}", digest::sha256(b""))] {
        assert_kind(registry.tags(invalid, Page::default()).await, &ErrorKind::Config);
    }
    server.clear_scripts();
    server.script(On::target("/tags/list"), [Fault::Body(r#"{"name":"x","tags":null}"#.into())]);
    assert!(registry.tags(&repository, Page::default()).await.unwrap().names.is_empty());
}

/// A registry that knows neither `n` nor `last` still has an end.
#[tokio::test]
async fn a_registry_that_sends_everything_each_time_is_cut_into_pages() {
    let (server, _) = serve(Options::default(), &samples::image());
    server.script(On::target("/tags/list"), [Fault::Body(r#"{"tags":["c","a","b","d"]}"#.into())]);
    let registry = open(server.host(), |_| ());
    let repository = format!("{}/library/app", server.host());
    let (mut found, mut after) = (Vec::new(), None);
    for _ in 0..4 {
        let names = registry.tags(&repository, Page { limit: Some(2), after }).await.unwrap();
        found.extend(names.names);
        after = names.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((found.concat().as_str(), after), ("abcd", None));
}

#[tokio::test]
async fn repositories_have_their_host() {
    let server = FaultServer::with(Options { page: 1, ..Options::default() }).unwrap();
    server.put("library/app", "1", &samples::image());
    server.put("library/base", "1", &samples::image());
    let registry = open(server.host(), |_| ());
    let first = registry.repositories(Page::default()).await.unwrap();
    assert_eq!(first.names, [format!("{}/library/app", server.host())]);
    let second = registry.repositories(Page { after: first.next, limit: None }).await.unwrap();
    assert_eq!((second.names, second.next), (vec![format!("{}/library/base", server.host())], None));
    let named = Page { after: Some(first.names[0].clone()), limit: Some(5) };
    assert_eq!(registry.repositories(named).await.unwrap().names.len(), 1);
}

/// Rule R 37 `referrers_api_and_tag_fallback_equal`.
#[tokio::test]
async fn referrers_by_api_and_by_tag() {
    let sample = samples::subject();
    let subject = sample.subject.as_ref().unwrap().manifest.digest().clone();
    let mut answers = Vec::new();
    for referrers in [true, false] {
        let (server, name) = serve(Options { referrers, ..Options::default() }, &sample);
        let registry = open(server.host(), |_| ());
        let all = registry.referrers(&name, &subject, None).await.unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].digest(), sample.top.digest());
        let none = MediaType::from("application/vnd.example.other");
        assert!(registry.referrers(&name, &subject, Some(&none)).await.unwrap().is_empty());
        let kind = all[0].artifact_type().clone().unwrap();
        assert_eq!(registry.referrers(&name, &subject, Some(&kind)).await.unwrap(), all);
        assert!(registry.referrers(&name, &digest::sha256(b"none"), None).await.unwrap().is_empty());
        answers.push(all);
        let link = Some(format!("<http://127.0.0.2:1/v2/library/app/referrers/{subject}?n=1>; rel=next"));
        server.script(On::target("/referrers/"), [Fault::Header("Link", link)]);
        let linked = registry.referrers(&name, &subject, None).await;
        assert_eq!(linked.map_err(|e| e.kind().clone()).err(), referrers.then_some(ErrorKind::Corrupt));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn deletes_by_tag_and_by_digest() {
    let sample = samples::image();
    let (server, name) = serve(Options::default(), &sample);
    server.put("library/app", "other", &sample);
    let registry = open(server.host(), |_| ());
    registry.delete(&name).await.unwrap();
    assert_kind(registry.manifest(&name).await, &ErrorKind::NotFound);
    assert_kind(registry.delete(&name).await, &ErrorKind::NotFound);
    let pinned = reference::by_digest(&name, sample.top.digest());
    registry.delete(&pinned).await.unwrap();
    assert_eq!(server.tagged("library/app", "other"), None);
}

#[tokio::test]
async fn a_registry_that_deletes_no_tags_says_so() {
    let sample = samples::image();
    let (server, name) = serve(Options::default(), &sample);
    let registry = open(server.host(), |_| ());
    let invalid = r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}"#;
    let docker_registry = vec![Fault::Status(400), Fault::Body(invalid.into())];
    for faults in [docker_registry, vec![Fault::Status(405)]] {
        server.script(On::any().method("DELETE").times(1), faults);
        let error = registry.delete(&name).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(matches!(error.advice(), Some(Advice::DeleteByDigest { .. })), "{error}");
    }
}

/// Registries say in several ways that they have no such API.
#[tokio::test]
async fn referrers_are_found_by_tag_whatever_the_api_says() {
    let sample = samples::subject();
    let subject = sample.subject.as_ref().unwrap().manifest.digest().clone();
    let (server, name) = serve(Options { referrers: false, ..Options::default() }, &sample);
    let registry = open(server.host(), |_| ());
    for status in [400, 404, 405, 406, 501] {
        server.clear_scripts();
        server.script(On::target("/referrers/"), [Fault::Status(status)]);
        assert_eq!(registry.referrers(&name, &subject, None).await.unwrap().len(), 1, "{status}");
    }
    server.clear_scripts();
    server.script(On::target("/referrers/"), [Fault::Status(503)]);
    assert_kind(registry.referrers(&name, &subject, None).await, &ErrorKind::Unavailable);
}

/// Referrers come in pages too. A later page that fails is no reason to ask the fallback tag, which may know less.
#[tokio::test]
async fn a_page_of_referrers_that_is_missing_is_an_error() {
    let sample = samples::subject();
    let (server, name) = serve(Options::default(), &sample);
    let subject = sample.subject.as_ref().unwrap().manifest.digest().clone();
    let registry = open(server.host(), |_| ());
    let all = registry.referrers(&name, &subject, None).await.unwrap();
    assert!(!all.is_empty());
    let link = |target: &str| Fault::Header("Link", Some(format!("{target}; rel=\"next\"")));
    for status in [404, 405, 503] {
        server.clear_scripts();
        server.script(On::target("/referrers/").times(1), [link("<?page=2>")]);
        server.script(On::target("page=2"), [Fault::Status(status)]);
        registry.referrers(&name, &subject, None).await.unwrap_err();
    }
    server.clear_scripts();
    server.script(On::target("/referrers/").times(1), [link("<?page=2")]);
    assert_kind(registry.referrers(&name, &subject, None).await, &ErrorKind::Corrupt);
    // Pages that bring nothing new, and always one more.
    server.clear_scripts();
    server.script(On::target("/referrers/"), [link("<?page=2>")]);
    let before = server.requests().len();
    assert_kind(registry.referrers(&name, &subject, None).await, &ErrorKind::Corrupt);
    assert_eq!(server.requests().len(), before + 2);
}
