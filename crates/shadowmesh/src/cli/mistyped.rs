//! A verb or flag that does not exist: the one that was meant, or none.
//!
//! clap proposes whatever begins alike, so that `start` was answered with `status`. Here a proposal must be a
//! likely slip, as it must be for keys of the configuration, or another program's word for the same thing.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Cli;
use crate::config::nearest;

/// What other programs call our verbs.
const OTHER_WORDS: [(&str, &str); 20] = [
    ("start", "up"),
    ("run", "up"),
    ("connect", "up"),
    ("serve", "up"),
    ("stop", "down"),
    ("quit", "down"),
    ("kill", "down"),
    ("disconnect", "down"),
    ("show", "status"),
    ("info", "status"),
    ("list", "peers"),
    ("nodes", "peers"),
    ("check", "config check"),
    ("validate", "config check"),
    ("configuration", "config check"),
    ("diagnose", "doctor"),
    ("netcheck", "doctor"),
    ("key", "id"),
    ("pubkey", "id"),
    ("whoami", "id"),
];
/// A word of so many letters is too short for a slip of it to be told from another word.
const SHORT: usize = 2;

/// Puts the likely verb or flag in the place of what clap proposes.
pub fn correct(error: &mut clap::Error) {
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let Some(written) = text(error, ContextKind::InvalidSubcommand) else {
                return;
            };
            let meant = verb(&written).map(|verb| vec![verb]);
            replace(error, ContextKind::SuggestedSubcommand, meant);
        }
        ErrorKind::UnknownArgument => {
            let (Some(written), Some(proposed)) = (
                text(error, ContextKind::InvalidArg),
                text(error, ContextKind::SuggestedArg),
            ) else {
                return;
            };
            if nearest(&written, [proposed.as_str()]).is_none() {
                replace(error, ContextKind::SuggestedArg, None);
            }
        }
        _ => {}
    }
}

/// The verb that was meant by a word that is none.
fn verb(written: &str) -> Option<String> {
    let other = OTHER_WORDS.iter().find(|(word, _)| *word == written);
    if let Some((_, verb)) = other {
        return Some((*verb).into());
    }
    let command = Cli::command();
    let verbs = command.get_subcommands().map(clap::Command::get_name);
    let inner = command.find_subcommand("config").into_iter();
    let inner = inner.flat_map(|config| config.get_subcommands().map(clap::Command::get_name));
    let known: Vec<&str> = verbs
        .chain(inner)
        .filter(|verb| verb.len() > SHORT)
        .collect();
    nearest(written, known).map(Into::into)
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

fn replace(error: &mut clap::Error, kind: ContextKind, with: Option<Vec<String>>) {
    error.remove(kind);
    if let Some(texts) = with {
        error.insert(kind, ContextValue::Strings(texts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_verb_another_programs_word_ours_and_a_stranger_none() {
        for (written, meant) in [
            ("statsu", Some("status")),
            ("pign", Some("ping")),
            ("versoin", Some("version")),
            ("start", Some("up")),
            ("stop", Some("down")),
            ("check", Some("config check")),
            ("frobnicate", None),
            ("ip", None),
            ("stats", Some("status")),
            ("server", None),
        ] {
            assert_eq!(verb(written).as_deref(), meant, "{written}");
        }
    }
}
