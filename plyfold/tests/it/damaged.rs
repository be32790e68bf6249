//! Images whose content is not what its digest says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use plyfold_conformance::samples::{self, LayerBuilder};
use serde_json::Value;

use super::run::{Place, Told};

/// A layout `layout` with an image that the store has, too.
fn place() -> Place {
    let place = Place::new();
    let image = samples::of_layers("app", &[LayerBuilder::new().file("file", 0o644, b"content").finish()]);
    let layout = place.path("layout");
    samples::write_layout(layout.as_ref(), &[("localhost/app:1".to_owned(), &image)]).unwrap();
    assert_eq!(place.told("load {}/layout").code, Some(0));
    place
}

/// Changes the largest blob of a layout, which is the layer.
fn damage(layout: &str) {
    let blobs = fs::read_dir(Path::new(layout).join("blobs/sha256")).unwrap();
    let largest = blobs.map(|entry| entry.unwrap().path()).max_by_key(|path| path.metadata().unwrap().len());
    let largest = largest.unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[100] ^= 1;
    fs::set_permissions(&largest, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&largest, bytes).unwrap();
}

/// The hint of an error that says that content is damaged.
fn hint(line: &str, told: &Told) -> Value {
    assert!(told.is_refused("corrupt") && told.code == Some(5), "{line}: {told:?}");
    told.error["hint"].clone()
}

/// The hint is that of a repair where the store is damaged, and another one where another place is.
#[test]
fn damage_is_told_with_what_can_be_done() {
    let (place, other) = (place(), place());
    damage(&place.path("store"));
    let hint_of = |place: &Place, line: &str| hint(line, &place.told(line));
    let repair = hint_of(&place, "ls localhost/app:1");
    for line in [
        "save localhost/app:1 --out {}/saved.tar",
        "push localhost/app:1 oci:{}/to:1",
        "push localhost/app:1 oci-archive:{}/to.tar:1",
        "sync store {}/synced.tar",
    ] {
        assert_eq!(hint_of(&place, line), repair, "{line}");
    }
    assert!(place.run("cat localhost/app:1 file").contains("[exit 5]"));
    // It is not in the store then, and no registry has it.
    let again = hint_of(&place, "materialize localhost/app:1 --as erofs --out {}/vm");
    assert_ne!(again, repair);
    assert_eq!(hint_of(&place, "ls localhost/app:1"), again);
    assert_eq!(place.told("load {}/layout").code, Some(0));
    assert_eq!(place.told("materialize localhost/app:1 --as erofs --out {}/vm").code, Some(0));

    damage(&other.path("layout"));
    for line in [
        "copy oci:{}/layout:localhost/app:1 oci:{}/to:1",
        "sync {}/layout {}/synced.tar",
        "save oci:{}/layout:localhost/app:1 --out {}/saved.tar",
        "load {}/layout --store {}/other",
        "ls oci:{}/layout:localhost/app:1 --store {}/other",
    ] {
        let said = hint_of(&other, line);
        assert!(said != repair && said != again, "{line}");
    }
}
