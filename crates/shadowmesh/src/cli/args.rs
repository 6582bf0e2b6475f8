//! The command line, as clap sees it. Values of configuration keys stay text here: the
//! configuration understands them, so that an error reads the same wherever the value came from.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::layout::Width;
use crate::config::value::parse_duration;
use crate::log::LogFormat;

/// Joins your machines into one private network that no central server runs and that a quantum
/// computer cannot read later.
#[derive(Debug, Parser)]
#[command(
    name = "shadowmesh",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start here:
  shadowmesh id                     this machine's PeerId, in a [[peer]] block
  shadowmesh config check           is the configuration right?
  shadowmesh up                     join the mesh, in the foreground
  shadowmesh ping vps               from another terminal

Configuration: /etc/shadowmesh.toml, over it SHADOWMESH_SECTION_KEY variables,
over both flags. Exit codes: 0 done, 1 failed, 2 wrong command line or
configuration, 3 no node is running."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags every verb takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration file [default: /etc/shadowmesh.toml, if it exists]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "SHADOWMESH_CONFIG",
        hide_env = true
    )]
    pub config: Option<PathBuf>,
    /// Directory of the identity and the admin socket [default: /var/lib/shadowmesh]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Lines as long as they get: every column of a table
    #[arg(long, global = true)]
    pub wide: bool,
    /// error, warn, info, debug, trace, or a list such as info,shadowmesh_net=debug
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "SHADOWMESH_LOG_LEVEL",
        hide_env = true,
        help_heading = "Logging"
    )]
    pub log_level: Option<String>,
    /// Log lines on standard error: text for people, json for programs (one object a line)
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        env = "SHADOWMESH_LOG_FORMAT",
        hide_env = true,
        default_value = "text",
        hide_possible_values = true,
        help_heading = "Logging"
    )]
    pub log_format: LogFormat,
}

impl Global {
    /// How long the lines of the answer may be.
    pub fn width(&self) -> Width {
        Width::of_output(self.wide)
    }
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Join the mesh, in the foreground, until stopped
    #[command(after_help = "Examples:
  shadowmesh up
  shadowmesh up --config ./home.toml --log-level debug
  shadowmesh up --state-dir ./a --listen 127.0.0.1:5001 \\
      --peer id=sm1…,name=vps,address=192.0.2.7:4433

The timers are also SHADOWMESH_P2P_RETRY_INTERVAL,
SHADOWMESH_P2P_HEALTH_CHECK_INTERVAL and SHADOWMESH_P2P_CONNECT_TIMEOUT in the
environment; any other key is SHADOWMESH_SECTION_KEY.

Needs the right to create a network device: root, or CAP_NET_ADMIN. Ctrl-C or
`shadowmesh down` stops it and takes its addresses and routes away; what a
killed node left is cleaned at next start.")]
    Up(Box<UpArgs>),
    /// Relay for others, in the foreground, until stopped: no device, no root
    #[command(after_help = "Examples:
  shadowmesh relay --state-dir ~/.shadowmesh-relay
  shadowmesh relay --allow sm1… --allow sm1… --client-mbit 100

Run it where everybody can reach it by UDP, and let its port (4433) in through
the firewall. It prints the [[relay.use]] block for those who use it. It
forwards sealed datagrams, can read none of them, and keeps no record of who
talks to whom. [relay], [node], [web], [paths] and [metrics] of the
configuration apply; the rest does not. A node that is a member of the mesh
relays by `[relay] enabled` instead.")]
    Relay(Box<RelayArgs>),
    /// Stop the running node
    #[command(after_help = "Example:
  shadowmesh down --state-dir ./a")]
    Down,
    /// This machine's PeerId, its addresses, and a `[[peer]]` block for the other machines
    #[command(after_help = "Makes the identity when there is none yet. Example:
  shadowmesh id >> peers-of-the-others.toml
  shadowmesh id --json | jq -r .id")]
    Id,
    /// The running node: addresses, device, sessions, relays, traffic, drops by reason
    #[command(after_help = "Example:
  shadowmesh status --json | jq .drops")]
    Status,
    /// Every peer: path, round trip, epoch, cipher, data plane, traffic
    #[command(after_help = "Example:
  shadowmesh peers --json | jq '.peers[] | select(.state != \"up\")'")]
    Peers,
    /// What the network allows, which way each peer is reached, and why not a better one
    #[command(after_help = "Examples:
  shadowmesh doctor
  shadowmesh doctor --json | jq '.peers[] | select(.level != \"ok\")'

Asks the running node, and tries by itself what can be tried: UDP to every
address in the configuration, streams to every `web`, the routes of this
machine. Tells less when no node is running. Changes nothing. With --retry the
running node first looks for better paths and calls peers that it does not
reach, as it otherwise does when paths.retry_interval is over or the network
changes. Exit code 1 when something does not work at all.")]
    Doctor(DoctorArgs),
    /// Probe a peer through the tunnel: path and round trip
    #[command(after_help = "Examples:
  shadowmesh ping vps
  shadowmesh ping 10.100.1.6 --count 1000 --interval 1ms --quiet

Exit code 1 when no probe comes back.")]
    Ping(PingArgs),
    /// Throughput and latency to a peer, or the cost of a handshake
    #[command(
        args_conflicts_with_subcommands = true,
        arg_required_else_help = true,
        after_help = "Examples:
  shadowmesh bench vps
  shadowmesh bench vps --seconds 10 --json
  shadowmesh bench handshake

With a peer: one TCP stream over the overlay in each direction, then round
trips. Both nodes must be up. `bench handshake` needs no node."
    )]
    Bench(BenchArgs),
    /// Three nodes on this machine, in network namespaces: the whole mesh at work, measured
    #[command(after_help = "Examples:
  shadowmesh demo
  shadowmesh demo --keep
  shadowmesh demo --json > report.json

Runs as root, or as anybody on a machine that allows unprivileged user
namespaces. It touches nothing outside its namespaces and a temporary directory,
and exits 0 only if all went well.")]
    Demo {
        /// Leave the nodes running until Ctrl-C, and say how to look around
        #[arg(long)]
        keep: bool,
    },
    /// Version of this program; `status` tells that of the running node
    #[command(after_help = "Example:
  shadowmesh version --json | jq -r .version")]
    Version,
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
}

/// One flag for each key of the configuration.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Configuration keys")]
pub struct UpArgs {
    #[command(flatten)]
    pub listening: ListenArgs,
    /// device.mode [default: tun]
    #[arg(long, value_name = "MODE")]
    pub device_mode: Option<String>,
    /// device.name [default: first free shadowN]
    #[arg(long, value_name = "NAME")]
    pub device_name: Option<String>,
    /// device.address: overlay address; may repeat [default: derived from the PeerId]
    #[arg(long, value_name = "IP/LEN")]
    pub device_address: Vec<String>,
    /// device.mtu [default: 1420]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<String>,
    /// device.queues: auto, or 1 to 16 pairs of sender and receiver threads [default: auto]
    #[arg(long, value_name = "N")]
    pub queues: Option<String>,
    /// device.offload: auto, off [default: auto]
    #[arg(long, value_name = "CHOICE")]
    pub offload: Option<String>,
    /// device.dscp: copy the packets' DSCP to the outside, or hide it [default: copy]
    #[arg(long, value_name = "CHOICE")]
    pub dscp: Option<String>,
    /// session.rekey_interval, 10s to 60m [default: 2m]
    #[arg(long, value_name = "TIME")]
    pub rekey_interval: Option<String>,
    /// session.cipher: auto, aes-256-gcm, chacha20-poly1305 [default: auto]
    #[arg(long, value_name = "CIPHER")]
    pub cipher: Option<String>,
    /// session.data_plane, what carries packets: auto, sealed, quic [default: auto]
    #[arg(long, value_name = "PLANE")]
    pub data_plane: Option<String>,
    /// relay.enabled, whether this node relays for others: true, false [default: false]
    #[arg(long, value_name = "BOOL")]
    pub relay_enabled: Option<String>,
    /// relay.allow, for whom beside members of its own network: any, or PeerIds [default: any]
    #[arg(long, value_name = "ID")]
    pub relay_allow: Vec<String>,
    /// relay.clients_max, 1 to 10000 [default: 1000]
    #[arg(long, value_name = "N")]
    pub relay_clients_max: Option<String>,
    /// relay.clients_per_source, of these from one address, 1 to 10000 [default: a quarter]
    #[arg(long, value_name = "N")]
    pub relay_clients_per_source: Option<String>,
    /// relay.client_mbit, for each client and each way [default: 1000]
    #[arg(long, value_name = "MBIT")]
    pub relay_client_mbit: Option<String>,
    /// A `[[relay.use]]` instead of those of the file, as id=sm1…,addresses=203.0.113.5:4433; may
    /// repeat
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub relay_use: Vec<String>,
    /// web.proxy for streams of our own: none, http://HOST:PORT or http://NAME:PASSWORD@HOST:PORT
    /// [default: that of HTTPS_PROXY]
    #[arg(long, value_name = "URL")]
    pub web_proxy: Option<String>,
    /// web.use, when streams are opened: auto, always, never [default: auto, when UDP brings no answer]
    #[arg(long, value_name = "WHEN")]
    pub web_use: Option<String>,
    /// paths.retry_interval, between two attempts at a better path, 1s to 60m [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub retry_interval: Option<String>,
    /// paths.health_check_interval, between two checks of an idle path, 1s to 10m [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub health_check_interval: Option<String>,
    /// paths.connect_timeout of one attempt at a path, 500ms to 60s [default: 5s]
    #[arg(long, value_name = "TIME")]
    pub connect_timeout: Option<String>,
    /// paths.port_mapping, whether the router is asked for a port: true, false [default: true]
    #[arg(long, value_name = "BOOL")]
    pub port_mapping: Option<String>,
    /// paths.lan_discovery, whether peers are looked for by multicast: true, false [default: true]
    #[arg(long, value_name = "BOOL")]
    pub lan_discovery: Option<String>,
    /// A `[[peer]]` instead of those of the file, as id=sm1…,name=vps,address=192.0.2.7:4433; may
    /// repeat
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub peer: Vec<String>,
}

/// Where a node listens, which a relay does as well.
#[derive(Clone, Debug, Default, Args)]
pub struct ListenArgs {
    /// node.listen: UDP address to bind; may repeat [default: port 4433 of all addresses]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Vec<String>,
    /// node.announce: where others reach this node, when nobody can find that out, such as a forwarded port;
    /// may repeat [default: none]
    #[arg(long, value_name = "IP:PORT")]
    pub announce: Vec<String>,
    /// web.listen, TCP address for WebSocket over TLS, such as 0.0.0.0:443; may repeat [default: none]
    #[arg(long, value_name = "IP:PORT")]
    pub web_listen: Vec<String>,
    /// web.certificate, PEM file [default: self-signed, made at start]
    #[arg(long, value_name = "FILE")]
    pub web_certificate: Option<String>,
    /// web.key, PEM file with the certificate's private key
    #[arg(long, value_name = "FILE")]
    pub web_key: Option<String>,
    /// metrics.listen, TCP address of the Prometheus endpoint, or a port of this machine only
    /// [default: none]
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_listen: Option<String>,
}

/// The flags of `up` that concern a relay, by shorter names.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Configuration keys")]
pub struct RelayArgs {
    #[command(flatten)]
    pub listening: ListenArgs,
    /// relay.allow, for whom: any, or PeerIds; may repeat [default: any]
    #[arg(long, value_name = "ID")]
    pub allow: Vec<String>,
    /// relay.clients_max, 1 to 10000 [default: 1000]
    #[arg(long, value_name = "N")]
    pub clients_max: Option<String>,
    /// relay.clients_per_source, of these from one address, 1 to 10000 [default: a quarter]
    #[arg(long, value_name = "N")]
    pub clients_per_source: Option<String>,
    /// relay.client_mbit, for each client and each way [default: 1000]
    #[arg(long, value_name = "MBIT")]
    pub client_mbit: Option<String>,
}

impl RelayArgs {
    /// As `up` would take them.
    pub fn as_up(&self) -> UpArgs {
        UpArgs {
            listening: self.listening.clone(),
            relay_enabled: Some("true".into()),
            relay_allow: self.allow.clone(),
            relay_clients_max: self.clients_max.clone(),
            relay_clients_per_source: self.clients_per_source.clone(),
            relay_client_mbit: self.client_mbit.clone(),
            ..UpArgs::default()
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Let the running node look for better paths first, for paths.connect_timeout
    #[arg(long)]
    pub retry: bool,
}

#[derive(Clone, Debug, Args)]
pub struct PingArgs {
    /// Name, PeerId or overlay address
    pub peer: String,
    /// How many probes
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Time between two probes, 1ms or more
    #[arg(short, long, default_value = "200ms", value_name = "TIME", value_parser = parse_duration)]
    pub interval: Duration,
    /// How long to wait for each reply (the first may have to connect)
    #[arg(short, long, default_value = "5s", value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Print only the summary
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub verb: Option<BenchVerb>,
    /// Name, PeerId or overlay address
    pub peer: Option<String>,
    /// Seconds for each of the three measurements
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub seconds: u64,
}

#[derive(Clone, Debug, Subcommand)]
pub enum BenchVerb {
    /// Full handshakes in this process: ours beside classical X25519 + Ed25519
    #[command(after_help = "Example:
  shadowmesh bench handshake --count 1000 --json")]
    Handshake {
        /// Handshakes of each kind
        #[arg(short, long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        count: u32,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub enum ConfigVerb {
    /// Is the configuration right? Names every problem with file, line, column and the valid choices
    #[command(after_help = "Examples:
  shadowmesh config check
  shadowmesh config check --config ./home.toml --json

Looks at the file and the SHADOWMESH_* variables. Changes nothing.")]
    Check,
}

impl UpArgs {
    /// The flags that were given, as the configuration takes them.
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        let one = |flag, text: &Option<String>| text.iter().map(|t| (flag, t.clone())).collect();
        let many = |flag, texts: &Vec<String>| texts.iter().map(|t| (flag, t.clone())).collect();
        let all: [Vec<(&'static str, String)>; 30] = [
            many("--listen", &self.listening.listen),
            many("--announce", &self.listening.announce),
            one("--device-mode", &self.device_mode),
            one("--device-name", &self.device_name),
            many("--device-address", &self.device_address),
            one("--mtu", &self.mtu),
            one("--queues", &self.queues),
            one("--offload", &self.offload),
            one("--dscp", &self.dscp),
            one("--rekey-interval", &self.rekey_interval),
            one("--cipher", &self.cipher),
            one("--data-plane", &self.data_plane),
            one("--relay-enabled", &self.relay_enabled),
            many("--relay-allow", &self.relay_allow),
            one("--relay-clients-max", &self.relay_clients_max),
            one("--relay-clients-per-source", &self.relay_clients_per_source),
            one("--relay-client-mbit", &self.relay_client_mbit),
            many("--relay-use", &self.relay_use),
            many("--web-listen", &self.listening.web_listen),
            one("--web-certificate", &self.listening.web_certificate),
            one("--web-key", &self.listening.web_key),
            one("--web-proxy", &self.web_proxy),
            one("--web-use", &self.web_use),
            one("--retry-interval", &self.retry_interval),
            one("--health-check-interval", &self.health_check_interval),
            one("--connect-timeout", &self.connect_timeout),
            one("--port-mapping", &self.port_mapping),
            one("--lan-discovery", &self.lan_discovery),
            one("--metrics-listen", &self.listening.metrics_listen),
            many("--peer", &self.peer),
        ];
        all.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema;
    use clap::CommandFactory;
    use std::collections::BTreeSet;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_has_a_flag_for_every_key_and_passes_each_on() {
        let keys = schema::SECTIONS.iter().flat_map(|section| section.keys);
        let flags: Vec<&str> = keys
            .map(|key| key.flag)
            .chain([schema::PEER_FLAG, schema::RELAY_USE_FLAG])
            .collect();
        let line = flags.iter().flat_map(|flag| [*flag, "x"]);
        let cli = Cli::try_parse_from(["shadowmesh", "up"].into_iter().chain(line)).unwrap();
        let Verb::Up(up) = &cli.verb else {
            panic!("{cli:?}")
        };
        let mut passed: Vec<&str> = super::super::flags(&cli.global, up)
            .iter()
            .map(|f| f.0)
            .collect();
        let mut expected = flags;
        passed.sort();
        expected.sort();
        assert_eq!(passed, expected);
    }

    #[test]
    fn the_readme_has_a_row_for_every_key_and_for_nothing_else() {
        let readme = include_str!("../../../../README.md");
        let table = readme.split_once("| section | key |").expect("a table").1;
        let rows = table.lines().skip(2);
        let (mut section, mut listed) = ("", BTreeSet::new());
        for row in rows.take_while(|row| row.starts_with('|')) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            if !cells[1].is_empty() {
                section = cells[1];
            }
            let keys = cells[2].split(", ");
            listed.extend(keys.map(|key| format!("{section} {key}")));
        }
        let sections = schema::SECTIONS.into_iter().chain(schema::LISTS);
        let known = sections.flat_map(|section| {
            let keys = section.keys.iter();
            keys.map(|key| format!("`{}` `{}`", section.bracketed(), key.name))
        });
        assert_eq!(listed, known.collect());
        for section in schema::SECTIONS {
            let names = section.keys.iter().map(|key| section.variables(key));
            for other in names.flat_map(|names| names.into_iter().skip(1)) {
                assert!(readme.contains(&other), "{other}");
            }
        }
    }

    #[test]
    fn every_verb_takes_json_config_and_state_dir() {
        let verbs: [&[&str]; 12] = [
            &["up"],
            &["version"],
            &["doctor"],
            &["relay"],
            &["down"],
            &["id"],
            &["status"],
            &["peers"],
            &["ping", "vps"],
            &["bench", "vps"],
            &["demo"],
            &["config", "check"],
        ];
        for verb in verbs {
            let line = ["shadowmesh"].iter().chain(verb).copied();
            let line = line.chain(["--json", "--config", "c", "--state-dir", "s"]);
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(
                cli.global.json && cli.global.config.is_some() && cli.global.state_dir.is_some()
            );
        }
        let handshake = [
            "shadowmesh",
            "bench",
            "handshake",
            "--json",
            "--state-dir",
            "s",
        ];
        assert!(Cli::try_parse_from(handshake).unwrap().global.json);
    }
}
