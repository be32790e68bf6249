//! What a comparison has found, as it is kept in `docs/benchmarks.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::program::Cost;
use crate::result::Result;

/// The records of all cases and curves, by their names.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Records {
    pub(crate) cases: BTreeMap<String, Record>,
    pub(crate) curves: BTreeMap<String, Curve>,
}

/// One case: plyfold and its peers on the same input.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) title: String,
    pub(crate) taken: Taken,
    pub(crate) input: String,
    /// plyfold is the first.
    pub(crate) rows: Vec<Row>,
    /// Peers that are missing, and why.
    pub(crate) skipped: Vec<String>,
    /// How the outputs were compared.
    pub(crate) checked: String,
}

/// When and where.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Taken {
    pub(crate) date: String,
    pub(crate) machine: String,
    /// How often each program ran.
    pub(crate) runs: usize,
}

/// What one program takes: medians.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) version: String,
    #[serde(flatten)]
    pub(crate) cost: Cost,
    /// At most this share of the row's time is wanted of plyfold.
    pub(crate) goal: Option<f64>,
}

/// plyfold alone, by the size of its input.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Curve {
    pub(crate) title: String,
    pub(crate) taken: Taken,
    pub(crate) version: String,
    /// What is counted on the axis.
    pub(crate) unit: String,
    pub(crate) lines: Vec<Line>,
    /// Why a line is steeper than linear, where one is.
    pub(crate) reason: String,
}

/// Seconds, or MiB, by size.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Records {
    /// Those of a file, none where there is no file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }
}

impl Line {
    /// The exponent of the power of the size that the line follows, by least squares of the logarithms: 1 is linear.
    pub(crate) fn exponent(&self) -> f64 {
        let points: Vec<(f64, f64)> = self.points.iter().map(|(x, y)| (x.ln(), y.max(1e-6).ln())).collect();
        let count = points.len() as f64;
        let (x, y) =
            points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
        let slope = |(over, under), point: &(f64, f64)| {
            (over + (point.0 - x) * (point.1 - y), under + (point.0 - x) * (point.0 - x))
        };
        let (over, under): (f64, f64) = points.iter().fold((0.0, 0.0), slope);
        if under > 0.0 { over / under } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_those_of_powers() {
        let of = |power: i32| {
            let points = [1.0, 2.0, 8.0, 64.0_f64].map(|x| (x, 3.0 * x.powi(power)));
            Line { points: points.to_vec(), ..Line::default() }.exponent()
        };
        for power in [0, 1, 2] {
            assert!((of(power) - f64::from(power)).abs() < 1e-9, "{}", of(power));
        }
        assert!(Line::default().exponent() == 0.0);
    }

    #[test]
    fn records_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.json");
        assert!(Records::read(&path).unwrap().cases.is_empty());
        let mut records = Records::default();
        let row = Row { cost: Cost { wall: 0.5, cpu: Some(1.0), ..Cost::default() }, ..Row::default() };
        records.cases.insert("layer".to_owned(), Record { rows: vec![row], ..Record::default() });
        records.write(&path).unwrap();
        assert_eq!(format!("{:?}", Records::read(&path).unwrap()), format!("{records:?}"));
        fs::write(&path, "{").unwrap();
        assert!(Records::read(&path).is_err());
    }
}
