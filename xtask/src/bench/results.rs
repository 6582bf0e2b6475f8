//! Every sample of a run, as JSON and back, and their medians.

use super::contenders::Rank;
use super::figures::{self, Better, Figure};
use crate::failure::{Failure, Outcome};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What one run found.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// Kernel, processor, cores, congestion control, rounds: by name.
    pub machine: BTreeMap<String, String>,
    /// In the order of the tables.
    pub rows: Vec<Row>,
}

/// One contender.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Cipher, MTU.
    pub setup: String,
    /// Where it stands.
    pub rank: Rank,
    /// Why figures are missing.
    pub notes: Vec<String>,
    /// One list for each figure, in the order of the rounds.
    pub samples: BTreeMap<String, Vec<f64>>,
}

impl Row {
    /// The median of a figure's samples.
    pub fn median(&self, key: &str) -> Option<f64> {
        let mut sorted = self.samples.get(key)?.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            even if even % 2 == 0 => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
            _ => Some(sorted[middle]),
        }
    }
}

impl Results {
    /// The row of that name.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// A median of a row.
    pub fn median(&self, name: &str, key: &str) -> Option<f64> {
        self.row(name)?.median(key)
    }

    /// The best program of others at one figure.
    pub fn best_peer(&self, figure: &Figure) -> Option<(&Row, f64)> {
        let peers = self.rows.iter().filter(|row| row.rank == Rank::Peer);
        let with = peers.filter_map(|row| Some((row, row.median(figure.key)?)));
        with.reduce(|best, next| {
            let wins = match figure.better {
                Better::Higher => next.1 > best.1,
                Better::Lower => next.1 < best.1,
            };
            if wins { next } else { best }
        })
    }

    /// All of it, with medians beside the samples.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(row_to_json).collect();
        json!({ "machine": self.machine, "contenders": rows })
    }

    /// To a file.
    pub fn write(&self, path: &Path) -> Outcome {
        std::fs::write(path, format!("{:#}\n", self.to_json())).map_err(|error| {
            let next = "cargo xtask bench --json FILE";
            Failure::new(format!("{}: {error}", path.display()), next)
        })
    }

    /// An earlier run's file.
    pub fn read(path: &Path) -> Outcome<Self> {
        let failure = |why: String| {
            let next = "cargo xtask bench --json FILE";
            Failure::new(format!("{}: {why}", path.display()), next)
        };
        let text = std::fs::read_to_string(path).map_err(|error| failure(error.to_string()))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| failure(error.to_string()))?;
        Self::from_json(&value).ok_or_else(|| failure("not the results of a benchmark".into()))
    }

    fn from_json(value: &Value) -> Option<Self> {
        let machine = value["machine"].as_object()?.iter();
        Some(Self {
            machine: machine
                .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect::<Option<_>>()?,
            rows: value["contenders"]
                .as_array()?
                .iter()
                .map(row_from_json)
                .collect::<Option<_>>()?,
        })
    }
}

fn row_to_json(row: &Row) -> Value {
    let mut figures = Map::new();
    for (key, samples) in &row.samples {
        let entry = json!({ "median": row.median(key), "samples": samples });
        figures.insert(key.clone(), entry);
    }
    json!({
        "name": row.name,
        "version": row.version,
        "setup": row.setup,
        "rank": rank_name(row.rank),
        "notes": row.notes,
        "figures": figures,
    })
}

fn row_from_json(value: &Value) -> Option<Row> {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let mut samples = BTreeMap::new();
    for (key, entry) in value["figures"].as_object()? {
        let list = entry["samples"].as_array()?;
        let list: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
        samples.insert(figures::find(key)?.key.to_owned(), list?);
    }
    let notes = value["notes"].as_array()?.iter();
    Some(Row {
        name: text("name")?,
        version: text("version")?,
        setup: text("setup")?,
        rank: [Rank::Bare, Rank::Ours, Rank::Peer]
            .into_iter()
            .find(|rank| value["rank"] == rank_name(*rank))?,
        notes: notes
            .map(|note| note.as_str().map(str::to_owned))
            .collect::<Option<_>>()?,
        samples,
    })
}

fn rank_name(rank: Rank) -> &'static str {
    match rank {
        Rank::Bare => "bare",
        Rank::Ours => "ours",
        Rank::Peer => "peer",
    }
}

/// Name, rank and medians of a made-up row.
#[cfg(test)]
pub type MadeUp<'a> = (&'a str, Rank, &'a [(&'a str, f64)]);

/// Made-up results for the tests of what reads them.
#[cfg(test)]
pub fn example(rows: &[MadeUp<'_>]) -> Results {
    let row = |(name, rank, figures): &MadeUp<'_>| Row {
        name: (*name).into(),
        version: "1.0".into(),
        setup: "made up".into(),
        rank: *rank,
        notes: Vec::new(),
        samples: figures
            .iter()
            .map(|(key, value)| ((*key).to_owned(), vec![*value; 5]))
            .collect(),
    };
    Results {
        machine: BTreeMap::from([("kernel".into(), "made up".into())]),
        rows: rows.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_read_back_as_they_were_written() {
        let results = example(&[
            ("veth", Rank::Bare, &[("tcp_gbit_s", 40.0)]),
            ("slow", Rank::Peer, &[("ping_p50_us", 200.0)]),
        ]);
        assert_eq!(Results::from_json(&results.to_json()), Some(results));
        assert_eq!(Results::from_json(&json!({})), None);
    }

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_the_two() {
        let mut results = example(&[("a", Rank::Peer, &[("tcp_gbit_s", 1.0)])]);
        results.rows[0]
            .samples
            .insert("tcp_gbit_s".into(), vec![9.0, 1.0, 2.0]);
        assert_eq!(results.median("a", "tcp_gbit_s"), Some(2.0));
        results.rows[0]
            .samples
            .insert("tcp_gbit_s".into(), vec![9.0, 1.0, 2.0, 3.0]);
        assert_eq!(results.median("a", "tcp_gbit_s"), Some(2.5));
        assert_eq!(results.median("a", "ping_p50_us"), None);
    }

    #[test]
    fn the_best_peer_is_a_peer_and_best_in_the_figure_s_own_sense() {
        let results = example(&[
            (
                "veth",
                Rank::Bare,
                &[("tcp_gbit_s", 40.0), ("ping_p50_us", 20.0)],
            ),
            (
                "a",
                Rank::Peer,
                &[("tcp_gbit_s", 3.0), ("ping_p50_us", 300.0)],
            ),
            (
                "b",
                Rank::Peer,
                &[("tcp_gbit_s", 1.0), ("ping_p50_us", 100.0)],
            ),
        ]);
        let best = |key| results.best_peer(figures::find(key).unwrap()).unwrap();
        assert_eq!(best("tcp_gbit_s").0.name, "a");
        assert_eq!(best("ping_p50_us").0.name, "b");
    }
}
