//! The TOML file into [`Layers`]: which keys stand where. Values are understood in `assemble`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::layers::{Entry, Fields, Item, Layers, Setting};
use super::origin::{Origin, Problem, Source};
use super::schema::{self, Key, Section, Shape};

/// Reads the text of a configuration file. Everything wrong with its keys is pushed to `problems`;
/// what is right is returned all the same, so that values are checked in the same run.
pub fn parse(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Layers {
    let source = Arc::new(Source {
        path: path.into(),
        text: text.into(),
    });
    let mut reader = Reader {
        source: source.clone(),
        problems,
        layers: Layers::default(),
    };
    match DeTable::parse(text) {
        Ok(document) => reader.document(document.get_ref()),
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            let what = format!("not valid TOML: {}", error.message());
            let note = r#"text stands in quotes, lists in brackets: name = "vps", address = ["192.0.2.7:4433"]"#;
            reader
                .problems
                .push(Problem::new(&Origin::File(source, span), what).note(note));
        }
    }
    reader.layers
}

struct Reader<'a> {
    source: Arc<Source>,
    problems: &'a mut Vec<Problem>,
    layers: Layers,
}

impl Reader<'_> {
    fn document(&mut self, table: &DeTable<'_>) {
        for (name, value) in in_order(table) {
            let written = name.get_ref().as_ref();
            if let Some(section) = schema::SECTIONS.into_iter().find(|s| s.name == written) {
                self.section(section, value);
            } else if written == schema::PEER.name {
                self.layers.peers = self.entries(&schema::PEER, value);
            } else {
                self.unknown_section(name, value);
            }
        }
    }

    fn section(&mut self, section: &'static Section, value: &Spanned<DeValue<'_>>) {
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("`{}` must be a section: [{0}]", section.name);
            return self.problem(value.span(), what);
        };
        let fields = self.fields(section, table);
        self.layers.sections.insert(section.name, fields);
    }

    fn entries(&mut self, section: &'static Section, value: &Spanned<DeValue<'_>>) -> Vec<Entry> {
        let mut found = Vec::new();
        let brackets = section.bracketed();
        let DeValue::Array(entries) = value.get_ref() else {
            let what = format!("{} is written {brackets}, with two brackets", section.name);
            self.problem(value.span(), what);
            return found;
        };
        for entry in entries.iter() {
            let DeValue::Table(table) = entry.get_ref() else {
                let what = format!("{} must be a table: {brackets}", section.name);
                self.problem(entry.span(), what);
                continue;
            };
            let fields = self.fields(section, table);
            let origin = self.origin(entry.span());
            found.push(Entry { origin, fields });
        }
        found
    }

    fn fields(&mut self, section: &'static Section, table: &DeTable<'_>) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in in_order(table) {
            if format!("{}.{}", section.name, name.get_ref()) == schema::RELAY_USE.name {
                self.layers.relays = self.entries(&schema::RELAY_USE, value);
                continue;
            }
            match section.key(name.get_ref()) {
                None => self.unknown_key(section, name),
                Some(key) => {
                    let Some(setting) = self.setting(section, key, value) else {
                        continue;
                    };
                    if fields.insert(key.name, setting).is_some() {
                        let brackets = section.bracketed();
                        let what =
                            format!("`{}` stands in {brackets} by both of its names", key.name);
                        self.problem(name.span(), what);
                    }
                }
            }
        }
        fields
    }

    fn setting(
        &mut self,
        section: &Section,
        key: &Key,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Setting> {
        let items = match (key.shape, value.get_ref()) {
            (Shape::List | Shape::TextOrList, DeValue::Array(entries)) => {
                let items = entries.iter().map(|entry| self.item(entry));
                items.collect::<Option<Vec<Item>>>()
            }
            (Shape::Text | Shape::TextOrNumber | Shape::TextOrList, DeValue::String(_))
            | (Shape::Number | Shape::TextOrNumber, DeValue::Integer(_))
            | (Shape::Switch, DeValue::Boolean(_)) => self.item(value).map(|item| vec![item]),
            _ => None,
        };
        if items.is_none() {
            let what = format!(
                "wrong kind of value for `{}` in {}",
                key.name,
                section.bracketed()
            );
            let problem = Problem::new(&self.origin(value.span()), what);
            self.problems
                .push(problem.note(format!("expected {}", key.expects)));
        }
        items.map(|items| Setting {
            origin: self.origin(value.span()),
            items,
        })
    }

    fn item(&self, value: &Spanned<DeValue<'_>>) -> Option<Item> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Boolean(on) => on.to_string(),
            _ => return None,
        };
        Some(Item {
            text,
            origin: self.origin(value.span()),
        })
    }

    fn unknown_key(&mut self, section: &Section, name: &Spanned<impl AsRef<str>>) {
        let written = name.get_ref().as_ref();
        let valid: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
        let what = format!("unknown key `{written}` in {}", section.bracketed());
        let mut problem = Problem::new(&self.origin(name.span()), what);
        if let Some(meant) = meant(written, section) {
            problem = problem.note(meant);
        }
        self.problems.push(problem.note(format!(
            "valid keys in {}: {}",
            section.bracketed(),
            valid.join(", ")
        )));
    }

    fn unknown_section(&mut self, name: &Spanned<impl AsRef<str>>, value: &Spanned<DeValue<'_>>) {
        let written = name.get_ref().as_ref();
        let kind = match value.get_ref() {
            DeValue::Table(_) | DeValue::Array(_) => "section",
            _ => "key",
        };
        let names = schema::SECTIONS
            .iter()
            .map(|section| section.name)
            .chain(schema::LISTS.iter().map(|section| section.name));
        let all = schema::SECTIONS.iter().chain(&schema::LISTS);
        let valid: Vec<String> = all.map(|section| section.bracketed()).collect();
        let what = format!("unknown {kind} `{written}`");
        let mut problem = Problem::new(&self.origin(name.span()), what)
            .did_you_mean(written, names)
            .note(format!("valid sections: {}", valid.join(", ")));
        // A table is a section that is misspelt; anything else is a key without one.
        let exact = all_sections()
            .iter()
            .any(|section| section.key(written).is_some());
        let is_table = matches!(value.get_ref(), DeValue::Table(_));
        if let Some(meant) = meant_elsewhere(written, None).filter(|_| exact || !is_table) {
            problem = problem.note(meant);
        }
        self.problems.push(problem);
    }

    fn problem(&mut self, span: Range<usize>, what: impl Into<String>) {
        self.problems.push(Problem::new(&self.origin(span), what));
    }

    fn origin(&self, span: Range<usize>) -> Origin {
        Origin::File(self.source.clone(), span)
    }
}

/// What somebody means who writes an unknown key into a section: a slip of a key of this section, what another
/// program calls one, or a key of another section.
pub(super) fn meant(written: &str, section: &Section) -> Option<String> {
    let here = section.keys.iter().map(|key| key.name);
    let belongs = |other: &&&Section| other.key(written).is_some();
    if all_sections().iter().any(|other| belongs(&other)) {
        return meant_elsewhere(written, Some(section));
    }
    let meant = section.key_elsewhere_called(written).map(|key| key.name);
    match meant.or_else(|| super::suggest::nearest(written, here)) {
        Some(best) => Some(format!("did you mean `{best}`?")),
        None => meant_elsewhere(written, Some(section)),
    }
}

/// The same for the sections but one.
fn meant_elsewhere(written: &str, not: Option<&Section>) -> Option<String> {
    let others = || {
        let all = all_sections().into_iter();
        all.filter(|other| not.is_none_or(|not| not.name != other.name))
    };
    if let Some(home) = others().find(|other| other.key(written).is_some()) {
        return Some(format!("`{written}` belongs to {}", home.bracketed()));
    }
    let called =
        others().find_map(|other| Some((other, other.key_elsewhere_called(written)?.name)));
    let slip = || {
        others().find_map(|other| {
            let keys = other.keys.iter().map(|key| key.name);
            Some((other, super::suggest::nearest(written, keys)?))
        })
    };
    let (home, key) = called.or_else(slip)?;
    Some(format!("did you mean `{key}` in {}?", home.bracketed()))
}

/// Those that stand many times last: most keys that are lost stand once.
fn all_sections() -> Vec<&'static Section> {
    let all = schema::SECTIONS.into_iter().chain(schema::LISTS);
    all.collect()
}

/// Keys as they stand in the file (the map is alphabetical), so problems come in reading order.
fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(
    &'a Spanned<toml::de::DeString<'i>>,
    &'a Spanned<DeValue<'i>>,
)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
