//! Bars and lines as SVG, with colours for light and dark pages.

use std::fmt::Write as _;

use super::record::{Curve, Record};

const WIDTH: f64 = 760.0;
const COLOURS: [&str; 6] = ["#2f6fde", "#d9730d", "#2e9e5b", "#a04ac7", "#c2385a", "#7a7f87"];

/// A bar for each program, by its time.
pub(crate) fn bars(record: &Record) -> String {
    let longest = record.rows.iter().map(|row| row.cost.wall).fold(f64::MIN_POSITIVE, f64::max);
    let mut body = String::new();
    for (index, row) in record.rows.iter().enumerate() {
        let top = 34.0 + index as f64 * 26.0;
        let length = (row.cost.wall / longest * 380.0).max(1.0);
        let colour = if index == 0 { COLOURS[0] } else { COLOURS[5] };
        let _ = writeln!(
            body,
            r#"<text x="250" y="{:.1}" text-anchor="end">{}</text><rect x="258" y="{top:.1}" width="{length:.1}" height="18" fill="{colour}"/><text x="{:.1}" y="{:.1}">{}</text>"#,
            top + 14.0,
            escaped(&row.name),
            264.0 + length,
            top + 14.0,
            seconds(row.cost.wall)
        );
    }
    drawing(&record.title, 46.0 + record.rows.len() as f64 * 26.0, &body)
}

/// A line for each part of a curve, both axes by powers of ten.
pub(crate) fn lines(curve: &Curve) -> String {
    let points = || curve.lines.iter().flat_map(|line| &line.points);
    let decades = |value: fn(&(f64, f64)) -> f64| {
        let logs: Vec<f64> = points().map(|point| value(point).max(1e-6).log10()).collect();
        let (low, high) =
            logs.iter().fold((f64::MAX, f64::MIN), |(low, high), log| (low.min(*log), high.max(*log)));
        if logs.is_empty() { (0.0, 1.0) } else { (low.floor(), high.ceil().max(low.floor() + 1.0)) }
    };
    let (across, up) = (decades(|point| point.0), decades(|point| point.1));
    let at_x = |x: f64| 80.0 + (x.max(1e-6).log10() - across.0) / (across.1 - across.0) * 440.0;
    let at_y = |y: f64| 290.0 - (y.max(1e-6).log10() - up.0) / (up.1 - up.0) * 250.0;
    let mut body = String::new();
    for decade in across.0 as i32..=across.1 as i32 {
        let x = at_x(10_f64.powi(decade));
        let label = short(10_f64.powi(decade));
        let _ = writeln!(
            body,
            r#"<path d="M{x:.1} 40V290" class="grid"/><text x="{x:.1}" y="306" text-anchor="middle">{label}</text>"#
        );
    }
    for decade in up.0 as i32..=up.1 as i32 {
        let y = at_y(10_f64.powi(decade));
        let label = short(10_f64.powi(decade));
        let _ = writeln!(
            body,
            r#"<path d="M80 {y:.1}H520" class="grid"/><text x="74" y="{:.1}" text-anchor="end">{label}</text>"#,
            y + 4.0
        );
    }
    for (index, line) in curve.lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let path: Vec<String> =
            line.points.iter().map(|(x, y)| format!("{:.1} {:.1}", at_x(*x), at_y(*y))).collect();
        let _ = writeln!(
            body,
            r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.join("L")
        );
        for point in &path {
            let (x, y) = point.split_once(' ').unwrap_or_default();
            let _ = writeln!(body, r#"<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>"#);
        }
        let y = 50.0 + index as f64 * 20.0;
        let _ = writeln!(
            body,
            r#"<rect x="536" y="{:.1}" width="12" height="12" fill="{colour}"/><text x="554" y="{y:.1}">{} (exponent {:.2})</text>"#,
            y - 10.0,
            escaped(&line.name),
            line.exponent()
        );
    }
    let _ = writeln!(body, r#"<text x="300" y="324" text-anchor="middle">{}</text>"#, escaped(&curve.unit));
    drawing(&curve.title, 334.0, &body)
}

/// A file of its own: text and lines follow the reader's colours.
fn drawing(title: &str, height: f64, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>text{{font:13px system-ui,sans-serif;fill:#1f2328}}.grid{{stroke:#8884;stroke-width:1}}\
         @media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}}}</style>\n\
         <text x=\"8\" y=\"20\" font-weight=\"bold\">{title}</text>\n{body}</svg>\n"
    )
}

/// A time with three digits.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        0.0..0.1 => format!("{:.1} ms", seconds * 1000.0),
        0.1..10.0 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.1} s"),
    }
}

fn short(value: f64) -> String {
    match value {
        1e9.. => format!("{}G", value / 1e9),
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        _ => format!("{value}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::record::{Line, Row};
    use super::*;

    #[test]
    fn drawings_name_what_they_show() {
        let row = |name: &str| Row { name: name.to_owned(), ..Row::default() };
        let record =
            Record { title: "a < b".to_owned(), rows: vec![row("ours"), row("A & B")], ..Record::default() };
        let drawn = bars(&record);
        assert!(
            drawn.contains("a &lt; b") && drawn.contains("A &amp; B") && drawn.matches("<rect").count() == 2
        );
        let line = Line { name: "find".to_owned(), points: vec![(1.0, 0.001), (1000.0, 1.0)] };
        let drawn = lines(&Curve { lines: vec![line], ..Curve::default() });
        assert!(drawn.contains("find (exponent 1.00)") && drawn.contains(">1k<"), "{drawn}");
        assert!(!lines(&Curve::default()).contains("NaN"));
    }
}
