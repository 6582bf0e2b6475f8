//! Values as written, before they are understood: file, environment and flags laid over each other.

use std::collections::BTreeMap;

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

/// One `[[peer]]` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPeer {
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
    /// A source that names peers replaces those of earlier sources.
    pub peers: Vec<RawPeer>,
}

impl Setting {
    /// A value from a variable or flag, where lists are separated by commas.
    pub fn from_text(key: &Key, text: &str, origin: &Origin) -> Self {
        let words: Vec<&str> = match key.shape {
            Shape::List => text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect(),
            Shape::Text | Shape::Number | Shape::TextOrNumber => vec![text.trim()],
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
                let name = section.variable(key);
                if let Some(text) = variables.get(&name) {
                    let origin = Origin::Variable(name.clone());
                    self.set(section, key, Setting::from_text(key, text, &origin));
                }
                known.push(name);
            }
        }
        known.push(schema::PEER_VARIABLE.into());
        if let Some(text) = variables.get(schema::PEER_VARIABLE) {
            let origin = Origin::Variable(schema::PEER_VARIABLE.into());
            let written = text
                .split(';')
                .map(str::trim)
                .filter(|peer| !peer.is_empty());
            self.peers = written
                .filter_map(|peer| keep(parse_peer(peer, &origin), problems))
                .collect();
        }
        unknown_variables(variables, &known)
    }

    /// Lays the flags over: (`flag`, text) pairs, `--peer` possibly many times.
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
        let peers: Vec<&String> = flags
            .iter()
            .filter(|(flag, _)| *flag == schema::PEER_FLAG)
            .map(|(_, text)| text)
            .collect();
        if !peers.is_empty() {
            let origin = Origin::Flag(schema::PEER_FLAG);
            self.peers = peers
                .iter()
                .filter_map(|peer| keep(parse_peer(peer, &origin), problems))
                .collect();
        }
    }
}

fn keep<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
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

/// `id=sm1…,name=vps,address=192.0.2.7:4433`; repeated keys make lists.
fn parse_peer(text: &str, origin: &Origin) -> Result<RawPeer, Problem> {
    let mut fields = Fields::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let Some((name, value)) = part.split_once('=') else {
            let what = format!("`{part}` of peer `{text}` is not KEY=VALUE");
            return Err(Problem::new(origin, what).note(PEER_FORM));
        };
        let names = schema::PEER.keys.iter().map(|key| key.name);
        let Some(key) = schema::PEER.key(name.trim()) else {
            let what = format!("unknown key `{name}` of peer `{text}`");
            return Err(Problem::new(origin, what)
                .did_you_mean(name, names)
                .note(PEER_FORM));
        };
        let mut setting = Setting::from_text(key, value, origin);
        match fields.get_mut(key.name) {
            None => drop(fields.insert(key.name, setting)),
            Some(earlier) if key.shape == Shape::List => earlier.items.append(&mut setting.items),
            Some(_) => {
                let what = format!("key `{name}` stands twice in peer `{text}`");
                return Err(Problem::new(origin, what));
            }
        }
    }
    Ok(RawPeer {
        origin: origin.clone(),
        fields,
    })
}

const PEER_FORM: &str = "a peer is written id=sm1…,address=192.0.2.7:4433,name=vps,\
    allowed_ips=10.100.1.6/32 (address and allowed_ips may repeat)";
