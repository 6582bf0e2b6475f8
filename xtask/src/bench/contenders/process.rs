//! A program of a contender: started in a namespace, heard, and ended by its own number.

use super::tools::text;
use shadowmesh_io::netns::Netns;
use shadowmesh_io::process;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to end when asked.
const STOP_MAX: Duration = Duration::from_secs(2);
/// Every contender has one program at each end, with a directory of its own.
pub const LOG: &str = "program.log";
/// A line of a log is quoted this far.
const QUOTE_CHARS_MAX: usize = 160;

/// A running program.
pub struct Process {
    child: Child,
    log: PathBuf,
    leaves: Option<PathBuf>,
}

impl Process {
    /// Starts `command` in `netns`; what it says goes to a file in `directory`.
    pub fn start(netns: &Netns, directory: &Path, mut command: Command) -> Result<Self, String> {
        let program = command.get_program().to_owned();
        let program = Path::new(&program).file_name().unwrap_or(&program);
        let log = directory.join(LOG);
        let file = File::create(&log).map_err(text)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(text)?)
            .stderr(file);
        let child = netns
            .spawn(&mut command)
            .map_err(|error| format!("{}: {error}", program.to_string_lossy()))?;
        Ok(Self {
            child,
            log,
            leaves: None,
        })
    }

    /// A file outside its directory that some of these programs forget to remove.
    pub fn leaving(mut self, file: PathBuf) -> Self {
        self.leaves = Some(file);
        self
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Why it is no longer there, if so.
    pub fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(format!("ended ({status}): {}", self.last_words())),
            _ => None,
        }
    }

    /// The last line it wrote.
    pub fn last_words(&self) -> String {
        last_line(&self.log)
    }
}

/// The last line of a program's log that says anything.
pub fn last_line(log: &Path) -> String {
    let said = std::fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default()
        .chars()
        .filter(|char| !char.is_control())
        .take(QUOTE_CHARS_MAX)
        .collect()
}

impl Process {
    fn end(&mut self) {
        // Asked first, so that it can take its own sockets and routes away; nothing better can be
        // done with an error than to kill it.
        let _ = process::terminate(&self.child);
        let start = Instant::now();
        while start.elapsed() < STOP_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if let Some(file) = &self.leaves {
            // Most have removed it themselves.
            let _ = std::fs::remove_file(file);
        }
    }
}
