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
}

/// One key of a section.
#[derive(Debug)]
pub struct Key {
    /// Name in the file.
    pub name: &'static str,
    /// Form in the file.
    pub shape: Shape,
    /// Flag of `up` that sets it; empty inside `[[peer]]`.
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
    /// The key called `name`.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The environment variable for one of its keys.
    pub fn variable(&self, key: &Key) -> String {
        format!("SHADOWMESH_{}_{}", self.name, key.name).to_uppercase()
    }
}

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
    ],
};

/// The sections that stand once, in the order of the documentation.
pub static SECTIONS: [&Section; 3] = [&NODE, &DEVICE, &SESSION];

/// Variable that replaces every `[[peer]]` of the file; peers separated by ';'.
pub const PEER_VARIABLE: &str = "SHADOWMESH_PEER";
/// Flag that replaces every `[[peer]]` of file and environment; may stand many times.
pub const PEER_FLAG: &str = "--peer";
/// Variables with our prefix that are not configuration keys.
pub const OTHER_VARIABLES: [&str; 4] = [
    "SHADOWMESH_CONFIG",
    "SHADOWMESH_LOG_LEVEL",
    "SHADOWMESH_LOG_FORMAT",
    "SHADOWMESH_DEMO_IN_USER_NAMESPACE",
];
