//! The data plane as two peers and an attacker between them see it.

mod counters;
mod frames;
mod rekey;

use quinn_proto::Side;
use shadowmesh_wire::sealed::{OVERHEAD, ReceiverIndex};

use super::*;
use crate::Cipher;
use crate::kdf;

const CLIENT: ReceiverIndex = ReceiverIndex(0xc1c1_c1c1_c1c1_c1c1);
const SERVER: ReceiverIndex = ReceiverIndex(0x5e5e_5e5e_5e5e_5e5e);

/// One end of a session with its replay window.
struct End {
    chain: KeyChain,
    window: SharedWindow,
}

impl End {
    /// A sealed frame with this inner frame.
    fn seal(&self, inner: &[u8]) -> Vec<u8> {
        seal(&self.chain.sealer(), inner)
    }

    /// The inner frame of a datagram.
    fn open(&mut self, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
        open(&self.chain.opener(), &self.window, datagram).map(|(_, inner)| inner)
    }
}

fn seal(sealer: &Sealer, inner: &[u8]) -> Vec<u8> {
    let counter = sealer.reserve(1).expect("the epoch is young");
    let mut datagram = vec![0; OVERHEAD - 1 + inner.len()];
    datagram[13..13 + inner.len()].copy_from_slice(inner);
    sealer.seal(counter, &mut datagram);
    datagram
}

fn open(
    opener: &Opener,
    window: &SharedWindow,
    datagram: &[u8],
) -> Result<(Opened, Vec<u8>), OpenError> {
    let mut datagram = datagram.to_vec();
    let authentic = opener.open(&mut datagram, window.highest())?;
    let opened = window.lock().accept(&authentic)?;
    let inner = datagram[opened.inner.clone()].to_vec();
    Ok((opened, inner))
}

/// Both ends of a session keyed with a fixed secret.
fn session(cipher: Cipher) -> (End, End) {
    let end = |side, theirs| {
        let mut secret = kdf::blank();
        secret.fill(42);
        End {
            chain: KeyChain::from_secret(secret, side, cipher, theirs),
            window: SharedWindow::new(),
        }
    };
    (end(Side::Client, SERVER), end(Side::Server, CLIENT))
}
