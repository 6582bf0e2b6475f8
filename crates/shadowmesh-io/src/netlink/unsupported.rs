//! Stands in for the kernel's interface where there is no netlink: it cannot be built.

use std::convert::Infallible;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::{Address, Change, Link, NetlinkError, Route, Rule};

type Result<T> = std::result::Result<T, NetlinkError>;

/// A connection to the kernel; cannot exist on this platform.
pub struct Handle(Infallible);

/// Same signatures as on Linux; none can be reached.
#[allow(missing_docs, reason = "documented on the Linux type")]
impl Handle {
    pub fn new() -> Result<Self> {
        Err(NetlinkError::Unsupported)
    }
    pub fn links(&self) -> Result<Vec<Link>> {
        match self.0 {}
    }
    pub fn link_by_name(&self, _name: &str) -> Result<Link> {
        match self.0 {}
    }
    pub fn link_by_index(&self, _index: u32) -> Result<Link> {
        match self.0 {}
    }
    pub fn set_up(&self, _index: u32) -> Result<()> {
        match self.0 {}
    }
    pub fn set_down(&self, _index: u32) -> Result<()> {
        match self.0 {}
    }
    pub fn wait_for_carrier(&self, _index: u32, _timeout: Duration) -> Result<()> {
        match self.0 {}
    }
    pub fn set_mtu(&self, _index: u32, _mtu: u32) -> Result<()> {
        match self.0 {}
    }
    pub fn rename(&self, _index: u32, _name: &str) -> Result<()> {
        match self.0 {}
    }
    pub fn disable_link_local(&self, _index: u32) -> Result<()> {
        match self.0 {}
    }
    pub fn set_master(&self, _index: u32, _master: Option<u32>) -> Result<()> {
        match self.0 {}
    }
    pub fn move_to_netns(&self, _index: u32, _netns: &impl AsFd) -> Result<()> {
        match self.0 {}
    }
    pub fn create_veth(&self, _name: &str, _peer: &str) -> Result<()> {
        match self.0 {}
    }
    pub fn create_bridge(&self, _name: &str) -> Result<()> {
        match self.0 {}
    }
    pub fn delete_link(&self, _index: u32) -> Result<()> {
        match self.0 {}
    }
    pub fn addresses(&self) -> Result<Vec<Address>> {
        match self.0 {}
    }
    pub fn add_address(&self, _index: u32, _address: IpAddr, _prefix_len: u8) -> Result<()> {
        match self.0 {}
    }
    pub fn add_address_alone(&self, _index: u32, _address: IpAddr, _prefix_len: u8) -> Result<()> {
        match self.0 {}
    }
    pub fn rules(&self, _ipv6: bool) -> Result<Vec<Rule>> {
        match self.0 {}
    }
    pub fn add_rule(&self, _rule: &Rule) -> Result<()> {
        match self.0 {}
    }
    pub fn del_rule(&self, _rule: &Rule) -> Result<()> {
        match self.0 {}
    }
    pub fn del_address(&self, _index: u32, _address: IpAddr, _prefix_len: u8) -> Result<()> {
        match self.0 {}
    }
    pub fn gateway_towards(&self, _destination: IpAddr) -> Result<Option<IpAddr>> {
        match self.0 {}
    }
    pub fn mute(&self, _ipv6: bool, _muted: bool) -> Result<()> {
        match self.0 {}
    }
    pub fn routes(&self) -> Result<Vec<Route>> {
        match self.0 {}
    }
    pub fn add_route(&self, _route: &Route) -> Result<()> {
        match self.0 {}
    }
    pub fn del_route(&self, _route: &Route) -> Result<()> {
        match self.0 {}
    }
}

/// Changes of links, addresses and routes; cannot exist on this platform.
pub struct Monitor(Infallible);

#[allow(missing_docs, reason = "documented on the Linux type")]
impl Monitor {
    pub fn new() -> Result<Self> {
        Err(NetlinkError::Unsupported)
    }
    pub fn take(&mut self) -> Result<Vec<Change>> {
        match self.0 {}
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}
