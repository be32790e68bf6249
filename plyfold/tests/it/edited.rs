//! Images that are made of others: layers added, and other configurations.

use std::fs::{self, File};

use plyfold::edit::{ConfigChange, Edit, EditFault, NewLayer};
use plyfold::{
    CacheProvider as _, CacheProviderExt as _, Descriptor, Error, ErrorKind, ImageSource as _,
    ImageSourceExt as _, Images, LoadOptions, Platform, Platforms, Progress, Result, layer, reference,
};
use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::baseline;
use super::run::Place;

const NAME: &str = "registry.example/org/app:1.2";
const NEW: &str = "registry.example/org/app:new";

fn tar() -> Vec<u8> {
    LayerBuilder::new().file("etc/agent.conf", 0o644, b"on\n").finish()
}

#[test]
fn runs_are_as_they_were() {
    let place = Place::new();
    fs::write(place.path("agent.tar"), tar()).unwrap();
    fs::write(place.path("agent.tar.gz"), samples::gzip(&[&tar()])).unwrap();
    fs::write(place.path("none.tar"), "no tar at all").unwrap();
    let text = [
        place.run("append localhost/sample:latest {}/agent.tar --tag localhost/new:1"),
        place.run("load examples/sample -q"),
        place.run("append localhost/sample:latest {}/agent.tar --tag localhost/new:1"),
        place.run("append localhost/sample:latest {}/agent.tar.gz {}/agent.tar --tag localhost/new:2 --json"),
        place.run("append localhost/sample:latest {}/agent.tar.gz {}/agent.tar --compress zstd --tag localhost/new:9 --platform linux/amd64"),
        place.run("append localhost/sample:latest {}/agent.tar.gz --compress gzip --tag localhost/new:9"),
        place.run("append localhost/sample:latest {}/agent.tar.gz --compress zip --tag localhost/new:9"),
        place.run_fed("append localhost/sample:latest - --tag localhost/new:3 --platform linux/amd64", &tar()),
        place.run("cat localhost/new:3 etc/agent.conf"),
        place.run("tag localhost/new:3 localhost:1/new:3"),
        place.run("export localhost:1/new:3 --platform linux/arm64 --out {}/none.tar --retry-max-time 0s"),
        place.run("append localhost/sample:latest - - --tag localhost/new:4"),
        place.run("append localhost/sample:latest {}/none.tar --tag localhost/new:4"),
        place.run("append localhost/sample:latest {}/missing.tar --tag localhost/new:4"),
        place.run("append localhost/sample:latest {} --tag localhost/new:4"),
        place.run("append localhost/sample:latest {}/agent.tar --tag oci:{}/layout:1"),
        // There is a file of that name here, and a name is no path.
        place.run("append localhost/sample:latest {}/agent.tar --tag deny.toml:v1 --platform linux/amd64"),
        place.run("tag localhost/sample:latest deny.toml:v1"),
        place.run("append localhost/sample:latest {}/agent.tar --tag ./deny.toml:v1"),
        place.run("append localhost/sample:latest {}/agent.tar --tag dir:layout"),
        place.run("append localhost/sample:latest {}/agent.tar"),
        place.run("append oci:examples/sample:latest {}/agent.tar --tag localhost/new:4"),
        place.run("config localhost/sample:latest --tag localhost/new:5 --platform linux/amd64 --env A=1 -e B=2 --label a=b --user 1000:1000 --workdir /srv --cmd [\"-v\"] --entrypoint /bin/app --expose 80 --volume /data --stop-signal SIGINT"),
        place.run("config localhost/sample:latest --tag localhost/new:7 --platform linux/amd64 --cmd -v -a org.example=1"),
        place.run("config localhost/new:5 --tag localhost/new:5 --unset-volume /data --unset-expose 80 --unset-env A --unset-label a --entrypoint /bin/other"),
        place.run("inspect localhost/new:5 --json"),
        place.run("config localhost/sample:latest --tag localhost/new:6"),
        place.run("config localhost/sample:latest --tag localhost/new:6 --env A"),
        place.run("config localhost/sample:latest --tag localhost/new:6 --expose web"),
        place.run("config localhost/sample:latest --tag localhost/new:6 --cmd it's"),
        place.run("list"),
        place.run("config localhost/sample:latest --tag localhost/sample:latest --user 7 --platform linux/amd64"),
        place.run("load examples/sample -q --platform linux/amd64 --store {}/part"),
        place.run("config localhost/sample:latest --tag localhost/new:7 --user 0 --platform linux/arm64 --store {}/part"),
        place.run("append localhost/sample:latest {}/agent.tar --tag localhost/new:7 --platform linux/amd64 --platform linux/arm64 --store {}/part"),
        place.run("inspect localhost/sample:latest --platform linux/arm64 --store {}/part"),
        place.run("save localhost/sample:latest --platform linux/arm64 --store {}/part --out {}/part.tar"),
        place.run("push localhost/sample:latest oci:{}/layout:1 --platform linux/arm64 --store {}/part"),
        place.run("config localhost/sample:latest --tag localhost/new:7 --user 0 --platform linux/s390x --store {}/part"),
    ]
    .concat();
    baseline::check("plyfold/tests/it/runs/edit.txt", text.as_bytes());
}

/// A store with a sample under [`NAME`].
async fn stored(sample: &Sample) -> (TempDir, Images) {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    samples::write_layout(&layout, &[(NAME.to_owned(), sample)]).unwrap();
    let images = Images::open(folder.path().join("store")).await.unwrap();
    images.load(&format!("oci:{}", layout.display()), LoadOptions::default()).await.unwrap();
    (folder, images)
}

async fn new_layer(bytes: &[u8]) -> Result<NewLayer> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    NewLayer::read(File::open(file.path()).unwrap(), "new.tar").await
}

/// A hard link stands for a file of the layer or of those below; without one there is no image.
#[tokio::test]
async fn a_layer_whose_hard_link_leads_nowhere_is_refused() {
    let below = LayerBuilder::new().file("below", 0o644, b"1").dir("folder", 0o755).finish();
    let sample = samples::of_layers("sample", &[below]);
    let link = |target: &str| LayerBuilder::new().file("own", 0o644, b"2").hard_link("link", target).finish();
    for (target, is_taken) in
        [("own", true), ("below", true), ("nowhere", false), ("folder", false), ("link", false)]
    {
        let (_folder, images) = stored(&sample).await;
        let made = async {
            let layer = new_layer(&link(target)).await?;
            edited(&images, &Edit { layers: vec![layer], ..Edit::default() }).await
        };
        let made = made.await;
        let is_there =
            images.cache().find_descriptor(&reference::parse(NEW).unwrap()).await.unwrap().is_some();
        assert_eq!((made.is_ok(), is_there), (is_taken, is_taken), "{target}: {made:?}");
        if let Err(error) = made {
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        }
    }
}

/// One tar has the same bytes by the same compression, however it comes; what is compressed so stays.
#[tokio::test]
async fn layers_are_compressed_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let zstd = "zstd".parse().unwrap();
    let mut digests = Vec::new();
    for bytes in [tar(), samples::gzip(&[&tar()])] {
        let layer = new_layer(&bytes).await.unwrap();
        let (before, diff_id) = (layer.digest().clone(), layer.diff_id().clone());
        let layer = layer.compressed(zstd, folder.path()).await.unwrap();
        assert!(*layer.digest() != before && *layer.diff_id() == diff_id);
        let same = layer.clone().compressed("zstd:19".parse().unwrap(), folder.path()).await.unwrap();
        assert_eq!(same.digest(), layer.digest());
        digests.push(layer.digest().clone());
        let (_folder, images) = stored(&samples::image()).await;
        edited(&images, &Edit { layers: vec![layer], ..Edit::default() }).await.unwrap();
        let name = reference::parse(NEW).unwrap();
        let image = images.cache().new_source(&name, &"linux/amd64".parse().unwrap()).await.unwrap();
        let added = image.layers().unwrap().last().unwrap().clone();
        assert!(added.media_type().as_ref().ends_with("tar+zstd"));
        let mut tar = image.layer_tar(image.layers().unwrap().len() - 1).await.unwrap();
        let read = tokio::task::spawn_blocking(move || tar.finish()).await.unwrap().unwrap();
        assert_eq!(read.compression, layer::Compression::Zstd);
    }
    assert_eq!(digests[0], digests[1]);
}

async fn edited(images: &Images, edit: &Edit) -> Result<Descriptor> {
    images.cache().edit(&reference::parse(NAME).unwrap(), edit, &reference::parse(NEW).unwrap()).await
}

async fn config(images: &Images, name: &str) -> Value {
    let name = reference::parse(name).unwrap();
    let source = images.cache().new_source(&name, &Platform::new("linux", "amd64", None)).await.unwrap();
    serde_json::from_slice(source.config().await.unwrap().bytes()).unwrap()
}

fn set(change: impl FnOnce(&mut ConfigChange)) -> Edit {
    let mut edit = Edit::default();
    change(&mut edit.config);
    edit
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_set_replaced_and_removed() {
    let (_folder, images) = stored(&samples::image()).await;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let name = reference::parse(NAME).unwrap();
    let cache = images.cache();
    let first = set(|config| {
        config.env = vec![pair("A", "1"), pair("PATH", "/bin"), pair("B", "x=y")];
        config.cmd = Some(vec!["-v".to_owned()]);
        config.labels = vec![pair("a", "1"), pair("b", "2")];
        config.ports = vec!["80".to_owned(), "53/udp".to_owned()];
        config.volumes = vec!["/data".to_owned()];
        config.stop_signal = Some("SIGINT".to_owned());
        config.user = Some("1000:1000".to_owned());
        config.workdir = Some("/srv".to_owned());
    });
    cache.edit(&name, &first, &name).await.unwrap();
    let process = config(&images, NAME).await["config"].take();
    let env = process["Env"].as_array().unwrap();
    assert_eq!(env.iter().filter(|item| item.as_str().unwrap().starts_with("PATH=")).count(), 1, "{env:?}");
    assert!(env.contains(&json!("PATH=/bin")) && env.contains(&json!("B=x=y")), "{env:?}");
    assert_eq!(process["ExposedPorts"], json!({ "53/udp": {}, "80/tcp": {} }));
    assert_eq!((&process["Cmd"], &process["Volumes"]), (&json!(["-v"]), &json!({ "/data": {} })));
    assert_eq!((&process["User"], &process["WorkingDir"]), (&json!("1000:1000"), &json!("/srv")));
    assert_eq!(process["StopSignal"], "SIGINT");

    let second = set(|config| {
        config.env = vec![pair("A", "2")];
        config.unset_env = vec!["B".to_owned()];
        config.unset_labels = vec!["a".to_owned()];
        config.entrypoint = Some(vec!["/app".to_owned()]);
    });
    cache.edit(&name, &second, &name).await.unwrap();
    let changed = config(&images, NAME).await["config"].take();
    let place = |env: &Value, item: &str| env.as_array().unwrap().iter().position(|one| one == item);
    assert_eq!(place(&changed["Env"], "A=2"), place(&process["Env"], "A=1"), "it stays in its place");
    assert_eq!(place(&changed["Env"], "B=x=y"), None);
    assert_eq!(changed["Labels"].get("a"), None);
    assert_eq!(changed["Labels"]["b"], "2");
    assert_eq!((&changed["Entrypoint"], &changed["Cmd"]), (&json!(["/app"]), &Value::Null));

    let third = set(|config| {
        config.unset_ports = vec!["80".to_owned()];
        config.unset_volumes = vec!["/data".to_owned()];
        config.volumes = vec!["/logs".to_owned()];
        (config.user, config.workdir) = (Some(String::new()), Some(String::new()));
        config.stop_signal = Some(String::new());
    });
    cache.edit(&name, &third, &name).await.unwrap();
    let changed = config(&images, NAME).await["config"].take();
    assert_eq!(changed["ExposedPorts"], json!({ "53/udp": {} }));
    assert_eq!(changed["Volumes"], json!({ "/logs": {} }));
    for key in ["User", "WorkingDir", "StopSignal"] {
        assert_eq!(changed.get(key), None, "{key}");
    }
    let last = set(|config| config.unset_ports = vec!["53/udp".to_owned()]);
    cache.edit(&name, &last, &name).await.unwrap();
    assert_eq!(config(&images, NAME).await["config"].get("ExposedPorts"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_of_the_manifest_are_set_and_removed() {
    let (_folder, images) = stored(&samples::image()).await;
    let (name, cache) = (reference::parse(NAME).unwrap(), images.cache());
    let pair = |name: &str| (name.to_owned(), "value".to_owned());
    let annotations = async || {
        let source = cache.new_source(&name, &Platform::new("linux", "amd64", None)).await.unwrap();
        let document: Value = serde_json::from_slice(source.raw().bytes()).unwrap();
        document.get("annotations").cloned()
    };
    let before = annotations().await;
    cache.edit(&name, &set(|config| config.annotations = vec![pair("a"), pair("b")]), &name).await.unwrap();
    let mut expected = before.clone().unwrap_or_else(|| json!({}));
    (expected["a"], expected["b"]) = (json!("value"), json!("value"));
    assert_eq!(annotations().await, Some(expected));
    let unset = set(|config| config.unset_annotations = vec!["a".to_owned(), "b".to_owned()]);
    cache.edit(&name, &unset, &name).await.unwrap();
    assert_eq!(annotations().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_stored_as_they_come() {
    let (_folder, images) = stored(&samples::image()).await;
    let packed = [tar(), samples::gzip(&[&tar()]), samples::zstd(&[&tar()])];
    let mut edit = Edit::default();
    for bytes in &packed {
        edit.layers.push(new_layer(bytes).await.unwrap());
    }
    let diff_ids: Vec<_> = edit.layers.iter().map(|layer| json!(layer.diff_id())).collect();
    assert!(diff_ids.iter().all(|one| *one == diff_ids[0]));
    edited(&images, &edit).await.unwrap();
    let name = reference::parse(NEW).unwrap();
    let source = images.cache().new_source(&name, &Platform::new("linux", "amd64", None)).await.unwrap();
    let layers = source.raw().image().unwrap().layers();
    let added: Vec<_> = layers[layers.len() - 3..].iter().map(|one| one.media_type().to_string()).collect();
    let of = |end: &str| format!("application/vnd.oci.image.layer.v1.tar{end}");
    assert_eq!(added, [of(""), of("+gzip"), of("+zstd")]);
    for (layer, bytes) in layers[layers.len() - 3..].iter().zip(&packed) {
        assert!(images.cache().content(layer, 1 << 20).await.unwrap() == bytes[..]);
    }
    let listed = config(&images, NEW).await["rootfs"]["diff_ids"].take();
    assert_eq!(listed.as_array().unwrap()[layers.len() - 3..], diff_ids);
    assert_eq!(images.verify(&plyfold::Verify::default()).await.unwrap().damage, []);
}

async fn refused(images: &Images, edit: &Edit) -> Error {
    let before = images.list_cached().await.unwrap();
    let error = edited(images, edit).await.unwrap_err();
    assert_eq!(images.list_cached().await.unwrap(), before, "{error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_image_can_have_is_refused() {
    let (_folder, images) = stored(&samples::image()).await;
    let text = |text: &str| Some(text.to_owned());
    for (edit, fault) in [
        (Edit::default(), EditFault::Nothing),
        (set(|config| config.env = vec![("A=B".into(), String::new())]), EditFault::EnvName("A=B".into())),
        (set(|config| config.unset_env = vec![String::new()]), EditFault::EnvName(String::new())),
        (set(|config| config.labels = vec![(String::new(), "a".into())]), EditFault::Label),
        (set(|config| config.annotations = vec![(String::new(), "a".into())]), EditFault::Annotation),
        (set(|config| config.unset_ports = vec!["web".into()]), EditFault::Port("web".into())),
        (set(|config| config.ports = vec!["0".into()]), EditFault::Port("0".into())),
        (set(|config| config.ports = vec!["65536".into()]), EditFault::Port("65536".into())),
        (set(|config| config.ports = vec!["80/icmp".into()]), EditFault::Port("80/icmp".into())),
        (set(|config| config.ports = vec!["+80".into()]), EditFault::Port("+80".into())),
        (set(|config| config.workdir = text("srv")), EditFault::Relative("srv".into())),
        (set(|config| config.volumes = vec!["data".into()]), EditFault::Relative("data".into())),
        (set(|config| config.user = text("a\0b")), EditFault::Zero("the user")),
        (set(|config| config.user = text("a b")), EditFault::User("a b".into())),
        (set(|config| config.user = text("a:b:c")), EditFault::User("a:b:c".into())),
        (set(|config| config.user = text("a:")), EditFault::User("a:".into())),
        (set(|config| config.user = text(":b")), EditFault::User(":b".into())),
        (set(|config| config.stop_signal = text("SIGFOO")), EditFault::Signal("SIGFOO".into())),
        (set(|config| config.stop_signal = text("0")), EditFault::Signal("0".into())),
        (set(|config| config.stop_signal = text("65")), EditFault::Signal("65".into())),
        (set(|config| config.stop_signal = text("SIGRTMIN+31")), EditFault::Signal("SIGRTMIN+31".into())),
    ] {
        let error = refused(&images, &edit).await;
        assert_eq!(error.detail(), Some(&fault), "{error}");
    }
    for signal in ["SIGTERM", "term", "9", "64", "RTMIN+3", "SIGRTMAX-14", "SIGWINCH", ""] {
        edited(&images, &set(|config| config.stop_signal = text(signal))).await.unwrap();
    }
    for user in ["", "0", "app", "app:staff", "1000:1000"] {
        edited(&images, &set(|config| config.user = text(user))).await.unwrap();
    }
    let error = new_layer(b"no tar at all, but more than nothing").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    let mut cut = tar();
    cut.truncate(514);
    assert_eq!(*new_layer(&cut).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let missing = reference::parse("registry.example/org/none:1").unwrap();
    let edit = set(|config| config.user = text("1"));
    let error = images.cache().edit(&missing, &edit, &missing).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_image_stays_one() {
    let (_folder, images) = stored(&samples::docker_image()).await;
    let mut edit =
        Edit { layers: vec![new_layer(&samples::gzip(&[&tar()])).await.unwrap()], ..Edit::default() };
    edited(&images, &edit).await.unwrap();
    let name = reference::parse(NEW).unwrap();
    let source = images.cache().new_source(&name, &Platform::new("linux", "amd64", None)).await.unwrap();
    let layers = source.raw().image().unwrap().layers();
    let added = layers.last().unwrap().media_type().to_string();
    assert_eq!(added, "application/vnd.docker.image.rootfs.diff.tar.gzip");
    assert_eq!(layer::Compression::by_media_type(&added.as_str().into()), Some(layer::Compression::Gzip));
    edit.layers = vec![new_layer(&samples::zstd(&[&tar()])).await.unwrap()];
    let error = refused(&images, &edit).await;
    assert_eq!(error.detail(), Some(&EditFault::DockerZstd("new.tar".into())), "{error}");
    let edit = set(|config| config.annotations = vec![("a".into(), "b".into())]);
    let error = refused(&images, &edit).await;
    assert_eq!(error.detail(), Some(&EditFault::DockerAnnotation), "{error}");
}

/// An edit, and what it warns of.
async fn warned(images: &Images) -> (Descriptor, Vec<String>) {
    let (progress, mut events) = Progress::channel();
    let edit = Edit { progress, ..set(|config| config.user = Some("1".to_owned())) };
    let made = edited(images, &edit).await.unwrap();
    drop(edit);
    let mut warnings = Vec::new();
    while let Some(event) = events.next().await {
        if let plyfold::progress::Event::Warning { message } = event {
            warnings.push(message);
        }
    }
    (made, warnings)
}

#[tokio::test(flavor = "multi_thread")]
async fn attestations_are_left_out_and_a_warning_says_so() {
    let (_folder, images) = stored(&samples::attested()).await;
    let (made, warnings) = warned(&images).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(" 2 attestations "), "{warnings:?}");
    let index = images.cache().content(&made, 1 << 20).await.unwrap();
    assert!(!String::from_utf8(index.to_vec()).unwrap().contains("attestation-manifest"));
}

/// A misspelled name is not silently left where it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_and_to_be_removed_is_told() {
    let (_folder, images) = stored(&samples::index()).await;
    let names = |name: &str| vec![name.to_owned()];
    let set_all = set(|config| {
        config.env = vec![("A".into(), "1".into())];
        config.labels = vec![("l".into(), "1".into())];
        config.annotations = vec![("a".into(), "1".into())];
        (config.ports, config.volumes) = (names("80"), names("/data"));
    });
    edited(&images, &set_all).await.unwrap();
    let new = reference::parse(NEW).unwrap();
    let unset = |env, label, annotation, port, volume| {
        set(move |config| {
            (config.unset_env, config.unset_labels) = (names(env), names(label));
            (config.unset_annotations, config.unset_ports) = (names(annotation), names(port));
            config.unset_volumes = names(volume);
        })
    };
    for (edit, count) in
        // Of each, and that nothing is changed.
        [(unset("A", "l", "a", "80/tcp", "/data"), 0), (unset("B", "m", "b", "80/udp", "/other"), 6)]
    {
        let (progress, mut events) = Progress::channel();
        let edit = Edit { progress, ..edit };
        images
            .cache()
            .edit(&new, &edit, &reference::parse("registry.example/org/app:unset").unwrap())
            .await
            .unwrap();
        drop(edit);
        let mut warnings = 0;
        while let Some(event) = events.next().await {
            warnings += usize::from(matches!(event, plyfold::progress::Event::Warning { .. }));
        }
        assert_eq!(warnings, count);
    }
}

/// What is already as it is asked for is no change: the same image, with its attestations, and no one more item of the history.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_which_nothing_is_changed_stays_as_it_is() {
    let names = || vec!["none".to_owned()];
    let unset = set(|config| {
        (config.unset_env, config.unset_labels, config.unset_annotations) = (names(), names(), names());
        (config.unset_ports, config.unset_volumes) = (vec!["9".to_owned()], names());
        config.stop_signal = Some(String::new());
    });
    let annotated = set(|config| {
        config.annotations = vec![("a".into(), "1".into())];
        config.env = vec![("A".into(), "1".into())];
        config.unset_labels = names();
    });
    for sample in [
        samples::image(),
        samples::docker_image(),
        samples::index(),
        samples::sparse_index(),
        samples::attested(),
    ] {
        let (_folder, images) = stored(&sample).await;
        let name = reference::parse(NAME).unwrap();
        let before = images.cache().find_descriptor(&name).await.unwrap().unwrap();
        let made = edited(&images, &unset).await.unwrap();
        assert_eq!(made.digest(), before.digest());
        let new = reference::parse(NEW).unwrap();
        let there = images.cache().find_descriptor(&new).await.unwrap().unwrap();
        assert_eq!(there.digest(), before.digest());
        if sample.name == samples::docker_image().name {
            continue;
        }
        let changed = edited(&images, &annotated).await.unwrap();
        assert_ne!(changed.digest(), before.digest());
        let again = images.cache().edit(&new, &annotated, &new).await.unwrap();
        assert_eq!(again.digest(), changed.digest());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_index_the_images_that_are_here_are_changed() {
    let (_folder, images) = stored(&samples::sparse_index()).await;
    let (made, warnings) = warned(&images).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("1 of 2 images"), "{warnings:?}");
    let name = reference::parse(NEW).unwrap();
    assert_eq!(images.cache().find_descriptor(&name).await.unwrap().unwrap().digest(), made.digest());
    let arm: Platform = "linux/arm64".parse().unwrap();
    let error = images.cache().new_source(&name, &arm).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PlatformNotFound { .. }), "{error}");
    assert_eq!(config(&images, NEW).await["config"]["User"], "1");

    let (_folder, images) = stored(&samples::index()).await;
    let one = Platforms::One("linux/386".parse().unwrap());
    let edit = Edit { platforms: one, ..set(|config| config.user = Some("1".to_owned())) };
    let made = edited(&images, &edit).await.unwrap();
    assert!(plyfold::manifest::is_manifest(made.media_type()), "{made:?}");
    let some = Platforms::Some(vec!["linux/386".parse().unwrap(), "linux/amd64".parse().unwrap()]);
    let made = edited(&images, &Edit { platforms: some, ..edit }).await.unwrap();
    let index = images.cache().content(&made, 1 << 20).await.unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let platforms: Vec<_> =
        index["manifests"].as_array().unwrap().iter().map(|one| &one["platform"]["architecture"]).collect();
    assert_eq!(platforms, ["386", "amd64"]);
}

/// As after a pull of the other platform that was interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_here_in_part_is_not_here() {
    let sample = samples::nested_index();
    let (_folder, images) = stored(&sample).await;
    // The layers are those of the other image, too.
    let config = sample.image_for("linux/arm64/v8").config.digest();
    assert_ne!(config, sample.image_for("linux/amd64").config.digest());
    images.cache().quarantine(config).await.unwrap();
    let edit = set(|config| config.user = Some("1".to_owned()));
    edited(&images, &edit).await.unwrap();
    let name = reference::parse(NEW).unwrap();
    let error = images.cache().new_source(&name, &"linux/arm64".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::PlatformNotFound { .. }), "{error}");
    let alone = Platforms::One("linux/arm64".parse().unwrap());
    let error = refused(&images, &Edit { platforms: alone, ..edit }).await;
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
}
