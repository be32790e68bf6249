//! `backends`: what is linked into the program.

use crate::{Backend, Result};
use serde_json::{Value, json};

use super::context;
use super::terminal::{Terminal, table};

/// Lists what is linked into this program.
pub(crate) fn list(terminal: Terminal) -> Result<()> {
    let backends = context::backends()?;
    let documents: Vec<Value> = backends.iter().map(document).collect();
    terminal.show(&documents, || {
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
    json!({
        "schemes": backend.schemes,
        "syntax": backend.syntax,
        "summary": backend.summary,
        "package": backend.package,
        "capabilities": backend.capabilities,
    })
}
