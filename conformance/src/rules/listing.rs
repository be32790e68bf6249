//! R: what a registry lists, and how its answers are labelled.

use plyfold_core::{Descriptor, ErrorKind, ImageRegistry, MediaType, Page, Result, digest, reference};

use super::probe::{assert_kind, sound};
use crate::rule::rules;
use crate::samples;
use crate::server::{Fault, FaultServer, On, Options};
use crate::{HttpFixture, HttpSetup};

rules! {
    $ __http_listing_rules of dyn HttpFixture;
    "R 36" tag_list_pagination_follows_link_same_host_only:
        "a listing follows its link, in every form, on the same host; another host is never asked, and \
         a link that cannot be read is an error: a list that is cut short never looks whole",
    "R 37" referrers_api_and_tag_fallback_equal:
        "referrers are the same with and without an API for them, and filtered wherever they come from",
    "R 38" head_without_body_support_falls_back_to_get:
        "what a name stands for takes one HEAD, and a GET where HEAD says too little, or is redirected to a storage \
         whose URLs are signed for GET",
    "R 39" content_type_mismatch_with_body_mediatype_rejected:
        "a manifest that is labelled as something else is corrupt, and so is what is no manifest at all",
}

async fn tag_list_pagination_follows_link_same_host_only(fixture: &dyn HttpFixture) {
    let server = serve(Options { page: 2, ..Options::default() });
    let setup = HttpSetup::of(&server);
    let names = ["1.0", "1.1", "2.0", "2.1", "latest"];
    for name in names {
        server.put("library/app", name, &samples::image());
    }
    let registry = sound(fixture.open(&setup).await);
    let repository = reference::repository_of(&setup.reference("library/app:1.0"));
    for limit in [None, Some(1), Some(4), Some(100)] {
        assert_eq!(sound(listed(&*registry, &repository, limit).await), names, "{limit:?} at a time");
    }
    let page = "/v2/library/app/tags/list?last=1.1";
    for link in [
        format!("<{page}>; rel=next"),
        format!("<{page}>; REL=\"last next\""),
        format!("<{}{page}>; title=\"a, b\"; rel=\"next\"", server.url()),
        format!("</v2/library/app/tags/list>; rel=\"first\", <{page}>; rel=\"next\""),
        "<?last=1.1>; rel=\"next\"".to_owned(),
        format!("{page}; rel=\"next\""),
        format!("<{page}>"),
        // These cannot be read. Every name or an error, nothing else.
        format!("<{page}; rel=\"next\""),
        format!("<{page}>; rel=\"next"),
        "<>; rel=\"next\"".to_owned(),
    ] {
        let is_broken = link.starts_with("<>") || link.matches('"').count() % 2 == 1 || !link.contains('>');
        let is_bare = !link.starts_with('<');
        server.script(On::target("/tags/list").times(1), [Fault::Header("Link", Some(link.clone()))]);
        match listed(&*registry, &repository, None).await {
            Ok(all) => assert_eq!(all, names, "{link}"),
            Err(e) => assert!(is_broken || is_bare, "{link}: {e}"),
        }
        server.clear_scripts();
    }
    let other = serve(Options::default());
    for path in ["/v2/library/app/tags/list?last=1.1", "/elsewhere"] {
        let link = format!("<{}{path}>; rel=\"next\"", other.url());
        server.script(On::target("/tags/list"), [Fault::Header("Link", Some(link))]);
        assert!(listed(&*registry, &repository, None).await.is_err(), "a link to another host");
        server.clear_scripts();
    }
    // Round in a circle.
    let link = "</v2/library/app/tags/list>; rel=\"next\"".to_owned();
    server.script(On::target("/tags/list"), [Fault::Header("Link", Some(link))]);
    assert!(listed(&*registry, &repository, None).await.is_err(), "a link back to the first page");
    assert!(other.requests().is_empty(), "the other host is never asked");
}

async fn referrers_api_and_tag_fallback_equal(fixture: &dyn HttpFixture) {
    let sample = samples::subject();
    let subject = sample.subject.as_ref().expect("the sample has a subject").manifest.digest().clone();
    let mut answers: Vec<Vec<Descriptor>> = Vec::new();
    for (referrers, ignores_filter) in [(true, false), (true, true), (false, false)] {
        let server = serve(Options { referrers, ..Options::default() });
        server.put("library/app", "1.2", &sample);
        let setup = HttpSetup::of(&server);
        let (registry, name) = (sound(fixture.open(&setup).await), setup.reference("library/app:1.2"));
        let all = sound(registry.referrers(&name, &subject, None).await);
        assert_eq!(all.iter().map(Descriptor::digest).collect::<Vec<_>>(), [sample.top.digest()]);
        if ignores_filter {
            server.script(On::target("/referrers/"), [Fault::Body(unfiltered(&all))]);
        }
        let kind = all[0].artifact_type().clone().expect("a referrer has an artifact type");
        assert_eq!(sound(registry.referrers(&name, &subject, Some(&kind)).await), all);
        let other = MediaType::from("application/vnd.example.other");
        assert_eq!(sound(registry.referrers(&name, &subject, Some(&other)).await), []);
        server.clear_scripts();
        assert_eq!(sound(registry.referrers(&name, &digest::sha256(b"nobody's"), None).await), []);
        answers.push(all);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}

async fn head_without_body_support_falls_back_to_get(fixture: &dyn HttpFixture) {
    let sample = samples::image();
    let server = serve(Options::default());
    server.put("library/app", "1.2", &sample);
    let setup = HttpSetup::of(&server);
    let (registry, name) = (sound(fixture.open(&setup).await), setup.reference("library/app:1.2"));
    assert_eq!(sound(registry.resolve(&name).await), sample.top);
    let asked = server.requests();
    assert_eq!(asked.iter().map(|x| x.method.as_str()).collect::<Vec<_>>(), ["HEAD"]);
    server.configure(|options| options.head = false);
    assert_eq!(sound(registry.resolve(&name).await), sample.top, "405 to HEAD");
    server.configure(|options| (options.head, options.digest_header) = (true, false));
    assert_eq!(sound(registry.resolve(&name).await), sample.top, "no digest in the answer to HEAD");
    server.configure(|options| options.digest_header = true);
    server.script(On::any().method("HEAD"), [Fault::Status(404)]);
    assert_eq!(sound(registry.resolve(&name).await), sample.top, "404 to HEAD alone");
    server.clear_scripts();
    let storage = serve(Options::default());
    server.script(On::any().method("HEAD"), [Fault::Redirect(307, format!("{}/signed?x=1", storage.url()))]);
    for status in [400, 403, 404, 405] {
        storage.clear_scripts();
        storage.script(On::any(), [Fault::Status(status)]);
        assert_eq!(
            sound(registry.resolve(&name).await),
            sample.top,
            "{status} to a HEAD that was redirected"
        );
    }
    // What the registry itself refuses stays refused.
    server.clear_scripts();
    server.script(On::any(), [Fault::Status(403)]);
    assert_kind(registry.resolve(&name).await, &ErrorKind::Denied);
    server.clear_scripts();
    server.remove("library/app", sample.top.digest());
    assert_kind(registry.resolve(&name).await, &ErrorKind::NotFound);
}

async fn content_type_mismatch_with_body_mediatype_rejected(fixture: &dyn HttpFixture) {
    let (image, index) = (samples::image(), samples::index());
    let content_type = |text: &str| Fault::Header("Content-Type", Some(text.to_owned()));
    let html = || Fault::Body("<html><title>Please log in</title></html>".into());
    for (sample, faults) in [
        (&image, vec![content_type("application/vnd.oci.image.index.v1+json")]),
        (&index, vec![content_type("application/vnd.oci.image.manifest.v1+json")]),
        (&image, vec![content_type("application/vnd.docker.distribution.manifest.list.v2+json")]),
        (&image, vec![html(), content_type("text/html; charset=utf-8")]),
        (&image, vec![html()]),
    ] {
        let server = serve(Options { digest_header: false, ..Options::default() });
        server.put("library/app", "1.2", sample);
        let setup = HttpSetup::of(&server);
        let registry = sound(fixture.open(&setup).await);
        sound(registry.manifest(&setup.reference("library/app:1.2")).await);
        server.script(On::manifests(), faults);
        assert_kind(registry.manifest(&setup.reference("library/app:1.2")).await, &ErrorKind::Corrupt);
    }
    // Parameters and a missing label change nothing.
    for label in [Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8".to_owned()), None] {
        let server = serve(Options::default());
        server.put("library/app", "1.2", &image);
        server.script(On::manifests(), [Fault::Header("Content-Type", label)]);
        let setup = HttpSetup::of(&server);
        let raw = sound(fixture.open(&setup).await).manifest(&setup.reference("library/app:1.2")).await;
        assert_eq!(sound(raw).descriptor(), &image.top);
    }
}

fn serve(options: Options) -> FaultServer {
    FaultServer::with(options).expect("the loopback interface has a free port")
}

/// Every tag, by as many pages as it takes, within reason.
async fn listed(registry: &dyn ImageRegistry, repository: &str, limit: Option<usize>) -> Result<Vec<String>> {
    let (mut all, mut after) = (Vec::new(), None);
    for _ in 0..20 {
        let page = registry.tags(repository, Page { limit, after }).await?;
        assert!(limit.is_none_or(|limit| page.names.len() <= limit), "a page of the wanted length");
        all.extend(page.names);
        match page.next {
            None => return Ok(all),
            next => after = next,
        }
    }
    panic!("the listing does not end");
}

/// An index of these referrers, whatever was asked for.
fn unfiltered(all: &[Descriptor]) -> bytes::Bytes {
    let manifests: Vec<_> = all.iter().map(|one| serde_json::to_string(one).unwrap_or_default()).collect();
    let index = "application/vnd.oci.image.index.v1+json";
    format!(r#"{{"schemaVersion":2,"mediaType":"{index}","manifests":[{}]}}"#, manifests.join(",")).into()
}
