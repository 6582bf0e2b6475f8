//! What the program prints with `--json`, held against the schemas in `docs/json`.
//!
//! The schemas are made from the types (`cli::schemas`); this holds that each verb prints one of these, and
//! nothing else. The checker knows the words that these schemas use and refuses every other, so that none is
//! passed over.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// What is wrong with `value`, with the place of it.
fn faults(value: &Value, schema: &Value, root: &Value, at: &str, found: &mut Vec<String>) {
    let Value::Object(words) = schema else {
        return;
    };
    for (word, rule) in words {
        match word.as_str() {
            "$ref" => {
                let name = rule.as_str().unwrap().trim_start_matches("#/$defs/");
                faults(value, &root["$defs"][name], root, at, found);
            }
            "type" => {
                let allowed = rule
                    .as_array()
                    .cloned()
                    .unwrap_or_else(|| vec![rule.clone()]);
                if !allowed
                    .iter()
                    .any(|kind| is_a(value, kind.as_str().unwrap()))
                {
                    found.push(format!("{at}: {value} is not {rule}"));
                }
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(inner) = value.get(name) {
                        faults(inner, rule, root, &format!("{at}.{name}"), found);
                    }
                }
                for name in value
                    .as_object()
                    .into_iter()
                    .flat_map(|object| object.keys())
                {
                    if rule.get(name).is_none() {
                        found.push(format!("{at}.{name}: not in the schema"));
                    }
                }
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        found.push(format!("{at}: {name} is missing"));
                    }
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    faults(item, rule, root, &format!("{at}[{n}]"), found);
                }
            }
            "additionalProperties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    faults(inner, rule, root, &format!("{at}.{name}"), found);
                }
            }
            "anyOf" | "oneOf" => {
                let fits = |rule: &Value| {
                    let mut found = Vec::new();
                    faults(value, rule, root, at, &mut found);
                    found.is_empty()
                };
                if !rule.as_array().unwrap().iter().any(fits) {
                    found.push(format!("{at}: {value} fits none of {rule}"));
                }
            }
            "const" if value != rule => found.push(format!("{at}: {value} is not {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => {
                found.push(format!("{at}: {value} is none of {rule}"));
            }
            "minimum" if value.is_number() && value.as_f64() < rule.as_f64() => {
                found.push(format!("{at}: {value} is below {rule}"))
            }
            "maximum" if value.is_number() && value.as_f64() > rule.as_f64() => {
                found.push(format!("{at}: {value} is above {rule}"))
            }
            "const" | "enum" | "minimum" | "maximum" | "title" | "description" | "$schema"
            | "$defs" | "format" | "default" => {}
            other => panic!("the checker does not know `{other}`: teach it"),
        }
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no such type: {other}"),
    }
}

fn hold(verb: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/json/{verb}.json"));
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut found = Vec::new();
    faults(value, &schema, &schema, verb, &mut found);
    assert_eq!(found, Vec::<String>::new(), "{value:#}");
}

fn run(arguments: &[&str], state: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadowmesh"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHADOWMESH_") {
            command.env_remove(name);
        }
    }
    let config = state.with_extension("toml");
    fs::write(&config, "").unwrap();
    command
        .args(arguments)
        .arg("--json")
        .arg("--state-dir")
        .arg(state);
    command.arg("--config").arg(config).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn verbs_without_a_node_print_what_their_schemas_say() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    for (verb, schema) in [
        (&["id"][..], "id"),
        (&["version"], "version"),
        (&["config", "check"], "config-check"),
        (&["doctor"], "doctor"),
        (&["bench", "handshake", "--count", "2"], "bench-handshake"),
        (&["status"], "error"),
        (&["png"], "error"),
        (&["up", "--mtu", "1"], "error"),
    ] {
        hold(schema, &json(&run(verb, &state)));
    }
}

#[test]
fn a_running_relay_prints_what_the_schemas_say() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let mut relay = Command::new(env!("CARGO_BIN_EXE_shadowmesh"))
        .args([
            "relay",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--config",
            "/dev/null",
        ])
        .arg("--state-dir")
        .arg(&state)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(relay.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    hold("relay", &serde_json::from_str(&line).unwrap());
    hold("status", &json(&run(&["status"], &state)));
    hold("peers", &json(&run(&["peers"], &state)));
    hold("doctor", &json(&run(&["doctor"], &state)));
    hold("error", &json(&run(&["ping", "nobody"], &state)));
    hold("down", &json(&run(&["down"], &state)));
    assert!(relay.wait().unwrap().success());
}

/// Times are whole numbers with one of two units, a PeerId is called `id`, and addresses are texts.
#[test]
fn one_thing_has_one_name_and_one_unit_in_all_schemas() {
    fn look(schema: &Value, at: &str, seen: &mut usize) {
        for (name, rule) in schema["properties"].as_object().into_iter().flatten() {
            *seen += 1;
            let place = format!("{at}.{name}");
            assert!(!matches!(name.as_str(), "peer_id" | "seconds"), "{place}");
            assert!(!name.ends_with("_s") || name.ends_with("bit_s"), "{place}");
            if name.ends_with("_us") || name.ends_with("_ms") {
                assert!(
                    rule["type"].to_string().contains("integer"),
                    "{place}: {rule}"
                );
            }
            if name == "addresses" {
                assert!(
                    rule["type"].to_string().contains("array"),
                    "{place}: {rule}"
                );
                assert_eq!(rule["items"]["type"], "string", "{place}: {rule}");
            }
        }
        for (name, inner) in schema["$defs"].as_object().into_iter().flatten() {
            look(inner, &format!("{at}/{name}"), seen);
        }
    }
    let mut seen = 0;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json");
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let schema = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        look(&schema, &path.display().to_string(), &mut seen);
    }
    assert!(seen > 100, "{seen}");
}
