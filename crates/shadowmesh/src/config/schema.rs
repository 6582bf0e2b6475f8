//! The keys that exist: one table read by the file parser, the environment and the error texts.
//!
//! A key that is not in this table does not exist anywhere; the flags of `up` are checked against
//! it by a test in `cli`.

/// What a value of a key looks like in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `"text"`
    Text,
    /// `1420`
    Number,
    /// `"text"` or `1420`
    TextOrNumber,
    /// `["text", "text"]`; in variables and flags separated by commas
    List,
    /// `"text"`, or a list of texts
    TextOrList,
    /// `true` or `false`, without quotes
    Switch,
}

/// One key of a section.
#[derive(Debug)]
pub struct Key {
    /// Name in the file.
    pub name: &'static str,
    /// Form in the file.
    pub shape: Shape,
    /// Flag of `up` that sets it; empty inside `[[peer]]` and `[[relay.use]]`.
    pub flag: &'static str,
    /// What is valid, as it ends the sentence "expected …".
    pub expects: &'static str,
}

/// A section of the file and its keys.
#[derive(Debug)]
pub struct Section {
    /// Name between the brackets.
    pub name: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

impl Section {
    /// The key called `name`, or by another of its names.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        let others = ALSO.iter().filter(|(section, ..)| *section == self.name);
        let also = others.into_iter().find(|(_, other, _)| *other == name);
        let name = also.map_or(name, |(_, _, key)| key);
        self.keys.iter().find(|key| key.name == name)
    }

    /// The key that somebody means who writes what other programs call it.
    pub fn key_elsewhere_called(&self, name: &str) -> Option<&'static Key> {
        let name = name.to_lowercase().replace('-', "_");
        let known = ELSEWHERE.iter().find(|(other, _)| *other == name)?;
        known.1.iter().find_map(|key| self.key(key))
    }

    /// The environment variables for one of its keys. The last one that is set wins.
    pub fn variables(&self, key: &Key) -> Vec<String> {
        let usual = format!("SHADOWMESH_{}_{}", self.name, key.name).to_uppercase();
        let others = OTHER_NAMES
            .iter()
            .filter(|(section, name, _)| *section == self.name && *name == key.name)
            .map(|(_, _, variable)| (*variable).to_owned());
        let also = ALSO
            .iter()
            .filter(|(section, _, name)| *section == self.name && *name == key.name);
        let also =
            also.map(|(section, other, _)| format!("SHADOWMESH_{section}_{other}").to_uppercase());
        [usual].into_iter().chain(also).chain(others).collect()
    }

    /// Its name in brackets, as it is written in the file.
    pub fn bracketed(&self) -> String {
        match self.name {
            "peer" | "relay.use" => format!("[[{}]]", self.name),
            name => format!("[{name}]"),
        }
    }
}

/// Keys that may be written by another name: a list of addresses is called alike in every section.
const ALSO: [(&str, &str, &str); 3] = [
    ("peer", "addresses", "address"),
    ("relay.use", "address", "addresses"),
    ("device", "addresses", "address"),
];

/// What other programs call our keys, and which of ours may be meant, the likeliest first.
const ELSEWHERE: [(&str, &[&str]); 22] = [
    ("endpoint", &["address"]),
    ("endpoints", &["address"]),
    ("host", &["address", "listen"]),
    ("hostname", &["address"]),
    ("remote", &["address"]),
    ("ip", &["address"]),
    ("ips", &["address"]),
    ("url", &["web"]),
    ("publickey", &["id"]),
    ("public_key", &["id"]),
    ("peer_id", &["id"]),
    ("peerid", &["id"]),
    ("node_id", &["id"]),
    ("port", &["listen", "address"]),
    ("listenport", &["listen"]),
    ("listen_port", &["listen"]),
    ("bind", &["listen"]),
    ("allowedips", &["allowed_ips"]),
    ("routes", &["allowed_ips"]),
    ("subnets", &["allowed_ips"]),
    ("interface", &["name"]),
    ("keepalive", &["health_check_interval"]),
];

/// `[node]`
pub static NODE: Section = Section {
    name: "node",
    keys: &[
        Key {
            name: "state_dir",
            shape: Shape::Text,
            flag: "--state-dir",
            expects: "a directory, such as \"/var/lib/shadowmesh\"",
        },
        Key {
            name: "listen",
            shape: Shape::List,
            flag: "--listen",
            expects: "IP addresses with port, such as [\"0.0.0.0:4433\", \"[::]:4433\"]",
        },
        Key {
            name: "announce",
            shape: Shape::List,
            flag: "--announce",
            expects: "IP addresses with port at which others reach this node, such as [\"203.0.113.5:4433\"]",
        },
    ],
};

/// `[device]`
pub static DEVICE: Section = Section {
    name: "device",
    keys: &[
        Key {
            name: "mode",
            shape: Shape::Text,
            flag: "--device-mode",
            expects: "\"tun\"",
        },
        Key {
            name: "name",
            shape: Shape::Text,
            flag: "--device-name",
            expects: "1 to 15 letters, digits, '-', '_' or '.', such as \"shadow0\"",
        },
        Key {
            name: "address",
            shape: Shape::List,
            flag: "--device-address",
            expects: "overlay addresses with prefix length, such as [\"10.100.1.5/16\"]",
        },
        Key {
            name: "mtu",
            shape: Shape::Number,
            flag: "--mtu",
            expects: "a number from 1280 to 9000, such as 1420",
        },
        Key {
            name: "queues",
            shape: Shape::TextOrNumber,
            flag: "--queues",
            expects: "\"auto\" or a number from 1 to 16",
        },
        Key {
            name: "offload",
            shape: Shape::Text,
            flag: "--offload",
            expects: "\"auto\" or \"off\"",
        },
        Key {
            name: "dscp",
            shape: Shape::Text,
            flag: "--dscp",
            expects: "\"copy\" or \"hide\"",
        },
    ],
};

/// `[session]`
pub static SESSION: Section = Section {
    name: "session",
    keys: &[
        Key {
            name: "rekey_interval",
            shape: Shape::Text,
            flag: "--rekey-interval",
            expects: "a time from \"10s\" to \"60m\", such as \"2m\"",
        },
        Key {
            name: "cipher",
            shape: Shape::Text,
            flag: "--cipher",
            expects: "\"auto\", \"aes-256-gcm\" or \"chacha20-poly1305\"",
        },
        Key {
            name: "data_plane",
            shape: Shape::Text,
            flag: "--data-plane",
            expects: "\"auto\", \"sealed\" or \"quic\"",
        },
    ],
};

/// `[[peer]]`, which may stand many times. As variable (`SHADOWMESH_PEER`) and flag (`--peer`) a
/// peer is written `id=sm1…,name=vps,address=192.0.2.7:4433`; repeated keys make lists.
pub static PEER: Section = Section {
    name: "peer",
    keys: &[
        Key {
            name: "id",
            shape: Shape::Text,
            flag: "",
            expects: "a PeerId \"sm1…\" as `shadowmesh id` prints it on that machine",
        },
        Key {
            name: "address",
            shape: Shape::List,
            flag: "",
            expects: "IP addresses with port, such as [\"192.0.2.7:4433\", \"[2001:db8::7]:4433\"]",
        },
        Key {
            name: "allowed_ips",
            shape: Shape::List,
            flag: "",
            expects: "overlay prefixes that are this peer's, such as [\"10.100.1.6/32\"]",
        },
        Key {
            name: "name",
            shape: Shape::Text,
            flag: "",
            expects: "a name of 1 to 63 letters, digits, '-', '_' or '.'",
        },
        Key {
            name: "data_plane",
            shape: Shape::Text,
            flag: "",
            expects: "\"auto\", \"sealed\" or \"quic\"",
        },
        Key {
            name: "web",
            shape: Shape::Text,
            flag: "",
            expects: EXPECTS_WEB,
        },
    ],
};

const EXPECTS_WEB: &str = "where it takes WebSocket over TLS, such as \"https://vps.example\" or \"https://192.0.2.7:8443\"";

/// `[relay]`
pub static RELAY: Section = Section {
    name: "relay",
    keys: &[
        Key {
            name: "enabled",
            shape: Shape::Switch,
            flag: "--relay-enabled",
            expects: "true or false",
        },
        Key {
            name: "allow",
            shape: Shape::TextOrList,
            flag: "--relay-allow",
            expects: "\"any\", or a list of PeerIds \"sm1…\"",
        },
        Key {
            name: "clients_max",
            shape: Shape::Number,
            flag: "--relay-clients-max",
            expects: "a number from 1 to 10000, such as 1000",
        },
        Key {
            name: "clients_per_source",
            shape: Shape::Number,
            flag: "--relay-clients-per-source",
            expects: "a number from 1 to 10000, such as 250",
        },
        Key {
            name: "client_mbit",
            shape: Shape::Number,
            flag: "--relay-client-mbit",
            expects: "Mbit/s from 1 to 100000, such as 1000",
        },
    ],
};

/// `[[relay.use]]`, which may stand many times. As variable (`SHADOWMESH_RELAY_USE`) and flag
/// (`--relay-use`) a relay is written `id=sm1…,addresses=203.0.113.5:4433`; repeated keys make lists.
pub static RELAY_USE: Section = Section {
    name: "relay.use",
    keys: &[
        Key {
            name: "id",
            shape: Shape::Text,
            flag: "",
            expects: "a PeerId \"sm1…\" as `shadowmesh relay` prints it on that machine",
        },
        Key {
            name: "addresses",
            shape: Shape::List,
            flag: "",
            expects: "IP addresses with port, such as [\"203.0.113.5:4433\"]",
        },
        Key {
            name: "web",
            shape: Shape::Text,
            flag: "",
            expects: EXPECTS_WEB,
        },
    ],
};

/// `[paths]`
pub static PATHS: Section = Section {
    name: "paths",
    keys: &[
        Key {
            name: "retry_interval",
            shape: Shape::Text,
            flag: "--retry-interval",
            expects: "a time from \"1s\" to \"60m\", such as \"60s\"",
        },
        Key {
            name: "health_check_interval",
            shape: Shape::Text,
            flag: "--health-check-interval",
            expects: "a time from \"1s\" to \"10m\", such as \"30s\"",
        },
        Key {
            name: "connect_timeout",
            shape: Shape::Text,
            flag: "--connect-timeout",
            expects: "a time from \"500ms\" to \"60s\", such as \"5s\"",
        },
        Key {
            name: "port_mapping",
            shape: Shape::Switch,
            flag: "--port-mapping",
            expects: "true or false",
        },
        Key {
            name: "lan_discovery",
            shape: Shape::Switch,
            flag: "--lan-discovery",
            expects: "true or false",
        },
    ],
};

/// `[metrics]`
pub static METRICS: Section = Section {
    name: "metrics",
    keys: &[Key {
        name: "listen",
        shape: Shape::TextOrNumber,
        flag: "--metrics-listen",
        expects: "an IP address with port, such as \"127.0.0.1:9464\", a port alone for this machine only, \
                  or \"\" for none",
    }],
};

/// `[web]`
pub static WEB: Section = Section {
    name: "web",
    keys: &[
        Key {
            name: "listen",
            shape: Shape::List,
            flag: "--web-listen",
            expects: "IP addresses with TCP port, such as [\"0.0.0.0:443\", \"[::]:443\"], or [] for none",
        },
        Key {
            name: "certificate",
            shape: Shape::Text,
            flag: "--web-certificate",
            expects: "a PEM file with the certificate and those above it, or \"\" for a self-signed one",
        },
        Key {
            name: "key",
            shape: Shape::Text,
            flag: "--web-key",
            expects: "a PEM file with the private key of the certificate",
        },
        Key {
            name: "proxy",
            shape: Shape::Text,
            flag: "--web-proxy",
            expects: "an HTTP proxy, such as \"http://proxy.example:3128\", with http://name:password@… if it \
                      asks, \"none\", or \"\" for that of HTTPS_PROXY",
        },
        Key {
            name: "use",
            shape: Shape::Text,
            flag: "--web-use",
            expects: "\"auto\", \"always\" or \"never\"",
        },
    ],
};

/// The sections that stand once, in the order of the documentation.
pub static SECTIONS: [&Section; 7] = [&NODE, &DEVICE, &SESSION, &RELAY, &WEB, &PATHS, &METRICS];
/// The sections that may stand many times.
pub static LISTS: [&Section; 2] = [&RELAY_USE, &PEER];

/// Variables beside `SHADOWMESH_SECTION_KEY`: names that were promised before the sections were.
const OTHER_NAMES: [(&str, &str, &str); 3] = [
    ("paths", "retry_interval", "SHADOWMESH_P2P_RETRY_INTERVAL"),
    (
        "paths",
        "health_check_interval",
        "SHADOWMESH_P2P_HEALTH_CHECK_INTERVAL",
    ),
    ("paths", "connect_timeout", "SHADOWMESH_P2P_CONNECT_TIMEOUT"),
];

/// Variable that replaces every `[[peer]]` of the file; peers separated by ';'.
pub const PEER_VARIABLE: &str = "SHADOWMESH_PEER";
/// Flag that replaces every `[[peer]]` of file and environment; may stand many times.
pub const PEER_FLAG: &str = "--peer";
/// Variable that replaces every `[[relay.use]]` of the file; relays separated by ';'.
pub const RELAY_USE_VARIABLE: &str = "SHADOWMESH_RELAY_USE";
/// Flag that replaces every `[[relay.use]]` of file and environment; may stand many times.
pub const RELAY_USE_FLAG: &str = "--relay-use";
/// Variables with our prefix that are not configuration keys.
pub const OTHER_VARIABLES: [&str; 4] = [
    "SHADOWMESH_CONFIG",
    "SHADOWMESH_LOG_LEVEL",
    "SHADOWMESH_LOG_FORMAT",
    "SHADOWMESH_DEMO_IN_USER_NAMESPACE",
];
