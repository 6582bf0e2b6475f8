//! Values as written, before they are understood: file, environment and flags laid over each other.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::origin::{Origin, Problem};
use super::schema::{self, Key, Section, Shape};

/// One written word and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The word.
    pub text: String,
    /// Where it stands.
    pub origin: Origin,
}

impl Item {
    /// The word as a path: a relative one in the file is meant from the file, one in a variable or flag from
    /// where the command runs.
    pub fn path(&self) -> PathBuf {
        match &self.origin {
            Origin::File(source, _) => source
                .path
                .parent()
                .map_or(self.text.clone().into(), |dir| dir.join(&self.text)),
            _ => self.text.clone().into(),
        }
    }
}

/// The value of one key: one item, or many for a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The whole value.
    pub origin: Origin,
    /// Its words.
    pub items: Vec<Item>,
}

/// The keys of one section that were written.
pub type Fields = BTreeMap<&'static str, Setting>;

/// One `[[peer]]` or `[[relay.use]]` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole entry.
    pub origin: Origin,
    /// Its keys.
    pub fields: Fields,
}

/// Everything written, later sources over earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// By section name.
    pub sections: BTreeMap<&'static str, Fields>,
    /// Every `[[peer]]`. A source that names peers replaces those of earlier sources.
    pub peers: Vec<Entry>,
    /// Every `[[relay.use]]`, likewise.
    pub relays: Vec<Entry>,
}

impl Setting {
    /// A value from a variable or flag, where lists are separated by commas.
    pub fn from_text(key: &Key, text: &str, origin: &Origin) -> Self {
        let words: Vec<&str> = match key.shape {
            Shape::List | Shape::TextOrList => text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect(),
            Shape::Text | Shape::Number | Shape::TextOrNumber | Shape::Switch => vec![text.trim()],
        };
        let items = words
            .into_iter()
            .map(|word| Item {
                text: word.into(),
                origin: origin.clone(),
            })
            .collect();
        Self {
            origin: origin.clone(),
            items,
        }
    }
}

impl Layers {
    /// Sets one key, over whatever earlier sources said.
    pub fn set(&mut self, section: &'static Section, key: &'static Key, setting: Setting) {
        self.sections
            .entry(section.name)
            .or_default()
            .insert(key.name, setting);
    }

    /// Lays the variables over; returns warnings about variables with our prefix that mean nothing.
    pub fn apply_variables(
        &mut self,
        variables: &BTreeMap<String, String>,
        problems: &mut Vec<Problem>,
    ) -> Vec<String> {
        let mut known: Vec<String> = schema::OTHER_VARIABLES.map(String::from).into();
        for section in schema::SECTIONS {
            for key in section.keys {
                for name in section.variables(key) {
                    if let Some(text) = variables.get(&name) {
                        let origin = Origin::Variable(name.clone());
                        self.set(section, key, Setting::from_text(key, text, &origin));
                    }
                    known.push(name);
                }
            }
        }
        for form in [&PEERS, &RELAYS] {
            known.push(form.variable.into());
            if let Some(text) = variables.get(form.variable) {
                let origin = Origin::Variable(form.variable.into());
                let written = text.split(';').map(str::trim);
                let written = written.filter(|entry| !entry.is_empty());
                *self.entries(form) = form.parse_all(written, &origin, problems);
            }
        }
        unknown_variables(variables, &known)
    }

    /// Lays the flags over: (`flag`, text) pairs, `--peer` and `--relay-use` possibly many times.
    pub fn apply_flags(&mut self, flags: &[(&'static str, String)], problems: &mut Vec<Problem>) {
        for section in schema::SECTIONS {
            for key in section.keys {
                let written: Vec<&str> = flags
                    .iter()
                    .filter(|(flag, _)| *flag == key.flag)
                    .map(|(_, text)| text.as_str())
                    .collect();
                if !written.is_empty() {
                    let setting =
                        Setting::from_text(key, &written.join(","), &Origin::Flag(key.flag));
                    self.set(section, key, setting);
                }
            }
        }
        for form in [&PEERS, &RELAYS] {
            let written = flags.iter().filter(|(flag, _)| *flag == form.flag);
            let mut written = written.map(|(_, text)| text.as_str()).peekable();
            if written.peek().is_some() {
                *self.entries(form) = form.parse_all(written, &Origin::Flag(form.flag), problems);
            }
        }
    }

    fn entries(&mut self, form: &EntryForm) -> &mut Vec<Entry> {
        match form.section.name {
            "peer" => &mut self.peers,
            _ => &mut self.relays,
        }
    }
}

/// A misspelt variable would silently do nothing, so it is worth a warning; not an error, because
/// service managers and container runtimes add variables of their own by prefix.
fn unknown_variables(variables: &BTreeMap<String, String>, known: &[String]) -> Vec<String> {
    variables
        .keys()
        .filter(|name| name.starts_with("SHADOWMESH_") && !known.contains(name))
        .map(|name| {
            let hint = super::suggest::nearest(name, known.iter().map(String::as_str))
                .map_or(String::new(), |best| format!("; did you mean {best}?"));
            format!("environment variable {name} means nothing to this program{hint}")
        })
        .collect()
}

/// How the entries of a list are written in variables and flags.
struct EntryForm {
    section: &'static Section,
    /// What an entry is called.
    noun: &'static str,
    variable: &'static str,
    flag: &'static str,
    /// For those who wrote it wrong.
    form: &'static str,
}

static PEERS: EntryForm = EntryForm {
    section: &schema::PEER,
    noun: "peer",
    variable: schema::PEER_VARIABLE,
    flag: schema::PEER_FLAG,
    form: "a peer is written id=sm1…,address=192.0.2.7:4433,name=vps,\
           allowed_ips=10.100.1.6/32 (address and allowed_ips may repeat)",
};

static RELAYS: EntryForm = EntryForm {
    section: &schema::RELAY_USE,
    noun: "relay",
    variable: schema::RELAY_USE_VARIABLE,
    flag: schema::RELAY_USE_FLAG,
    form: "a relay is written id=sm1…,addresses=203.0.113.5:4433,web=https://relay.example \
           (addresses may repeat)",
};

impl EntryForm {
    fn parse_all<'t>(
        &self,
        written: impl Iterator<Item = &'t str>,
        origin: &Origin,
        problems: &mut Vec<Problem>,
    ) -> Vec<Entry> {
        let parsed = written.map(|text| self.parse(text, origin));
        parsed
            .filter_map(|entry| entry.map_err(|problem| problems.push(problem)).ok())
            .collect()
    }

    /// `id=sm1…,name=vps,address=192.0.2.7:4433`; repeated keys make lists.
    fn parse(&self, text: &str, origin: &Origin) -> Result<Entry, Problem> {
        let noun = self.noun;
        let mut fields = Fields::new();
        let parts = text.split(',').map(str::trim);
        for part in parts.filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                let what = format!("`{part}` of {noun} `{text}` is not KEY=VALUE");
                return Err(Problem::new(origin, what).note(self.form));
            };
            let Some(key) = self.section.key(name.trim()) else {
                let what = format!("unknown key `{name}` of {noun} `{text}`");
                let mut problem = Problem::new(origin, what);
                if let Some(meant) = super::file::meant(name.trim(), self.section) {
                    problem = problem.note(meant);
                }
                return Err(problem.note(self.form));
            };
            let mut setting = Setting::from_text(key, value, origin);
            match fields.get_mut(key.name) {
                None => drop(fields.insert(key.name, setting)),
                Some(earlier) if key.shape == Shape::List => {
                    earlier.items.append(&mut setting.items);
                }
                Some(_) => {
                    let what = format!("key `{name}` stands twice in {noun} `{text}`");
                    return Err(Problem::new(origin, what));
                }
            }
        }
        Ok(Entry {
            origin: origin.clone(),
            fields,
        })
    }
}
