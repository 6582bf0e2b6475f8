//! One node of the laboratory: a namespace, a state directory and, while it runs, a real process.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use shadowmesh_io::lab::{Echo, EchoReport};
use shadowmesh_io::netns::Netns;
use shadowmesh_io::process;
use shadowmesh_wire::{PeerId, overlay};

use super::config::{self, NodeSettings, PeerSettings};
use super::{LabError, PORT};
use crate::admin::client;
use crate::admin::protocol::{Request, Response};
use crate::admin::report::PathReport;

/// How long a node may take to say goodbye before the laboratory calls it hung.
const STOP_MAX: Duration = Duration::from_secs(5);

/// How long any other verb may take; those that measure for a time are told a shorter one.
const VERB_MAX: Duration = Duration::from_secs(30);

/// How long the last replies of a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// As the usual `ping`.
const PING_PAYLOAD_LEN: usize = 56;
/// Between two requests while a node comes back.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// A node: where it lives, who it is, and its process while there is one.
pub struct LabNode {
    /// What peers call it in their configuration: `n1`, `n2`, …
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// Who it is.
    pub id: PeerId,
    /// Its address on the bridge.
    pub underlay_v4: Ipv4Addr,
    /// Its other address on the bridge.
    pub underlay_v6: Ipv6Addr,
    /// What its configuration says beside its peers; write the configuration after changing it.
    pub settings: NodeSettings,
    program: PathBuf,
    directory: PathBuf,
    process: Option<Child>,
}

impl LabNode {
    /// Makes the state directory and the identity of a node; `netns` has the underlay addresses.
    pub fn new(
        name: String,
        netns: Netns,
        program: &Path,
        directory: PathBuf,
        (underlay_v4, underlay_v6): (Ipv4Addr, Ipv6Addr),
    ) -> Result<Self, LabError> {
        fs::create_dir_all(&directory)?;
        let id = make_identity(program, &directory.join("state"))?;
        Ok(Self {
            name,
            netns,
            id,
            underlay_v4,
            underlay_v6,
            settings: NodeSettings::default(),
            program: program.to_owned(),
            directory,
            process: None,
        })
    }

    /// Overlay address derived from the PeerId.
    pub fn overlay_v4(&self) -> Ipv4Addr {
        overlay::derived_ipv4(&self.id)
    }

    /// The other overlay address derived from the PeerId.
    pub fn overlay_v6(&self) -> Ipv6Addr {
        overlay::derived_ipv6(&self.id)
    }

    /// Where its peers find it.
    pub fn underlay(&self, family: Family) -> SocketAddr {
        match family {
            Family::V4 => SocketAddr::new(self.underlay_v4.into(), PORT),
            Family::V6 => SocketAddr::new(self.underlay_v6.into(), PORT),
        }
    }

    /// How it appears in the configuration of a peer.
    pub fn as_peer(&self, family: Family) -> PeerSettings {
        PeerSettings {
            id: self.id,
            name: self.name.clone(),
            addresses: vec![self.underlay(family)],
            allowed_ips: Vec::new(),
            web: None,
        }
    }

    /// As [`as_peer`](Self::as_peer), of somebody who does not know where it is.
    pub fn as_unreachable_peer(&self) -> PeerSettings {
        PeerSettings {
            addresses: Vec::new(),
            ..self.as_peer(Family::V4)
        }
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("shadowmesh.toml")
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// What its process wrote so far, all runs together.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Writes the configuration; a running process does not notice.
    pub fn configure(&self, peers: &[PeerSettings]) -> io::Result<()> {
        let text = config::render(&self.state_dir(), &self.settings, peers);
        fs::write(self.config_path(), text)
    }

    /// Starts `shadowmesh up` in the namespace, without waiting for anything.
    pub fn start(&mut self) -> Result<(), LabError> {
        assert!(self.process.is_none(), "{} is already running", self.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut command = self.command("up");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.process = Some(self.netns.spawn(&mut command)?);
        Ok(())
    }

    /// A verb of the program with this node's configuration, to be run anywhere.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb).arg("--config").arg(self.config_path());
        // The environment wins over the file; nothing of the caller's may leak into the laboratory.
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("SHADOWMESH_") {
                command.env_remove(key);
            }
        }
        command
    }

    /// Runs a verb with `--json` to its end and parses what it printed.
    pub fn query(&self, verb: &str, arguments: &[&str]) -> Result<serde_json::Value, LabError> {
        let output = finish(self.command(verb).arg("--json").args(arguments))?;
        let parsed = serde_json::from_slice(&output.stdout);
        match parsed {
            Ok(answer) if output.status.success() => Ok(answer),
            _ => Err(LabError::Verb {
                verb: verb.into(),
                node: self.name.clone(),
                said: String::from_utf8_lossy(&output.stderr).trim().into(),
            }),
        }
    }

    /// What the doctor says on its machine, whether all is well or not.
    pub fn doctor(&self) -> Result<serde_json::Value, LabError> {
        let mut command = self.command("doctor");
        let output = self.netns.run(|| finish(command.arg("--json")))?;
        serde_json::from_slice(&output.stdout).map_err(|_| LabError::Verb {
            verb: "doctor".into(),
            node: self.name.clone(),
            said: String::from_utf8_lossy(&output.stderr).trim().into(),
        })
    }

    /// Whether the process has come so far that it answers verbs.
    pub fn answers(&self) -> bool {
        matches!(self.ask(&Request::Status), Some(Response::Status(_)))
    }

    /// The way it has to a peer. Asked without starting a program for it, so it may be asked often.
    pub fn path_to(&self, peer: &PeerId) -> Option<PathReport> {
        let Some(Response::Peers(peers)) = self.ask(&Request::Peers) else {
            return None;
        };
        let peer = peer.to_string();
        let mut peers = peers.into_iter();
        peers.find(|known| known.id == peer)?.path
    }

    fn ask(&self, request: &Request) -> Option<Response> {
        let mut answers = client::request(&self.state_dir(), request).ok()?;
        answers.next()?.ok()
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        match &mut self.process {
            Some(process) => matches!(process.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// `kill -9`: the process learns nothing of it.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Asks the process to end, with `shadowmesh down`, and waits for it.
    pub fn stop(&mut self) -> Result<ExitStatus, LabError> {
        let output = finish(&mut self.command("down"))?;
        if !output.status.success() {
            return Err(LabError::Verb {
                verb: "down".into(),
                node: self.name.clone(),
                said: String::from_utf8_lossy(&output.stderr).trim().into(),
            });
        }
        self.wait_for_end()
    }

    /// SIGTERM, as a service manager sends it.
    pub fn signal_terminate(&self) -> Result<(), LabError> {
        let process = self.process.as_ref().ok_or(LabError::NotRunning)?;
        Ok(process::terminate(process)?)
    }

    /// Waits for the process to end by itself.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus, LabError> {
        let mut process = self.process.take().ok_or(LabError::NotRunning)?;
        wait(&mut process, STOP_MAX)?.ok_or_else(|| LabError::Hung(self.name.clone()))
    }

    /// Echo requests from a program on this node.
    pub fn ping(&self, target: IpAddr, count: u32, interval: Duration) -> io::Result<EchoReport> {
        let plan = Echo {
            target,
            count,
            interval,
            timeout: PING_TIMEOUT,
            payload_len: PING_PAYLOAD_LEN,
        };
        self.netns.run(|| plan.run())
    }

    /// Sends echo requests until one is answered: how long the target stayed out of reach, or `None` after
    /// `limit`. There need not even be a route to it at the start.
    pub fn ping_until_answered(&self, target: IpAddr, limit: Duration) -> Option<Duration> {
        let plan = Echo {
            target,
            count: 1,
            interval: RETRY_INTERVAL,
            timeout: PING_TIMEOUT,
            payload_len: PING_PAYLOAD_LEN,
        };
        self.netns.run(|| plan.until_answered(limit)).ok().flatten()
    }
}

impl Drop for LabNode {
    fn drop(&mut self) {
        // Nothing better can be done with an error while the laboratory is torn down.
        let _ = self.kill();
    }
}

/// Which underlay a peer's address is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

/// Runs a verb to its end, and ends it if it has none: a laboratory waits for nobody without limit.
fn finish(command: &mut Command) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let out = scope.spawn(|| read_all(out));
        let err = scope.spawn(|| read_all(err));
        let status = wait(&mut child, VERB_MAX);
        let stdout = out.join().expect("reading does not panic")?;
        let stderr = err.join().expect("reading does not panic")?;
        let status = status?.ok_or(io::ErrorKind::TimedOut)?;
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    })
}

fn read_all(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut all)?;
    }
    Ok(all)
}

/// Waits for a process to end; `None`: it did not within `limit`, and was killed.
fn wait(process: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            process.kill()?;
            process.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn make_identity(program: &Path, state_dir: &Path) -> Result<PeerId, LabError> {
    let mut command = Command::new(program);
    let output = finish(command.arg("id").arg("--state-dir").arg(state_dir))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace()
        .find_map(|word| word.parse().ok())
        .ok_or_else(|| LabError::Verb {
            verb: "id".into(),
            node: state_dir.display().to_string(),
            said: String::from_utf8_lossy(&output.stderr).trim().into(),
        })
}
