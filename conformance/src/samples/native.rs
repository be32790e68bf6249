//! Images of EROFS layers.

use plyfold_core::digest;

use super::compress::zstd;
use super::draft::{Draft, ImagePlan, MANIFEST, Packing, for_platform, json, manifest_text, with};
use super::sample::{Sample, SampleImage, SampleLayer};

/// An index as containerd's converter writes it: for linux/amd64 an image of these tars, and one of these EROFS images,
/// which needs the OS feature `erofs`. Every second EROFS image is compressed as a whole.
pub fn native_layers(tars: &[Vec<u8>], images: &[Vec<u8>]) -> Sample {
    const PLATFORM: &str = r#","platform":{"architecture":"amd64","os":"linux","os.features":["erofs"]}"#;
    let mut draft = Draft::default();
    let packed: Vec<_> = tars.iter().map(|tar| (tar.clone(), Packing::Gzip)).collect();
    let of_tars = draft.image(&ImagePlan::new("linux/amd64", &packed));
    let mut layers = Vec::new();
    for (index, image) in images.iter().enumerate() {
        let (suffix, stored) = if index % 2 == 0 { ("", image.clone()) } else { ("+zstd", zstd(&[image])) };
        let media_type = format!("application/vnd.erofs.layer.v1{suffix}");
        let descriptor = draft.blob(&media_type, stored);
        layers.push(SampleLayer { descriptor, diff_id: digest::sha256(image), tar: image.clone().into() });
    }
    let plan = ImagePlan { config: r#","os.features":["erofs"]"#, ..ImagePlan::new("linux/amd64", &[]) };
    let config = draft.config(&plan, &layers);
    let fields: Vec<_> = layers.iter().map(|layer| json(&layer.descriptor)).collect();
    let native = draft.blob(MANIFEST, manifest_text(&json(&config), &fields, ""));
    let platform = "linux(+erofs)/amd64".to_owned();
    draft.note(SampleImage { platform, manifest: native.clone(), config, layers });
    let top = draft.index(&[for_platform(&of_tars, "linux/amd64"), with(&native, PLATFORM)], "");
    draft.finish("native_layers", top)
}
