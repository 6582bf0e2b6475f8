//! Asking the router for a port: PCP (RFC 6887), NAT-PMP (RFC 6886), UPnP-IGD.
//!
//! The protocols are those of two libraries, `crab_nat` and `igd-next`; here is the order in which they
//! are tried, and what they have in common. All calls block, for some seconds where nobody answers, so
//! they belong on a thread of their own. When to renew, and what to do when it fails, is the caller's.
//!
//! Only IPv4, and only the router that packets go through anyway is asked: what else on the network
//! offers to be a gateway is not believed.

mod upnp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{
    InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp,
};

/// How long PCP and NAT-PMP wait: requests after 0, 250 and 750 ms, 1.75 s in all.
const TIMEOUT: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};
/// The end of a mapping is said twice at most: nobody waits longer for a program to end, and the
/// mapping ends by itself.
const REMOVAL_TIMEOUT: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(150),
    max_retries: 1,
    max_retry_timeout: None,
};

/// Why there is no mapping.
#[derive(Debug, thiserror::Error)]
pub enum PortMapError {
    /// The port to map is 0.
    #[error("port 0 cannot be mapped")]
    NoPort,
    /// A socket or thread of ours failed.
    #[error("cannot ask the router for a port: {0}")]
    Io(#[from] io::Error),
    /// No protocol led to a mapping; what PCP or NAT-PMP said, and what UPnP did.
    #[error("the router {router} gives no port: {pcp}; UPnP: {upnp}")]
    Refused {
        /// Whom we asked.
        router: Ipv4Addr,
        /// What PCP or NAT-PMP ended with.
        pcp: String,
        /// What UPnP ended with.
        upnp: String,
    },
    /// A mapping that was there was not renewed.
    #[error("the router did not renew the mapping: {0}")]
    NotRenewed(String),
    /// The router's outside address leads nowhere.
    #[error("the router says that its outside address is {0}")]
    NoAddress(IpAddr),
}

/// A UDP port of the router that leads to ours, until it is removed or has had its time.
pub struct Mapping {
    held: Held,
    external: SocketAddrV4,
    lifetime: Duration,
}

enum Held {
    /// By PCP or NAT-PMP.
    Pcp(PortMapping),
    /// By UPnP.
    Upnp(upnp::UpnpMapping),
}

impl Mapping {
    /// Asks `router` to lead a UDP port, `own.port()` if that is free, to `own` for `lifetime`. Tries
    /// PCP, NAT-PMP and UPnP, and takes 4 s where nobody answers.
    pub fn ask(
        router: Ipv4Addr,
        own: SocketAddrV4,
        lifetime: Duration,
    ) -> Result<Self, PortMapError> {
        let port = NonZeroU16::new(own.port()).ok_or(PortMapError::NoPort)?;
        let pcp = match ask_pcp(router, *own.ip(), port, lifetime) {
            Ok(mapping) => return Ok(mapping),
            Err(error) => error,
        };
        upnp::UpnpMapping::ask(router, own, lifetime)
            .and_then(Self::of_upnp)
            .map_err(|upnp| PortMapError::Refused {
                router,
                pcp: pcp.to_string(),
                upnp: upnp.to_string(),
            })
    }

    fn of_upnp(held: upnp::UpnpMapping) -> Result<Self, PortMapError> {
        let external = SocketAddrV4::new(held.external_ip()?, held.port());
        let lifetime = held.lifetime();
        Ok(Self {
            held: Held::Upnp(held),
            external,
            lifetime,
        })
    }

    /// Where others reach us.
    pub fn external(&self) -> SocketAddrV4 {
        self.external
    }

    /// For how long, from the last request on.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Which protocol it is held by, for a person.
    pub fn protocol(&self) -> &'static str {
        match &self.held {
            Held::Pcp(mapping) => match mapping.mapping_type() {
                PortMappingType::NatPmp => "NAT-PMP",
                PortMappingType::Pcp { .. } => "PCP",
            },
            Held::Upnp(_) => "UPnP",
        }
    }

    /// Asks for the same once more. The outside address may be another afterwards.
    pub fn renew(&mut self) -> Result<(), PortMapError> {
        match &mut self.held {
            Held::Pcp(mapping) => {
                let renewed = block_on(async {
                    mapping.timeout_config = TIMEOUT;
                    mapping.renew().await
                })?;
                renewed.map_err(|error| PortMapError::NotRenewed(error.to_string()))?;
                *self = Self::of_pcp(mapping.clone())?;
            }
            Held::Upnp(mapping) => {
                mapping.renew()?;
                let ip = mapping.external_ip()?;
                self.external = SocketAddrV4::new(ip, mapping.port());
            }
        }
        Ok(())
    }

    /// Gives the port back.
    pub fn remove(self) -> Result<(), PortMapError> {
        match self.held {
            Held::Pcp(mut mapping) => {
                mapping.timeout_config = REMOVAL_TIMEOUT;
                let removed = block_on(mapping.try_drop())?;
                removed.map_err(|(error, _)| PortMapError::NotRenewed(error.to_string()))
            }
            Held::Upnp(mapping) => mapping.remove(),
        }
    }

    fn of_pcp(mapping: PortMapping) -> Result<Self, PortMapError> {
        let external = match mapping.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => external_ip,
            PortMappingType::NatPmp => {
                let asked = natpmp::external_address(mapping.gateway(), Some(TIMEOUT));
                let answer = block_on(asked)?;
                let ip = answer.map_err(|error| PortMapError::NotRenewed(error.to_string()))?;
                IpAddr::V4(ip)
            }
        };
        Ok(Self {
            external: SocketAddrV4::new(usable(external)?, mapping.external_port().get()),
            lifetime: Duration::from_secs(mapping.lifetime().into()),
            held: Held::Pcp(mapping),
        })
    }
}

fn ask_pcp(
    router: Ipv4Addr,
    own: Ipv4Addr,
    port: NonZeroU16,
    lifetime: Duration,
) -> Result<Mapping, PortMapError> {
    let options = PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: u32::try_from(lifetime.as_secs()).ok(),
        timeout_config: Some(TIMEOUT),
    };
    let client = IpAddr::V4(own);
    let protocol = InternetProtocol::Udp;
    let asked = block_on(PortMapping::new(
        router.into(),
        client,
        protocol,
        port,
        options,
    ))?;
    Mapping::of_pcp(asked.map_err(|error| PortMapError::NotRenewed(error.to_string()))?)
}

/// An outside address that somebody could send to.
fn usable(external: IpAddr) -> Result<Ipv4Addr, PortMapError> {
    match external {
        IpAddr::V4(ip)
            if !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_broadcast()) =>
        {
            Ok(ip)
        }
        other => Err(PortMapError::NoAddress(other)),
    }
}

/// A runtime for the length of one question: there are a few in an hour.
fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    Ok(runtime.block_on(work))
}
