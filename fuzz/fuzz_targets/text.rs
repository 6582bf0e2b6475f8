//! Text forms that people type or paste: peer ids and prefixes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<PeerId>() {
        assert_eq!(id.to_string(), text.to_lowercase(), "one id has one text");
    }
    if let Ok(prefix) = text.parse::<IpPrefix>() {
        assert_eq!(prefix.to_string().parse::<IpPrefix>(), Ok(prefix));
        assert!(prefix.contains(prefix.addr()));
    }
});
