//! The results as pictures: one SVG for each figure, a bar for each contender, the median as its
//! length and a line from the least to the most of the samples.
//!
//! Written by hand, because bars and labels need no library.

use super::contenders::Rank;
use super::figures::{self, Better, Figure};
use super::results::{Results, Row};
use crate::failure::{Failure, Outcome};
use std::fmt::Write as _;
use std::path::Path;

const WIDTH: f64 = 760.0;
const LABEL_WIDTH: f64 = 150.0;
const VALUE_WIDTH: f64 = 90.0;
const BAR_HEIGHT: f64 = 20.0;
const ROW_HEIGHT: f64 = 28.0;
const HEAD_HEIGHT: f64 = 44.0;

/// Writes them all and says how many.
pub fn write(results: &Results, directory: &Path) -> Outcome<usize> {
    let failure = |error: std::io::Error| {
        let next = "cargo xtask bench --svg DIRECTORY";
        Failure::new(format!("{}: {error}", directory.display()), next)
    };
    std::fs::create_dir_all(directory).map_err(failure)?;
    let mut written = 0;
    for figure in figures::ALL {
        if let Some(picture) = picture(results, figure) {
            let file = directory.join(format!("{}.svg", figure.key));
            std::fs::write(file, picture).map_err(failure)?;
            written += 1;
        }
    }
    Ok(written)
}

/// None where nobody has the figure.
fn picture(results: &Results, figure: &Figure) -> Option<String> {
    let rows: Vec<(&Row, f64)> = results
        .rows
        .iter()
        .filter_map(|row| Some((row, row.median(figure.key)?)))
        .collect();
    // The cable would make all others short, so it has no bar: its figure stands beside the title.
    let bars = |row: &Row| row.rank != Rank::Bare;
    let longest = |(row, _): &(&Row, f64)| spread(row, figure.key).1;
    let most = rows.iter().filter(|(row, _)| bars(row)).map(longest);
    let most = most.reduce(f64::max)?.max(f64::MIN_POSITIVE);
    let scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / most;
    let count = rows.iter().filter(|(row, _)| bars(row)).count();
    let height = HEAD_HEIGHT + ROW_HEIGHT * count as f64 + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let better = match figure.better {
        Better::Higher => "longer is better",
        Better::Lower => "shorter is better",
    };
    let bare = rows.iter().find(|(row, _)| row.rank == Rank::Bare);
    let bare = bare.map_or(String::new(), |(row, median)| {
        format!("; {} {median:.*}", row.name, figure.digits)
    });
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        svg,
        "<text x=\"8\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>\n\
         <text x=\"8\" y=\"37\" fill=\"#555\">{better}{bare}</text>",
        escaped(figure.title)
    );
    let shown = rows.iter().filter(|(row, _)| bars(row));
    for (index, (row, median)) in shown.enumerate() {
        bar(&mut svg, figure, row, *median, index, scale);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn bar(svg: &mut String, figure: &Figure, row: &Row, median: f64, index: usize, scale: f64) {
    let top = HEAD_HEIGHT + ROW_HEIGHT * index as f64;
    let (middle, baseline) = (top + BAR_HEIGHT / 2.0, top + BAR_HEIGHT * 0.72);
    let colour = if row.rank == Rank::Ours {
        "#1f6f54"
    } else {
        "#9aa5b1"
    };
    let (least, most) = spread(row, figure.key);
    let at = |value: f64| LABEL_WIDTH + value * scale;
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\">{}</text>\n\
         <rect x=\"{LABEL_WIDTH}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>\n\
         <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#222\"/>\n\
         <text x=\"{:.1}\" y=\"{baseline:.1}\">{median:.*}</text>",
        LABEL_WIDTH - 8.0,
        escaped(&row.name),
        median * scale,
        at(least),
        at(most),
        at(most) + 8.0,
        figure.digits,
    );
}

/// The least and the most of a row's samples.
fn spread(row: &Row, key: &str) -> (f64, f64) {
    let samples = row.samples.get(key).map_or(&[][..], Vec::as_slice);
    let least = samples.iter().copied().reduce(f64::min).unwrap_or(0.0);
    let most = samples.iter().copied().reduce(f64::max).unwrap_or(0.0);
    (least, most)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::results::example;
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_figures_and_the_cable_has_none() {
        let results = example(&[
            ("veth", Rank::Bare, &[("tcp_gbit_s", 40.0)]),
            ("shadowmesh", Rank::Ours, &[("tcp_gbit_s", 10.0)]),
            ("a<b", Rank::Peer, &[("tcp_gbit_s", 5.0)]),
        ]);
        let svg = picture(&results, figures::find("tcp_gbit_s").unwrap()).unwrap();
        assert!(svg.contains("width=\"520.0\"") && svg.contains("width=\"260.0\""));
        assert!(svg.contains("veth 40.00") && svg.contains("a&lt;b"));
        assert_eq!(
            picture(&results, figures::find("ping_p50_us").unwrap()),
            None
        );
    }
}
