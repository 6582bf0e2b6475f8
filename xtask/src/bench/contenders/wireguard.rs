//! The userspace WireGuards: they differ in their program, and are configured alike, over the
//! userspace API socket that each opens (wireguard.com/xplatform): no `wg` tool needed.

use super::{Contender, Process, Stage, Tunnel, inner_v4, inner_v6, tools};
use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// What WireGuard tools set for a cable of 1500.
const MTU: u32 = 1420;
const PORT: u16 = 51820;
/// How long a program may take to open its socket, and to answer.
const SOCKET_MAX: Duration = Duration::from_secs(5);

/// One of them.
pub struct WireGuard {
    /// The row and the program.
    pub program: &'static str,
    /// Before the name of the device.
    pub arguments: &'static [&'static str],
    /// For the name of the device, which must be the only one of the whole machine.
    pub letter: char,
    /// Whether the program tells its version itself.
    pub tells_version: bool,
}

impl Contender for WireGuard {
    fn name(&self) -> &'static str {
        self.program
    }

    fn setup(&self) -> &'static str {
        "ChaCha20-Poly1305, MTU 1420"
    }

    fn find(&self) -> Result<String, String> {
        if self.tells_version {
            tools::version(self.program, &["--version"])
        } else {
            tools::cargo_version(self.program)
        }
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        let keys = [Keys::make()?, Keys::make()?];
        let mut processes = Vec::new();
        for end in [0, 1] {
            let device = format!("bw{}{}{end}", std::process::id() % 1_000_000, self.letter);
            let mut command = Command::new(tools::on_path(self.program)?);
            command.args(self.arguments).arg(&device);
            command
                .env("LOG_LEVEL", "error")
                .env("WG_LOG_LEVEL", "error");
            let netns = &stage.ends[end];
            let socket = PathBuf::from(format!("/var/run/wireguard/{device}.sock"));
            let process = Process::start(netns, &stage.directory(end)?, command)?;
            processes.push(process.leaving(socket.clone()));
            configure(&socket, &settings(stage, end, &keys))?;
            tools::configure_device(netns, &device, end, MTU)?;
        }
        Ok(Tunnel::new(processes))
    }
}

/// One end's keys, in hexadecimal as the socket wants them.
struct Keys {
    private: String,
    public: String,
}

impl Keys {
    fn make() -> Result<Self, String> {
        let failed = |_| "X25519 keys could not be made".to_owned();
        let key = PrivateKey::generate(&X25519).map_err(failed)?;
        let seed: Curve25519SeedBin<'_> = key.as_be_bytes().map_err(failed)?;
        let public = key.compute_public_key().map_err(failed)?;
        Ok(Self {
            private: hex(seed.as_ref()),
            public: hex(public.as_ref()),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn settings(stage: &Stage, end: usize, keys: &[Keys; 2]) -> String {
    let other = 1 - end;
    format!(
        "set=1\nprivate_key={}\nlisten_port={PORT}\npublic_key={}\nendpoint={}:{PORT}\n\
         allowed_ip={}/32\nallowed_ip={}/128\n\n",
        keys[end].private,
        keys[other].public,
        stage.underlay(other),
        inner_v4(other),
        inner_v6(other),
    )
}

/// Writes the settings to the program's socket once that is there.
fn configure(socket: &PathBuf, settings: &str) -> Result<(), String> {
    let start = Instant::now();
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if start.elapsed() > SOCKET_MAX => {
                return Err(format!("{}: {error}", socket.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    stream
        .set_read_timeout(Some(SOCKET_MAX))
        .map_err(tools::text)?;
    stream.write_all(settings.as_bytes()).map_err(tools::text)?;
    for line in BufReader::new(stream).lines() {
        match line.map_err(tools::text)?.as_str() {
            "errno=0" => return Ok(()),
            line if line.starts_with("errno=") => return Err(format!("settings refused: {line}")),
            _ => {}
        }
    }
    Err("no answer to the settings".into())
}
