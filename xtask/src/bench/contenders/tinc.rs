//! tinc 1.0: the router mode of its own protocol, RSA keys.

use super::{Contender, Process, Stage, Tunnel, inner_v4, inner_v6, tools};
use std::process::Command;

const DEVICE: &str = "bench0";

/// The near end connects to the far one.
pub struct Tinc;

impl Contender for Tinc {
    fn name(&self) -> &'static str {
        "tinc"
    }

    fn setup(&self) -> &'static str {
        "AES-256-CBC + SHA-256 (its default, Blowfish, is broken), MTU 1400"
    }

    fn find(&self) -> Result<String, String> {
        tools::version("tincd", &["--version"])
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        for end in [0, 1] {
            write_files(stage, end)?;
            let directory = stage.directory(end)?.display().to_string();
            // It asks where the two keys go and takes the places it proposes.
            let arguments = ["--config", &directory, "--generate-keys=2048"];
            tools::tool("tincd", &arguments, stage.shared(), "\n\n")?;
        }
        let mut processes = Vec::new();
        for end in [0, 1] {
            let directory = stage.directory(end)?;
            for other in [0, 1] {
                let name = format!("hosts/end{other}");
                let from = stage.directory(other)?.join(&name);
                if other != end {
                    std::fs::copy(from, directory.join(&name)).map_err(tools::text)?;
                }
            }
        }
        for end in [1, 0] {
            let directory = stage.directory(end)?;
            let mut command = Command::new(tools::on_path("tincd")?);
            command.arg("--config").arg(&directory).arg("--no-detach");
            command.arg("--pidfile").arg(directory.join("pid"));
            processes.push(Process::start(&stage.ends[end], &directory, command)?);
            tools::configure_device(&stage.ends[end], DEVICE, end, 1400)?;
        }
        Ok(Tunnel::new(processes))
    }
}

fn write_files(stage: &Stage, end: usize) -> Result<(), String> {
    let directory = stage.directory(end)?;
    let hosts = directory.join("hosts");
    std::fs::create_dir_all(&hosts).map_err(tools::text)?;
    let connect = if end == 0 { "ConnectTo = end1\n" } else { "" };
    let main = format!(
        "Name = end{end}\n{connect}Interface = {DEVICE}\nDeviceType = tun\nMode = router\n\
         AddressFamily = ipv4\n"
    );
    let host = format!(
        "Address = {}\nSubnet = {}/32\nSubnet = {}/128\nCipher = aes-256-cbc\nDigest = sha256\n",
        stage.underlay(end),
        inner_v4(end),
        inner_v6(end),
    );
    std::fs::write(directory.join("tinc.conf"), main).map_err(tools::text)?;
    std::fs::write(hosts.join(format!("end{end}")), host).map_err(tools::text)
}
