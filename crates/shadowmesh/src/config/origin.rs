//! Where a value came from, and errors that point there.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A configuration file as read, kept for error messages.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// As the user named it.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// These bytes of a file.
    File(Arc<Source>, Range<usize>),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// Nobody set it.
    Default,
}

impl Origin {
    /// The same place, and what stands there made unreadable: it is shown with every problem.
    pub(super) fn blotted(&self) -> Self {
        let Self::File(source, span) = self else {
            return self.clone();
        };
        let mut text = source.text.clone();
        text.replace_range(span.clone(), &"*".repeat(span.len()));
        let path = source.path.clone();
        Self::File(Arc::new(Source { path, text }), span.clone())
    }
}

/// A place in a text, counted from 1; columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// line
    pub line: usize,
    /// column
    pub column: usize,
}

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What, naming the key.
    pub what: String,
    /// What would be right, one line each.
    pub notes: Vec<String>,
}

/// Everything wrong with the configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of the file.
    pub problems: Vec<Problem>,
}

impl Problem {
    /// A problem without notes yet.
    pub fn new(origin: &Origin, what: impl Into<String>) -> Self {
        Self {
            origin: origin.clone(),
            what: what.into(),
            notes: Vec::new(),
        }
    }

    /// Adds a line that helps.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds "did you mean …?" when there is a likely candidate.
    pub fn did_you_mean<'a>(self, written: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match super::suggest::nearest(written, known) {
            Some(best) => self.note(format!("did you mean `{best}`?")),
            None => self,
        }
    }
}

impl ConfigError {
    /// Problems in the order of the file, then those of variables and flags. `None` without any.
    pub fn of(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by_key(|problem| match &problem.origin {
            Origin::File(_, span) => span.start,
            _ => usize::MAX,
        });
        (!problems.is_empty()).then_some(Self { problems })
    }
}

impl Source {
    /// Line and column of a byte offset; offsets past the end give the end.
    pub fn position(&self, offset: usize) -> Position {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let start_of_line = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[start_of_line..].chars().count() + 1,
        }
    }

    fn line(&self, number: usize) -> &str {
        self.text.lines().nth(number - 1).unwrap_or("")
    }
}

impl Origin {
    /// Line and column, when it is in a file.
    pub fn position(&self) -> Option<Position> {
        match self {
            Origin::File(source, span) => Some(source.position(span.start)),
            _ => None,
        }
    }
}

/// `FILE:LINE:COLUMN`, or the variable, or the flag.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(source, span) => {
                let at = source.position(span.start);
                write!(f, "{}:{}:{}", source.path.display(), at.line, at.column)
            }
            Origin::Variable(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
            Origin::Default => f.write_str("built-in default"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        write!(f, "  --> {}", self.origin)?;
        if let Origin::File(source, span) = &self.origin {
            write_excerpt(f, source, span)?;
        }
        for note in &self.notes {
            write!(f, "\n   = {note}")?;
        }
        Ok(())
    }
}

/// The line of the file with carets under the wrong part.
fn write_excerpt(f: &mut fmt::Formatter<'_>, source: &Source, span: &Range<usize>) -> fmt::Result {
    let at = source.position(span.start);
    let line = source.line(at.line);
    let room = line.chars().count().saturating_sub(at.column - 1);
    let length = source
        .text
        .get(span.clone())
        .map_or(1, |text| text.chars().count());
    let carets = "^".repeat(length.clamp(1, room.max(1)));
    let gutter = at.line.to_string();
    // Tabs stay tabs so that the carets stand under the text whatever the tab width is.
    let indent: String = line
        .chars()
        .take(at.column - 1)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let blank = " ".repeat(gutter.len());
    write!(
        f,
        "\n {blank} |\n {gutter} | {line}\n {blank} | {indent}{carets}"
    )
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source {
            path: "a.toml".into(),
            text: text.into(),
        }
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = source("a = 1\nü = 2\n");
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(9), Position { line: 2, column: 3 });
        assert_eq!(source.position(999), Position { line: 3, column: 1 });
    }

    #[test]
    fn a_problem_shows_the_line_with_carets_under_the_wrong_part() {
        let source = Arc::new(source("[node]\nlisten = 5\n"));
        let problem = Problem::new(&Origin::File(source, 16..17), "wrong").note("right");
        let expected =
            "wrong\n  --> a.toml:2:10\n   |\n 2 | listen = 5\n   |          ^\n   = right";
        assert_eq!(problem.to_string(), expected);
    }
}
