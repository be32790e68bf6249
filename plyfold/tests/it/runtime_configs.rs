//! Configurations of images as those of runtimes.

use plyfold_conformance::samples::{self, LayerBuilder};

use super::run::{Place, check};

#[test]
fn runs_are_as_they_were() {
    let place = Place::new();
    let lower = LayerBuilder::new()
        .file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n")
        .file("usr/lib/group", 0o644, b"root:x:0:\nwheel:x:10:app\n")
        .symlink("etc/group", "/usr/lib/group")
        .finish();
    let upper =
        LayerBuilder::new().file("etc/passwd", 0o644, b"app:x:1001:1002::/home/app:/bin/sh\n").finish();
    for user in ["app", "none", "7:8", "7:none"] {
        let process =
            format!(r#"{{"User":"{user}","Cmd":["/app"],"Volumes":{{"/data":{{}}}},"WorkingDir":"/srv"}}"#);
        let sample = samples::of_process("users", &[lower.clone(), upper.clone()], &process);
        let layout = place.dir.path().join(user.replace(':', "-"));
        samples::write_layout(&layout, &[("1".to_owned(), &sample)]).unwrap();
    }
    let lines = [
        "inspect --runtime-spec oci:examples/sample:latest -q --platform linux/amd64",
        "inspect --runtime-spec oci:{}/app:1 -q --platform linux/amd64 --json",
        "inspect --runtime-spec oci:{}/7-8:1 -q --platform linux/amd64",
        "inspect --runtime-spec oci:{}/none:1 -q --platform linux/amd64",
        "inspect --runtime-spec oci:{}/7-none:1 -q --platform linux/amd64 --json",
        "inspect --runtime-spec --raw oci:{}/app:1",
    ];
    check("runtime_configs", &lines.map(|line| place.run(line)));
}
