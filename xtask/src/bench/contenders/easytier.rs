//! EasyTier: a shared secret, UDP.

use super::{Contender, Process, Stage, Tunnel, inner_v4, tools};
use std::net::IpAddr;
use std::process::Command;

const PORT: u16 = 11010;
const PROGRAM: &str = "easytier-core";
const DEVICE: &str = "bench0";

/// The near end connects to the far one.
pub struct EasyTier;

impl Contender for EasyTier {
    fn name(&self) -> &'static str {
        "easytier"
    }

    fn setup(&self) -> &'static str {
        "its default cipher, UDP, its default MTU, IPv4 only"
    }

    fn find(&self) -> Result<String, String> {
        tools::cargo_version(PROGRAM)
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        let mut processes = Vec::new();
        for end in [1, 0] {
            let directory = stage.directory(end)?;
            let mut command = Command::new(tools::on_path(PROGRAM)?);
            let inner = inner_v4(end).to_string();
            let secret = format!("bench {}", std::process::id());
            command
                .current_dir(&directory)
                .args(["--network-name", "bench", "--network-secret", &secret])
                .args(["--ipv4", &inner, "--dev-name", DEVICE, "--multi-thread"])
                .args([
                    "--listeners",
                    &format!("udp://{}:{PORT}", stage.underlay(end)),
                ])
                .args(["--rpc-portal", "0"]);
            if end == 0 {
                command.args(["--peers", &format!("udp://{}:{PORT}", stage.underlay(1))]);
            }
            processes.push(Process::start(&stage.ends[end], &directory, command)?);
            tools::await_device(&stage.ends[end], DEVICE)?;
        }
        Ok(Tunnel {
            v4: Some([0, 1].map(inner_v4).map(IpAddr::V4)),
            v6: None,
            processes,
        })
    }
}
