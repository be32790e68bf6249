//! Configurations for runtimes, as others make them of the same image.

use std::fs;
use std::process::Command;

use plyfold_conformance::oracle::{Run, Verdict};
use plyfold_conformance::samples::{self, LayerBuilder, Sample};
use serde_json::{Value, json};

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002::/home/app:/bin/sh\n";
const GROUP: &[u8] = b"root:x:0:root\nwheel:x:10:root,app\napp:x:1002:\nextra:x:2000:app\n";

/// An image with users, for a user.
fn image(user: &str) -> Sample {
    let layer =
        LayerBuilder::new().file("etc/passwd", 0o644, PASSWD).file("etc/group", 0o644, GROUP).finish();
    let process = json!({
        "User": user, "Env": ["PATH=/bin", "A=b"], "Entrypoint": ["/e"], "Cmd": ["c", "d"], "WorkingDir": "/w",
        "Labels": { "x": "y" }, "StopSignal": "SIGTERM", "Volumes": { "/data": {}, "/var": {} },
        "ExposedPorts": { "80/tcp": {}, "443/tcp": {} },
    });
    samples::of_process("users", &[layer], &process.to_string())
}

/// Users by name and by number, with groups and without: all that both say is the same. umoci adds variables, mounts of a
/// runtime and the groups of users that are numbers, which the specification leaves alone.
pub(crate) fn runtime_specs_are_those_of_umoci() -> Verdict {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("etc"))?;
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    for (number, user) in
        ["app", "app:extra", "app:7", "1001", "1001:1002", "42", "42:extra", "0:0"].into_iter().enumerate()
    {
        let (layout, out) = (folder.path().join(number.to_string()), folder.path().join("config.json"));
        samples::write_layout(&layout, &[("1".to_owned(), &image(user))])?;
        let place = format!("{}:1", layout.display());
        Run::new("umoci")
            .args(["raw", "runtime-config", "--image", &place, "--rootfs"])
            .arg(&root)
            .arg(&out)
            .success()?;
        let theirs: Value = serde_json::from_slice(&fs::read(&out)?).unwrap();
        let made = Command::new(env!("CARGO_BIN_EXE_plyfold"))
            .args(["inspect", "--runtime-spec", &format!("oci:{place}")])
            .env("PLYFOLD_STORE", folder.path().join("store"))
            .output()?;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let ours: Value = serde_json::from_slice(&made.stdout).unwrap();
        for key in ["uid", "gid"] {
            assert_eq!(ours["process"]["user"][key], theirs["process"]["user"][key], "{key} of {user}");
        }
        let groups = |spec: &Value| spec["process"]["user"]["additionalGids"].clone();
        assert_eq!(groups(&ours), if user == "app" { groups(&theirs) } else { Value::Null }, "{user}");
        for key in ["args", "cwd"] {
            assert_eq!(ours["process"][key], theirs["process"][key], "{key}");
        }
        let has = |list: &Value, item: &Value| list.as_array().unwrap().contains(item);
        for variable in ours["process"]["env"].as_array().unwrap() {
            assert!(has(&theirs["process"]["env"], variable), "{variable}");
        }
        for mount in ours["mounts"].as_array().unwrap() {
            assert!(has(&theirs["mounts"], mount), "{mount}");
        }
        assert_eq!(ours["annotations"], theirs["annotations"]);
    }
    Ok(())
}
