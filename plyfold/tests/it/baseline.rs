//! Expected files: compared, or written anew when `PLYFOLD_BLESS` is set.

use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Compares `actual` with the file at `path`, relative to the workspace.
pub(crate) fn check(path: impl AsRef<Path>, actual: &[u8]) {
    let path: PathBuf = root().join(path);
    if std::env::var_os("PLYFOLD_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, actual).unwrap();
        return;
    }
    let how = "`PLYFOLD_BLESS=1 cargo test -p plyfold` accepts what is new";
    let expected = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; {how}", path.display()));
    assert!(
        expected == actual,
        "{} differs; {how}\n--- expected\n{}\n--- actual\n{}",
        path.display(),
        String::from_utf8_lossy(&expected),
        String::from_utf8_lossy(actual)
    );
}
