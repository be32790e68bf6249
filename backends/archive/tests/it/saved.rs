//! What core saves, read again by this backend.

use std::io::{Read as _, Seek as _};

use plyfold_archive::{Archive, Config};
use plyfold_conformance::fixtures::Memory;
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::{Fixture as _, FixtureImage};
use plyfold_core::blocking::blocking;
use plyfold_core::copy::{CopyOptions, copy};
use plyfold_core::memory::MemoryRegistry;
use plyfold_core::save::{
    ArchiveForm, Contents, SaveBase, SaveFault, SaveImage, SaveOptions, TarReader, content_of,
};
use plyfold_core::{
    ErrorKind, ImageRegistryExt as _, ImageSourceExt as _, Opened, Platforms, Result, Sparse, reference,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

const NAME: &str = "registry.example/org/app:1.2";

async fn images(samples: &[(&str, &Sample)]) -> Vec<SaveImage> {
    let images: Vec<_> = samples.iter().map(|(name, sample)| FixtureImage::new(name, sample)).collect();
    let opened = Memory.open(&images).await;
    let image = |name: &plyfold_core::Reference| SaveImage::new(opened.registry.clone(), name.clone());
    opened.references.iter().map(image).collect()
}

async fn read(mut reader: TarReader) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.map(|_| bytes)
}

async fn saved(samples: &[(&str, &Sample)], options: &SaveOptions) -> Result<Vec<u8>> {
    let contents = Contents::of(images(samples).await, options).await?;
    Ok(read(contents.into_reader()?).await.unwrap())
}

fn opened(bytes: &[u8]) -> (TempDir, Archive) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.tar");
    std::fs::write(&path, bytes).unwrap();
    (folder, Archive::new(path, Config::default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_comes_back_with_its_digests_and_twice_is_the_same_file() {
    for sample in samples::whole() {
        let one = saved(&[(NAME, &sample)], &SaveOptions::default()).await.unwrap();
        let two = saved(&[(NAME, &sample)], &SaveOptions::default()).await.unwrap();
        assert!(one == two, "{}", sample.name);
        let (_folder, archive) = opened(&one);
        let (target, name) = (MemoryRegistry::new("back"), reference::parse(NAME).unwrap());
        let copied = copy(&archive, &name, &target, &name, &CopyOptions::default()).await;
        assert_eq!(*copied.unwrap().digest(), *sample.top.digest(), "{}", sample.name);
        // Docker's list has the same images, also those whose config has a digest of another algorithm.
        let untagged = plyfold_core::ImageRegistry::untagged(&archive).await.unwrap();
        assert!(untagged.is_empty(), "{}: {untagged:?}", sample.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_the_stream_and_the_order_of_the_images_changes_nothing() {
    let (image, index) = (samples::image(), samples::index());
    let named = [("alpine:3", &image), (NAME, &index)];
    let stream = saved(&named, &SaveOptions::default()).await.unwrap();
    let turned = saved(&[named[1], named[0]], &SaveOptions::default()).await.unwrap();
    assert!(stream == turned);
    let contents = Contents::of(images(&named).await, &SaveOptions::default()).await.unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let mut file = blocking(move |stop| contents.write(&mut file, stop).map(|()| file)).await.unwrap();
    let mut written = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut written).unwrap();
    assert!(stream == written);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_form_has_the_configs_and_the_expanded_layers() {
    for sample in [samples::image(), samples::zstandard(), samples::uncompressed(), samples::repeated_layer()]
    {
        let options = SaveOptions { form: ArchiveForm::Docker, ..SaveOptions::default() };
        let one = saved(&[("alpine:3", &sample)], &options).await.unwrap();
        assert!(one == saved(&[("alpine:3", &sample)], &options).await.unwrap());
        let (_folder, archive) = opened(&one);
        let platform = sample.images[0].platform.parse().unwrap();
        let image = archive.image(&reference::parse("alpine:3").unwrap(), &platform).await.unwrap();
        assert_eq!(image.manifest().unwrap().config().digest(), sample.images[0].config.digest());
        for (index, layer) in sample.images[0].layers.iter().enumerate() {
            let mut tar = image.layer_tar(index).await.unwrap();
            let summary = tokio::task::spawn_blocking(move || tar.finish()).await.unwrap().unwrap();
            assert_eq!(summary.diff_id.as_ref(), Some(&layer.diff_id));
            assert_eq!(image.layers().unwrap()[index].digest(), &layer.diff_id, "{}", sample.name);
        }
    }
    let refused = |sample, options| async move { saved(&[(NAME, &sample)], &options).await.unwrap_err() };
    let docker = SaveOptions { form: ArchiveForm::Docker, ..SaveOptions::default() };
    let error = refused(samples::index(), docker.clone()).await;
    assert_eq!(error.detail(), Some(&SaveFault::Index));
    let error = refused(samples::artifact(), docker.clone()).await;
    assert!(matches!(error.detail(), Some(SaveFault::Artifact(_))), "{error:?}");
    let referrers = SaveOptions { referrers: true, ..docker.clone() };
    assert_eq!(refused(samples::image(), referrers).await.detail(), Some(&SaveFault::Holds("referrers")));
    let one = SaveOptions { platforms: vec!["linux/arm64".parse().unwrap()], ..docker };
    saved(&[(NAME, &samples::index())], &one).await.unwrap();
}

/// An index of one image, whatever attests to it, is saved as that image.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_form_holds_the_only_image_of_an_index() {
    let (sample, name) = (samples::attested(), reference::parse(NAME).unwrap());
    let platforms = vec!["linux/amd64".parse().unwrap()];
    let docker = SaveOptions { form: ArchiveForm::Docker, ..SaveOptions::default() };
    let one = SaveOptions { platforms: platforms.clone(), ..docker.clone() };
    let alone = saved(&[(NAME, &sample)], &one).await.unwrap();
    let opened = Memory.open(&[FixtureImage::new(NAME, &sample)]).await;
    let part = MemoryRegistry::new("part");
    let options = CopyOptions {
        platforms: Platforms::Some(platforms),
        sparse: Sparse::Rewrite,
        ..CopyOptions::default()
    };
    copy(&*opened.registry, &opened.references[0], &part, &name, &options).await.unwrap();
    assert_eq!(part.fetch_index(&name).await.unwrap().manifests().len(), 2, "with its attestation");
    let contents = Contents::of(vec![SaveImage::new(Box::new(part), name)], &docker).await.unwrap();
    assert!(alone == read(contents.into_reader().unwrap()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_are_one_manifest_or_a_part_of_the_index() {
    let index = samples::index();
    let name = reference::parse(NAME).unwrap();
    let of = |platforms: &[&str]| {
        let platforms = platforms.iter().map(|platform| platform.parse().unwrap()).collect();
        SaveOptions { platforms, ..SaveOptions::default() }
    };
    let (_folder, archive) = opened(&saved(&[(NAME, &index)], &of(&["linux/arm64"])).await.unwrap());
    let arm = index.image_for("linux/arm64/v8");
    assert_eq!(archive.fetch_raw(&name).await.unwrap().digest(), arm.manifest.digest());
    let (_folder, archive) =
        opened(&saved(&[(NAME, &index)], &of(&["linux/arm64", "linux/amd64"])).await.unwrap());
    assert_eq!(archive.fetch_raw(&name).await.unwrap().digest(), index.top.digest());
    for image in &index.images {
        let there = archive.image(&name, &image.platform.parse().unwrap()).await.is_ok();
        let wanted = image.platform.contains("arm64") || image.platform.contains("amd64");
        assert_eq!(there, wanted, "{}", image.platform);
    }
    let error = saved(&[(NAME, &index)], &of(&["linux/arm64", "linux/mips"])).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PlatformNotFound { .. }), "{error:?}");
}

/// Each index within the index has one of the platforms.
#[tokio::test(flavor = "multi_thread")]
async fn platforms_may_be_in_indexes_of_their_own() {
    let index = samples::index_of_indexes();
    let platforms: Vec<_> = ["linux/amd64", "linux/arm64"].map(|one| one.parse().unwrap()).to_vec();
    let options = SaveOptions { platforms: platforms.clone(), ..SaveOptions::default() };
    let (_folder, archive) = opened(&saved(&[(NAME, &index)], &options).await.unwrap());
    for platform in &platforms {
        archive.image(&reference::parse(NAME).unwrap(), platform).await.unwrap();
    }
    let options = SaveOptions { platforms: vec!["linux/mips".parse().unwrap(); 2], ..options };
    let error = saved(&[(NAME, &index)], &options).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PlatformNotFound { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_by_digest_keeps_its_repository_and_is_in_both_lists() {
    let image = samples::image();
    let by_digest = format!("registry.example/org/app@{}", image.top.digest());
    let source = images(&[(NAME, &image)]).await.remove(0);
    let source = source.named(reference::parse(&by_digest).unwrap());
    let other = images(&[("alpine:3", &samples::zstandard())]).await.remove(0);
    let contents = Contents::of(vec![source, other], &SaveOptions::default()).await.unwrap();
    assert_eq!(contents.names(), 2);
    let bytes = read(contents.into_reader().unwrap()).await.unwrap();
    let (_folder, archive) = opened(&bytes);
    let untagged = plyfold_core::ImageRegistry::untagged(&archive).await.unwrap();
    assert_eq!(untagged.iter().map(plyfold_core::Reference::whole).collect::<Vec<_>>(), [by_digest]);
}

/// cosign's tags are those of what is saved, and of nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_tags_of_cosign_come_with_referrers() {
    let (image, signature) = (samples::image(), samples::artifact());
    let tag = |sample: &Sample| {
        format!("registry.example/org/app:{}.sig", sample.top.digest().as_ref().replace(':', "-"))
    };
    let (own, foreign) = (tag(&image), tag(&samples::zstandard()));
    let mut all = images(&[(NAME, &image), (&own, &signature), (&foreign, &signature)]).await;
    all.truncate(1);
    for referrers in [false, true] {
        let options = SaveOptions { referrers, ..SaveOptions::default() };
        let contents = Contents::of(all.clone(), &options).await.unwrap();
        let (_folder, archive) = opened(&read(contents.into_reader().unwrap()).await.unwrap());
        let found = archive.fetch_raw(&reference::parse(&own).unwrap()).await;
        assert_eq!(found.is_ok_and(|raw| raw.digest() == signature.top.digest()), referrers);
        assert!(archive.fetch_raw(&reference::parse(&foreign).unwrap()).await.is_err());
        // It is the one image of the archive, whatever is about it.
        let archive = Opened { registry: Box::new(archive), reference: None };
        assert_eq!(archive.reference().await.unwrap(), reference::parse(NAME).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_lists_what_it_lacks_and_keeps_documents_and_configs() {
    let image = samples::image();
    let layer = image.images[0].layers[0].descriptor.digest().clone();
    let everything = image.blobs.iter().map(|blob| blob.descriptor.digest().clone());
    let base = SaveBase::new("app@sha256:x", everything);
    let options = SaveOptions { since: vec![base], ..SaveOptions::default() };
    let bytes = saved(&[(NAME, &image)], &options).await.unwrap();
    let mut names = Vec::new();
    let mut delta = String::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        if name == "plyfold-delta.json" {
            entry.read_to_string(&mut delta).unwrap();
        }
        names.push(name);
    }
    let delta: serde_json::Value = serde_json::from_str(&delta).unwrap();
    assert_eq!(delta["since"][0], "app@sha256:x");
    let absent: Vec<_> =
        delta["absent"].as_array().unwrap().iter().map(|one| one["digest"].as_str().unwrap()).collect();
    assert!(absent.contains(&layer.as_ref()));
    assert_eq!(absent.len(), image.images[0].layers.len());
    let has = |digest: &plyfold_core::Digest| {
        names.contains(&format!("blobs/{}", digest.as_ref().replace(':', "/")))
    };
    assert!(has(image.top.digest()) && has(image.images[0].config.digest()) && !has(&layer));
}

/// What is pushed into a delta archive is no longer what it lacks; and it is a base with what it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_gets_what_it_lacks_says_so() {
    let image = samples::image();
    let layers = image.images[0].layers.iter().map(|layer| layer.descriptor.digest().clone());
    let tar = samples::LayerBuilder::new().file("other", 0o644, b"other").finish();
    let other = samples::of_layers("other", &[tar]);
    for more in [None, Some(&other)] {
        let bases: Vec<_> = more.iter().flat_map(|sample| &sample.blobs).collect();
        let bases = bases.into_iter().map(|blob| blob.descriptor.digest().clone()).chain(layers.clone());
        let options = SaveOptions { since: vec![SaveBase::new("base", bases)], ..SaveOptions::default() };
        let named: Vec<_> =
            [(NAME, &image)].into_iter().chain(more.map(|sample| ("other:1", sample))).collect();
        let (_folder, archive) = opened(&saved(&named, &options).await.unwrap());
        let name = reference::parse(NAME).unwrap();
        let delta = SaveImage::new(Box::new(archive.clone()), name.clone());
        let content = content_of(&[delta], &SaveOptions::default()).await.unwrap();
        assert!(layers.clone().all(|layer| content.contains(&layer)), "who has loaded it has its layers");
        let from = Memory.open(&[FixtureImage::new(NAME, &image)]).await;
        let options = CopyOptions::default();
        copy(&*from.registry, &from.references[0], &archive, &name, &options).await.unwrap();
        let bases = plyfold_core::ImageRegistry::bases(&archive).await.unwrap();
        assert_eq!(bases.len(), usize::from(more.is_some()), "{bases:?}");
        let back = MemoryRegistry::new("back");
        copy(&archive, &name, &back, &name, &options).await.unwrap();
    }
}

/// A blob that is not what its descriptor says is the last thing that a reader sees, and the archive has no end.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_an_error_and_never_an_end() {
    let sample = samples::bad_digest();
    let contents = Contents::of(images(&[(NAME, &sample)]).await, &SaveOptions::default()).await.unwrap();
    let mut reader = contents.into_reader().unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let error = loop {
        match reader.read(&mut buffer).await {
            Ok(0) => panic!("the archive ended"),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(e) => break plyfold_core::Error::from(e),
        }
    };
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(reader.read(&mut buffer).await.is_err(), "it is told once more");
    assert!(!bytes.ends_with(&[0; 1024]));
}
