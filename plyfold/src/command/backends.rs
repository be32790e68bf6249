//! `backends`: what is linked into the program.

use crate::{Backend, Capabilities, Result};
use serde_json::{Value, json};

use super::places;
use super::screen::{Screen, table};

/// Lists what is linked into this program.
pub(crate) fn list(screen: Screen) -> Result<()> {
    let backends = places::backends()?;
    let documents: Vec<Value> = backends.iter().map(document).collect();
    screen.show(&documents, || {
        let rows: Vec<[String; 3]> = backends
            .iter()
            .map(|backend| {
                [backend.schemes.join(", "), backend.syntax.to_owned(), backend.summary.to_owned()]
            })
            .collect();
        table(["SCHEMES", "IMAGE", "WHAT"], &rows)
    })
}

fn document(backend: &Backend) -> Value {
    let Capabilities { delete, mount, push, referrers, repositories, tags, .. } = backend.capabilities;
    json!({
        "schemes": backend.schemes,
        "syntax": backend.syntax,
        "summary": backend.summary,
        "package": backend.package,
        "capabilities": {
            "delete": delete,
            "mount": mount,
            "push": push,
            "referrers": referrers,
            "repositories": repositories,
            "tags": tags,
        },
    })
}
