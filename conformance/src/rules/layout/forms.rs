//! Layouts as the tools of others write them: where their documents, names, files and spaces differ.

use std::fs;
use std::path::Path;

use plyfold_core::{Descriptor, Digest};

use crate::samples::{self, Sample};

/// skopeo until 1.13, podman and buildah until 4.
const SPACED: &str = r#"{"imageLayoutVersion": "1.0.0"}"#;
const TIGHT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// One layout as some tool writes it.
pub(super) struct Form {
    pub(super) tool: &'static str,
    layout: String,
    index: String,
    files: Vec<(&'static str, String)>,
    samples: Vec<Sample>,
    /// What is asked for after `oci:DIRECTORY:`, and what it stands for.
    pub(super) images: Vec<(String, Descriptor)>,
    /// Names that several images would answer to.
    pub(super) ambiguous: Vec<&'static str>,
}

impl Form {
    fn new(tool: &'static str, samples: &[&Sample], layout: &str, index: String) -> Self {
        Self {
            tool,
            layout: layout.to_owned(),
            index,
            files: Vec::new(),
            samples: samples.iter().map(|sample| (*sample).clone()).collect(),
            images: Vec::new(),
            ambiguous: Vec::new(),
        }
    }

    /// With an image that is found by this name.
    fn finds(mut self, name: impl Into<String>, sample: &Sample) -> Self {
        self.images.push((name.into(), sample.top.clone()));
        self
    }

    fn with(mut self, file: &'static str, content: impl Into<String>) -> Self {
        self.files.push((file, content.into()));
        self
    }

    pub(super) fn write(&self, directory: &Path) {
        let put = |path: &str, content: &[u8]| {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("folders can be made");
            fs::write(path, content).expect("files can be written");
        };
        // Every layout has this folder, also one without content.
        fs::create_dir_all(directory.join("blobs/sha256")).expect("folders can be made");
        for blob in self.samples.iter().flat_map(|sample| &sample.blobs) {
            let digest = blob.descriptor.digest();
            put(&format!("blobs/{}/{}", digest.algorithm(), digest.digest()), &blob.bytes);
        }
        for (file, content) in &self.files {
            put(file, content.as_bytes());
        }
        put("index.json", self.index.as_bytes());
        put("oci-layout", self.layout.as_bytes());
    }

    /// The sample that has this document on top.
    pub(super) fn sample(&self, top: &Digest) -> &Sample {
        let sample = self.samples.iter().find(|sample| sample.top.digest() == top);
        sample.expect("a form has the samples that its names stand for")
    }
}

/// The layouts of all tools.
pub(super) fn all() -> Vec<Form> {
    vec![
        skopeo_tag(),
        skopeo_nothing(),
        skopeo_name(),
        umoci(),
        umoci_empty(),
        oras(),
        oras_nothing(),
        crane(),
        crane_annotated(),
        crane_by_digest(),
        docker_save(),
        buildx(),
        buildx_nothing(),
        containerd(),
        regctl(),
        cosign(),
    ]
}

/// An entry in the order of Go's `Descriptor`.
fn entry(sample: &Sample, rest: &str) -> String {
    let top = &sample.top;
    format!(
        r#"{{"mediaType":"{}","digest":"{}","size":{}{rest}}}"#,
        top.media_type(),
        top.digest(),
        top.size()
    )
}

fn named(sample: &Sample, name: &str) -> String {
    entry(sample, &format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#))
}

/// As containerd, Docker and `BuildKit` name images: the full name in one annotation, the tag alone in the other.
fn twice_named(sample: &Sample, name: &str, more: &str) -> String {
    let tag = name.rsplit(':').next().unwrap_or_default();
    entry(
        sample,
        &format!(
            r#","annotations":{{"io.containerd.image.name":"{name}"{more},"org.opencontainers.image.ref.name":"{tag}"}}"#
        ),
    )
}

/// Without its media type, as of image-spec 1.0.
fn untyped(entries: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
}

fn typed(entries: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","))
}

fn skopeo_tag() -> Form {
    let image = samples::image();
    Form::new("skopeo 1.9 copy … oci:DIR:v1", &[&image], SPACED, untyped(&[named(&image, "v1")]))
        .finds("v1", &image)
}

fn skopeo_nothing() -> Form {
    let image = samples::uncompressed();
    Form::new("skopeo copy … oci:DIR", &[&image], SPACED, untyped(&[entry(&image, "")]))
        .finds("latest", &image)
        .finds("", &image)
}

fn skopeo_name() -> Form {
    let (index, image) = (samples::index(), samples::zstandard());
    let (name, other) = ("registry.example:5000/org/app:1.2", "localhost/org/app:1.2");
    let entries = [named(&index, name), named(&image, other)];
    let form = Form::new(
        "skopeo copy --all … oci:DIR:HOST:PORT/NAME:TAG",
        &[&index, &image],
        TIGHT,
        typed(&entries),
    );
    let by_digest = format!("{name}@{}", index.top.digest());
    form.finds(name, &index).finds(other, &image).finds(by_digest, &index)
}

fn umoci() -> Form {
    let (image, other) = (samples::image(), samples::uncompressed());
    let entries = [named(&image, "fresh"), named(&other, "v2_3.4-rc1")];
    Form::new("umoci", &[&image, &other], &format!("{TIGHT}\n"), untyped(&entries) + "\n")
        .finds("fresh", &image)
        .finds("v2_3.4-rc1", &other)
}

fn umoci_empty() -> Form {
    let index = "{\"schemaVersion\":2,\"manifests\":null}\n".to_owned();
    Form::new("umoci init, umoci remove, oras manifest delete", &[], &format!("{TIGHT}\n"), index)
}

fn oras() -> Form {
    let (index, amd64) = (samples::index(), samples::image());
    let platform = r#","platform":{"architecture":"amd64","os":"linux"}"#;
    let entries = [named(&index, "v1"), named(&index, "v2"), entry(&amd64, platform)];
    Form::new("oras copy --to-oci-layout", &[&index, &amd64], TIGHT, typed(&entries))
        .with("ingest/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08_3141592653", "half")
        .finds("v1", &index)
        .finds("v2", &index)
        .finds(format!("@{}", amd64.top.digest()), &amd64)
}

fn oras_nothing() -> Form {
    let (image, other) = (samples::image(), samples::index());
    let platform = r#","platform":{"architecture":"amd64","os":"linux"}"#;
    let entries = [entry(&image, platform), entry(&other, "")];
    let mut form =
        Form::new("oras without a tag, crane with several images", &[&image, &other], TIGHT, typed(&entries));
    form.ambiguous = vec!["latest"];
    form.finds(format!("@{}", image.top.digest()), &image).finds(format!("@{}", other.top.digest()), &other)
}

/// crane indents by three, its layout file by four, and the size comes first. Docker's media types stay.
fn crane_form(tool: &'static str, sample: &Sample, annotations: &str) -> Form {
    let (media_type, size, digest) = (sample.top.media_type(), sample.top.size(), sample.top.digest());
    let index = format!(
        "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{INDEX}\",\n   \"manifests\": [\n      {{\n         \
         \"mediaType\": \"{media_type}\",\n         \"size\": {size},\n         \"digest\": \"{digest}\"\
         {annotations}\n      }}\n   ]\n}}"
    );
    Form::new(tool, &[sample], "{\n    \"imageLayoutVersion\": \"1.0.0\"\n}", index)
}

fn crane_named(tool: &'static str, sample: &Sample, name: &str) -> Form {
    let annotations = format!(
        ",\n         \"annotations\": {{\n            \"org.opencontainers.image.ref.name\": \"{name}\"\n         \
         }},\n         \"platform\": {{\n            \"architecture\": \"amd64\",\n            \"os\": \
         \"linux\"\n         }}"
    );
    crane_form(tool, sample, &annotations)
}

fn crane() -> Form {
    let image = samples::docker_image();
    crane_form("crane pull --format oci", &image, "").finds("latest", &image).finds("", &image)
}

fn crane_annotated() -> Form {
    let image = samples::docker_image();
    crane_named("crane pull --annotate-ref", &image, "index.docker.io/library/app:1.2")
        .finds("app:1.2", &image)
        .finds("docker.io/library/app:1.2", &image)
}

fn crane_by_digest() -> Form {
    let image = samples::image();
    let name = format!("registry.example/org/app@{}", image.top.digest());
    crane_named("crane pull --annotate-ref NAME@DIGEST", &image, &name).finds(name, &image)
}

fn docker_save() -> Form {
    let (image, other) = (samples::uncompressed(), samples::docker_image());
    let entries = [
        twice_named(&image, "docker.io/library/app:1.2", ""),
        twice_named(&image, "docker.io/library/app:latest", ""),
        twice_named(&other, "registry.example/org/other:1.2", ""),
    ];
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.digest());
    let list = [&image, &other].map(|sample| {
        let image = &sample.images[0];
        let layers: Vec<_> =
            image.layers.iter().map(|layer| format!("{:?}", path(layer.descriptor.digest()))).collect();
        format!(
            r#"{{"Config":{:?},"RepoTags":["app:1.2"],"Layers":[{}]}}"#,
            path(image.config.digest()),
            layers.join(",")
        )
    });
    let mut form = Form::new("docker save, Docker 25 and later", &[&image, &other], TIGHT, typed(&entries));
    form.ambiguous = vec!["1.2"];
    form.with("manifest.json", format!("[{}]\n", list.join(",")))
        .with("repositories", "{\"app\":{\"1.2\":\"0123\"}}\n")
        .finds("app:1.2", &image)
        .finds("docker.io/library/app:latest", &image)
        .finds("latest", &image)
        .finds("registry.example/org/other:1.2", &other)
}

fn buildx() -> Form {
    let index = samples::index();
    let created = r#","org.opencontainers.image.created":"2025-01-02T03:04:05Z""#;
    let entries = [twice_named(&index, "registry.example/org/app:1.2", created)];
    Form::new("docker buildx build --output type=oci,tar=false,name=…", &[&index], TIGHT, typed(&entries))
        .finds("registry.example/org/app:1.2", &index)
        .finds("1.2", &index)
}

fn buildx_nothing() -> Form {
    let index = samples::index();
    let created = r#","annotations":{"org.opencontainers.image.created":"2025-01-02T03:04:05Z"}"#;
    let entries = [entry(&index, created)];
    Form::new("docker buildx build --output type=oci,tar=false", &[&index], TIGHT, typed(&entries))
        .finds("latest", &index)
}

/// It keeps the sign in front of a digest, which is no tag then, and tells where content came from.
fn containerd() -> Form {
    let (image, other) = (samples::image(), samples::nested_index());
    let source = r#""containerd.io/distribution.source.registry.example":"org/app","#;
    let entry = |sample: &Sample, name: &str, object: &str| {
        let names = [("io.containerd.image.name", name), ("org.opencontainers.image.ref.name", object)];
        let names = names.map(|(key, value)| format!(r#""{key}":"{value}""#)).join(",");
        entry(sample, &format!(r#","annotations":{{{source}{names}}}"#))
    };
    let (name, object) = ("registry.example/org/app", format!("@{}", other.top.digest()));
    let (tagged, by_digest) = (format!("{name}:1.2"), format!("{name}{object}"));
    let entries = [entry(&image, &tagged, "1.2"), entry(&other, &by_digest, &object)];
    Form::new("ctr images export, nerdctl save", &[&image, &other], TIGHT, untyped(&entries))
        .with("manifest.json", "[]")
        .finds(tagged, &image)
        .finds(by_digest, &other)
}

fn regctl() -> Form {
    let (image, referrers) = (samples::sha512(), samples::artifact_index());
    let dated = |sample: &Sample, name: &str| {
        let created = r#""org.opencontainers.image.created":"2025-01-02T03:04:05Z""#;
        let name = format!(r#""org.opencontainers.image.ref.name":"{name}""#);
        entry(sample, &format!(r#","annotations":{{{created},{name}}}"#))
    };
    let fallback = format!("sha512-{:.64}", image.top.digest().digest());
    let entries = [dated(&image, "v1"), dated(&referrers, &fallback)];
    Form::new(
        "regctl image copy --referrers … ocidir://DIR:v1",
        &[&image, &referrers],
        TIGHT,
        typed(&entries),
    )
    .finds("v1", &image)
    .finds(fallback, &referrers)
}

fn cosign() -> Form {
    let (image, signature) = (samples::image(), samples::artifact());
    let kind = |sample: &Sample, kind: &str| {
        entry(sample, &format!(r#","annotations":{{"kind":"dev.cosignproject.cosign/{kind}"}}"#))
    };
    let entries = [kind(&image, "image"), kind(&signature, "sigs")];
    let mut form = Form::new("cosign save", &[&image, &signature], TIGHT, typed(&entries));
    form.ambiguous = vec!["latest"];
    form.finds(format!("@{}", image.top.digest()), &image)
}
