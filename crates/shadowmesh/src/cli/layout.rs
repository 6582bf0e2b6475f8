//! Text that fits the terminal: tables that drop and wrap columns, and labelled lines that wrap.
//!
//! One rule for all verbs: no line is longer than the terminal is wide, or than 80 columns where there is
//! no terminal to ask; `COLUMNS` overrules both, and `--wide` lifts the limit. A table first gives up the
//! columns that matter least and names them below; then the columns that may be wrapped share what is left.

use std::fmt::Write as _;

use shadowmesh_io::terminal;

/// Where there is no terminal to ask.
const COLUMNS_DEFAULT: usize = 80;
/// A narrower terminal is treated as one of this width: less holds no table.
const COLUMNS_MIN: usize = 40;
/// Between two columns.
const GAP: usize = 2;

/// How many columns a line may have; `None`: as many as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width(pub Option<usize>);

impl Width {
    /// That of standard output.
    pub fn of_output(wide: bool) -> Self {
        if wide {
            return Self(None);
        }
        let written = std::env::var("COLUMNS").ok();
        let written = written.and_then(|text| text.trim().parse().ok());
        let asked = || terminal::columns(&std::io::stdout()).ok().flatten();
        let columns = written.or_else(|| asked().map(usize::from));
        Self(Some(columns.unwrap_or(COLUMNS_DEFAULT).max(COLUMNS_MIN)))
    }

    /// Text after a label, wrapped so that all of it stands beside the label: `label` is part of the first line
    /// and leaves its width free before the others.
    pub fn hang(self, label: &str, text: &str) -> String {
        let indent = label.chars().count();
        let room = self.0.map(|columns| columns.saturating_sub(indent));
        let mut lines = wrap(text, room).into_iter();
        let mut out = format!("{label}{}\n", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(out, "{:indent$}{line}", "");
        }
        out
    }
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Column {
    heading: &'static str,
    /// 0: always there. The highest is the first that is left out.
    rank: u8,
    /// It may be wrapped, but not to less than this.
    room_min: Option<usize>,
}

impl Column {
    /// One that is always there, in one piece.
    pub const fn new(heading: &'static str) -> Self {
        Self {
            heading,
            rank: 0,
            room_min: None,
        }
    }

    /// One that may be left out; the highest rank goes first.
    pub const fn rank(mut self, rank: u8) -> Self {
        self.rank = rank;
        self
    }

    /// One that may be wrapped to this width.
    pub const fn wraps(mut self, room_min: usize) -> Self {
        self.room_min = Some(room_min);
        self
    }
}

/// Rows under a heading, in columns as wide as their widest cell, two spaces between.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with a cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// As it is printed. What is left out is named in a last line.
    pub fn to_text(&self, width: Width) -> String {
        let widest = |n: usize| {
            let cells = self.rows.iter().map(|row| row[n].chars().count());
            let heading = self.columns[n].heading.chars().count();
            cells.chain([heading]).max().unwrap_or(0)
        };
        let natural: Vec<usize> = (0..self.columns.len()).map(widest).collect();
        let shown = self.shown(&natural, width);
        let rooms = self.rooms(&shown, &natural, width);
        let rooms = self.tightened(&shown, &rooms);
        let headings: Vec<&str> = self.columns.iter().map(|column| column.heading).collect();
        let mut text = write_row(&headings, &shown, &rooms);
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            text += &write_row(&cells, &shown, &rooms);
        }
        let left_out = (0..self.columns.len()).filter(|n| !shown.contains(n));
        let left_out: Vec<String> = left_out
            .map(|n| self.columns[n].heading.to_lowercase())
            .collect();
        if !left_out.is_empty() {
            text += &width.hang("(--wide adds ", &format!("{})", left_out.join(", ")));
        }
        text
    }

    /// The columns that fit, where each takes the least it may.
    fn shown(&self, natural: &[usize], width: Width) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let Width(Some(limit)) = width else {
            return shown;
        };
        let least = |n: usize| {
            let room = self.columns[n].room_min.unwrap_or(natural[n]);
            room.min(natural[n])
        };
        while shown.iter().map(|n| least(*n) + GAP).sum::<usize>() > limit + GAP {
            let Some(last) = shown.iter().rposition(|n| {
                let ranks = shown.iter().map(|n| self.columns[*n].rank);
                let highest = ranks.max().unwrap_or(0);
                highest > 0 && self.columns[*n].rank == highest
            }) else {
                break;
            };
            shown.remove(last);
        }
        shown
    }

    /// What the wrapped cells really take.
    fn tightened(&self, shown: &[usize], rooms: &[usize]) -> Vec<usize> {
        let taken = |n: usize, room: usize| {
            let cells = self.rows.iter().map(|row| row[n].as_str());
            let lines = cells.chain([self.columns[n].heading]);
            let lines = lines.flat_map(|cell| wrap(cell, Some(room)));
            lines.map(|line| line.chars().count()).max().unwrap_or(0)
        };
        shown
            .iter()
            .zip(rooms)
            .map(|(n, room)| taken(*n, *room))
            .collect()
    }

    /// How wide each shown column becomes: those that may be wrapped give, the widest first.
    fn rooms(&self, shown: &[usize], natural: &[usize], width: Width) -> Vec<usize> {
        let mut rooms: Vec<usize> = shown.iter().map(|n| natural[*n]).collect();
        let Width(Some(limit)) = width else {
            return rooms;
        };
        while rooms.iter().map(|room| room + GAP).sum::<usize>() > limit + GAP {
            let gives = |at: &usize| {
                let least = self.columns[shown[*at]].room_min;
                least.is_some_and(|least| rooms[*at] > least)
            };
            let candidates = (0..rooms.len()).filter(gives);
            let Some(widest) = candidates.max_by_key(|at| rooms[*at]) else {
                break;
            };
            rooms[widest] -= 1;
        }
        rooms
    }
}

/// One row, in as many lines as its longest cell takes.
fn write_row(cells: &[&str], shown: &[usize], rooms: &[usize]) -> String {
    let wrapped: Vec<Vec<String>> = shown
        .iter()
        .zip(rooms)
        .map(|(n, room)| wrap(cells[*n], Some(*room)))
        .collect();
    let height = wrapped.iter().map(Vec::len).max().unwrap_or(1);
    let mut text = String::new();
    for line in 0..height {
        let mut row = String::new();
        for (cell, room) in wrapped.iter().zip(rooms) {
            let piece = cell.get(line).map_or("", String::as_str);
            let _ = write!(row, "{piece:<room$}{:GAP$}", "");
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

/// Lines of whole words; a word longer than a line is cut. Always at least one line.
pub fn wrap(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room.map(|room| room.max(1)) else {
        return vec![text.into()];
    };
    let (mut lines, mut line, mut len) = (Vec::new(), String::new(), 0);
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if len > 0 && len + 1 + word.len() > room {
            lines.push(std::mem::take(&mut line));
            len = 0;
        } else if len > 0 {
            line.push(' ');
            len += 1;
        }
        while word.len() > room {
            let rest = word.split_off(room);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        len += word.len();
        line.extend(word);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = [
            Column::new("NAME"),
            Column::new("PATH").wraps(6),
            Column::new("RTT").rank(1),
            Column::new("EPOCH").rank(2),
        ];
        let mut table = Table::new(columns);
        table.row([
            "long".into(),
            "direct 192.0.2.7".into(),
            "1 ms".into(),
            "7".into(),
        ]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_where_there_is_room() {
        let text = table().to_text(Width(None));
        let expected = "NAME  PATH              RTT   EPOCH\nlong  direct 192.0.2.7  1 ms  7\n";
        assert_eq!(text, expected);
        assert_eq!(table().to_text(Width(Some(35))), expected);
    }

    #[test]
    fn what_matters_least_goes_first_and_is_named_then_cells_are_wrapped() {
        let text = table().to_text(Width(Some(24)));
        assert_eq!(
            text,
            "NAME  PATH       RTT\nlong  direct     1 ms\n      192.0.2.7\n(--wide adds epoch)\n"
        );
    }

    #[test]
    fn no_line_is_ever_longer_than_the_width() {
        for columns in 20..60 {
            let text = table().to_text(Width(Some(columns)));
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(columns), "{columns}:\n{text}");
        }
        let text = Width(Some(30)).hang(
            "label  ",
            "some words that go on and oneveryveryverylongwordhere",
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 30),
            "{text}"
        );
        assert!(
            text.lines().skip(1).all(|line| line.starts_with("       ")),
            "{text}"
        );
    }
}
