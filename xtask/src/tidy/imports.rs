//! The order of modules inside a crate.
//!
//! ARCHITECTURE.md writes one line per crate, highest module first:
//! "- `shadowmesh-net`: `node` > `session`, `gate` > `paths`". A module may import from modules to
//! its right only; modules between commas share a level and do not know each other. A name that
//! lib.rs re-exports belongs to the module it comes from, so a re-export opens no way around.

use super::sources::{Source, Sources};
use super::{Findings, readme};
use crate::failure::Outcome;
use std::collections::{BTreeMap, BTreeSet};

const DOCUMENT: &str = "ARCHITECTURE.md";

/// Compares every `crate::` path of the workspace with the written order.
pub fn check(sources: &Sources) -> Outcome<Findings> {
    let orders = parse_orders(&readme::document(DOCUMENT)?);
    let packages: BTreeSet<&str> = sources
        .0
        .iter()
        .map(Source::package)
        .filter(|p| p.starts_with("crates/"))
        .collect();
    let mut findings = Vec::new();
    for package in packages {
        let name = package.trim_start_matches("crates/");
        match orders.get(name) {
            Some(order) => check_package(sources, package, order, &mut findings),
            None => findings.push(format!("{DOCUMENT} gives no module order for {name}")),
        }
    }
    Ok(findings)
}

/// Level of each module: 0 is the lowest.
type Order = BTreeMap<String, usize>;

fn parse_orders(document: &str) -> BTreeMap<String, Order> {
    let section = document
        .split("\n## ")
        .find(|part| part.starts_with("Module order"));
    let mut orders = BTreeMap::new();
    // A line may be wrapped; a crate's entry runs to the next dash.
    for entry in section.unwrap_or_default().split("\n- ").skip(1) {
        let entry = entry.split("\n\n").next().unwrap_or(entry);
        let Some((name, levels)) = entry.split_once(':') else {
            continue;
        };
        let levels: Vec<&str> = levels.split('>').collect();
        let mut order = Order::new();
        for (index, level) in levels.iter().rev().enumerate() {
            for module in level.split(',') {
                order.insert(bare(module), index);
            }
        }
        orders.insert(bare(name), order);
    }
    orders
}

fn bare(word: &str) -> String {
    word.trim().trim_matches('`').to_owned()
}

fn check_package(sources: &Sources, package: &str, order: &Order, findings: &mut Findings) {
    let prefix = format!("{package}/src/");
    let files: Vec<(&Source, String)> = sources
        .of(package)
        .filter_map(|source| {
            let inside = source.path.strip_prefix(&prefix)?;
            Some((source, top_module(inside)?))
        })
        .collect();
    let reexports = sources
        .of(package)
        .find(|source| source.path == format!("{prefix}lib.rs"))
        .map(|lib| parse_reexports(&lib.code))
        .unwrap_or_default();
    let modules: BTreeSet<&String> = files.iter().map(|(_, module)| module).collect();
    for module in &modules {
        if !order.contains_key(*module) {
            findings.push(format!(
                "{package}: {DOCUMENT} does not place module {module}"
            ));
        }
    }
    for module in order.keys().filter(|module| !modules.contains(module)) {
        findings.push(format!(
            "{package}: {DOCUMENT} places a module {module} that is not there"
        ));
    }
    for (source, module) in &files {
        for (line, used) in uses_of(&source.code, &reexports) {
            let (Some(own), Some(other)) = (order.get(module), order.get(&used)) else {
                continue;
            };
            if used != *module && other >= own {
                findings.push(format!(
                    "{}:{line}: {module} imports {used}, which does not stand below it",
                    source.path
                ));
            }
        }
    }
}

/// `session/mod.rs` and `session.rs` are both `session`; the crate root and binaries are above all, and
/// so is a folder of tests.
fn top_module(path: &str) -> Option<String> {
    let first = path.split('/').next()?;
    if matches!(first, "lib.rs" | "main.rs" | "bin" | "tests") {
        return None;
    }
    Some(first.trim_end_matches(".rs").to_owned())
}

/// `pub use peer_id::{PeerId, Other};` in lib.rs gives PeerId -> peer_id and Other -> peer_id.
fn parse_reexports(lib: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for statement in lib.split("use ").skip(1) {
        let Some((path, _)) = statement.split_once(';') else {
            continue;
        };
        let path: String = path.split_whitespace().collect::<Vec<_>>().join(" ");
        let path = path
            .trim_start_matches("crate::")
            .trim_start_matches("self::");
        let Some((module, names)) = path.split_once("::") else {
            continue;
        };
        for name in names.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            if !name.is_empty() {
                found.insert(name.to_owned(), module.to_owned());
            }
        }
    }
    found
}

/// Line and top-level module of every `crate::...` path, groups included.
fn uses_of(code: &str, reexports: &BTreeMap<String, String>) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, marker) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let text = code.lines().nth(line - 1).unwrap_or_default().trim_start();
        // `$crate` in a macro is a path too; a doc comment's link is not an import.
        if text.starts_with("//") {
            continue;
        }
        let rest = &code[at + marker.len()..];
        for name in heads(rest) {
            let module = reexports.get(&name).cloned().unwrap_or(name);
            found.push((line, module));
        }
    }
    found
}

/// First segments of a path or of a group: `{a::B, c::{D, E}}` gives a and c.
fn heads(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    if !rest.starts_with('{') {
        return vec![word(rest)];
    }
    let mut depth = 0;
    let mut names = Vec::new();
    for (index, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && (c == '{' || c == ',') {
            names.push(word(&rest[index + 1..]));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_from_the_document() {
        let text = "# A\n## Module order\n\nWords.\n\n- `net`: `a` > `b`,\n  `c` > `d`\n- `io`: `x`\n\n## Next\n";
        let orders = parse_orders(text);
        assert_eq!(orders["net"]["a"], 2);
        assert_eq!(orders["net"]["b"], orders["net"]["c"]);
        assert_eq!(orders["net"]["d"], 0);
        assert_eq!(orders["io"]["x"], 0);
    }

    #[test]
    fn imports_are_found_in_groups_and_inline_and_not_in_comments() {
        let code = "use crate::{a::B, c::{D, E}};\n// crate::x\nfn f() { crate::g::h() }\n";
        let found = uses_of(code, &BTreeMap::new());
        assert_eq!(found, [(1, "a".into()), (1, "c".into()), (3, "g".into())]);
    }

    #[test]
    fn a_reexport_counts_as_its_module() {
        let reexports = parse_reexports("mod id;\npub use id::{PeerId, ParseError};\n");
        let found = uses_of("use crate::PeerId;\n", &reexports);
        assert_eq!(found, [(1, "id".into())]);
    }
}
