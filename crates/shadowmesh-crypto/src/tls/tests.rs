//! The handshake as its two ends and an attacker between them see it.

mod authentication;
mod certificates;
mod key_exchange;
mod nodes;
mod resumption;
mod session_keys;
