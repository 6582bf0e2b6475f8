//! Text forms that people type or paste: peer ids, prefixes, URLs of servers and proxies.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shadowmesh_io::web::{ProxyUrl, WebUrl};
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
    if let Ok(url) = text.parse::<WebUrl>() {
        assert_eq!(url.to_string().parse::<WebUrl>(), Ok(url.clone()));
        // What it is called in the request that opens a stream.
        let shown = url.to_string();
        assert!(shown.parse::<http::Uri>().is_ok(), "{shown}");
    }
    if let Ok(proxy) = text.parse::<ProxyUrl>() {
        let shown = proxy.to_string();
        let again = shown.parse::<ProxyUrl>().map(|proxy| proxy.to_string());
        assert_eq!(again, Ok(shown), "without name and password");
    }
});
