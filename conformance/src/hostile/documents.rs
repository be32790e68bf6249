//! Documents that lie, contradict themselves or never end.

use plyfold_core::ErrorKind::{Ambiguous, Corrupt, Limit, NotFound, Unsupported};
use plyfold_core::{Descriptor, digest};

use super::row::Outcome::{Image, Refused, WrongPlatform};
use super::row::Row;
use crate::rule::names;
use crate::samples::{self, Sample, SampleBlob};

const ARM: &str = "linux/arm/v7";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

macro_rules! rows {
    ($d:tt $($name:ident: $outcome:expr, $sample:expr;)+) => {
        pub(super) const ROWS: &[Row] =
            &[$(Row { name: stringify!($name), outcome: $outcome, sample: || $sample }),+];
        names! { $d __hostile_rows: $($name)+ }
    };
}

rows! {
    $
    layers_and_manifests_at_once: Refused(&[Ambiguous]),
        edited(r#""layers":["#, r#""manifests":[],"layers":["#);
    layers_in_another_letter_case: Refused(&[Ambiguous]), edited(r#""layers":["#, r#""Layers":["#);
    duplicate_key: Refused(&[Ambiguous, Corrupt]), edited(r#""layers":["#, r#""layers":[],"layers":["#);
    duplicate_key_in_a_descriptor: Refused(&[Ambiguous, Corrupt]), edited(r#","size":"#, r#","size":1,"size":"#);
    a_manifest_that_says_it_is_an_index: Refused(&[Corrupt]), edited(MANIFEST, INDEX);
    an_index_child_of_another_type: Refused(&[Corrupt]), wrong_child_type();
    layer_longer_than_declared: Refused(&[Corrupt]), layer_size(|size| (size - 10).to_string());
    layer_of_a_petabyte: Refused(&[Corrupt]), layer_size(|_| (1_u64 << 50).to_string());
    negative_size: Refused(&[Corrupt]), layer_size(|_| "-1".to_owned());
    fractional_size: Refused(&[Corrupt]), layer_size(|_| "1.5".to_owned());
    size_as_text: Refused(&[Corrupt]), layer_size(|size| format!("\"{size}\""));
    size_of_2_to_64: Refused(&[Corrupt]), layer_size(|_| "18446744073709551616".to_owned());
    layer_with_a_flipped_bit: Refused(&[Corrupt]), stored_layer(|bytes| {
        let mut bytes = bytes.to_vec();
        bytes[100] ^= 1;
        bytes
    });
    layer_cut_short: Refused(&[Corrupt]), stored_layer(|bytes| bytes[..100].to_vec());
    layer_of_no_bytes: Refused(&[Corrupt]), stored_layer(|_| Vec::new());
    layer_with_bytes_after_its_end: Refused(&[Corrupt]), stored_layer(|bytes| [bytes, b"more"].concat());
    layer_that_is_not_there: Refused(&[NotFound]), without_layer();
    digest_that_is_a_path: Refused(&[Corrupt]), layer_digest("sha256:../../../outside.tar");
    config_digest_that_is_a_path: Refused(&[Corrupt]), config_digest("sha256:../../../etc/passwd");
    digest_in_upper_case: Refused(&[Corrupt]), layer_digest(&format!("sha256:{}", "A".repeat(64)));
    digest_too_short: Refused(&[Corrupt]), layer_digest(&format!("sha256:{}", "a".repeat(63)));
    digest_too_long: Refused(&[Corrupt]), layer_digest(&format!("sha256:{}", "a".repeat(65)));
    digest_with_an_escape: Refused(&[Corrupt]), layer_digest("sha256:%2e%2e%2f%2e%2e");
    digest_with_a_newline: Refused(&[Corrupt]), layer_digest(&format!("sha256:{}\\n", "a".repeat(63)));
    digest_with_a_nul: Refused(&[Corrupt]), layer_digest(&format!("sha256:{}\\u0000", "a".repeat(63)));
    digest_of_an_algorithm_nobody_verifies: Refused(&[Unsupported]), layer_digest("md5:d41d8cd98f00b204e9800998ecf8427e");
    diff_id_of_another_tar: Refused(&[Corrupt]), for_arm(&samples::wrong_diff_id());
    fewer_diff_ids_than_layers: Refused(&[Corrupt]), diff_ids(1);
    more_diff_ids_than_layers: Refused(&[Corrupt]), diff_ids(3);
    too_many_layers: Refused(&[Limit]), repeated(r#""layers":["#, LAYER, 2_000);
    too_many_index_entries: Refused(&[Limit]), repeated(r#""manifests":["#, LAYER, 5_000);
    manifest_of_5_mib: Refused(&[Limit]), edited("}]}", &format!("}}],\"x\":\"{}\"}}", "x".repeat(5 << 20)));
    json_200_000_deep: Refused(&[Corrupt, Limit]),
        edited("}]}", &format!("}}],\"x\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000)));
    indexes_a_thousand_deep: Refused(&[Limit]), samples::deep_index(1_000);
    not_json_at_all: Refused(&[Corrupt]), document(MANIFEST, "<html><body>please log in</body></html>");
    an_empty_document: Refused(&[Corrupt]), document(MANIFEST, "");
    a_document_of_blanks: Refused(&[Corrupt]), document(MANIFEST, &" ".repeat(1 << 20));
    a_document_cut_short: Refused(&[Corrupt]), edited("}]}", "}]");
    schema_1: Refused(&[Unsupported]), samples::schema1();
    config_that_is_no_json: Refused(&[Corrupt]), config_text(|_| "not a config".to_owned());
    config_with_a_list_for_an_object: Refused(&[Corrupt]), config_text(|text| text.replace(r#""rootfs":{"#, r#""rootfs":[{"#));
    config_of_5_mib: Refused(&[Limit]), config_text(|text| text + &" ".repeat(5 << 20));
    odd_user_and_environment: Image(ARM), config_text(|text| {
        text.replace(r#""Env":["PATH=/bin"]"#, r#""User":"99999999999:99999999999","Env":["A=\u0000b"]"#)
    });
    attestations_before_the_image: Image(ARM), samples::index();
    older_variant_for_a_newer_host: Image("linux/arm/v6"), single_platform("linux/arm/v6");
    newer_variant_for_an_older_host: WrongPlatform, single_platform("linux/arm/v8");
    no_platform_fits: WrongPlatform, single_platform("linux/amd64/v3");
}

/// A descriptor to repeat.
const LAYER: &str = r#"{"mediaType":"a/b","digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":1}"#;

/// A sound image for arm/v7.
fn base() -> Sample {
    for_arm(&samples::uncompressed())
}

/// The same image for arm/v7: its config says so, and so all digests above it change.
fn for_arm(sample: &Sample) -> Sample {
    with_config(sample.clone(), |text| {
        text.replace(r#""architecture":"amd64""#, r#""architecture":"arm","variant":"v7""#)
    })
}

fn edited(from: &str, to: &str) -> Sample {
    let sample = base();
    let text = top_text(&sample);
    let changed = text.replacen(from, to, 1);
    assert_ne!(text, changed, "the manifest has {from}");
    with_top(sample, &changed)
}

fn document(media_type: &str, text: &str) -> Sample {
    let mut sample = with_top(base(), text);
    let top = Descriptor::new(media_type.into(), sample.top.size(), sample.top.digest().clone());
    sample
        .blobs
        .iter_mut()
        .filter(|blob| blob.descriptor == sample.top)
        .for_each(|blob| blob.descriptor = top.clone());
    sample.top = top;
    sample
}

fn layer_size(size: impl Fn(u64) -> String) -> Sample {
    let sample = base();
    let honest = sample.images[0].layers[0].descriptor.size();
    let text = top_text(&sample).replacen(
        &format!(r#""size":{honest}}}"#),
        &format!(r#""size":{}}}"#, size(honest)),
        1,
    );
    with_top(sample, &text)
}

fn layer_digest(text: &str) -> Sample {
    let sample = base();
    let honest = sample.images[0].layers[0].descriptor.digest().to_string();
    let text = top_text(&sample).replace(&honest, text);
    with_top(sample, &text)
}

fn config_digest(text: &str) -> Sample {
    let sample = base();
    let text = top_text(&sample).replace(sample.images[0].config.digest().as_ref(), text);
    with_top(sample, &text)
}

fn stored_layer(change: impl Fn(&[u8]) -> Vec<u8>) -> Sample {
    let mut sample = base();
    let layer = sample.images[0].layers[0].descriptor.clone();
    for blob in sample.blobs.iter_mut().filter(|blob| blob.descriptor == layer) {
        blob.bytes = change(&blob.bytes).into();
    }
    sample
}

fn without_layer() -> Sample {
    let mut sample = base();
    let layer = sample.images[0].layers[1].descriptor.clone();
    sample.blobs.retain(|blob| blob.descriptor != layer);
    sample
}

fn wrong_child_type() -> Sample {
    let sample = single_platform(ARM);
    let text = top_text(&sample).replace(MANIFEST, INDEX);
    with_top(sample, &text)
}

fn repeated(field: &str, item: &str, count: usize) -> Sample {
    let items = vec![item; count].join(",");
    let (media_type, config) = match field {
        r#""layers":["# => (MANIFEST, format!(r#""config":{LAYER},"#)),
        _ => (INDEX, String::new()),
    };
    document(
        media_type,
        &format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}",{config}{field}{items}]}}"#),
    )
}

fn diff_ids(count: usize) -> Sample {
    let list = vec![format!("\"{}\"", digest::sha256(b"some tar")); count].join(",");
    config_text(|text| {
        let start = text.find(r#""diff_ids":["#).map_or(0, |at| at + r#""diff_ids":["#.len());
        let end = text[start..].find(']').map_or(text.len(), |at| at + start);
        format!("{}{list}{}", &text[..start], &text[end..])
    })
}

fn config_text(change: impl Fn(String) -> String) -> Sample {
    with_config(base(), change)
}

fn single_platform(platform: &str) -> Sample {
    let mut sample = samples::index();
    let mut parts = platform.split('/').skip(1);
    let architecture = parts.next().unwrap_or_default();
    let variant = parts.next().unwrap_or_default();
    let child = sample.images[0].manifest.clone();
    let (digest, size) = (child.digest(), child.size());
    let platform_json = format!(r#"{{"architecture":"{architecture}","os":"linux","variant":"{variant}"}}"#);
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{digest}","size":{size},"platform":{platform_json}}}]}}"#
    );
    sample.images.truncate(1);
    platform.clone_into(&mut sample.images[0].platform);
    with_top(sample, &text)
}

fn top_text(sample: &Sample) -> String {
    String::from_utf8_lossy(sample.top_bytes()).into_owned()
}

/// The sample with another top document, honestly named.
fn with_top(mut sample: Sample, text: &str) -> Sample {
    let old = sample.top.clone();
    sample.blobs.retain(|blob| blob.descriptor != old);
    sample.top = add(&mut sample, old.media_type().as_ref(), text.as_bytes().to_vec());
    if let Some(image) = sample.images.iter_mut().find(|image| image.manifest == old) {
        image.manifest = sample.top.clone();
    }
    sample
}

/// The sample, a single image, with another config, honestly named.
fn with_config(mut sample: Sample, change: impl Fn(String) -> String) -> Sample {
    let old = sample.images[0].config.clone();
    let text = sample.blob(old.digest()).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let new = add(&mut sample, old.media_type().as_ref(), change(text.unwrap_or_default()).into_bytes());
    sample.images[0].config = new.clone();
    "linux/arm/v7".clone_into(&mut sample.images[0].platform);
    let of = |config: &Descriptor| format!(r#""digest":"{}","size":{}"#, config.digest(), config.size());
    let text = top_text(&sample).replace(&of(&old), &of(&new));
    with_top(sample, &text)
}

fn add(sample: &mut Sample, media_type: &str, bytes: Vec<u8>) -> Descriptor {
    let descriptor = Descriptor::new(media_type.into(), bytes.len() as u64, digest::sha256(&bytes));
    sample.blobs.push(SampleBlob { descriptor: descriptor.clone(), bytes: bytes.into() });
    descriptor
}
