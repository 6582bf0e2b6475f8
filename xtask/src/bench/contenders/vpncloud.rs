//! VpnCloud: a shared password, router mode.

use super::{Contender, Process, Stage, Tunnel, inner_v4, inner_v6, tools};
use std::process::Command;

const DEVICE: &str = "bench0";
const PORT: u16 = 3210;

/// The near end connects to the far one.
pub struct VpnCloud;

impl Contender for VpnCloud {
    fn name(&self) -> &'static str {
        "vpncloud"
    }

    fn setup(&self) -> &'static str {
        "AES-256-GCM, MTU 1400"
    }

    fn find(&self) -> Result<String, String> {
        tools::version("vpncloud", &["--version"])
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        let mut processes = Vec::new();
        for end in [1, 0] {
            // It finds its own address by way of the default route, and ends where there is none.
            stage.add_default_route(end)?;
            let mut command = Command::new(tools::on_path("vpncloud")?);
            command
                .args(["--device", DEVICE, "--type", "tun", "--mode", "router"])
                .args(["--listen", &format!("{}:{PORT}", stage.underlay(end))])
                .args(["--claim", &format!("{}/32", inner_v4(end))])
                .args(["--claim", &format!("{}/128", inner_v6(end))])
                .args(["--ifup", "true", "--ifdown", "true", "--no-auto-claim"])
                .args(["--algorithm", "aes256", "--no-port-forwarding", "--quiet"])
                // Known to nobody but the two ends, which nobody else can reach.
                .env("PASSWORD", format!("bench {}", std::process::id()));
            if end == 0 {
                command.args(["--peer", &format!("{}:{PORT}", stage.underlay(1))]);
            }
            processes.push(Process::start(
                &stage.ends[end],
                &stage.directory(end)?,
                command,
            )?);
            tools::configure_device(&stage.ends[end], DEVICE, end, 1400)?;
        }
        Ok(Tunnel::new(processes))
    }
}
