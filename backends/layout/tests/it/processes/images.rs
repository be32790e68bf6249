//! Several processes that want one image in one format.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use plyfold_conformance::samples::{self, LayerBuilder};
use plyfold_core::tree::MergedTree;
use plyfold_core::{
    CacheProvider as _, CacheProviderExt as _, Collect, Format, Input, Made, Materializer, Materializers,
    OutputSpec, PullOptions, Result, Role, Sink, materialize, reference,
};
use plyfold_layout::Store;

use super::{as_child, as_parent, child, run};

const IMAGE: &str = "example.com/app:1";

/// The names of an image's files, in two files. Each run is a byte in a file beside the store.
#[derive(Clone, Debug)]
struct Names(PathBuf);

impl Materializer for Names {
    fn format(&self) -> Format {
        Format { name: "names", version: 1, options: String::new(), extension: "names" }
    }

    fn input(&self) -> Input {
        Input::Image
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        vec![OutputSpec::new(Role::Image, "names"), OutputSpec::new(Role::Sidecar, "count")]
    }

    fn image(&self, image: &MergedTree, out: &mut dyn Sink) -> Result<Made> {
        OpenOptions::new().append(true).create(true).open(&self.0)?.write_all(b".")?;
        // Long enough for all the others to come.
        std::thread::sleep(Duration::from_millis(300));
        let names: Vec<String> = image.tree().walk().map(|(path, _)| path.to_string()).collect();
        write!(out.output(Role::Image)?, "{}", names.join(" "))?;
        write!(out.output(Role::Sidecar)?, "{}", names.len())?;
        Ok(Made::default())
    }
}

async fn make(store: &Store, runs: PathBuf) -> Vec<bool> {
    let name = reference::parse(IMAGE).unwrap();
    let source = store.new_source(&name, &"linux/amd64".parse().unwrap()).await.unwrap();
    let (formats, options) = (Materializers::none(), PullOptions::default());
    let made = materialize(&source, store, &Names(runs), &formats, &options).await.unwrap();
    let text = |at: usize| fs::read_to_string(made.files[at].artifact.path().unwrap()).unwrap();
    assert!(text(0).contains('a') && text(0).contains('b'), "{}", text(0));
    assert_eq!(text(1), text(0).split(' ').count().to_string());
    made.files.iter().map(|file| file.cached).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_make_the_files_of_an_image_once() {
    const PROCESSES: usize = 6;
    let test = "images::many_processes_make_the_files_of_an_image_once";
    if let Some((store, _)) = as_child() {
        let runs = store.path().with_extension("runs");
        make(&store, runs).await;
        return;
    }
    let (_folder, path) = as_parent();
    let store = Store::open(&path).unwrap();
    let layers = ["a", "b"].map(|name| LayerBuilder::new().file(name, 0o644, name.as_bytes()).finish());
    let sample = samples::of_layers("named", &layers);
    samples::write_layout(&path, &[(IMAGE.to_owned(), &sample)]).unwrap();
    let runs = path.with_extension("runs");
    run((0..PROCESSES).map(|number| child(test, &path, number)));
    assert_eq!(fs::read_to_string(&runs).unwrap(), ".");
    assert_eq!(make(&store, runs.clone()).await, [true, true]);
    assert_eq!(crate::names_in(&path.join("ingest")), [""; 0]);
    // As long as the image has a name.
    assert_eq!(store.collect(&Collect::default()).await.unwrap().artifacts, 0);
    store.remove(&reference::parse(IMAGE).unwrap()).await.unwrap();
    assert_eq!(store.collect(&Collect::default()).await.unwrap().artifacts, 2);
    assert_eq!(fs::read_to_string(&runs).unwrap(), ".");
}
