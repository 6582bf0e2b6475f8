//! The mapping that a UPnP gateway holds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use igd_next::{AddPortError, Gateway, PortMappingProtocol, SearchOptions, search_gateway};

use super::{PortMapError, usable};

/// How long the router may take to answer the search.
const SEARCH_MAX: Duration = Duration::from_secs(2);
/// What people see in their router's list.
const DESCRIPTION: &str = "ShadowMesh";
/// A router that knows only mappings without end is asked as often as others, in case it forgot.
const ENDLESS_RENEWED_AS_IF: Duration = Duration::from_secs(3600);
/// Outside ports that are tried: our own, and some above it that another host may not have.
const PORTS_TRIED: u16 = 4;
const _: () = assert!(PORTS_TRIED > 0);

/// A mapping made by UPnP.
pub(super) struct UpnpMapping {
    gateway: Gateway,
    own: SocketAddrV4,
    port: u16,
    /// `None`: without end.
    lifetime: Option<Duration>,
}

impl UpnpMapping {
    pub(super) fn ask(
        router: Ipv4Addr,
        own: SocketAddrV4,
        lifetime: Duration,
    ) -> Result<Self, PortMapError> {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new(IpAddr::V4(*own.ip()), 0);
        options.timeout = Some(SEARCH_MAX);
        options.single_search_timeout = Some(SEARCH_MAX);
        let gateway = search_gateway(options).map_err(refused)?;
        if gateway.addr.ip() != IpAddr::V4(router) {
            return Err(refused("another host answered than the router"));
        }
        let mut mapping = Self {
            gateway,
            own,
            port: own.port(),
            lifetime: Some(lifetime),
        };
        let mut added = mapping.renew();
        for above in 1..PORTS_TRIED {
            if added.is_ok() {
                break;
            }
            mapping.port = own.port().saturating_add(above);
            added = mapping.renew();
        }
        added.map(|()| mapping)
    }

    pub(super) fn renew(&mut self) -> Result<(), PortMapError> {
        match self.add() {
            Err(AddPortError::OnlyPermanentLeasesSupported) => {
                self.lifetime = None;
                self.add().map_err(refused)
            }
            other => other.map_err(refused),
        }
    }

    fn add(&self) -> Result<(), AddPortError> {
        // 0 stands for no end.
        let seconds = self.lifetime.map_or(0, |lifetime| lifetime.as_secs());
        self.gateway.add_port(
            PortMappingProtocol::UDP,
            self.port,
            self.own.into(),
            seconds.try_into().unwrap_or(u32::MAX),
            DESCRIPTION,
        )
    }

    pub(super) fn external_ip(&self) -> Result<Ipv4Addr, PortMapError> {
        usable(self.gateway.get_external_ip().map_err(refused)?)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime.unwrap_or(ENDLESS_RENEWED_AS_IF)
    }

    pub(super) fn remove(self) -> Result<(), PortMapError> {
        self.gateway
            .remove_port(PortMappingProtocol::UDP, self.port)
            .map_err(refused)
    }
}

fn refused(why: impl ToString) -> PortMapError {
    PortMapError::NotRenewed(why.to_string())
}
