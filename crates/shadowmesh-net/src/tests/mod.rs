//! `Net` in virtual time, with one scenario file for each behaviour.

mod again;
mod bare;
mod candidates;
mod connectivity;
mod crowd;
mod data_plane;
mod early_data;
mod early_frames;
mod flood;
mod fresh_port;
mod glare;
mod handshake;
pub(crate) mod harness;
mod hostile;
mod liar;
mod lives;
mod member;
mod membership;
mod paths;
mod rekey;
mod relay;
mod restart;
mod second;
mod soak;
