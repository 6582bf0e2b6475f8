//! Nebula: certificates of an own authority, one lighthouse.

use super::{Contender, Process, Stage, Tunnel, inner_v4, inner_v6, tools};
use std::process::Command;

const PORT: u16 = 4242;
const CERT: &str = "nebula-cert";
const DEVICE: &str = "bench0";

/// The far end is the lighthouse.
pub struct Nebula;

impl Contender for Nebula {
    fn name(&self) -> &'static str {
        "nebula"
    }

    fn setup(&self) -> &'static str {
        "AES-256-GCM, MTU 1420"
    }

    fn find(&self) -> Result<String, String> {
        tools::on_path(CERT)?;
        tools::version("nebula", &["-version"])
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        let shared = stage.shared();
        tools::tool(CERT, &["ca", "-name", "bench"], shared, "")?;
        let mut processes = Vec::new();
        for end in [1, 0] {
            let name = format!("end{end}");
            let networks = format!("{}/24,{}/64", inner_v4(end), inner_v6(end));
            let arguments = ["sign", "-name", &name, "-networks", &networks];
            tools::tool(CERT, &arguments, shared, "")?;
            let directory = stage.directory(end)?;
            let config = directory.join("config.yml");
            std::fs::write(&config, settings(stage, end)).map_err(tools::text)?;
            let mut command = Command::new(tools::on_path("nebula")?);
            command.arg("-config").arg(config);
            processes.push(Process::start(&stage.ends[end], &directory, command)?);
            tools::await_device(&stage.ends[end], DEVICE)?;
        }
        Ok(Tunnel::new(processes))
    }
}

fn settings(stage: &Stage, end: usize) -> String {
    let file = |name: String| stage.shared().join(name).display().to_string();
    let lighthouse = if end == 1 {
        "lighthouse:\n  am_lighthouse: true\n".to_owned()
    } else {
        format!(
            "static_host_map:\n  \"{0}\": [\"{2}:{PORT}\"]\n  \"{1}\": [\"{2}:{PORT}\"]\n\
             lighthouse:\n  am_lighthouse: false\n  hosts: [\"{0}\"]\n",
            inner_v4(1),
            inner_v6(1),
            stage.underlay(1),
        )
    };
    format!(
        "pki:\n  ca: {}\n  cert: {}\n  key: {}\n{lighthouse}\
         listen:\n  host: 0.0.0.0\n  port: {PORT}\ncipher: aes\n\
         tun:\n  dev: {DEVICE}\n  mtu: 1420\nlogging:\n  level: error\n\
         firewall:\n  outbound:\n    - {{port: any, proto: any, host: any}}\n  \
         inbound:\n    - {{port: any, proto: any, host: any}}\n",
        file("ca.crt".into()),
        file(format!("end{end}.crt")),
        file(format!("end{end}.key")),
    )
}
