//! The JSON schema of what each verb prints, made from the types that it prints.
//!
//! `docs/json/VERB.json` is what scripts may rely on; the test here keeps it as the types are, and
//! `tests/schemas.rs` holds what the program really prints against it.

use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use super::failure::ErrorObject;
use super::{bench, config_check, doctor, down, id, peers, ping, relay, up, version};
use crate::admin::report::NodeReport;
use crate::demo::report::DemoReport;

/// Set, it has the files written anew instead of compared.
const WRITE: &str = "SHADOWMESH_WRITE_SCHEMAS";

fn schema<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<T>()
}

#[test]
fn every_verb_has_a_schema_and_it_is_the_one_in_docs() {
    let all = [
        ("bench", schema::<bench::PeerBench>()),
        ("bench-handshake", schema::<bench::HandshakeBench>()),
        ("config-check", schema::<config_check::ConfigReport>()),
        ("demo", schema::<DemoReport>()),
        ("doctor", schema::<doctor::DoctorOutput>()),
        ("down", schema::<down::DownReport>()),
        ("error", schema::<ErrorObject>()),
        ("id", schema::<id::IdReport>()),
        ("peers", schema::<peers::PeersReport>()),
        ("ping", schema::<ping::PingReport>()),
        ("relay", schema::<relay::RelayReport>()),
        ("status", schema::<NodeReport>()),
        ("up", schema::<up::UpReport>()),
        ("version", schema::<version::VersionReport>()),
    ];
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/json");
    for (verb, schema) in all {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = directory.join(format!("{verb}.json"));
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == text,
            "docs/json/{verb}.json is not what `{verb} --json` prints any more. Scripts live by it: a name may \
             come, and none may go or change. If that is so: {WRITE}=1 cargo test -p shadowmesh schema"
        );
    }
}
