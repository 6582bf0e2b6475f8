//! Errors as people meet them: what is wrong, where, and what to do next; and the exit codes.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::admin::client::ClientError;
use crate::admin::protocol::ErrorReport;
use crate::config::{CONFIG_PATH_DEFAULT, ConfigError, LoadError, Origin, Problem};
use crate::identity_file::IdentityError;
use crate::state::StateError;

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    what: String,
    next: Option<String>,
    kind: Kind,
    problems: Vec<Problem>,
    /// Printed already as part of a result.
    is_told: bool,
}

/// What scripts need to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was tried and did not work.
    Failed = 1,
    /// The command line or the configuration is wrong: trying again will not help.
    Usage = 2,
    /// There is no running node to ask.
    NotRunning = 3,
}

impl Failure {
    /// It was tried and did not work.
    pub fn new(what: impl ToString) -> Self {
        Self {
            what: what.to_string(),
            next: None,
            kind: Kind::Failed,
            problems: Vec::new(),
            is_told: false,
        }
    }

    /// It did not work, and what was printed says so already.
    pub fn silent() -> Self {
        Self {
            is_told: true,
            ..Self::new("")
        }
    }

    /// What the user can do.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Says which exit code it is.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Tells the user, and gives the exit code. A script that reads the JSON object on standard
    /// output still leaves the text to whoever reads its log.
    pub fn report(&self, as_json: bool) -> ExitCode {
        if !self.is_told {
            if as_json {
                super::output::json(&self.to_json());
            }
            // Nobody may be listening any more, and that is not our error.
            let _ = io::stderr().lock().write_all(self.to_text().as_bytes());
        }
        ExitCode::from(self.kind as u8)
    }

    fn to_text(&self) -> String {
        let mut text = match self.problems.as_slice() {
            [] => format!("error: {}\n", self.what),
            problems => problems
                .iter()
                .map(|problem| format!("error: {problem}\n\n"))
                .collect(),
        };
        if let Some(next) = &self.next {
            text += &format!("  next: {next}\n");
        }
        text
    }

    fn to_json(&self) -> ErrorObject {
        ErrorObject {
            error: self.what.clone(),
            next: self.next.clone(),
            problems: self.problems.iter().map(ProblemObject::of).collect(),
        }
    }
}

/// What every verb prints with `--json` when it did not do what it was asked.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ErrorObject {
    /// What is wrong.
    error: String,
    /// What to do about it.
    next: Option<String>,
    /// Everything that is wrong with the configuration, if that is it.
    problems: Vec<ProblemObject>,
}

impl ErrorObject {
    /// An error that is none of the configuration's.
    pub fn new(error: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            next: Some(next.into()),
            problems: Vec::new(),
        }
    }
}

/// A problem of the configuration with its place taken apart.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ProblemObject {
    /// What, naming the key.
    what: String,
    /// `FILE:LINE:COLUMN`, the variable, or the flag.
    #[serde(rename = "where")]
    place: String,
    /// Line in the file, from 1.
    line: Option<usize>,
    /// Column in the line, from 1.
    column: Option<usize>,
    /// What would be right.
    notes: Vec<String>,
}

impl ProblemObject {
    fn of(problem: &Problem) -> Self {
        let at = problem.origin.position();
        Self {
            what: problem.what.clone(),
            place: problem.origin.to_string(),
            line: at.map(|at| at.line),
            column: at.map(|at| at.column),
            notes: problem.notes.clone(),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let problems = error.problems;
        let what = match problems.as_slice() {
            [one] => one.what.clone(),
            many => format!("{} problems in the configuration", many.len()),
        };
        let next = Some(how_to_check(&problems));
        Self {
            what,
            next,
            kind: Kind::Usage,
            problems,
            is_told: false,
        }
    }
}

/// The command that checks what was wrong: the same file, and no command at all for flags of `up`,
/// which `config check` never sees.
fn how_to_check(problems: &[Problem]) -> String {
    let is_flag = |problem: &Problem| matches!(problem.origin, Origin::Flag(_));
    if problems.iter().all(is_flag) {
        return "correct it and try again".into();
    }
    let other_file = problems.iter().find_map(|problem| match &problem.origin {
        Origin::File(source, _) if source.path != Path::new(CONFIG_PATH_DEFAULT) => {
            Some(source.path.display())
        }
        _ => None,
    });
    let named = other_file.map_or(String::new(), |path| format!(" --config {path}"));
    format!("correct it, then try `shadowmesh config check{named}`")
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Wrong(error) => error.into(),
            LoadError::Distrusted(error) => {
                let next = error.next_step();
                Failure::new(LoadError::Distrusted(error))
                    .kind(Kind::Usage)
                    .next(next)
            }
            LoadError::Unreadable { .. } => Failure::new(error)
                .kind(Kind::Usage)
                .next("check --config and SHADOWMESH_CONFIG; without both a file is not needed"),
        }
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        Failure::new(&error).next(error.next_step())
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Failure::new(&error).next(error.next_step())
    }
}

impl From<ErrorReport> for Failure {
    fn from(report: ErrorReport) -> Self {
        Failure::new(report.error).next(report.next)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = Failure::new(&error);
        match error {
            ClientError::NotRunning { state_dir } => failure.kind(Kind::NotRunning).next(format!(
                "start it with `shadowmesh up --state-dir {}`, or name the right --state-dir",
                state_dir.display()
            )),
            ClientError::Foreign { state_dir, .. } => failure.next(format!(
                "find out who put a socket into {}",
                state_dir.display()
            )),
            ClientError::NotAllowed { .. } => {
                failure.next("run as the user who runs the node, often root")
            }
            ClientError::Broken(_) => failure.next("look at `shadowmesh status`"),
            ClientError::NotUnderstood(_) => {
                failure.next("use the same version of shadowmesh as the running node")
            }
        }
    }
}
