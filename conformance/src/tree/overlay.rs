//! What overlayfs makes of layers (Linux, `Documentation/filesystems/overlayfs.rst`).

use std::collections::{BTreeMap, HashMap};

use super::TreeLine;

/// The tree that overlayfs shows of layers in its own form, bottom first: character devices 0:0 hide, and so do
/// directories with `trusted.overlay.opaque`. Link counts are those of the layers.
pub fn overlaid(layers: impl IntoIterator<Item = Vec<TreeLine>>) -> Vec<TreeLine> {
    let mut shown: BTreeMap<Vec<String>, Shown> = BTreeMap::new();
    for (layer, lines) in layers.into_iter().enumerate() {
        let kinds: HashMap<_, _> = lines.iter().map(|line| (line.path.clone(), line.what.clone())).collect();
        for mut line in lines {
            let first = line.what.strip_prefix("= ").unwrap_or(&line.path).to_owned();
            line.what = kinds.get(&first).cloned().unwrap_or_default();
            let opaque = line.xattrs.iter().any(|xattr| xattr == "trusted.overlay.opaque=y");
            line.xattrs.retain(|xattr| !xattr.starts_with("trusted.overlay."));
            let key = key(&line.path);
            let lower = shown.get(&key).map(|shown| shown.line.what.as_str());
            let merges = line.what == "dir" && lower == Some("dir") && !opaque;
            if !merges {
                shown.retain(|other, _| !other.starts_with(&key));
            }
            if line.what != "char 0:0" {
                shown.insert(key, Shown { line, file: (layer, first) });
            }
        }
    }
    named(shown)
}

struct Shown {
    line: TreeLine,
    /// The layer and the first of the file's names in it.
    file: (usize, String),
}

/// The lines in order, hard links by the first name that is left.
fn named(shown: BTreeMap<Vec<String>, Shown>) -> Vec<TreeLine> {
    let mut first_names: HashMap<(usize, String), String> = HashMap::new();
    let lines = shown.into_values().map(|Shown { mut line, file }| {
        match first_names.get(&file) {
            Some(first) => line.what = format!("= {first}"),
            None => drop(first_names.insert(file, line.path.clone())),
        }
        line
    });
    lines.collect()
}

/// The components: in this order a directory's content follows it at once.
fn key(path: &str) -> Vec<String> {
    path.split('/').filter(|component| !component.is_empty()).map(str::to_owned).collect()
}
