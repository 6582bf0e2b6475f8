//! Quincy: the other VPN that is QUIC; every packet is one QUIC datagram.

use super::{Contender, Process, Stage, Tunnel, inner_v4, tools};
use std::net::IpAddr;
use std::process::Command;

const PORT: u16 = 55555;
/// The client's: the first of the network that is not the server's.
const NETWORK: &str = "10.99.0.1/24";
const IDENTITY: &str = "quincy-identity";

/// The server at the far end, the client at the near one.
pub struct Quincy;

impl Contender for Quincy {
    fn name(&self) -> &'static str {
        "quincy"
    }

    fn setup(&self) -> &'static str {
        "QUIC datagrams, TLS (its default X25519 + ML-KEM-768), MTU 1400, IPv4 only"
    }

    fn find(&self) -> Result<String, String> {
        tools::on_path("quincy-client")?;
        tools::on_path(IDENTITY)?;
        tools::cargo_version("quincy-server")
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        let shared = stage.shared();
        // The certificate names what the client calls.
        let address = stage.underlay(1).to_string();
        for (name, common_name) in [("server", address.as_str()), ("client", "bench")] {
            let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
            let arguments = [
                "tls",
                "gencert",
                "--out-cert",
                &cert,
                "--out-key",
                &key,
                "--cn",
                common_name,
            ];
            tools::tool(IDENTITY, &arguments, shared, "")?;
        }
        let arguments = ["tls", "fingerprint", "--cert", "client.pem"];
        let fingerprint = tools::tool(IDENTITY, &arguments, shared, "")?;
        let path = |name: &str| format!("{:?}", shared.join(name));
        let users = format!(
            "[users.bench]\nauthorized_keys = []\nauthorized_certs = [\"{}\"]\n",
            fingerprint.trim()
        );
        let server = format!(
            "name = \"bench\"\ninterface_name = \"bench0\"\nbind_address = \"0.0.0.0\"\n\
             bind_port = {PORT}\ntunnel_network = \"{NETWORK}\"\nusers_file = {}\n\n\
             [protocol]\nmode = \"tls\"\ncertificate_file = {}\ncertificate_key_file = {}\n\n\
             [log]\nlevel = \"warn\"\n",
            path("users.toml"),
            path("server.pem"),
            path("server.key"),
        );
        let client = format!(
            "connection_string = \"{}:{PORT}\"\n\n\
             [protocol]\nmode = \"tls\"\ntrusted_certificate_paths = [{}]\n\
             client_certificate_file = {}\nclient_certificate_key_file = {}\n\n\
             [network]\nroutes = []\ninterface_name = \"bench0\"\n\n[log]\nlevel = \"warn\"\n",
            address,
            path("server.pem"),
            path("client.pem"),
            path("client.key"),
        );
        for (name, text) in [
            ("users.toml", users),
            ("server.toml", server),
            ("client.toml", client),
        ] {
            std::fs::write(shared.join(name), text).map_err(tools::text)?;
        }
        let mut processes = Vec::new();
        for (end, program) in [(1, "quincy-server"), (0, "quincy-client")] {
            let mut command = Command::new(tools::on_path(program)?);
            let config = program.trim_start_matches("quincy-");
            command.arg("--config-path");
            command.arg(shared.join(format!("{config}.toml")));
            processes.push(Process::start(
                &stage.ends[end],
                &stage.directory(end)?,
                command,
            )?);
            tools::await_device(&stage.ends[end], "bench0")?;
        }
        Ok(Tunnel {
            v4: Some([IpAddr::V4(inner_v4(1)), IpAddr::V4(inner_v4(0))]),
            v6: None,
            processes,
        })
    }
}
