//! The one error of xtask: what went wrong, and the command a person should try next.

use std::fmt;

/// What every verb returns.
pub type Outcome<T = ()> = Result<T, Failure>;

/// A failed chore.
#[derive(Debug)]
pub struct Failure {
    what: String,
    next: String,
}

impl Failure {
    /// `next` is a command, ready to be pasted.
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            next: next.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed: {}\nnext:   {}", self.what, self.next)
    }
}
