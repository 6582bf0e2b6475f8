//! Walls between crates, read from `cargo metadata`.

use super::{Findings, Sources};
use crate::failure::{Failure, Outcome};
use crate::shell;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Who may use whom among our own crates (ARCHITECTURE.md, "Map"). Tests and benches may reach
/// further, the shipped code may not.
const ARROWS: &[(&str, &[&str])] = &[
    ("shadowmesh-wire", &[]),
    ("shadowmesh-crypto", &["shadowmesh-wire"]),
    ("shadowmesh-net", &["shadowmesh-crypto", "shadowmesh-wire"]),
    (
        "shadowmesh-vpn",
        &["shadowmesh-net", "shadowmesh-crypto", "shadowmesh-wire"],
    ),
    ("shadowmesh-io", &[]),
    (
        "shadowmesh",
        &[
            "shadowmesh-vpn",
            "shadowmesh-net",
            "shadowmesh-crypto",
            "shadowmesh-wire",
            "shadowmesh-io",
        ],
    ),
    (
        "shadowmesh-sim",
        &[
            "shadowmesh-vpn",
            "shadowmesh-net",
            "shadowmesh-crypto",
            "shadowmesh-wire",
        ],
    ),
    (
        "xtask",
        &[
            "shadowmesh",
            "shadowmesh-sim",
            "shadowmesh-io",
            "shadowmesh-net",
            "shadowmesh-crypto",
            "shadowmesh-wire",
        ],
    ),
];

/// Crates that decide and never act: no socket, no runtime, not even transitively.
const CORE: &[&str] = &[
    "shadowmesh-wire",
    "shadowmesh-crypto",
    "shadowmesh-net",
    "shadowmesh-vpn",
];

/// What a core crate's tree must not reach.
const ACTORS: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "async-io",
    "nix",
    "rustix",
    "quinn-udp",
    "quinn",
];

/// Dependencies among our own crates.
pub fn arrows(_: &Sources) -> Outcome<Findings> {
    let graph = Graph::read()?;
    let mut findings = Vec::new();
    for package in &graph.ours {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == package) else {
            findings.push(format!(
                "{package} is not on the map: ARCHITECTURE.md and xtask/src/tidy/crates.rs"
            ));
            continue;
        };
        let used = graph.uses.get(package).into_iter().flatten();
        for used in used.filter(|used| graph.ours.contains(*used)) {
            if !allowed.contains(&used.as_str()) {
                findings.push(format!("{package} -> {used} is no arrow of the map"));
            }
        }
    }
    Ok(findings)
}

/// Trees of the core crates.
pub fn dependencies(_: &Sources) -> Outcome<Findings> {
    let graph = Graph::read()?;
    let mut findings = Vec::new();
    for package in CORE {
        for actor in ACTORS {
            if let Some(way) = graph.way(package, actor) {
                findings.push(format!("{package} reaches {actor}: {}", way.join(" -> ")));
            }
        }
    }
    Ok(findings)
}

/// Normal (not dev, not build) dependencies by package name.
///
/// Names, not versions: two versions of one crate are one node here, which can only make a tree
/// larger than it is, never hide a path.
struct Graph {
    ours: BTreeSet<String>,
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Outcome<Self> {
        let next = "cargo metadata --format-version 1 --locked";
        let mut command = shell::cargo("metadata --format-version 1 --locked");
        // Other platforms' crates are not what we ship and would only add false paths.
        command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
        let text = shell::output(&mut command, next)?;
        let metadata: Value = serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("cargo metadata: {error}"), next))?;
        Ok(Self::from_metadata(&metadata))
    }

    fn from_metadata(metadata: &Value) -> Self {
        let mut names = BTreeMap::new();
        for package in list(&metadata["packages"]) {
            names.insert(text(&package["id"]), text(&package["name"]));
        }
        let members: BTreeSet<&str> = list(&metadata["workspace_members"])
            .iter()
            .map(text)
            .collect();
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let entry = uses.entry(names[text(&node["id"])].to_owned()).or_default();
            let normal = list(&node["deps"]).iter().filter(|dependency| {
                list(&dependency["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            });
            entry.extend(normal.map(|dependency| names[text(&dependency["pkg"])].to_owned()));
        }
        let ours = members.into_iter().map(|id| names[id].to_owned()).collect();
        Self { ours, uses }
    }

    /// One chain of dependencies between two packages, the shortest.
    fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut seen = BTreeSet::from([from.to_owned()]);
        let mut chains = vec![vec![from.to_owned()]];
        while !chains.is_empty() {
            let mut longer = Vec::new();
            for chain in chains {
                for used in self.uses.get(chain.last()?).into_iter().flatten() {
                    if !seen.insert(used.clone()) {
                        continue;
                    }
                    let mut next = chain.clone();
                    next.push(used.clone());
                    if used == to {
                        return Some(next);
                    }
                    longer.push(next);
                }
            }
            chains = longer;
        }
        None
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            uses.entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        Graph {
            ours: BTreeSet::new(),
            uses,
        }
    }

    #[test]
    fn a_forbidden_crate_is_found_behind_another_one() {
        let graph = graph(&[("net", "quic"), ("quic", "tokio"), ("quic", "bytes")]);
        assert_eq!(graph.way("net", "tokio").unwrap(), ["net", "quic", "tokio"]);
        assert_eq!(graph.way("net", "mio"), None);
    }

    #[test]
    fn dev_dependencies_are_not_shipped_and_do_not_count() {
        let metadata = serde_json::json!({
            "packages": [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}, {"id": "3", "name": "c"}],
            "workspace_members": ["1"],
            "resolve": {"nodes": [{"id": "1", "deps": [
                {"pkg": "2", "dep_kinds": [{"kind": "dev"}]},
                {"pkg": "3", "dep_kinds": [{"kind": null}, {"kind": "dev"}]},
            ]}]},
        });
        let graph = Graph::from_metadata(&metadata);
        assert_eq!(graph.uses["a"], BTreeSet::from(["c".to_owned()]));
    }
}
