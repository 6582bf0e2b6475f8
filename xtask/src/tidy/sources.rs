//! The Rust sources of the workspace, and the checks that look at one file at a time.

use super::Findings;
use crate::failure::{Failure, Outcome};
use crate::shell;
use std::path::Path;

/// A file past this length becomes a folder of the same name.
const LINES_MAX: usize = 800;

/// One file, split where its unit tests begin.
pub struct Source {
    /// Relative to the workspace root, with `/`.
    pub path: String,
    /// Everything above `#[cfg(test)] mod ...`, which by house rule stands at the bottom.
    pub code: String,
    /// The rest.
    pub tests: String,
}

impl Source {
    /// The package folder, as `crates/shadowmesh-net` or `xtask`.
    pub fn package(&self) -> &str {
        let depth = if self.path.starts_with("crates/") {
            2
        } else {
            1
        };
        match self.path.match_indices('/').nth(depth - 1) {
            Some((end, _)) => &self.path[..end],
            None => &self.path,
        }
    }

    /// Whether the whole file is test code: integration tests, a `tests` module in a file of its
    /// own, or a crate that exists only to test.
    fn is_test_file(path: &str) -> bool {
        path.contains("/tests/")
            || path.ends_with("/tests.rs")
            || path.starts_with("crates/shadowmesh-sim/")
            || path.starts_with("fuzz/")
            || path.starts_with("xtask/src/evidence/")
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let all = self.code.lines().chain(self.tests.lines());
        all.enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// All of them, in path order, so that two runs print the same.
pub struct Sources(pub Vec<Source>);

impl Sources {
    /// Reads every `.rs` file below `crates`, `xtask` and `fuzz`.
    pub fn read() -> Outcome<Self> {
        let root = shell::root();
        let mut sources = Vec::new();
        for top in ["crates", "xtask", "fuzz"] {
            collect(&root, &root.join(top), &mut sources)
                .map_err(|error| Failure::new(format!("reading {top}: {error}"), "git status"))?;
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self(sources))
    }

    /// The files of one package.
    pub fn of<'a>(&'a self, package: &'a str) -> impl Iterator<Item = &'a Source> {
        self.0
            .iter()
            .filter(move |source| source.package() == package)
    }
}

fn collect(root: &Path, folder: &Path, into: &mut Vec<Source>) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            // Build output of the fuzz workspace, corpora and crash files are not sources.
            let name = path.file_name().unwrap_or_default();
            if name != "target" && name != "corpus" && name != "artifacts" {
                collect(root, &path, into)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let relative = path.strip_prefix(root).unwrap_or(&path);
            into.push(split(relative.to_string_lossy().replace('\\', "/"), &text));
        }
    }
    Ok(())
}

/// Splits a file at its first test module.
fn split(path: String, text: &str) -> Source {
    let (code, tests) = if Source::is_test_file(&path) {
        ("", text)
    } else {
        match text.find("#[cfg(test)]\nmod ") {
            // `mod tests;` in a file of its own: the file's remaining code is still code.
            Some(at)
                if text[at..]
                    .lines()
                    .nth(1)
                    .is_some_and(|line| line.ends_with('{')) =>
            {
                text.split_at(at)
            }
            _ => (text, ""),
        }
    };
    Source {
        code: code.to_owned(),
        tests: tests.to_owned(),
        path,
    }
}

/// Every crate root but that of shadowmesh-io forbids unsafe code; examples and integration tests,
/// which are crates of their own, have none.
pub fn forbid_unsafe(sources: &Sources) -> Outcome<Findings> {
    let exempt = |source: &Source| source.package() == "crates/shadowmesh-io";
    let is_root = |path: &str| path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs");
    let forbids = |source: &Source| {
        let mut lines = source.lines();
        lines.any(|(_, line)| line.trim() == "#![forbid(unsafe_code)]")
    };
    let roots = sources
        .0
        .iter()
        .filter(|source| is_root(&source.path) && !exempt(source));
    let mut findings: Findings = roots
        .filter(|source| !forbids(source))
        .map(|source| format!("{}: add #![forbid(unsafe_code)]", source.path))
        .collect();
    // Concatenated so that this file does not find itself.
    let markers = [
        concat!("unsafe", " {"),
        concat!("unsafe", " fn"),
        concat!("unsafe", " impl"),
        concat!("#[unsafe", "("),
    ];
    findings.extend(find(
        sources,
        &markers,
        "move it into shadowmesh-io",
        exempt,
    ));
    Ok(findings)
}

/// Platform differences live behind shadowmesh-io.
pub fn platform(sources: &Sources) -> Outcome<Findings> {
    let markers = ["target_os", "target_family", "cfg(unix)", "cfg(windows)"];
    Ok(find(
        sources,
        &markers,
        "move the platform difference into shadowmesh-io",
        |source| source.package() == "crates/shadowmesh-io" || source.package() == "xtask",
    ))
}

/// Long files rot.
pub fn size(sources: &Sources) -> Outcome<Findings> {
    Ok(sources
        .0
        .iter()
        .map(|source| (source, source.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(source, lines)| {
            format!(
                "{}: {lines} lines, make it a folder of the same name",
                source.path
            )
        })
        .collect())
}

/// Traces of unfinished work and of somebody's machine.
pub fn words(sources: &Sources) -> Outcome<Findings> {
    // Concatenated so that this file does not find itself.
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("/home", "/"),
        concat!("/Users", "/"),
        concat!("/root", "/"),
        concat!("/work", "/"),
    ];
    let mut findings = find(sources, &words, "finish it or take it out", |_| false);
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "PROTOCOL.md",
        "CHANGELOG.md",
    ] {
        let text = super::readme::document(name)?;
        for (index, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                findings.push(format!("{name}:{}: {word:?}: take it out", index + 1));
            }
        }
    }
    Ok(findings)
}

fn find(
    sources: &Sources,
    markers: &[&str],
    advice: &str,
    exempt: impl Fn(&Source) -> bool,
) -> Findings {
    let mut findings = Vec::new();
    for source in sources.0.iter().filter(|source| !exempt(source)) {
        for (number, line) in source.lines() {
            if let Some(marker) = markers.iter().find(|marker| line.contains(**marker)) {
                findings.push(format!("{}:{number}: {marker:?}: {advice}", source.path));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_tests_are_split_from_the_code_above_them() {
        let source = split(
            "crates/a/src/b.rs".into(),
            "fn f() {}\n#[cfg(test)]\nmod tests {\n}\n",
        );
        assert_eq!(source.code, "fn f() {}\n");
        assert!(source.tests.starts_with("#[cfg(test)]"));
        assert_eq!(source.package(), "crates/a");
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_leaves_the_code_below_it_code() {
        let source = split(
            "crates/a/src/b.rs".into(),
            "#[cfg(test)]\nmod tests;\nfn f() {}\n",
        );
        assert!(source.code.contains("fn f()"));
        assert_eq!(source.tests, "");
    }

    #[test]
    fn integration_tests_are_all_test() {
        let source = split("crates/a/tests/b.rs".into(), "fn f() {}\n");
        assert_eq!(
            (source.code.as_str(), source.tests.as_str()),
            ("", "fn f() {}\n")
        );
    }
}
