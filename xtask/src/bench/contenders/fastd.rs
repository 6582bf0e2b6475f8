//! fastd, with the method its documentation recommends for speed.

use super::{Contender, Process, Stage, Tunnel, tools};
use std::process::Command;

const DEVICE: &str = "bench0";
const PORT: u16 = 10000;

/// Both ends know each other.
pub struct Fastd;

impl Contender for Fastd {
    fn name(&self) -> &'static str {
        "fastd"
    }

    fn setup(&self) -> &'static str {
        "salsa2012+umac, MTU 1400"
    }

    fn find(&self) -> Result<String, String> {
        // `fastd v22`, without a point.
        let said = tools::tool("fastd", &["--version"], &std::env::temp_dir(), "")?;
        Ok(said.trim().replace(" v", " "))
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        let keys = [keys(stage)?, keys(stage)?];
        let mut processes = Vec::new();
        for end in [1, 0] {
            let directory = stage.directory(end)?;
            let config = directory.join("fastd.conf");
            let text = format!(
                "mode tun;\ninterface \"{DEVICE}\";\nmtu 1400;\nmethod \"salsa2012+umac\";\n\
                 bind {}:{PORT};\nsecret \"{}\";\nlog level warn;\n\
                 peer \"other\" {{ key \"{}\"; remote {}:{PORT}; }}\n",
                stage.underlay(end),
                keys[end].0,
                keys[1 - end].1,
                stage.underlay(1 - end),
            );
            std::fs::write(&config, text).map_err(tools::text)?;
            let mut command = Command::new(tools::on_path("fastd")?);
            command.arg("--config").arg(config);
            processes.push(Process::start(&stage.ends[end], &directory, command)?);
            tools::configure_device(&stage.ends[end], DEVICE, end, 1400)?;
        }
        Ok(Tunnel::new(processes))
    }
}

/// Secret and public key.
fn keys(stage: &Stage) -> Result<(String, String), String> {
    let arguments = ["--generate-key", "--machine-readable"];
    let secret = tools::tool("fastd", &arguments, stage.shared(), "")?;
    let secret = secret.trim().to_owned();
    let file = stage.shared().join("secret.conf");
    std::fs::write(&file, format!("secret \"{secret}\";\n")).map_err(tools::text)?;
    let arguments = [
        "--show-key",
        "--machine-readable",
        "--config",
        "secret.conf",
    ];
    let public = tools::tool("fastd", &arguments, stage.shared(), "")?;
    Ok((secret, public.trim().to_owned()))
}
