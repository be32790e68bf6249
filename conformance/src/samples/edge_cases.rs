//! Documents at the edges of the specification: artifacts, subjects, empty and sparse ones, and one bad digest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plyfold_core::Descriptor;

use super::draft::{Draft, EMPTY, ImagePlan, MANIFEST, Packing, for_platform, json, manifest_text, with};
use super::image::{single, two_layers};
use super::sample::{Sample, SampleImage};

/// An artifact: an `artifactType`, the empty config, one layer that is no tar.
pub fn artifact() -> Sample {
    let mut draft = Draft::default();
    let top = sbom(&mut draft, "");
    draft.finish("artifact", top)
}

/// An index of artifacts, with an `artifactType` of its own.
pub fn artifact_index() -> Sample {
    let mut draft = Draft::default();
    let first = sbom(&mut draft, "");
    let second = sbom(&mut draft, r#","annotations":{"number":"2"}"#);
    let top = draft.index(&[json(&first), json(&second)], r#","artifactType":"application/vnd.example.set""#);
    draft.finish("artifact_index", top)
}

/// An artifact with an empty list of layers: everything is in the annotations.
pub fn artifact_without_layers() -> Sample {
    let mut draft = Draft::default();
    let config = draft.blob(EMPTY, "{}");
    let fields = r#","artifactType":"application/vnd.example.note","annotations":{"note":"all there is"}"#;
    let top = draft.blob(MANIFEST, manifest_text(&json(&config), &[], fields));
    draft.finish("artifact_without_layers", top)
}

/// An artifact whose layer has no bytes at all.
pub fn empty_blob() -> Sample {
    let mut draft = Draft::default();
    let config = draft.blob(EMPTY, "{}");
    let layer = draft.blob("application/octet-stream", "");
    let fields = r#","artifactType":"application/vnd.example.empty""#;
    let top = draft.blob(MANIFEST, manifest_text(&json(&config), &[json(&layer)], fields));
    draft.finish("empty_blob", top)
}

/// An index of nothing.
pub fn empty_index() -> Sample {
    let mut draft = Draft::default();
    let top = draft.index(&[], "");
    draft.finish("empty_index", top)
}

/// An artifact that refers to an image, and the image.
pub fn subject() -> Sample {
    let mut draft = Draft::default();
    let image = single(&mut draft, "linux/amd64");
    let top = sbom(&mut draft, &format!(r#","subject":{}"#, json(&image)));
    draft.finish_referrer("subject", top)
}

/// An artifact that refers to an image that is not there, which the specification allows.
pub fn missing_subject() -> Sample {
    let mut absent = Draft::default();
    let image = single(&mut absent, "linux/s390x");
    let mut draft = Draft::default();
    let top = sbom(&mut draft, &format!(r#","subject":{}"#, json(&image)));
    draft.finish("missing_subject", top)
}

/// An index with a subject.
pub fn index_subject() -> Sample {
    let mut draft = Draft::default();
    let image = single(&mut draft, "linux/amd64");
    let signature = sbom(&mut draft, "");
    let fields = format!(r#","artifactType":"application/vnd.example.set","subject":{}"#, json(&image));
    let top = draft.index(&[json(&signature)], &fields);
    draft.finish_referrer("index_subject", top)
}

/// An image whose config is also inline in the manifest's `data` field.
pub fn inline_data() -> Sample {
    image_with("inline_data", |draft, config, layers| {
        let data = STANDARD.encode(draft.bytes(config));
        let layers: Vec<_> = layers.iter().map(json).collect();
        manifest_text(&with(config, &format!(r#","data":"{data}""#)), &layers, "")
    })
}

/// An image whose bottom layer is declared non-distributable and names `urls`; the blob is there all the same.
pub fn non_distributable() -> Sample {
    let mut sample = image_with("non_distributable", |_, config, layers| {
        let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        let bottom = Descriptor::new(kind.into(), layers[0].size(), layers[0].digest().clone());
        let bottom = with(&bottom, r#","urls":["http://169.254.169.254/layer","file:///etc/passwd"]"#);
        manifest_text(&json(config), &[bottom, json(&layers[1])], "")
    });
    let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let bottom = &mut sample.images[0].layers[0].descriptor;
    *bottom = Descriptor::new(kind.into(), bottom.size(), bottom.digest().clone());
    sample
}

/// An image with fields that no specification knows, in the manifest, its descriptors and the config.
pub fn custom_fields() -> Sample {
    let mut draft = Draft::default();
    let layers = two_layers(Packing::Gzip);
    let plan = ImagePlan {
        manifest: r#", "org.example.unknown":{"z":1,"a":[1.50,null,"\u00e9"]}"#,
        config: r#", "moby.buildkit.buildinfo.v1":"eyJ9","zz":{"b":1,"a":1e3}"#,
        ..ImagePlan::new("linux/amd64", &layers)
    };
    let top = draft.image(&plan);
    draft.finish("custom_fields", top)
}

/// An image without layers: an empty root file system.
pub fn no_layers() -> Sample {
    let mut draft = Draft::default();
    let top = draft.image(&ImagePlan::new("linux/amd64", &[]));
    draft.finish("no_layers", top)
}

/// An index of two platforms of which only amd64 is there.
pub fn sparse_index() -> Sample {
    let mut elsewhere = Draft::default();
    let absent = single(&mut elsewhere, "linux/arm64/v8");
    let mut draft = Draft::default();
    let present = single(&mut draft, "linux/amd64");
    let children = [for_platform(&absent, "linux/arm64/v8"), for_platform(&present, "linux/amd64")];
    let top = draft.index(&children, "");
    draft.finish("sparse_index", top)
}

/// An image whose bottom layer has one wrong bit; its size is right.
pub fn bad_digest() -> Sample {
    let mut draft = Draft::default();
    let layers = two_layers(Packing::Plain);
    let top = draft.image(&ImagePlan::new("linux/amd64", &layers));
    let mut sample = draft.clone().finish("bad_digest", top.clone());
    draft.spoil(&sample.images[0].layers[0].descriptor);
    sample.blobs = draft.finish("bad_digest", top).blobs;
    sample
}

/// A Docker manifest of schema 1.
pub fn schema1() -> Sample {
    let mut draft = Draft::default();
    let media_type = "application/vnd.docker.distribution.manifest.v1+json";
    let text = r#"{"schemaVersion":1,"name":"library/app","tag":"1.2","architecture":"amd64","fsLayers":[],"history":[]}"#;
    let top = draft.blob(media_type, text);
    draft.finish("schema1", top)
}

/// A document of an unknown type.
pub fn unknown_document() -> Sample {
    let mut draft = Draft::default();
    let media_type = "application/vnd.example.manifest.v9+json";
    let top =
        draft.blob(media_type, format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","parts":[]}}"#));
    draft.finish("unknown_document", top)
}

fn sbom(draft: &mut Draft, fields: &str) -> Descriptor {
    let config = draft.blob(EMPTY, "{}");
    let layer = draft.blob("application/spdx+json", r#"{"SPDXID":"SPDXRef-DOCUMENT"}"#);
    let fields = format!(r#","artifactType":"application/spdx+json"{fields}"#);
    draft.blob(MANIFEST, manifest_text(&json(&config), &[json(&layer)], &fields))
}

/// An image of the two usual layers with a custom manifest.
fn image_with(
    name: &'static str,
    manifest: impl FnOnce(&Draft, &Descriptor, &[Descriptor]) -> String,
) -> Sample {
    let mut draft = Draft::default();
    let layers = two_layers(Packing::Gzip);
    let plan = ImagePlan::new("linux/amd64", &layers);
    let layers: Vec<_> = layers.iter().map(|(tar, packing)| draft.layer(tar, *packing, false)).collect();
    let config = draft.config(&plan, &layers);
    let descriptors: Vec<_> = layers.iter().map(|layer| layer.descriptor.clone()).collect();
    let text = manifest(&draft, &config, &descriptors);
    let manifest = draft.blob(MANIFEST, text);
    draft.note(SampleImage {
        platform: "linux/amd64".to_owned(),
        manifest: manifest.clone(),
        config,
        layers,
    });
    draft.finish(name, manifest)
}
