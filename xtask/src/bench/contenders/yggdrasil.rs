//! Yggdrasil: an address made of the key, IPv6 only, over TCP as its own lists of peers do.

use super::{Contender, Process, Stage, Tunnel, tools};
use std::net::IpAddr;
use std::process::Command;

const DEVICE: &str = "bench0";
const PORT: u16 = 9001;
const PROGRAM: &str = "yggdrasil";

/// The near end connects to the far one.
pub struct Yggdrasil;

impl Contender for Yggdrasil {
    fn name(&self) -> &'static str {
        PROGRAM
    }

    fn setup(&self) -> &'static str {
        "over TCP, its default MTU 65535, IPv6 only"
    }

    fn find(&self) -> Result<String, String> {
        let said = tools::tool(PROGRAM, &["-version"], &std::env::temp_dir(), "")?;
        let version = said.split_whitespace().last().unwrap_or_default();
        Ok(format!("{PROGRAM} {version}"))
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        let mut processes = Vec::new();
        let mut addresses = Vec::new();
        for end in [0, 1] {
            let directory = stage.directory(end)?;
            let made = tools::tool(PROGRAM, &["-genconf", "-json"], &directory, "")?;
            let mut config: serde_json::Value = serde_json::from_str(&made).map_err(tools::text)?;
            let peers = [format!("tcp://{}:{PORT}", stage.underlay(1))];
            let listen = [format!("tcp://{}:{PORT}", stage.underlay(1))];
            config["IfName"] = DEVICE.into();
            config["MulticastInterfaces"] = serde_json::json!([]);
            config["AdminListen"] = "none".into();
            if end == 0 {
                config["Peers"] = serde_json::json!(peers);
            } else {
                config["Listen"] = serde_json::json!(listen);
            }
            let file = directory.join("yggdrasil.conf");
            std::fs::write(&file, config.to_string()).map_err(tools::text)?;
            let path = file.display().to_string();
            let address = tools::tool(
                PROGRAM,
                &["-useconffile", &path, "-address"],
                &directory,
                "",
            )?;
            addresses.push(address.trim().parse::<IpAddr>().map_err(tools::text)?);
            let mut command = Command::new(tools::on_path(PROGRAM)?);
            command.arg("-useconffile").arg(file);
            processes.push(Process::start(&stage.ends[end], &directory, command)?);
            tools::await_device(&stage.ends[end], DEVICE)?;
        }
        Ok(Tunnel {
            v4: None,
            v6: Some([addresses[0], addresses[1]]),
            processes,
        })
    }
}
