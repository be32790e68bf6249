//! `docs/benchmarks.md` out of the records, with a drawing for each.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::cases::CASES;
use super::curves::CURVES;
use super::record::{Curve, Record, Records, Row, Taken};
use super::svg;
use crate::result::Result;

/// Writes the page and its drawings into a folder.
pub(crate) fn write(records: &Records, folder: &Path) -> Result<()> {
    let drawings = folder.join("benchmarks");
    fs::create_dir_all(&drawings)?;
    let mut page = "# Benchmarks\n\n\
        Written by `plyfold-bench compare`, which `benches/README.md` explains; the same in `benchmarks.json`. Each case runs \
        all programs in turn, after one run that is not measured; shown are medians, and in how much of a peer's time plyfold \
        is done. A goal is the most that is wanted of that share. Peers that sync nothing are compared as they \
        are: plyfold syncs what it writes, unless a row says `--no-sync`.\n"
        .to_owned();
    for name in CASES.iter().map(|case| case.name) {
        if let Some(record) = records.cases.get(name) {
            fs::write(drawings.join(format!("{name}.svg")), svg::bars(record))?;
            page += &case(name, record);
        }
    }
    if !records.curves.is_empty() {
        page += "\n# Scaling\n\nplyfold alone, by the size of its input. An exponent of 1 is linear.\n";
    }
    for name in CURVES.iter().map(|curve| curve.name) {
        if let Some(record) = records.curves.get(name) {
            fs::write(drawings.join(format!("{name}.svg")), svg::lines(record))?;
            page += &curve(name, record);
        }
    }
    let cases = CASES.iter().map(|case| case.name).filter(|name| !records.cases.contains_key(*name));
    let curves = CURVES.iter().map(|curve| curve.name).filter(|name| !records.curves.contains_key(*name));
    let missing: Vec<String> = cases.chain(curves).map(|name| format!("`{name}`")).collect();
    if !missing.is_empty() {
        let _ = write!(page, "\nNot measured yet: {}.\n", missing.join(", "));
    }
    Ok(fs::write(folder.join("benchmarks.md"), page)?)
}

fn case(name: &str, record: &Record) -> String {
    let mut text = format!(
        "\n## {}\n\n`{name}`: {}. {}.\n\n![{0}](benchmarks/{name}.svg)\n\n\
         | program | time | plyfold's share | CPU | peak memory | written |\n|---|---|---|---|---|---|\n",
        record.title,
        record.input,
        taken(&record.taken)
    );
    let ours = record.rows.first().map_or(0.0, |row| row.cost.wall);
    for (index, row) in record.rows.iter().enumerate() {
        let _ = writeln!(text, "{}", line(row, (index > 0).then_some(ours)));
    }
    let _ = writeln!(text, "\n{}", record.checked);
    let mut versions: Vec<&str> = record.rows.iter().map(|row| row.version.as_str()).collect();
    versions.dedup();
    let _ = writeln!(text, "\nVersions: {}.", versions.join("; "));
    for reason in &record.skipped {
        let _ = writeln!(text, "\nNot measured: {reason}.");
    }
    text
}

/// A line of the table; with the time of plyfold that of a peer.
fn line(row: &Row, ours: Option<f64>) -> String {
    let value = |value: Option<f64>, unit: &str| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0} {unit}"))
    };
    let ratio = ours.map_or_else(String::new, |ours| {
        let ratio = ours / row.cost.wall;
        let missed = |goal| if ratio > goal { ", missed" } else { "" };
        let goal = row.goal.map_or_else(String::new, |goal| format!(" (goal {goal:.2}{})", missed(goal)));
        format!("{ratio:.2}{goal}")
    });
    let cpu = row.cost.cpu.map_or_else(|| "-".to_owned(), svg::seconds);
    format!(
        "| {} | {} | {ratio} | {cpu} | {} | {} |",
        row.name,
        svg::seconds(row.cost.wall),
        value(row.cost.memory, "MiB"),
        value(row.cost.written, "MB")
    )
}

fn curve(name: &str, curve: &Curve) -> String {
    let mut text = format!(
        "\n## {}\n\n`{name}`: {}. {}.\n\n![{0}](benchmarks/{name}.svg)\n\n",
        curve.title,
        curve.version,
        taken(&curve.taken)
    );
    let sizes = curve.lines.first().map(|line| line.points.as_slice()).unwrap_or_default();
    let _ = writeln!(
        text,
        "| {} | {} | exponent |\n|---|{}---|",
        curve.unit,
        sizes.iter().map(|(size, _)| size.to_string()).collect::<Vec<_>>().join(" | "),
        "---|".repeat(sizes.len())
    );
    for line in &curve.lines {
        let is_memory = line.name.ends_with("MiB");
        let shown = |value: f64| if is_memory { format!("{value:.0}") } else { svg::seconds(value) };
        let values: Vec<String> = line.points.iter().map(|(_, value)| shown(*value)).collect();
        let _ = writeln!(text, "| {} | {} | {:.2} |", line.name, values.join(" | "), line.exponent());
    }
    if !curve.reason.is_empty() {
        let _ = writeln!(text, "\n{}", curve.reason);
    }
    text
}

fn taken(taken: &Taken) -> String {
    format!("{}, {}, medians of {}", taken.date, taken.machine, taken.runs)
}

#[cfg(test)]
mod tests {
    use super::super::program::Cost;
    use super::super::record::Line;
    use super::*;

    #[test]
    fn the_page_has_each_record_with_its_drawing() {
        let folder = tempfile::tempdir().unwrap();
        let row = |name: &str, wall, goal| Row {
            name: name.to_owned(),
            cost: Cost { wall, cpu: Some(1.5), ..Cost::default() },
            goal,
            ..Row::default()
        };
        let record = Record {
            title: "Layer".to_owned(),
            rows: vec![row("plyfold", 0.5, None), row("peer", 2.0, Some(0.4)), row("rival", 1.0, Some(0.4))],
            skipped: vec!["crane is missing".to_owned()],
            ..Record::default()
        };
        let mut records = Records::default();
        records.cases.insert(CASES[0].name.to_owned(), record);
        let line = Line { name: "layer".to_owned(), points: vec![(10.0, 0.1), (100.0, 1.0)] };
        let curve = Curve { title: "Entries".to_owned(), lines: vec![line], ..Curve::default() };
        records.curves.insert(CURVES[0].name.to_owned(), curve);
        write(&records, folder.path()).unwrap();
        let page = fs::read_to_string(folder.path().join("benchmarks.md")).unwrap();
        assert!(
            page.contains(&format!("`{}`.\n", CURVES[CURVES.len() - 1].name)),
            "what is missing is listed: {page}"
        );
        assert!(page.contains("| peer | 2.00 s | 0.25 (goal 0.40) | 1.50 s | - | - |"), "{page}");
        assert!(page.contains("| rival | 1.00 s | 0.50 (goal 0.40, missed) | 1.50 s | - | - |"), "{page}");
        assert!(
            page.contains("Not measured: crane is missing.")
                && page.contains("| layer | 0.10 s | 1.00 s | 1.00 |"),
            "{page}"
        );
        assert!(folder.path().join(format!("benchmarks/{}.svg", CASES[0].name)).exists());
    }
}
