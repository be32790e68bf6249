//! An image that others attest to, in the forms of the tools that write attestations.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plyfold_core::Descriptor;

use super::draft::{Draft, EMPTY, ImagePlan, MANIFEST, for_platform, json, manifest_text, with};
use super::image::single;
use super::sample::Sample;

const IN_TOTO: &str = "application/vnd.in-toto+json";
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SPDX: &str = "https://spdx.dev/Document";
const CYCLONE_DX: &str = "https://cyclonedx.org/bom";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// What is attested of the image for amd64 in [`attested`]: types and predicates, as text that no serialiser would write.
pub const ATTESTED: [(&str, &str); 4] = [
    (SPDX, r#"{"spdxVersion": "SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT", "name":"app","weight":1.50}"#),
    (SPDX, r#"{"spdxVersion": "SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT", "name":"the stage before"}"#),
    (CYCLONE_DX, r#"{"bomFormat": "CycloneDX","specVersion":"1.6", "components":[]}"#),
    (PROVENANCE, r#"{"buildDefinition": {"buildType":"https://mobyproject.org/buildkit@v1"}}"#),
];

/// What is attested of the image for arm64 in [`attested`].
pub const ATTESTED_ARM64: (&str, &str) =
    (SPDX, r#"{"spdxVersion": "SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT", "name":"arm64"}"#);

/// An index as `BuildKit` writes it with SBOMs and provenance: an image for arm64, one for amd64, and an attestation of
/// each.
pub fn attested() -> Sample {
    let mut draft = Draft::default();
    let (mut images, mut beside) = (Vec::new(), Vec::new());
    for (platform, attested) in
        [("linux/arm64/v8", std::slice::from_ref(&ATTESTED_ARM64)), ("linux/amd64", &ATTESTED)]
    {
        let image = single(&mut draft, platform);
        images.push(for_platform(&image, platform));
        let layers = attested.iter().map(|what| {
            let layer = draft.blob(IN_TOTO, statement(&image, what));
            with(&layer, &format!(r#","annotations":{{"in-toto.io/predicate-type":"{}"}}"#, what.0))
        });
        let layers: Vec<_> = layers.collect();
        let config = draft.config(&ImagePlan::new("unknown/unknown", &[]), &[]);
        let manifest = draft.blob(MANIFEST, manifest_text(&json(&config), &layers, ""));
        beside.push(with(
            &manifest,
            &format!(
                r#","platform":{{"architecture":"unknown","os":"unknown"}},"annotations":{{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"{}"}}"#,
                image.digest()
            ),
        ));
    }
    images.extend(beside);
    let top = draft.index(&images, "");
    draft.finish("attested", top)
}

/// The image for amd64 of [`attested`], without the index.
pub fn attested_image() -> Sample {
    let mut draft = Draft::default();
    let top = single(&mut draft, "linux/amd64");
    draft.finish("attested_image", top)
}

/// What is [attested](ATTESTED), as referrers of the image: a plain SBOM as `oras attach` stores it, an envelope and a bundle as
/// cosign does, and the statement of [`attested`] itself, of which only its content says what it is.
pub fn attestation_referrers() -> [Sample; 4] {
    let [plain, enveloped, bundled, bare] = &ATTESTED;
    let image = attested_image().top;
    let of_layer = format!(r#","annotations":{{"predicateType":"{}"}}"#, enveloped.0);
    let of_manifest = format!(
        r#","annotations":{{"dev.sigstore.bundle.content":"dsse-envelope","dev.sigstore.bundle.predicateType":"{}"}}"#,
        bundled.0
    );
    let bundle = format!(
        r#"{{"mediaType":"{BUNDLE}","verificationMaterial":{{}}, "dsseEnvelope":{}}}"#,
        envelope(&statement(&image, bundled))
    );
    [
        referrer(
            "application/spdx+json",
            "",
            "application/vnd.oci.image.layer.v1.tar",
            "",
            plain.1.to_owned(),
        ),
        referrer(ENVELOPE, "", ENVELOPE, &of_layer, envelope(&statement(&image, enveloped))),
        referrer(BUNDLE, &of_manifest, BUNDLE, "", bundle),
        referrer(IN_TOTO, "", IN_TOTO, "", statement(&image, bare)),
    ]
}

/// An artifact about the image for amd64: its type and more fields, and the type, more fields and the content of its layer.
fn referrer(kind: &str, fields: &str, of_layer: &str, layer_fields: &str, content: String) -> Sample {
    let mut draft = Draft::default();
    let image = single(&mut draft, "linux/amd64");
    let layer = draft.blob(of_layer, content);
    let fields = format!(r#","artifactType":"{kind}","subject":{}{fields}"#, json(&image));
    let config = draft.blob(EMPTY, "{}");
    let top = draft.blob(MANIFEST, manifest_text(&json(&config), &[with(&layer, layer_fields)], &fields));
    draft.finish_referrer("attestation_referrer", top)
}

fn statement(image: &Descriptor, (kind, predicate): &(&str, &str)) -> String {
    // Both versions are in use, and BuildKit writes no subject for an image without a name.
    let (version, subject) = match *kind {
        CYCLONE_DX => ("v0.1", "null".to_owned()),
        PROVENANCE => ("v1", of(image)),
        _ => ("v0.1", of(image)),
    };
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/{version}", "subject":{subject},"predicateType":"{kind}", "predicate":{predicate}}}"#
    )
}

fn of(image: &Descriptor) -> String {
    format!(
        r#"[{{"name":"pkg:docker/library/app@1.2","digest":{{"sha256":"{}","gitCommit":"0123"}}}}]"#,
        image.digest().digest()
    )
}

fn envelope(statement: &str) -> String {
    let payload = STANDARD.encode(statement);
    format!(r#"{{"payloadType":"{IN_TOTO}", "payload":"{payload}","signatures":[{{"sig":""}}]}}"#)
}
