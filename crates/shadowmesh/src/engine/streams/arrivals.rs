//! What comes in on streams: judged as the receivers judge it, on the streams' thread.

use std::io;
use std::net::SocketAddr;

use shadowmesh_io::udp;
use shadowmesh_wire::bundle::{Bundle, BundleError, LENGTH_LEN};

use super::super::Shared;
use super::super::receiver::{Delivery, open_relayed};

/// Opens messages and delivers their packets.
pub struct Arrivals {
    shared: Shared,
    delivery: Delivery,
}

impl Arrivals {
    pub fn new(shared: Shared) -> Self {
        Self {
            delivery: Delivery::new(&shared, LENGTH_LEN),
            shared,
        }
    }

    /// One message of the stream that is known as `remote`. Its sealed frames are opened where they lie and
    /// their packets written to the device; the rest goes to control. Whether any of it was of a session.
    // PROTOCOL SM-WS-5
    pub fn receive(&mut self, remote: SocketAddr, message: &mut [u8]) -> Result<bool, BundleError> {
        let from = udp::Received {
            remote,
            local_ip: None,
            ecn: None,
            stride: message.len(),
            len: message.len(),
        };
        let bundle = Bundle::parse(message)?;
        let snapshot = self.shared.cell.load();
        let (shared, delivery) = (&self.shared, &mut self.delivery);
        delivery.open(shared, &snapshot, &from, bundle, 0);
        open_relayed(shared, &snapshot, &from, (0, message), delivery);
        drop(snapshot);
        // A device that is gone ends the receivers, and with them everything.
        let _: io::Result<()> = delivery.send(shared, message, || {});
        Ok(delivery.take_of_peers() > 0)
    }
}
