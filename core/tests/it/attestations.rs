//! What attests to an image: where it is found, how it is unwrapped, and what is refused.

use plyfold_core::attestation::limits;
use plyfold_core::memory::{MemoryCache, MemoryRegistry};
use plyfold_core::{
    Attestation, AttestationFault, AttestationKind, AttestationOrigin, CacheProviderExt, CopyOptions, Digest,
    ErrorKind, ImageAttestations, ImageRegistry, MediaType, Platform, PullPolicy, RegistrySource, Result,
    copy, digest,
};
use serde_json::{Value, json};

use crate::fixture::{descriptor, layer, name, options, put_document, put_image};

pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
pub(crate) const SPDX: &str = r#"{"spdxVersion": "SPDX-2.3", "name":"a"}"#;
/// `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://spdx.dev/Document","subject":[],"predicate":{"?>":1}}`
/// in the alphabet for URLs and without padding, as the specification of DSSE allows.
const URL_SAFE: &str = "eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEiLCJwcmVkaWNhdGVUeXBlIjoiaHR0cHM6Ly9zcGR4LmRldi9Eb2N1bWVudCIsInN1YmplY3QiOltdLCJwcmVkaWNhdGUiOnsiPz4iOjF9fQ";

pub(crate) fn statement(image: &Digest, kind: &str, predicate: &str) -> String {
    let hex = image.digest();
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v0.1","subject":[{{"name":"x","digest":{{"sha256":"{hex}"}}}}],"predicateType":"{kind}","predicate":{predicate}}}"#
    )
}

/// A place with one image under `app:1`.
pub(crate) struct Place {
    pub(crate) registry: MemoryRegistry,
    pub(crate) image: Value,
    pub(crate) digest: Digest,
}

impl Place {
    pub(crate) fn new() -> Self {
        let registry = MemoryRegistry::new("attested");
        let (digest, _) =
            put_image(&registry, &name("r.example/app:1"), ("linux", "amd64"), &[layer("a", 10)]);
        let manifest =
            json!({ "mediaType": MediaType::ImageManifest.to_string(), "digest": digest, "size": 0 });
        Self { registry, image: manifest, digest }
    }

    /// The image's descriptor, with its size.
    pub(crate) async fn with_size(mut self) -> Self {
        let raw = self.registry.manifest(&name("r.example/app:1")).await.unwrap();
        self.image["size"] = raw.bytes().len().into();
        self
    }

    /// A manifest around `content` under a name, with these fields beside the usual ones.
    pub(crate) fn put(&self, to: &str, media_type: &str, content: &str, fields: &Value) -> Digest {
        let at = name(to);
        let mut layer = descriptor(media_type, content.as_bytes());
        if let Some(annotations) = fields.get("of layer") {
            layer["annotations"] = annotations.clone();
        }
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(),
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"), "layers": [layer],
        });
        for (key, value) in fields.as_object().unwrap().iter().filter(|(key, _)| *key != "of layer") {
            manifest[key] = value.clone();
        }
        self.registry.insert_blob(&at, digest::sha256(b"{}"), "{}");
        self.registry.insert_blob(&at, digest::sha256(content.as_bytes()), content.to_owned());
        put_document(&self.registry, &at, MediaType::ImageManifest, &manifest)
    }

    /// The same as a referrer of the image.
    fn refer(&self, media_type: &str, content: &str) {
        let fields = json!({ "artifactType": media_type, "subject": self.image });
        // The content makes the name.
        let tag = &digest::sha256(content.as_bytes()).digest()[..20].to_owned();
        self.put(&format!("r.example/app:{tag}"), media_type, content, &fields);
    }

    pub(crate) async fn source(&self) -> RegistrySource {
        let registry = Box::new(self.registry.clone());
        let platform: Platform = "linux/amd64".parse().unwrap();
        RegistrySource::open(registry, &name("r.example/app:1"), &platform).await.unwrap()
    }
}

/// The error of reading the only attestation of an image that has this one.
async fn refused(media_type: &str, content: &str) -> plyfold_core::Error {
    let place = Place::new().with_size().await;
    place.refer(media_type, content);
    let [one] = <[_; 1]>::try_from(place.source().await.attestations().await.unwrap()).unwrap();
    one.predicate().await.unwrap_err()
}

#[tokio::test]
async fn what_is_no_statement_is_refused() {
    let image = Place::new().digest;
    let other = digest::sha256(b"another image");
    let spdx = "https://spdx.dev/Document";
    let twice = statement(&image, spdx, "{}").replacen("{\"_type\"", "{\"predicate\":{},\"_type\"", 1);
    let cases = [
        ("no JSON", IN_TOTO, "<html>".to_owned()),
        ("a list", IN_TOTO, "[]".to_owned()),
        ("nothing known", IN_TOTO, "{}".to_owned()),
        ("another type", IN_TOTO, r#"{"_type":"link","predicate":{}}"#.to_owned()),
        ("no predicate", IN_TOTO, r#"{"_type":"https://in-toto.io/Statement/v1"}"#.to_owned()),
        ("two predicates", IN_TOTO, twice),
        ("text behind it", IN_TOTO, statement(&image, spdx, "{}") + "{}"),
        ("an open predicate", IN_TOTO, statement(&image, spdx, r#"{"a":[1,}"#)),
        ("no payload", ENVELOPE, r#"{"dsseEnvelope":{}}"#.to_owned()),
        ("no base64", ENVELOPE, format!(r#"{{"payloadType":"{IN_TOTO}","payload":"*"}}"#)),
        ("another payload", ENVELOPE, r#"{"payloadType":"text/plain","payload":"e30="}"#.to_owned()),
        ("a signature", ENVELOPE, r#"{"verificationMaterial":{},"messageSignature":{}}"#.to_owned()),
    ];
    for (what, media_type, content) in cases {
        let error = refused(media_type, &content).await;
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(matches!(error.detail(), Some(AttestationFault::Statement(_))), "{what}: {error:?}");
    }
    let error = refused(IN_TOTO, &statement(&other, spdx, "{}")).await;
    assert_eq!(error.detail(), Some(&AttestationFault::Subject(image)), "{error}");
    for kind in ["text/spdx", "text/spdx; charset=utf-8"] {
        let error = refused(kind, "SPDXVersion: SPDX-2.3").await;
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn statements_that_name_no_digest_of_content_are_about_something_else() {
    let image = Place::new().digest;
    let own = format!(r#"{{"sha256":"{}"}}"#, image.digest());
    let whole = statement(&image, "https://spdx.dev/Document", "{}");
    let sha1 = r#"{"sha1":"da39a3ee5e6b4b0d3255bfef95601890afd80709"}"#;
    for other in [r#"{"gitCommit":"0123"}"#, sha1, "{}", "null"] {
        let error = refused(IN_TOTO, &whole.replace(&own, other)).await;
        assert_eq!(error.detail(), Some(&AttestationFault::Subject(image.clone())), "{other}: {error}");
    }
}

/// The SBOMs of an image that has one referrer, whose type only its content says.
async fn untyped(content: &str) -> Result<Vec<Attestation>> {
    let place = Place::new().with_size().await;
    place.refer(ENVELOPE, content);
    place.source().await.sboms().await
}

#[tokio::test]
async fn damaged_statements_are_errors_and_other_things_are_no_sboms() {
    let cases = [
        ("no JSON", "<html>".to_owned()),
        ("a list", "[]".to_owned()),
        ("no payload", r#"{"dsseEnvelope":{}}"#.to_owned()),
        ("a damaged envelope", r#"{"dsseEnvelope":[]}"#.to_owned()),
        ("no base64", format!(r#"{{"payloadType":"{IN_TOTO}","payload":"*"}}"#)),
        ("a payload that is no JSON", format!(r#"{{"payloadType":"{IN_TOTO}","payload":"PGh0bWw+"}}"#)),
        ("no type", r#"{"_type":"https://in-toto.io/Statement/v1","predicate":{}}"#.to_owned()),
    ];
    for (what, content) in cases {
        let error = untyped(&content).await.unwrap_err();
        assert!(matches!(error.detail(), Some(AttestationFault::Statement(_))), "{what}: {error:?}");
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{what}: {error}");
    }
    for content in [
        "{}",
        r#"{"payloadType":"text/plain","payload":"e30="}"#,
        r#"{"verificationMaterial":{},"messageSignature":{}}"#,
    ] {
        assert_eq!(untyped(content).await.unwrap().len(), 0, "{content}");
    }
}

#[tokio::test]
async fn forms_are_unwrapped() {
    let image = Place::new().digest;
    let plain = statement(&image, "https://cyclonedx.org/bom", r#"{"a": 1.50}"#);
    let v1 = plain.replace("v0.1", "v1");
    let open =
        plain.replace(&format!(r#"[{{"name":"x","digest":{{"sha256":"{}"}}}}]"#, image.digest()), "null");
    assert_ne!(open, plain);
    let url_safe = format!(r#"{{"payload":"{URL_SAFE}","payloadType":"{IN_TOTO}","signatures":[]}}"#);
    let bundle = format!(r#"{{"dsseEnvelope":{url_safe},"verificationMaterial":{{}}}}"#);
    let spdx3 = r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[]}"#;
    let cases = [
        (IN_TOTO, plain.as_str(), r#"{"a": 1.50}"#, AttestationKind::CycloneDx),
        (IN_TOTO, &v1, r#"{"a": 1.50}"#, AttestationKind::CycloneDx),
        (IN_TOTO, &open, r#"{"a": 1.50}"#, AttestationKind::CycloneDx),
        ("application/vnd.in-toto+json; charset=utf-8", &plain, r#"{"a": 1.50}"#, AttestationKind::CycloneDx),
        (ENVELOPE, &url_safe, r#"{"?>":1}"#, AttestationKind::Spdx),
        ("application/vnd.dev.sigstore.bundle.v0.3+json", &bundle, r#"{"?>":1}"#, AttestationKind::Spdx),
        ("application/spdx+json", SPDX, SPDX, AttestationKind::Spdx),
        ("application/spdx+json", spdx3, spdx3, AttestationKind::Spdx),
        (
            "application/vnd.cyclonedx+json",
            r#"{"bomFormat":"CycloneDX"}"#,
            r#"{"bomFormat":"CycloneDX"}"#,
            AttestationKind::CycloneDx,
        ),
    ];
    for (media_type, content, predicate, kind) in cases {
        let place = Place::new().with_size().await;
        place.refer(media_type, content);
        let [one] = <[_; 1]>::try_from(place.source().await.sboms().await.unwrap()).unwrap();
        assert_eq!((one.kind(), one.origin()), (kind, AttestationOrigin::Referrer), "{content}");
        assert_eq!(one.predicate().await.unwrap(), predicate, "{content}");
        assert_eq!(one.statement().await.unwrap(), content);
        assert!(place.source().await.provenance().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn tags_of_cosign_are_found_and_signatures_are_none() {
    let place = Place::new().with_size().await;
    let hex = place.digest.digest();
    let payload = statement(&place.digest, "https://slsa.dev/provenance/v0.2", "{}");
    let annotations = json!({ "of layer": { "predicateType": "https://slsa.dev/provenance/v0.2" } });
    place.put(&format!("r.example/app:sha256-{hex}.att"), IN_TOTO, &payload, &annotations);
    place.put(&format!("r.example/app:sha256-{hex}.sbom"), "spdx+json", SPDX, &json!({}));
    place.put(&format!("r.example/app:sha256-{hex}.sig"), ENVELOPE, "{}", &json!({}));
    place.refer("application/vnd.dev.cosign.simplesigning.v1+json", "{}");
    let content = json!({ "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json", "subject": place.image,
        "annotations": { "dev.sigstore.bundle.content": "message-signature" } });
    place.put("r.example/app:s", "application/vnd.dev.sigstore.bundle.v0.3+json", "{\"a\":1}", &content);
    let source = place.source().await;
    let all = source.attestations().await.unwrap();
    let origins: Vec<_> = all.iter().map(|one| (one.origin(), one.kind())).collect();
    assert_eq!(
        origins,
        [
            (AttestationOrigin::CosignTag, AttestationKind::Provenance),
            (AttestationOrigin::CosignTag, AttestationKind::Spdx),
        ]
    );
    assert_eq!(source.provenance().await.unwrap()[0].predicate().await.unwrap(), "{}");
    assert_eq!(source.sboms().await.unwrap()[0].predicate().await.unwrap(), SPDX);
}

#[tokio::test]
async fn too_much_is_refused() {
    let place = Place::new().with_size().await;
    let fields = json!({ "subject": place.image, "artifactType": IN_TOTO });
    let huge = put_huge(&place, &fields);
    let one = &place.source().await.attestations().await.unwrap()[0];
    assert_eq!(*one.manifest().digest(), huge);
    assert_eq!(*one.predicate().await.unwrap_err().kind(), ErrorKind::Limit);
    for number in 0..limits::MANIFESTS {
        place.refer(IN_TOTO, &format!("{{\"number\":{number}}}"));
    }
    let error = place.source().await.attestations().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Limit, "{error}");
}

/// A referrer that declares a statement of one byte too many.
fn put_huge(place: &Place, fields: &Value) -> Digest {
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(),
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor(IN_TOTO, b"{}")],
    });
    manifest["layers"][0]["size"] = (limits::STATEMENT + 1).into();
    for (key, value) in fields.as_object().unwrap() {
        manifest[key] = value.clone();
    }
    put_document(&place.registry, &name("r.example/app:huge"), MediaType::ImageManifest, &manifest)
}

/// An index of the image and of an attestation to it, in place of the image.
async fn indexed() -> Result<Place> {
    let place = Place::new().with_size().await;
    let content = statement(&place.digest, "https://spdx.dev/Document", "{}");
    let kind = json!({ "of layer": { "in-toto.io/predicate-type": "https://spdx.dev/Document" } });
    let attestation = place.put("r.example/app:att", IN_TOTO, &content, &kind);
    let size = place.registry.manifest(&name("r.example/app:att")).await?.bytes().len();
    let mut image = place.image.clone();
    image["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let beside = json!({
        "mediaType": MediaType::ImageManifest.to_string(), "digest": attestation, "size": size,
        "platform": { "os": "unknown", "architecture": "unknown" },
        "annotations": { "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": place.digest },
    });
    let index = json!({ "schemaVersion": 2, "manifests": [image, beside] });
    put_document(&place.registry, &name("r.example/app:1"), MediaType::ImageIndex, &index);
    Ok(place)
}

#[tokio::test]
async fn a_cache_has_those_that_came_and_misses_the_others() {
    let (place, image) = (indexed().await.unwrap(), name("r.example/app:1"));
    let cache = MemoryCache::new().unwrap();
    let pulled = cache.image_pull(&place.registry, &image, &options(PullPolicy::Always)).await.unwrap();
    // A pull of one platform brings no attestations, and that is not the same as none.
    let source = cache.new_source(&image, &"linux/amd64".parse().unwrap()).await.unwrap();
    assert_eq!(*source.sboms().await.unwrap_err().kind(), ErrorKind::NotFound);
    let in_hand = RegistrySource::in_hand(
        Box::new(place.registry.clone()),
        image.clone(),
        pulled.manifest.clone(),
        pulled.config.clone(),
    );
    assert_eq!(in_hand.sboms().await.unwrap().len(), 0);
    let in_hand = in_hand.with_indexes(pulled.indexes.clone());
    assert_eq!(in_hand.sboms().await.unwrap().len(), 1);
    let target = cache.as_target();
    copy(&place.registry, &image, &target, &image, &CopyOptions::default()).await.unwrap();
    let found = source.sboms().await.unwrap();
    assert_eq!(found[0].predicate().await.unwrap(), "{}");
    assert_eq!(found[0].subjects().await.unwrap(), [place.digest]);
}
