//! What an image that is made of another one keeps.

use std::io::Write as _;

use plyfold_core::edit::{Edit, EditFault, NewLayer};
use plyfold_core::manifest::limits;
use plyfold_core::{
    CacheProviderExt, Descriptor, ImageSource, ImageSourceExt, LoadOptions, Opened, Reference, Result,
    durable,
};
use serde_json::{Value, json};

use super::setup::{name, names, registry_with};
use crate::rule::rules;
use crate::rules::probe::{NAME, error_of, sound};
use crate::samples::{self, LayerBuilder, Sample};
use crate::{CacheFixture, CacheUnderTest};

rules! {
    $ __cache_edits_rules of dyn CacheFixture;
    "C 290" an_edit_keeps_what_it_does_not_change:
        "a changed image has all layers, fields and media types of the first one, also unknown ones; its name \
         alone is set, and only if the change succeeds",
    "C 291" an_edit_is_the_same_twice:
        "the same change of the same image gives the same digest",
}

const NEW: &str = "registry.example/library/changed:1";
const REFUSED: &str = "registry.example/library/refused:1";

/// A cache with everything of a sample.
async fn with(fixture: &dyn CacheFixture, sample: &Sample) -> CacheUnderTest {
    let subject = fixture.open().await;
    let from = Opened { registry: Box::new(registry_with(sample, NAME)), reference: None };
    drop(sound(subject.client.load(&from, &*subject.cache, &LoadOptions::default()).await));
    subject
}

async fn change() -> Edit {
    let tar = LayerBuilder::new().file("etc/agent.conf", 0o644, b"on\n").finish();
    let mut file = sound(durable::temporary_file(&std::env::temp_dir()));
    assert!(file.write_all(&tar).is_ok(), "a temporary file is written");
    let layer = sound(NewLayer::read(file, "agent.tar").await);
    let mut edit = Edit { layers: vec![layer], ..Edit::default() };
    edit.config.env.push(("AGENT".to_owned(), "on".to_owned()));
    edit
}

async fn edited(subject: &CacheUnderTest, edit: &Edit, to: &Reference) -> Result<Descriptor> {
    subject.client.edit(&*subject.cache, &name(NAME), edit, to).await
}

/// Takes the last item of a list out of a document.
fn popped(document: &mut Value, pointer: &str) -> Value {
    let list = document.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.and_then(Vec::pop).unwrap_or_default()
}

async fn documents(subject: &CacheUnderTest, image: &str, platform: &str) -> (Value, Value) {
    let source = sound(subject.cache.new_source(&name(image), &sound(platform.parse())).await);
    let config = sound(source.config().await);
    let parsed = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("no JSON: {e}"));
    (parsed(source.raw().bytes()), parsed(config.bytes()))
}

/// What a name stands for, if that is an index: without attestations, and without what follows from the images.
async fn index(subject: &CacheUnderTest, image: &str) -> Option<Value> {
    let top = sound(subject.cache.find_descriptor(&name(image)).await)?;
    let bytes = sound(subject.cache.content(&top, limits::MANIFEST).await);
    let mut document: Value = serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("no JSON: {e}"));
    let entries = document.get_mut("manifests")?.as_array_mut()?;
    entries.retain(|entry| entry["annotations"]["vnd.docker.reference.type"].is_null());
    for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
        entry.retain(|key, _| !["digest", "size"].contains(&key.as_str()));
    }
    Some(document)
}

async fn an_edit_keeps_what_it_does_not_change(fixture: &dyn CacheFixture) {
    let edit = change().await;
    for sample in [
        samples::custom_fields(),
        samples::docker_image(),
        samples::index(),
        samples::index_of_indexes(),
        samples::inline_data(),
        samples::nested_index(),
        samples::zstandard(),
    ] {
        let subject = with(fixture, &sample).await;
        let before = names(&*subject.cache).await;
        let made = sound(edited(&subject, &edit, &name(NEW)).await);
        assert_eq!(made.media_type(), sample.top.media_type(), "{}", sample.name);
        let mut now = names(&*subject.cache).await;
        now.retain(|name| !before.contains(name));
        assert_eq!(now.len(), 1, "one name is set: {now:?}");
        for image in &sample.images {
            let (mut old, mut old_config) = documents(&subject, NAME, &image.platform).await;
            let (mut new, mut new_config) = documents(&subject, NEW, &image.platform).await;
            let about = format!("{} of {}", image.platform, sample.name);
            assert_eq!(popped(&mut new, "/layers")["digest"], json!(edit.layers[0].digest()), "{about}");
            let diff_id = popped(&mut new_config, "/rootfs/diff_ids");
            assert_eq!(diff_id, json!(edit.layers[0].diff_id()), "{about}");
            assert_eq!(popped(&mut new_config, "/config/Env"), "AGENT=on", "{about}");
            if old_config["history"].is_array() {
                popped(&mut new_config, "/history");
            }
            let fill = |config: &mut Value| {
                let none = config["config"]["Env"].as_array().is_none_or(Vec::is_empty);
                if let (true, Some(process)) = (none, config["config"].as_object_mut()) {
                    process.remove("Env");
                }
                if config["config"].as_object().is_none_or(serde_json::Map::is_empty) {
                    config["config"] = Value::Null;
                }
            };
            fill(&mut old_config);
            fill(&mut new_config);
            assert_eq!(new_config, old_config, "{about}");
            for manifest in [&mut old, &mut new] {
                if let Some(config) = manifest["config"].as_object_mut() {
                    config.retain(|key, _| !["data", "digest", "size"].contains(&key.as_str()));
                }
            }
            assert_eq!(new, old, "{about}");
        }
        assert_eq!(
            index(&subject, NEW).await,
            index(&subject, NAME).await,
            "the index of {}, but for digests, sizes and attestations",
            sample.name
        );
        let mut refused = edit.clone();
        refused.config.workdir = Some("here".to_owned());
        let now = names(&*subject.cache).await;
        let error = error_of(edited(&subject, &refused, &name(REFUSED)).await);
        assert_eq!(error.detail(), Some(&EditFault::Relative("here".to_owned())), "{error}");
        assert_eq!(names(&*subject.cache).await, now, "nothing is changed by an error");
    }
}

async fn an_edit_is_the_same_twice(fixture: &dyn CacheFixture) {
    for sample in [samples::image(), samples::index()] {
        let mut made = Vec::new();
        for _ in 0..2 {
            let (subject, edit) = (with(fixture, &sample).await, change().await);
            made.push(sound(edited(&subject, &edit, &name(NEW)).await));
            // In place of the first image, too.
            made.push(sound(edited(&subject, &edit, &name(NAME)).await));
        }
        assert!(made.iter().all(|one| *one == made[0]), "{}: {made:?}", sample.name);
        assert_ne!(made[0].digest(), sample.top.digest());
    }
}
