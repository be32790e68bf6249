//! A Docker daemon, as a registry: the conformance suite on one that keeps what it is given, and daemons that are wrong.

mod fake;
mod load;
mod save;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use plyfold_conformance::samples::{self, Sample};
use plyfold_conformance::{BackendUnderTest, Fixture, FixtureImage};
use serde_json::{Value, json};

use fake::{Answer, Fake};

/// An image of a daemon: its name, its ID, and what `docker save` writes of it.
#[derive(Clone)]
struct Kept {
    name: String,
    id: String,
    tar: Vec<u8>,
}

impl Kept {
    fn of(name: &str, sample: &Sample) -> Self {
        let tar = samples::hybrid_archive(&[(name.to_owned(), sample)]);
        Self { name: name.to_owned(), id: sample.top.digest().to_string(), tar }
    }

    /// The images of an archive that a daemon is to load.
    fn all_of(tar: &[u8]) -> Vec<Self> {
        let mut index = Value::Null;
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let entry = entry.unwrap();
            if entry.path().unwrap().as_os_str() == "index.json" {
                index = serde_json::from_reader(entry).unwrap();
            }
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let image = |entry: &Value| {
            let name = text(&entry["annotations"]["io.containerd.image.name"])?;
            Some(Self { name, id: text(&entry["digest"])?, tar: tar.to_vec() })
        };
        index["manifests"].as_array().unwrap().iter().filter_map(image).collect()
    }
}

/// A daemon that keeps images as it gets them.
fn keeping(images: Vec<Kept>) -> Fake {
    let images = Mutex::new(images);
    Fake::start(move |request, body| {
        let mut images = images.lock().unwrap();
        let found = |name: &str| images.iter().find(|image| image.name == name || image.id == name).cloned();
        if request == "GET /_ping" {
            return Answer::Body(b"OK".to_vec());
        }
        if request == "GET /images/json" {
            let listed: Vec<Value> = images
                .iter()
                .map(|image| json!({ "Id": image.id, "RepoTags": [image.name], "Size": 1 }))
                .chain([json!({ "Id": "x", "RepoTags": null }), json!({ "RepoTags": ["<none>:<none>"] })])
                .collect();
            return Answer::Body(json!(listed).to_string().into_bytes());
        }
        if let Some(name) = request.strip_prefix("GET /images/get?names=") {
            return found(name)
                .map_or(Answer::Error(500, "reference does not exist"), |image| Answer::Chunked(image.tar));
        }
        if let Some(name) = request.strip_prefix("GET /images/").and_then(|rest| rest.strip_suffix("/json")) {
            return match found(name) {
                Some(image) => {
                    Answer::Body(json!({ "Id": image.id, "Os": "linux" }).to_string().into_bytes())
                }
                None => Answer::Error(404, "No such image"),
            };
        }
        if request == "POST /images/load?quiet=1" {
            for image in Kept::all_of(&body) {
                images.retain(|other| other.name != image.name);
                images.push(image);
            }
            return Answer::Chunked(b"{\"stream\":\"Loaded image\\n\"}\n".to_vec());
        }
        Answer::Error(404, "page not found")
    })
}

struct Daemons;

#[async_trait]
impl Fixture for Daemons {
    async fn open(&self, images: &[FixtureImage<'_>]) -> BackendUnderTest {
        let kept = images.iter().map(|image| Kept::of(&image.reference.whole(), image.sample)).collect();
        let fake = Arc::new(keeping(kept));
        let names = images.iter().map(|image| image.reference.clone()).collect();
        let daemon = Box::new(fake.daemon());
        let same = Arc::clone(&fake);
        BackendUnderTest::new(daemon, names, fake).with_failure(move || same.end())
    }

    fn not_judged(&self) -> &'static [&'static str] {
        &[
            "multi_image_archive_enumerates_and_selects",
            "not_found_vs_unauthorized_vs_denied_vs_unavailable",
            "rate_limited_carries_delay_in_all_three_shapes",
            "retryable_flag_consistent",
        ]
    }
}

plyfold_conformance::registry_suite!(Daemons);
