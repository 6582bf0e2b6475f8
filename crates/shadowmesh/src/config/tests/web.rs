//! `[web]`.

use std::path::PathBuf;

use super::*;
use crate::config::{Certificate, ProxyChoice, WebUse};

#[test]
fn the_documented_web_reads_as_written() {
    let text = "[web]\nlisten = [\"0.0.0.0:443\", \"[::]:443\"]\ncertificate = \"tls/chain.pem\"\n\
                key = \"/etc/tls/key.pem\"\nproxy = \"http://me:secret@proxy.example\"\nuse = \"always\"\n";
    let web = parse_text(text).unwrap().web;
    assert_eq!(web.listen.len(), 2);
    let Certificate { chain, key } = web.certificate.unwrap();
    assert!(chain.ends_with("tls/chain.pem"));
    assert_eq!(key, PathBuf::from("/etc/tls/key.pem"));
    let shown = match &web.proxy {
        ProxyChoice::Proxy(url) => url.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(shown, "http://proxy.example:3128");
    assert_eq!(web.usage, WebUse::Always);
}

#[test]
fn without_a_word_about_it_nobody_listens_and_streams_are_opened_when_udp_is_silent() {
    for text in [
        "",
        "[web]\nlisten = []\ncertificate = \"\"\nkey = \"\"\nproxy = \"\"\nuse = \"auto\"\n",
    ] {
        let web = parse_text(text).unwrap().web;
        assert_eq!((web.listen.len(), web.certificate), (0, None));
        assert_eq!(
            (web.proxy, web.usage),
            (ProxyChoice::Environment, WebUse::Auto)
        );
    }
    let web = parse_text("[web]\nproxy = \"none\"\nuse = \"never\"\n")
        .unwrap()
        .web;
    assert_eq!((web.proxy, web.usage), (ProxyChoice::Direct, WebUse::Never));
}

#[test]
fn a_wrong_web_is_told_where_and_how_and_without_the_password() {
    for (text, line, hint) in [
        (
            "[web]\nlisten = [\"443\"]\n",
            2,
            "not an IP address with port",
        ),
        ("[web]\nuse = \"allways\"\n", 2, "did you mean `always`?"),
        (
            "[web]\ncertificate = \"a.pem\"\n",
            2,
            "`web.certificate` without `web.key`",
        ),
        (
            "[web]\nkey = \"a.pem\"\n",
            2,
            "`web.key` without `web.certificate`",
        ),
        (
            "[web]\nproxy = \"https://me:secret@proxy\"\n",
            2,
            "it must begin with http://",
        ),
        ("[web]\nport = 443\n", 2, "valid keys in [web]"),
    ] {
        let (at, _, message) = problem(text);
        assert_eq!(at, line, "{message}");
        assert!(message.contains(hint), "{hint}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
}
