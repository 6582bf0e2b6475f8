//! `shadowmesh config check`

use serde_json::json;

use super::args::{Global, UpArgs};
use super::failure::Failure;
use super::{load, output};
use crate::config::{CONFIG_PATH_DEFAULT, Loaded};
use crate::identity_file;

pub fn run(global: &Global) -> Result<(), Failure> {
    let loaded = load(global, &UpArgs::default())?;
    let identity = loaded.config.node.state_dir.join(identity_file::FILE_NAME);
    // Without an identity yet there is nothing to check against; one is not made here.
    let own = identity_file::load(&identity)?.map(|identity| identity.peer_id());
    if let Some(own) = &own {
        loaded.check_against(own)?;
    }
    if global.json {
        output::json(&json!({
            "ok": true,
            "file": loaded.file,
            "warnings": loaded.warnings,
            "state_dir": loaded.config.node.state_dir,
            "peer_id": own.map(|own| own.to_string()),
            "peers": loaded.config.peers.len(),
        }));
    } else {
        print_text(&loaded, own.is_some());
    }
    Ok(())
}

fn print_text(loaded: &Loaded, has_identity: bool) {
    let config = &loaded.config;
    let file = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => format!("no file ({CONFIG_PATH_DEFAULT} does not exist), defaults"),
    };
    let listen: Vec<String> = config.node.listen.iter().map(ToString::to_string).collect();
    output::line(format!("ok: {file}"));
    output::line(format!("  state   {}", config.node.state_dir.display()));
    output::line(format!("  listen  {}", listen.join(", ")));
    output::line(format!("  peers   {}", config.peers.len()));
    if !has_identity {
        output::line("  no identity yet; `shadowmesh id` makes it");
    }
}
