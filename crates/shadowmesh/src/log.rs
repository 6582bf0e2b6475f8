//! Logging: levels, a text and a JSON form, and a limit on repeated warnings.
//!
//! Secrets cannot reach the log because the types that hold them print as redacted (see the crypto
//! crate); addresses and names stay at DEBUG and below by house rule. What remains is volume: an
//! attacker who can provoke a warning for each datagram could fill the disk, so every warning has a
//! budget by the place in the code that gives it. What is left out is counted and told with the next
//! one that is let through.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How many times one warning may appear in each [`WINDOW`]. Enough to see a pattern.
const BURST: u32 = 5;
/// The same for a line at INFO that says nothing else than the one before it.
const BURST_SAME: u32 = 1;
/// Limit: lines at INFO that are told apart; beyond it all are forgotten.
const LINES_MAX: usize = 1024;
/// How long a budget lasts.
const WINDOW: Duration = Duration::from_secs(10);

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// for people
    #[default]
    Text,
    /// one JSON object for each line
    Json,
}

/// Starts logging to standard error. `level` is a level (`debug`) or a list such as
/// `info,shadowmesh_net=trace`. A second call does nothing.
pub fn init(level: &str, format: LogFormat) -> Result<(), String> {
    let filter = filter(level)?;
    let fmt = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // A log that cannot be written is no reason to stop: it would be said on standard error, which
        // is where the log goes, and a print that fails there ends the thread.
        .log_internal_errors(false)
        .with_ansi(wants_colour())
        // Where in the program a line comes from is of use to those who look for its errors.
        .with_target(filter.max_level_hint() > Some(LevelFilter::INFO));
    let registry = tracing_subscriber::registry().with(filter);
    let _ = match format {
        LogFormat::Text => registry
            .with(fmt.map_event_format(|inner| Limited::new(format, inner)))
            .try_init(),
        LogFormat::Json => registry
            .with(
                fmt.json()
                    .map_event_format(|inner| Limited::new(format, inner)),
            )
            .try_init(),
    };
    Ok(())
}

/// Escape codes are for terminals: in a file or a journal they hide what a search looks for. Whoever
/// sets `NO_COLOR` (no-color.org) wants none at all.
fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !refused
}

/// The filter takes a word it does not know for the name of a module, which would leave a misspelt
/// level without any effect; so a word alone must be a level.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let parts = level.split(',').map(str::trim);
    for part in parts.filter(|part| !part.contains(['=', '['])) {
        if part.parse::<LevelFilter>().is_err() {
            return Err(format!("wrong log level `{level}`: `{part}` is no level"));
        }
    }
    EnvFilter::try_new(level).map_err(|error| format!("wrong log level `{level}`: {error}"))
}

/// An event format that leaves out warnings over their budget.
struct Limited<F> {
    inner: F,
    form: LogFormat,
    /// By place in the code; at INFO by what is said, too. Limit: places, and [`LINES_MAX`].
    budgets: Mutex<HashMap<(Identifier, u64), Budget>>,
}

impl<F> Limited<F> {
    fn new(form: LogFormat, inner: F) -> Self {
        Self {
            inner,
            form,
            budgets: Mutex::default(),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return self.inner.format_event(context, writer, event);
        }
        let (said, burst) = match level {
            Level::INFO => (Said::by(event), BURST_SAME),
            _ => (0, BURST),
        };
        let decision = {
            // A panic while holding this lock cannot leave a budget half changed.
            let mut budgets = self
                .budgets
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            if budgets.len() >= LINES_MAX {
                budgets.clear();
            }
            budgets
                .entry((event.metadata().callsite(), said))
                .or_default()
                .spend(burst, Instant::now())
        };
        match decision {
            Decision::LeaveOut => Ok(()),
            Decision::Write { left_out: 0 } => self.inner.format_event(context, writer, event),
            Decision::Write { left_out } => {
                self.inner.format_event(context, writer.by_ref(), event)?;
                // Not an event of its own: a formatter cannot raise one.
                match self.form {
                    LogFormat::Text => writeln!(writer, "  ({left_out} more like this left out)"),
                    LogFormat::Json => {
                        writeln!(writer, "{{\"level\":\"{level}\",\"left_out\":{left_out}}}")
                    }
                }
            }
        }
    }
}

/// A number for what an event says, beside where it says it.
#[derive(Default)]
struct Said(DefaultHasher);

impl Said {
    fn by(event: &Event<'_>) -> u64 {
        let mut said = Self::default();
        event.record(&mut said);
        said.0.finish()
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        field.name().hash(&mut self.0);
        format!("{value:?}").hash(&mut self.0);
    }
}

/// What one place in the code may still say.
#[derive(Debug, Default)]
struct Budget {
    window_start: Option<Instant>,
    written: u32,
    left_out: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Write { left_out: u64 },
    LeaveOut,
}

impl Budget {
    fn spend(&mut self, burst: u32, now: Instant) -> Decision {
        let over = self
            .window_start
            .is_none_or(|start| now.duration_since(start) >= WINDOW);
        if over {
            self.window_start = Some(now);
            self.written = 0;
        }
        if self.written >= burst {
            self.left_out += 1;
            return Decision::LeaveOut;
        }
        self.written += 1;
        Decision::Write {
            left_out: std::mem::take(&mut self.left_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;
    use tracing_subscriber::fmt::MakeWriter;

    #[test]
    fn a_warning_has_a_budget_and_tells_how_often_it_was_left_out() {
        let start = Instant::now();
        let mut budget = Budget::default();
        for _ in 0..BURST {
            assert_eq!(budget.spend(BURST, start), Decision::Write { left_out: 0 });
        }
        assert_eq!(budget.spend(BURST, start), Decision::LeaveOut);
        assert_eq!(budget.spend(BURST, start), Decision::LeaveOut);
        assert_eq!(
            budget.spend(BURST, start + WINDOW),
            Decision::Write { left_out: 2 }
        );
        assert_eq!(
            budget.spend(BURST, start + WINDOW),
            Decision::Write { left_out: 0 }
        );
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_and_not_taken_for_a_module() {
        for right in [
            "debug",
            "OFF",
            "info,shadowmesh_net=trace",
            "warn,quinn=off",
        ] {
            assert!(filter(right).is_ok(), "{right}");
        }
        for wrong in [
            "verbose",
            "info,debgu",
            "shadowmesh_net",
            "info,shadowmesh=loud",
        ] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Buffer {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_flood_of_one_warning_writes_few_lines_and_leaves_other_levels_alone() {
        let buffer = Buffer::default();
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .with_writer(buffer.clone())
            .map_event_format(|inner| Limited::new(LogFormat::Json, inner));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for n in 0..1000 {
                tracing::warn!(n, "flood");
            }
            tracing::warn!("another place");
            for n in 0..50 {
                tracing::info!(n, "said as often as wanted");
            }
            for _ in 0..6 {
                tracing::info!(peer = "vps", "session up");
            }
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("flood").count(), BURST as usize);
        assert_eq!(text.matches("another place").count(), 1);
        assert_eq!(text.matches("said as often").count(), 50);
        assert_eq!(text.matches("session up").count(), 1);
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
}
