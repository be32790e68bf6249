//! The tables of `README.md`, generated from what is linked and what features there are.

use std::fmt::Write as _;
use std::fs;

use plyfold::materializers::ext4;
use plyfold::{Backends, Caches, Materializer as _, Materializers, Options};

use super::baseline;

#[test]
fn the_tables_are_those_of_the_code() {
    let mut text = fs::read_to_string(baseline::root().join("README.md")).unwrap();
    for (name, table) in
        [("schemes", schemes()), ("formats", formats()), ("stores", stores()), ("features", features())]
    {
        let (before, rest) = text.split_once(&format!("<!-- {name}:")).expect(name);
        let (note, rest) = rest.split_once('\n').unwrap();
        let (_, after) = rest.split_once("<!-- end -->").expect(name);
        text = format!("{before}<!-- {name}:{note}\n{table}<!-- end -->{after}");
    }
    baseline::check("README.md", text.as_bytes());
}

fn schemes() -> String {
    // What no user of the command can use is for the library's documentation; `folder:` is linked by these tests.
    let rows = Backends::linked().unwrap().without("memory").without("folder");
    let rows = rows.iter().map(|backend| {
        let schemes: Vec<String> = backend.schemes.iter().map(|scheme| format!("`{scheme}:`")).collect();
        [schemes.join(", "), format!("`{}`", backend.syntax), backend.summary.to_owned()]
    });
    table(["scheme", "image", "what"], rows)
}

fn formats() -> String {
    let linked = Materializers::linked().unwrap();
    let rows = linked.iter().map(|entry| {
        let format = linked.open(entry.name, &Options::default()).unwrap().format();
        let layer = if entry.name == "erofs-layers" { ", `layer`" } else { "" };
        let how = format!("`--as {}`{layer}", entry.name);
        [format!("{} {}", format.name, format.version), how, entry.summary.to_owned()]
    });
    // Guests write to it, so it is no format that files of the cache are linked from.
    let upper = ext4::Ext4Upper::new(ext4::MIN_SIZE).unwrap().format();
    let what = "an empty ext4 disk, sparse, to be the upper of an overlay";
    let upper =
        [format!("{} {}", upper.name, upper.version), "`--upper SIZE`, `disk`".to_owned(), what.to_owned()];
    table(["format", "made by", "what"], rows.chain([upper]))
}

fn stores() -> String {
    let linked = Caches::linked().unwrap().without("memory");
    let rows = linked.iter().map(|entry| {
        let schemes: Vec<String> = entry.schemes.iter().map(|scheme| format!("`{scheme}:`")).collect();
        [schemes.join(", "), format!("`{}`", entry.syntax), entry.summary.to_owned()]
    });
    table(["scheme", "store", "what"], rows)
}

/// The features in `Cargo.toml`, each with the comment that ends its line.
fn features() -> String {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("[features]\n").unwrap();
    let (section, _) = rest.split_once("\n[").unwrap();
    let documented = section.lines().filter(|line| !line.starts_with("default")).filter_map(|line| {
        let (name, rest) = line.split_once(" = ")?;
        let (_, what) = rest.split_once("# ").unwrap_or_else(|| panic!("{name} has no comment"));
        Some([format!("`{name}`"), what.to_owned()])
    });
    table(["feature", "brings"], documented)
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(N));
    for row in rows {
        writeln!(text, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | ")).unwrap();
    }
    text
}
