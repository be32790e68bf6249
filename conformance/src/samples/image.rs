//! Images that every backend must read, in the forms that writers in the wild give them.

use plyfold_core::{Descriptor, digest};

use super::draft::{Draft, ImagePlan, Packing, for_platform, json, manifest_text, with};
use super::layer::LayerBuilder;
use super::sample::{Sample, SampleImage, SampleLayer};

/// Two gzip layers with a whiteout, a hard link and an extended attribute.
pub fn image() -> Sample {
    of_packing("image", Packing::Gzip)
}

/// [`image`] with layers as plain tars.
pub fn uncompressed() -> Sample {
    of_packing("uncompressed", Packing::Plain)
}

/// [`image`] with layers in gzip of several members.
pub fn multi_member_gzip() -> Sample {
    of_packing("multi_member_gzip", Packing::GzipMembers(3))
}

/// [`image`] with layers in zstd of several frames.
pub fn zstandard() -> Sample {
    of_packing("zstandard", Packing::Zstd)
}

/// [`image`] with every digest in sha512, the diff ids excepted.
pub fn sha512() -> Sample {
    let mut draft = Draft::default();
    let layers = two_layers(Packing::Gzip);
    let top = draft.image(&ImagePlan { sha512: true, ..ImagePlan::new("linux/amd64", &layers) });
    draft.finish("sha512", top)
}

/// An image whose manifest has 1 MiB.
pub fn large_manifest() -> Sample {
    let mut draft = Draft::default();
    let layers = two_layers(Packing::Gzip);
    let fields = format!(r#","annotations":{{"org.example.filler":"{}"}}"#, "x".repeat(1 << 20));
    let top = draft.image(&ImagePlan { manifest: &fields, ..ImagePlan::new("linux/amd64", &layers) });
    draft.finish("large_manifest", top)
}

/// An image whose bottom layer comes twice.
pub fn repeated_layer() -> Sample {
    let mut draft = Draft::default();
    let [bottom, top] = two_layers(Packing::Gzip);
    let layers = [bottom.clone(), top, bottom];
    let top = draft.image(&ImagePlan::new("linux/amd64", &layers));
    draft.finish("repeated_layer", top)
}

/// [`image`] with Docker's media types.
pub fn docker_image() -> Sample {
    let mut draft = Draft::default();
    let layers = two_layers(Packing::Gzip);
    let plan = ImagePlan::new("linux/amd64", &layers);
    let mut layers: Vec<_> = layers.iter().map(|(tar, packing)| draft.layer(tar, *packing, false)).collect();
    let config = draft.config(&plan, &layers);
    let docker = |descriptor: &Descriptor, kind: &str| {
        let media_type = format!("application/vnd.docker.{kind}");
        Descriptor::new(media_type.as_str().into(), descriptor.size(), descriptor.digest().clone())
    };
    for layer in &mut layers {
        layer.descriptor = docker(&layer.descriptor, "image.rootfs.diff.tar.gzip");
    }
    let config = docker(&config, "container.image.v1+json");
    let manifest_type = "application/vnd.docker.distribution.manifest.v2+json";
    let fields: Vec<_> = layers.iter().map(|layer| json(&layer.descriptor)).collect();
    let text = manifest_text(&json(&config), &fields, "")
        .replace("application/vnd.oci.image.manifest.v1+json", manifest_type);
    let manifest = draft.blob(manifest_type, text);
    draft.note(SampleImage {
        platform: "linux/amd64".to_owned(),
        manifest: manifest.clone(),
        config,
        layers,
    });
    draft.finish("docker_image", manifest)
}

/// An image of these tars, stored as they are.
pub fn of_layers(name: &'static str, tars: &[Vec<u8>]) -> Sample {
    let mut draft = Draft::default();
    let layers: Vec<_> = tars.iter().map(|tar| (tar.clone(), Packing::Plain)).collect();
    let top = draft.image(&ImagePlan::new("linux/amd64", &layers));
    draft.finish(name, top)
}

/// An image of these tars, stored as they are, with this text for its process (`config` of the configuration).
pub fn of_process(name: &'static str, tars: &[Vec<u8>], process: &str) -> Sample {
    let mut draft = Draft::default();
    let layers: Vec<_> = tars.iter().map(|tar| draft.layer(tar, Packing::Plain, false)).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", layer.diff_id)).collect();
    let text = format!(
        r#"{{"os":"linux","architecture":"amd64","author":"someone","created":"2024-01-02T03:04:05Z",
 "config":{process},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    let config = draft.blob(super::draft::CONFIG, text);
    let manifest = draft.manifest(&ImagePlan::new("linux/amd64", &[]), config, layers);
    draft.finish(name, manifest)
}

/// [`image`] with gzip bytes under the type of a plain tar, and zstd bytes under the type of gzip.
pub fn mislabelled() -> Sample {
    let [bottom, top] = two_layers(Packing::Gzip);
    of_changed_layers("mislabelled", &[bottom, (top.0, Packing::Zstd)], |index, layer| {
        let kind = ["application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip"];
        let (size, digest) = (layer.descriptor.size(), layer.descriptor.digest().clone());
        layer.descriptor = Descriptor::new(kind[index].into(), size, digest);
    })
}

/// [`image`] with a config whose first `diff_id` is that of another tar.
pub fn wrong_diff_id() -> Sample {
    of_changed_layers("wrong_diff_id", &two_layers(Packing::Gzip), |index, layer| {
        if index == 0 {
            layer.diff_id = digest::sha256(b"another tar");
        }
    })
}

/// An image whose documents say something else of its layers.
fn of_changed_layers(
    name: &'static str,
    layers: &[(Vec<u8>, Packing)],
    change: impl Fn(usize, &mut SampleLayer),
) -> Sample {
    let mut draft = Draft::default();
    let plan = ImagePlan::new("linux/amd64", layers);
    let mut layers: Vec<_> = layers.iter().map(|(tar, packing)| draft.layer(tar, *packing, false)).collect();
    for (index, layer) in layers.iter_mut().enumerate() {
        change(index, layer);
    }
    let config = draft.config(&plan, &layers);
    let manifest = draft.manifest(&plan, config, layers);
    draft.finish(name, manifest)
}

/// An index as `BuildKit` writes them: attestations first, then arm v6, v7 and v8, 386 and amd64.
pub fn index() -> Sample {
    let mut draft = Draft::default();
    let attestation = attestation(&mut draft);
    let mut children = vec![with(
        &attestation,
        concat!(
            r#","platform":{"architecture":"unknown","os":"unknown"},"#,
            r#""annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#
        ),
    )];
    for platform in ["linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "linux/386", "linux/amd64"] {
        let manifest = single(&mut draft, platform);
        children.push(for_platform(&manifest, platform));
    }
    let top = draft.index(&children, "");
    draft.finish("index", top)
}

/// An index that holds an index (without a platform) that holds the images.
pub fn nested_index() -> Sample {
    let mut draft = Draft::default();
    let children = ["linux/arm64/v8", "linux/amd64"].map(|platform| {
        let manifest = single(&mut draft, platform);
        for_platform(&manifest, platform)
    });
    let inner = draft.index(&children, "");
    let top = draft.index(&[json(&inner)], r#","annotations":{"level":"outer"}"#);
    draft.finish("nested_index", top)
}

/// An index of two indexes, each with the image of one platform.
pub fn index_of_indexes() -> Sample {
    let mut draft = Draft::default();
    let children = ["linux/arm64/v8", "linux/amd64"].map(|platform| {
        let manifest = single(&mut draft, platform);
        json(&draft.index(&[for_platform(&manifest, platform)], ""))
    });
    let top = draft.index(&children, "");
    draft.finish("index_of_indexes", top)
}

/// Indexes nested `depth` deep around one image: `depth` 1 is a plain index.
pub fn deep_index(depth: usize) -> Sample {
    let mut draft = Draft::default();
    let mut top = single(&mut draft, "linux/amd64");
    for level in 0..depth {
        let fields = format!(r#","annotations":{{"level":"{level}"}}"#);
        top = draft.index(&[json(&top)], &fields);
    }
    draft.finish("deep_index", top)
}

/// An index of `width` indexes without platforms, each of one artifact.
pub fn wide_index(width: usize) -> Sample {
    let mut draft = Draft::default();
    let config = json(&draft.blob(super::draft::EMPTY, "{}"));
    let children = (0..width).map(|number| {
        let fields = format!(r#","artifactType":"application/vnd.example.{number}""#);
        let artifact = draft.blob(super::draft::MANIFEST, manifest_text(&config, &[], &fields));
        let artifact = for_platform(&artifact, "plan9/mips");
        json(&draft.index(&[artifact], &fields))
    });
    let children: Vec<_> = children.collect();
    let top = draft.index(&children, "");
    draft.finish("wide_index", top)
}

/// Several variants of one architecture, the compatible before the exact.
pub fn variants() -> Sample {
    let mut draft = Draft::default();
    let platforms =
        ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/arm/v5", "linux/arm/v7", "linux/arm64"];
    let children = platforms.map(|platform| {
        let manifest = single(&mut draft, platform);
        for_platform(&manifest, platform)
    });
    let top = draft.index(&children, "");
    draft.finish("variants", top)
}

/// An index of nothing but an attestation.
pub fn attestations_only() -> Sample {
    let mut draft = Draft::default();
    let attestation = attestation(&mut draft);
    let top = draft.index(&[for_platform(&attestation, "unknown/unknown")], "");
    draft.finish("attestations_only", top)
}

/// An index that declares one byte too many for its only child.
pub fn lying_child_size() -> Sample {
    let mut draft = Draft::default();
    let manifest = single(&mut draft, "linux/amd64");
    let longer =
        Descriptor::new(manifest.media_type().clone(), manifest.size() + 1, manifest.digest().clone());
    let top = draft.index(&[for_platform(&longer, "linux/amd64")], "");
    draft.finish("lying_child_size", top)
}

/// An index whose children name no platform: only their configs do.
pub fn descriptor_without_platform() -> Sample {
    let mut draft = Draft::default();
    let children = ["linux/arm64/v8", "linux/amd64"].map(|platform| json(&single(&mut draft, platform)));
    let top = draft.index(&children, "");
    draft.finish("descriptor_without_platform", top)
}

fn of_packing(name: &'static str, packing: Packing) -> Sample {
    let mut draft = Draft::default();
    let top = draft.image(&ImagePlan::new("linux/amd64", &two_layers(packing)));
    draft.finish(name, top)
}

/// The two layers of [`image`].
pub(super) fn two_layers(packing: Packing) -> [(Vec<u8>, Packing); 2] {
    let bottom = LayerBuilder::new()
        .dir("bin", 0o755)
        .xattr("user.plyfold", "sample")
        .file("bin/tool", 0o755, b"#!/bin/sh\necho plyfold\n")
        .hard_link("bin/alias", "bin/tool")
        .dir("etc", 0o755)
        .file("etc/hostname", 0o644, b"plyfold\n")
        .file("etc/motd", 0o644, b"to be deleted\n")
        .symlink("etc/mtab", "/proc/self/mounts")
        .file("blob.bin", 0o600, &(0..=255).collect::<Vec<u8>>().repeat(64))
        .finish();
    let top = LayerBuilder::new()
        .dir("etc", 0o755)
        .whiteout("etc/motd")
        .file("etc/hostname", 0o640, b"changed by the top layer\n")
        .dir("var", 0o755)
        .dir("var/empty", 0o700)
        .finish();
    [(bottom, packing), (top, packing)]
}

/// An image of one small layer that differs from platform to platform.
pub(super) fn single(draft: &mut Draft, platform: &str) -> Descriptor {
    let shared =
        LayerBuilder::new().dir("etc", 0o755).file("etc/os", 0o644, b"shared by all platforms\n").finish();
    let own = LayerBuilder::new().file("etc/platform", 0o644, platform.as_bytes()).finish();
    draft.image(&ImagePlan::new(platform, &[(shared, Packing::Gzip), (own, Packing::Gzip)]))
}

/// An attestation manifest as `BuildKit` writes it: an image config for `unknown/unknown`, an in-toto layer.
fn attestation(draft: &mut Draft) -> Descriptor {
    let statement = r#"{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","predicate":{"SPDXID":"SPDXRef-DOCUMENT"}}"#;
    let layer = draft.blob("application/vnd.in-toto+json", statement);
    let config = draft.config(&ImagePlan::new("unknown/unknown", &[]), &[]);
    let layer = with(&layer, r#","annotations":{"in-toto.io/predicate-type":"https://spdx.dev/Document"}"#);
    let text = manifest_text(&json(&config), &[layer], "");
    draft.blob(super::draft::MANIFEST, text)
}
