//! Stores that cannot be written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use plyfold_conformance::oracle::{Aspect, Failure, Mount, Run, Verdict, difference};
use tempfile::TempDir;

pub(crate) fn a_store_on_a_read_only_mount_is_used() -> Verdict {
    let scene = ReadOnly::new()?;
    let mount = Mount::new("none", scene.path("store"), "bind,ro")?;
    scene.judge(mount.path(), Run::new)?;
    mount.unmount()
}

pub(crate) fn a_store_of_someone_else_is_used() -> Verdict {
    let scene = ReadOnly::new()?;
    let nobody = "65534";
    Run::new("chown").args(["-R", nobody]).arg(scene.dir.path()).success()?;
    Run::new("chmod").args(["-R", "a-w"]).arg(scene.path("store")).success()?;
    scene.judge(&scene.path("store"), |program| {
        let user = [format!("--reuid={nobody}"), format!("--regid={nobody}")];
        Run::new("setpriv").args(user).args(["--clear-groups", program])
    })
}

/// A store with the sample, the program, and what it makes of the sample where it may write.
struct ReadOnly {
    dir: TempDir,
}

impl ReadOnly {
    fn new() -> Result<Self, Failure> {
        let scene = Self { dir: tempfile::tempdir()? };
        fs::set_permissions(scene.dir.path(), fs::Permissions::from_mode(0o755))?;
        // Another user may not be allowed to reach the one in the build's directory.
        fs::copy(env!("CARGO_BIN_EXE_plyfold"), scene.path("plyfold"))?;
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/sample:latest");
        let run = |verb: &[&str]| {
            Run::new(env!("CARGO_BIN_EXE_plyfold")).args(verb).arg("--store").arg(scene.path("store"))
        };
        run(&["pull", "--platform", "linux/amd64", &format!("oci:{sample}")]).success()?;
        Run::new("cp").args(["-a"]).arg(scene.path("store")).arg(scene.path("written")).success()?;
        let make = Run::new(env!("CARGO_BIN_EXE_plyfold")).args(MATERIALIZE).arg(scene.path("expected"));
        make.arg("--store").arg(scene.path("written")).success()?;
        fs::create_dir(scene.path("out"))?;
        Ok(scene)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn judge(&self, store: &Path, run: impl Fn(&str) -> Run) -> Verdict {
        let program = self.path("plyfold").display().to_string();
        let run = |line: &[&str]| run(&program).args(line).arg("--store").arg(store);
        let sample = ["--platform", "linux/amd64", "localhost/sample"];
        assert!(run(&["list"]).success()?.stdout.contains("localhost/sample:latest"));
        run(&[&["inspect"], &sample[..]].concat()).success()?;
        run(&["gc", "--dry-run", "--budget", "0"]).success()?;
        run(&[&["pull", "--policy", "never"], &sample[..]].concat()).success()?;
        run(&["verify"]).success()?;
        run(&["verify", "--repair"]).success()?;
        for again in ["first", "second"] {
            let out = self.path("out").join(again);
            run(&[&MATERIALIZE[..], &[out.to_str().unwrap()]].concat()).success()?;
            assert_eq!(
                difference(
                    &self.path("expected"),
                    &out,
                    &[Aspect::Links, Aspect::Mode, Aspect::Mtime, Aspect::Owner]
                )?
                .map(|d| format!("{d:?}")),
                None
            );
        }
        let left: Vec<_> = fs::read_dir(self.path("out"))?.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        let refused = run(&["remove", "localhost/sample"]).output()?;
        assert_eq!(refused.status.code(), Some(1), "{refused}");
        assert!(refused.stderr.contains("hint: "), "{refused}");
        assert!(run(&["list"]).success()?.stdout.contains("localhost/sample:latest"));
        Ok(())
    }
}

const MATERIALIZE: [&str; 9] = [
    "materialize",
    "localhost/sample",
    "--platform",
    "linux/amd64",
    "--as",
    "vmdk",
    "--upper",
    "64M",
    "--out",
];
