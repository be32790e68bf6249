//! Documents as Go's tools write them: a list or a table that is not set is `null`, empty or absent, and all three mean
//! the same.

use plyfold_core::layout_index::LayoutIndex;
use plyfold_core::{Document, ErrorKind, MediaType, RawConfig, RawManifest, Result};
use serde_json::{Map, Value, json};

const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
/// Objects whose keys are data, as opposed to fields.
const TABLES: [&str; 4] = ["annotations", "ExposedPorts", "Labels", "Volumes"];
/// Objects that a document may do without.
const OPTIONAL: [&str; 2] = ["platform", "subject"];

fn descriptor(media_type: &str) -> Value {
    json!({
        "mediaType": media_type,
        "digest": DIGEST,
        "size": 2,
        "annotations": { "a": "b" },
        "urls": ["https://r.lan/x"],
        "platform": { "os": "linux", "architecture": "amd64", "os.features": ["x"], "features": ["y"] },
    })
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        "subject": descriptor("application/vnd.oci.image.manifest.v1+json"),
        "annotations": { "a": "b" },
    })
}

fn index() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json")],
        "subject": descriptor("application/vnd.oci.image.manifest.v1+json"),
        "annotations": { "a": "b" },
    })
}

fn config() -> Value {
    json!({
        "architecture": "amd64",
        "os": "linux",
        "os.features": ["x"],
        "config": {
            "Env": ["A=b"], "Entrypoint": ["/a"], "Cmd": ["b"], "Labels": { "a": "b" },
            "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/data": {} },
        },
        "history": [{ "created_by": "x" }],
        "rootfs": { "type": "layers", "diff_ids": [DIGEST] },
    })
}

/// Reads a document as a manifest or an index, wherever one may stand.
fn read_manifest(document: &Value) -> Result<()> {
    let text = document.to_string();
    let raw = RawManifest::new(text.clone(), None)?;
    if let Document::Index(_) = raw.document() {
        // The same bytes in the place of `index.json`.
        let index = LayoutIndex::parse(text.as_bytes(), "/srv/base".as_ref())?;
        assert_eq!(index.entries().count(), raw.references().len(), "{text}");
    }
    Ok(())
}

/// Reads a document as the config of an image with as many layers.
fn read_config(document: &Value) -> Result<()> {
    let layers = document["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len);
    let mut manifest = manifest();
    manifest["layers"] = vec![descriptor("application/vnd.oci.image.layer.v1.tar"); layers].into();
    let manifest = RawManifest::new(manifest.to_string(), None)?;
    let config = RawConfig::new(manifest.image()?, document.to_string().into())?;
    assert_eq!(config.diff_ids()?.len(), layers);
    Ok(())
}

/// Every place of a list, a table, or an object that may be left out, as a JSON pointer with what is empty there.
fn places(value: &Value, at: &str, key: &str, found: &mut Vec<(String, Value)>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Array(items) => {
            found.push((at.to_owned(), json!([])));
            for (place, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{place}"), "", found);
            }
        }
        Value::Object(fields) => {
            if TABLES.contains(&key) || OPTIONAL.contains(&key) {
                found.push((at.to_owned(), json!({})));
            }
            for (key, value) in fields {
                places(value, &format!("{at}/{}", escaped(key)), key, found);
            }
        }
        _ => {}
    }
}

/// The document with another value at a place; without the field for `None`.
fn with(document: &Value, place: &str, value: Option<Value>) -> Value {
    let mut changed = document.clone();
    let (parent, key) = place.rsplit_once('/').unwrap();
    match (changed.pointer_mut(parent).unwrap(), value) {
        (Value::Object(fields), Some(value)) => drop(fields.insert(key.replace("~1", "/"), value)),
        (Value::Object(fields), None) => drop(fields.remove(&key.replace("~1", "/"))),
        (Value::Array(items), value) => items[key.parse::<usize>().unwrap()] = value.unwrap_or_default(),
        _ => panic!("{place}"),
    }
    changed
}

#[test]
fn null_empty_and_absent_are_one() {
    for (document, read) in [
        (manifest(), read_manifest as fn(&Value) -> Result<()>),
        (index(), read_manifest),
        (config(), read_config),
    ] {
        read(&document).unwrap();
        let mut found = Vec::new();
        places(&document, "", "", &mut found);
        assert!(found.len() > 8, "{found:?}");
        for (place, empty) in found {
            let mut forms = vec![Some(Value::Null), None];
            forms.push(Some(empty));
            for form in forms {
                // A manifest says what it is by its lists.
                let is_required = ["/layers", "/manifests"].contains(&place.as_str()) && form.is_none();
                let changed = with(&document, &place, form.clone());
                match read(&changed) {
                    Ok(()) => assert!(!is_required, "{place} is {form:?}"),
                    Err(e) => {
                        assert!(is_required && *e.kind() == ErrorKind::Corrupt, "{place} is {form:?}: {e}");
                    }
                }
            }
        }
    }
}

/// Within a list or a table, too, `null` is the zero value.
#[test]
fn null_within_a_table_is_an_empty_value() {
    let mut annotated = index();
    annotated["manifests"][0]["annotations"]["a"] = Value::Null;
    read_manifest(&annotated).unwrap();
    let mut labelled = config();
    labelled["config"]["Labels"]["a"] = Value::Null;
    labelled["config"]["ExposedPorts"]["80/tcp"] = Value::Null;
    labelled["config"]["Volumes"]["/data"] = Value::Null;
    labelled["config"]["Env"] = json!([null]);
    labelled["history"] = json!([null]);
    read_config(&labelled).unwrap();
    let raw = RawManifest::new(manifest().to_string(), None).unwrap();
    let config = RawConfig::new(raw.image().unwrap(), labelled.to_string().into()).unwrap();
    let process = config.document().config().clone().unwrap();
    assert_eq!(process.labels().as_ref().unwrap()["a"], "");
    assert_eq!(process.exposed_ports().as_ref().unwrap(), &["80/tcp"]);
    assert_eq!(process.volumes().as_ref().unwrap(), &["/data"]);
}

/// skopeo and umoci read all of these.
#[test]
fn what_a_document_is_may_be_unsaid() {
    let unset = [None, Some(Value::Null), Some(json!(0)), Some(json!(""))];
    for (document, name) in [(manifest(), "manifest"), (index(), "index")] {
        let media_type = format!("application/vnd.oci.image.{name}.v1+json");
        for (place, forms) in
            [("/schemaVersion", &unset[..3]), ("/mediaType", &[None, Some(Value::Null), Some(json!(""))][..])]
        {
            for form in forms {
                let text = with(&document, place, form.clone()).to_string();
                for declared in [None, Some(MediaType::from(media_type.as_str()))] {
                    let raw = RawManifest::new(text.clone(), declared.as_ref()).unwrap();
                    assert_eq!(raw.descriptor().media_type().to_string(), media_type, "{place} is {form:?}");
                }
                read_manifest(&with(&document, place, form.clone())).unwrap();
            }
        }
        for version in [json!(1), json!(3), json!("2"), json!(true)] {
            assert!(read_manifest(&with(&document, "/schemaVersion", Some(version))).is_err());
        }
    }
    // An index that is written anew says it.
    let nameless = with(&index(), "/schemaVersion", None).to_string();
    let written = LayoutIndex::parse(nameless.as_bytes(), "/srv/base".as_ref()).unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap()["schemaVersion"], 2);
}

#[test]
fn entries_of_an_index_that_say_nothing_are_none() {
    for nothing in [Value::Null, json!({}), json!({ "mediaType": "", "digest": "", "size": 0, "urls": null })]
    {
        let mut document = index();
        document["manifests"] = json!([nothing, document["manifests"][0], nothing]);
        let raw = RawManifest::new(document.to_string(), None).unwrap();
        assert_eq!(raw.references().len(), 1, "{nothing}");
        let index = LayoutIndex::parse(document.to_string().as_bytes(), "/srv/base".as_ref()).unwrap();
        assert_eq!(index.entries().count(), 1, "{nothing}");
        // A layer that says nothing is a layer that is missing.
        let mut document = manifest();
        document["layers"] = json!([document["layers"][0], nothing]);
        assert_eq!(*read_manifest(&document).unwrap_err().kind(), ErrorKind::Corrupt, "{nothing}");
    }
    // An entry without a digest that says anything else is broken.
    let mut document = index();
    document["manifests"] = json!([{ "annotations": { "org.opencontainers.image.ref.name": "1" } }]);
    assert_eq!(*read_manifest(&document).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// skopeo reads descriptors that do not say the type of what they stand for.
#[test]
fn a_descriptor_may_leave_the_type_unsaid() {
    for form in [None, Some(Value::Null), Some(json!(""))] {
        for (document, place) in
            [(index(), "/manifests/0"), (manifest(), "/config"), (manifest(), "/layers/0")]
        {
            read_manifest(&with(&document, &format!("{place}/mediaType"), form.clone())).unwrap();
        }
        let raw = RawManifest::new(with(&manifest(), "/config/mediaType", form).to_string(), None).unwrap();
        RawConfig::new(raw.image().unwrap(), config().to_string().into()).unwrap();
        let other = RawConfig::new(raw.image().unwrap(), "{}".into()).unwrap_err();
        assert_eq!(*other.kind(), ErrorKind::Unsupported);
    }
}

/// Whole objects that a writer in Go leaves at their zero value.
#[test]
fn configs_may_lack_what_is_empty() {
    let empty = |patch: &dyn Fn(&mut Map<String, Value>)| {
        let mut document = config();
        document["rootfs"]["diff_ids"] = json!([]);
        patch(document.as_object_mut().unwrap());
        read_config(&document)
    };
    for name in ["architecture", "config", "history", "os", "rootfs"] {
        empty(&|fields| drop(fields.remove(name))).unwrap();
        empty(&|fields| drop(fields.insert(name.to_owned(), Value::Null))).unwrap();
    }
    empty(&|fields| drop(fields.insert("rootfs".to_owned(), json!({ "type": "layers" })))).unwrap();
    // The other list of a document may be there as null, but not beside this one.
    let mut both = manifest();
    both["manifests"] = Value::Null;
    read_manifest(&both).unwrap();
    both["manifests"] = json!([]);
    assert_eq!(*read_manifest(&both).unwrap_err().kind(), ErrorKind::Ambiguous);
}

/// Old registries gave a config whatever type they knew (distribution, "schema 2").
#[test]
fn docker_manifests_may_have_a_config_of_a_generic_type() {
    let of = |manifest_type: &str, config_type: &str, config: &Value| {
        let mut manifest = manifest();
        manifest["mediaType"] = manifest_type.into();
        manifest["config"]["mediaType"] = config_type.into();
        let raw = RawManifest::new(manifest.to_string(), None)?;
        RawConfig::new(raw.image()?, config.to_string().into()).map(drop)
    };
    let kind = |outcome: Result<()>| outcome.err().map(|e| e.kind().clone());
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    for generic in ["application/octet-stream", "application/json", "text/html", "text/html; charset=utf-8"] {
        assert_eq!(kind(of(docker, generic, &config())), None, "{generic}");
        // What is in it decides.
        for other in [json!({}), json!([]), json!("text"), json!({ "rootfs": 3 })] {
            assert_eq!(kind(of(docker, generic, &other)), Some(ErrorKind::Unsupported), "{generic} {other}");
        }
        let oci = "application/vnd.oci.image.manifest.v1+json";
        assert_eq!(kind(of(oci, generic, &config())), Some(ErrorKind::Unsupported), "{generic}");
    }
    let plugin = "application/vnd.docker.plugin.v1+json";
    assert_eq!(kind(of(docker, plugin, &config())), Some(ErrorKind::Unsupported));
}
