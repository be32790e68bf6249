//! Configurations of images as those of runtimes.

use std::collections::HashMap;

use plyfold_core::files::{FileInfo, FileType, Files, FilesFault};
use plyfold_core::oci_spec::image::ImageManifest;
use plyfold_core::runtime_spec::{UserFault, names_a_user, runtime_spec};
use plyfold_core::{Error, ErrorKind, RawConfig, Result};
use serde_json::{Value, json};

/// Files by their paths, and how often one was read.
#[derive(Default)]
struct Held(HashMap<&'static str, Vec<u8>>, usize);

impl Files for Held {
    fn file(&mut self, path: &[u8], _: bool) -> Result<FileInfo> {
        Ok(FileInfo::new(path.to_vec(), FileType::Regular))
    }

    fn list(&mut self, _: &[u8]) -> Result<Vec<FileInfo>> {
        Ok(Vec::new())
    }

    fn read(&mut self, path: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.1 += 1;
        let path = std::str::from_utf8(path).unwrap();
        let Some(content) = self.0.get(path) else { return Err(FilesFault::Missing(path.to_owned()).into()) };
        content.chunks(1000).try_for_each(take)
    }
}

fn users() -> Held {
    let passwd =
        "# users\nroot:x:0:0:root:/root:/bin/sh\n\nbroken\napp:x:1001:1002::/:/bin/sh\nbad:x:-1:0::/:\n";
    let group = "root:x:0:root\nwheel:x:10:root,app\napp:x:1002:\nextra:x:2000:app,other\nodd:x:no:\n";
    Held([("/etc/passwd", passwd.into()), ("/etc/group", group.into())].into(), 0)
}

fn config(os: &str, process: &Value) -> RawConfig {
    let text = json!({ "os": os, "architecture": "arm64", "variant": "v8", "os.version": "10", "os.features": ["a", "b"],
        "author": "someone", "created": "2024-01-02T03:04:05Z", "config": process,
        "rootfs": { "type": "layers", "diff_ids": [] } });
    let manifest: ImageManifest = serde_json::from_value(json!({ "schemaVersion": 2, "layers": [],
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "size": 2,
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" } }))
    .unwrap();
    RawConfig::new(&manifest, text.to_string().into_bytes().into()).unwrap()
}

fn user_of(user: &str, files: &mut Held) -> Result<Value> {
    let spec = runtime_spec(&config("linux", &json!({ "User": user })), files)?;
    Ok(serde_json::to_value(spec).unwrap()["process"]["user"].clone())
}

#[test]
fn users_are_those_of_the_image() {
    for (user, expected, reads) in [
        ("", json!({ "uid": 0, "gid": 0 }), 0),
        ("app", json!({ "uid": 1001, "gid": 1002, "additionalGids": [10, 2000] }), 2),
        ("app:", json!({ "uid": 1001, "gid": 1002, "additionalGids": [10, 2000] }), 2),
        ("app:extra", json!({ "uid": 1001, "gid": 2000 }), 2),
        ("app:7", json!({ "uid": 1001, "gid": 7 }), 1),
        ("1001", json!({ "uid": 1001, "gid": 1002 }), 1),
        ("42", json!({ "uid": 42, "gid": 0 }), 1),
        ("42:extra", json!({ "uid": 42, "gid": 2000 }), 1),
        ("4294967295:1002", json!({ "uid": 4_294_967_295_u32, "gid": 1002 }), 0),
    ] {
        let mut files = users();
        assert_eq!(user_of(user, &mut files).unwrap(), expected, "{user}");
        assert_eq!(files.1, reads, "{user}");
        assert_eq!(names_a_user(&config("linux", &json!({ "User": user }))), reads > 0, "{user}");
    }
    // Numbers need no file.
    assert_eq!(user_of("42", &mut Held::default()).unwrap(), json!({ "uid": 42, "gid": 0 }));
}

#[test]
fn users_that_are_not_there_are_refused() {
    let kind = |error: Error| (error.kind().clone(), error.detail::<UserFault>().is_some());
    for user in ["none", "app:none", "-1", "4294967296", "app:extra:more", ":extra", "root\n", "broken"] {
        let error = user_of(user, &mut users()).unwrap_err();
        let expected = if user == "broken" { ErrorKind::Corrupt } else { ErrorKind::NotFound };
        assert_eq!(kind(error), (expected, true), "{user}");
    }
    for user in ["bad", "app:odd"] {
        assert_eq!(kind(user_of(user, &mut users()).unwrap_err()), (ErrorKind::Corrupt, true), "{user}");
    }
    assert_eq!(*user_of("app", &mut Held::default()).unwrap_err().kind(), ErrorKind::NotFound);
    let mut huge = users();
    huge.0.insert("/etc/passwd", vec![b'\n'; (1 << 20) + 1]);
    assert_eq!(*user_of("app", &mut huge).unwrap_err().kind(), ErrorKind::Limit);
    let error = runtime_spec(&config("windows", &json!({})), &mut users()).unwrap_err();
    assert_eq!(kind(error), (ErrorKind::Unsupported, true));
}

#[test]
fn fields_are_converted_as_the_specification_says() {
    let process = json!({
        "Env": ["PATH=/bin", "A=b"], "Entrypoint": ["/e"], "Cmd": ["c", "d"], "WorkingDir": "/w", "StopSignal": "SIGTERM",
        "Labels": { "x": "y", "org.opencontainers.image.author": "a label", "": "no key" },
        "ExposedPorts": { "80/tcp": {}, "443/tcp": {} }, "Volumes": { "/var": {}, "/data": {} },
    });
    let spec = runtime_spec(&config("linux", &process), &mut users()).unwrap();
    let options = ["rw", "nosuid", "nodev", "noexec", "relatime"];
    let mount =
        |to: &str| json!({ "destination": to, "type": "tmpfs", "source": "none", "options": options });
    let expected = json!({
        "ociVersion": "1.0.2", "root": { "path": "rootfs" },
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/e", "c", "d"], "env": ["PATH=/bin", "A=b"], "cwd": "/w" },
        "mounts": [mount("/data"), mount("/var")],
        "annotations": {
            "org.opencontainers.image.architecture": "arm64", "org.opencontainers.image.author": "a label",
            "org.opencontainers.image.created": "2024-01-02T03:04:05Z",
            "org.opencontainers.image.exposedPorts": "443/tcp,80/tcp", "org.opencontainers.image.os": "linux",
            "org.opencontainers.image.os.features": "a,b", "org.opencontainers.image.os.version": "10",
            "org.opencontainers.image.stopSignal": "SIGTERM", "org.opencontainers.image.variant": "v8", "x": "y",
        },
    });
    assert_eq!(serde_json::to_value(spec).unwrap(), expected);
    let spec =
        runtime_spec(&config("linux", &json!({ "Volumes": { "data": {}, "": {} } })), &mut users()).unwrap();
    assert_eq!(serde_json::to_value(spec).unwrap()["mounts"], json!([mount("/data")]));
    let spec = runtime_spec(&config("linux", &json!({})), &mut users()).unwrap();
    let spec = serde_json::to_value(spec).unwrap();
    assert_eq!(spec["process"], json!({ "user": { "uid": 0, "gid": 0 }, "args": [], "env": [], "cwd": "/" }));
    assert_eq!(
        (&spec["mounts"], &spec["hostname"], &spec["linux"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}
