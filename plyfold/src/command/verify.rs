//! `verify`: reads and checks the content of the store.

use std::fmt::Write as _;

use crate::cache::{Damage, DamagedPart, Remains};
use crate::{Error, Reference, Result, Verified, Verify, printable};
use serde_json::{Value, json};

use super::program;
use super::progress::Doing;
use super::session::Session;
use super::size::Size;
use super::store_admin::{counted, leftovers};

/// Reads images, or everything, again; an error when something is damaged or missing afterwards.
pub(crate) async fn check(session: &Session, images: &[String], repair: bool) -> Result<()> {
    let names = session.known(images).await?;
    let images = (!names.is_empty()).then_some(names);
    let verified = session
        .context
        .telling(Doing::Fetch, |progress| async move {
            session.images.verify(&Verify { images, repair, progress }).await
        })
        .await?;
    session.terminal.show(&document(&verified), || text(&verified))?;
    outcome(&verified)
}

fn document(verified: &Verified) -> Value {
    let damage = verified.damage.iter().map(|damage| {
        let (mut document, ..) = part(damage);
        document["reason"] = damage.reason.clone().into();
        document["images"] = damage.images.iter().map(Reference::whole).collect();
        document["repaired"] = damage.repaired.into();
        document
    });
    json!({
        "checked": verified.checked,
        "bytes": verified.bytes,
        "damage": damage.collect::<Vec<_>>(),
        "remains": verified.remains,
    })
}

/// What is damaged: as JSON, in words, and what a repair does to it.
fn part(damage: &Damage) -> (Value, String, &'static str) {
    match &damage.part {
        DamagedPart::Artifact(format, diff_id) => (
            json!({ "part": "artifact", "format": format, "diff_id": diff_id }),
            format!("{format} of {diff_id}"),
            "removed: it is made again when it is needed",
        ),
        DamagedPart::Blob(digest) => {
            (json!({ "part": "blob", "digest": digest }), format!("blob {digest}"), "moved to quarantine")
        }
        DamagedPart::Missing(digest) => {
            (json!({ "part": "missing", "digest": digest }), format!("missing {digest}"), "replaced")
        }
        DamagedPart::Names => (json!({ "part": "names" }), "names, in index.json".to_owned(), "replaced"),
        _ => (json!({ "part": "other" }), "something else".to_owned(), "replaced"),
    }
}

fn text(verified: &Verified) -> String {
    let mut text = String::new();
    for damage in &verified.damage {
        let (_, what, done) = part(damage);
        let _ = writeln!(text, "{what}\n  {}", printable(&damage.reason));
        for image in &damage.images {
            let _ = writeln!(text, "  needed by {}", printable(&image.whole()));
        }
        if damage.repaired {
            let _ = writeln!(text, "  {done}");
        }
    }
    let files = counted(verified.checked, "file", "files");
    let _ = write!(text, "{files} read, {}: ", Size(verified.bytes));
    let repaired = verified.damage.iter().filter(|damage| damage.repaired).count();
    let _ = match (verified.damage.len(), repaired) {
        (0, _) => writeln!(text, "nothing is damaged"),
        (damaged, 0) => writeln!(text, "{damaged} damaged or missing"),
        (damaged, repaired) => writeln!(text, "{damaged} damaged or missing, {repaired} repaired"),
    };
    text + &left(verified.remains)
}

/// Leftovers of killed processes, which are not damage.
fn left(remains: Remains) -> String {
    let Remains { count, bytes, removed } = remains;
    let what = leftovers(count);
    match count - removed.min(count) {
        0 if count == 0 => String::new(),
        0 => format!("{what}, {}, removed\n", Size(bytes)),
        _ => program::named(&format!("{what}, {}: no damage, `plyfold gc` removes them\n", Size(bytes))),
    }
}

/// Whether everything is complete now: quarantined content that an image needs is missing.
fn outcome(verified: &Verified) -> Result<()> {
    let is_missing = |damage: &Damage| match damage.part {
        DamagedPart::Missing(_) => true,
        DamagedPart::Blob(_) => damage.repaired && !damage.images.is_empty(),
        _ => false,
    };
    let damaged = verified.damage.iter().filter(|damage| !damage.repaired && !is_missing(damage)).count();
    let missing = verified.damage.iter().filter(|damage| is_missing(damage)).collect::<Vec<_>>();
    if damaged > 0 {
        let error = Error::corrupt("the store is damaged");
        return Err(error.with_hint("`plyfold verify --repair` quarantines what is damaged"));
    }
    let Some(image) = missing.iter().find_map(|damage| damage.images.first()) else { return Ok(()) };
    let error = Error::corrupt("what an image needs is missing").with_image(image);
    Err(error.with_hint(format!("`plyfold pull {image}` fetches what is missing")))
}
