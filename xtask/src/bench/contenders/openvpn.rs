//! OpenVPN, point to point with TLS and pinned certificates, its kernel offload off.

use super::{Contender, Process, Stage, Tunnel, tools};
use std::process::Command;

const DEVICE: &str = "bench0";

/// The TLS server at the far end, the client at the near one.
pub struct OpenVpn;

impl Contender for OpenVpn {
    fn name(&self) -> &'static str {
        "openvpn"
    }

    fn setup(&self) -> &'static str {
        "AES-256-GCM, without its kernel module, MTU 1420"
    }

    fn find(&self) -> Result<String, String> {
        // It has no tool of its own for certificates.
        tools::on_path("openssl")?;
        tools::version("openvpn", &["--version"])
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        let prints = [certificate(stage, 0)?, certificate(stage, 1)?];
        let mut processes = Vec::new();
        for end in [1, 0] {
            let mut command = Command::new(tools::on_path("openvpn")?);
            let shared = stage.shared();
            command
                .args(["--dev", DEVICE, "--dev-type", "tun", "--proto", "udp4"])
                .args(["--remote", &stage.underlay(1 - end).to_string(), "1194"])
                .args([
                    "--local",
                    &stage.underlay(end).to_string(),
                    "--port",
                    "1194",
                ])
                .arg("--cert")
                .arg(shared.join(format!("end{end}.crt")))
                .arg("--key")
                .arg(shared.join(format!("end{end}.key")))
                .args(["--peer-fingerprint", &prints[1 - end]])
                .args(["--data-ciphers", "AES-256-GCM", "--cipher", "AES-256-GCM"])
                .args(["--disable-dco", "--tun-mtu", "1420", "--verb", "1"])
                .arg(if end == 1 {
                    "--tls-server"
                } else {
                    "--tls-client"
                });
            if end == 1 {
                command.args(["--dh", "none"]);
            }
            processes.push(Process::start(
                &stage.ends[end],
                &stage.directory(end)?,
                command,
            )?);
            tools::configure_device(&stage.ends[end], DEVICE, end, 1420)?;
        }
        Ok(Tunnel::new(processes))
    }
}

/// Makes a self-signed certificate and returns its fingerprint.
fn certificate(stage: &Stage, end: usize) -> Result<String, String> {
    let (key, cert) = (format!("end{end}.key"), format!("end{end}.crt"));
    let subject = format!("/CN=end{end}");
    let curve = "ec_paramgen_curve:prime256v1";
    let arguments = [
        "req", "-x509", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-days", "2", "-subj",
        &subject, "-keyout", &key, "-out", &cert,
    ];
    tools::tool("openssl", &arguments, stage.shared(), "")?;
    let arguments = ["x509", "-in", &cert, "-noout", "-fingerprint", "-sha256"];
    let said = tools::tool("openssl", &arguments, stage.shared(), "")?;
    let print = said
        .trim()
        .split_once('=')
        .map(|(_, print)| print.to_owned());
    print.ok_or_else(|| format!("openssl printed no fingerprint: {said}"))
}
