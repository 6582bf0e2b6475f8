//! What the engine sets on the host: the device's addresses, and the routes and rules into the mesh.
//!
//! What may be taken is decided first (`claims`), from the networks the host is in. Then everything is
//! written to the [`Journal`], so that exactly what was set can be taken away: by [`Host::undo`] at the
//! end, or after a `kill -9` by the next start. Nothing that was there before is ever changed or removed.
//!
//! While the node runs it stays like that: [`Host::keep`] puts back what others take away, and gives way
//! to networks that the host enters later. Somebody who takes away again and again wins, and it is said:
//! two programs that fight for a device help nobody.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use shadowmesh_io::netlink::{Handle, NetlinkError, Refusal, Route, Rule};
use shadowmesh_io::tun::Tun;
use shadowmesh_wire::prefix::IpPrefix;
use thiserror::Error;

use super::claims::{Clash, Moment, Plan, Wanted};
use super::ground::{self, Ground};
use super::journal::{Journal, World};
use super::routing::{Routing, key, versions};

/// Limit: how often in [`REPAIR_WINDOW`] what others took away is put back.
const REPAIRS_MAX: usize = 10;
/// Then it is looked at again after as long.
const REPAIR_WINDOW: Duration = Duration::from_secs(60);

/// Why the host could not be set up.
#[derive(Debug, Error)]
pub enum HostError {
    /// The kernel refused an address or a route; the text says which.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The journal, without which nothing is set.
    #[error("cannot keep the journal of host settings in {}: {source}", .state_dir.display())]
    Journal {
        /// Where it should be.
        state_dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The host is in the networks of all our addresses, and nothing is left.
    #[error("{} (next: {})", said(.0), .0.first().map(Clash::next_step).unwrap_or_default())]
    Clash(Vec<Clash>),
}

fn said(clashes: &[Clash]) -> String {
    let said: Vec<String> = clashes.iter().map(ToString::to_string).collect();
    said.join("; and ")
}

fn journal_error(state_dir: &Path) -> impl FnOnce(io::Error) -> HostError {
    let state_dir = state_dir.to_owned();
    move |source| HostError::Journal { state_dir, source }
}

/// What is to be set, and for which device.
pub struct HostOptions<'a> {
    /// The device.
    pub device: &'a Tun,
    /// Largest IP packet of it.
    pub mtu: u32,
    /// Addresses and prefixes.
    pub wanted: Wanted,
    /// UDP ports over IPv4 at which we listen.
    pub ports: Vec<u16>,
    /// Where the journal is.
    pub state_dir: &'a Path,
}

/// How it stands, for the node and for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostView {
    /// Addresses the device has.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Networks of the host within the overlay, which are reached without us.
    pub networks: Vec<IpPrefix>,
    /// Whether the underlay has a way of its own.
    pub apart: bool,
    /// What is not as it should be, and not in our hands.
    pub problem: Option<String>,
    /// Where the host's networks and ours do not go together.
    pub clashes: Vec<Clash>,
}

/// Addresses, routes and rules of a running node.
pub struct Host {
    netlink: Handle,
    device: Device,
    wanted: Wanted,
    routing: Routing,
    /// IPv6 is there for the device.
    ipv6: bool,
    journal: Journal,
    state_dir: PathBuf,
    state: Mutex<State>,
}

struct Device {
    index: u32,
    name: String,
    mtu: u32,
}

/// What changes while the node runs.
#[derive(Default)]
struct State {
    /// Everything is taken away, and nothing may be put back.
    ended: bool,
    set: Setting,
    plan: Plan,
    /// Limit: [`REPAIRS_MAX`].
    repairs: VecDeque<Instant>,
    problem: Option<String>,
}

/// Everything that is set, in the kernel's terms.
#[derive(Debug, Clone, Default)]
struct Setting {
    addresses: Vec<(IpAddr, u8)>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
}

impl Host {
    // PROTOCOL SM-DV-2
    // PROTOCOL SM-DV-5
    /// Gives the device its addresses and leads what is wanted to it.
    pub fn configure(options: HostOptions<'_>) -> Result<Self, HostError> {
        let HostOptions {
            device,
            mtu,
            mut wanted,
            ports,
            state_dir,
        } = options;
        let journal_error = || journal_error(state_dir);
        let ipv6 = switch_on_ipv6(device.name());
        if !ipv6 {
            tracing::warn!(
                "this machine has no IPv6 for the device; the overlay has IPv4 only here"
            );
            wanted = wanted.without_ipv6();
        }
        let netlink = Handle::new()?;
        let networks = Ground::take(&netlink)?.networks(Some(device.index()));
        let mut plan = wanted.plan(&networks, Moment::Start);
        if plan.addresses.is_empty() && !wanted.is_empty() {
            return Err(HostError::Clash(plan.clashes));
        }
        let mut journal = Journal {
            world: World::current().map_err(journal_error())?,
            device_index: device.index(),
            device_name: device.name().into(),
            addresses: wanted.addresses().collect(),
            routes: wanted.prefixes().map(|p| (p.addr(), p.len())).collect(),
            tables: Vec::new(),
            ports,
        };
        let routing = claim_tables(&netlink, ipv6, &mut journal, state_dir)?;
        // From here on a failure undoes what came before it, by dropping `host`.
        let host = Self {
            device: Device {
                index: device.index(),
                name: device.name().into(),
                mtu,
            },
            state_dir: state_dir.to_owned(),
            state: Mutex::default(),
            netlink,
            wanted,
            routing,
            ipv6,
            journal,
        };
        if !host.routing.is_apart() {
            plan = host.wanted.plan(&networks, Moment::MainTable);
            if plan.addresses.is_empty() && !host.wanted.is_empty() {
                return Err(HostError::Clash(plan.clashes));
            }
        }
        say_changes(&[], &plan.clashes);
        let set = host.setting(&plan)?;
        host.change(&Setting::default(), &set)?;
        let mut state = State {
            set,
            plan,
            ..State::default()
        };
        std::mem::swap(&mut *host.lock(), &mut state);
        drop(state);
        Ok(host)
    }

    /// How it stands.
    pub fn view(&self) -> HostView {
        let state = self.lock();
        HostView {
            addresses: state.plan.addresses.clone(),
            networks: state.plan.left.clone(),
            apart: self.routing.is_apart(),
            problem: state.problem.clone(),
            clashes: state.plan.clashes.clone(),
        }
    }

    // PROTOCOL SM-DV-5
    // PROTOCOL SM-DV-6
    /// Looks whether everything is as it was set, puts back what others took away, and gives way to new
    /// networks of the host. Returns when to look again, if nothing tells.
    pub fn keep(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        match self.look_after(&mut state, now) {
            Ok(again) => again,
            Err(error) => {
                state.note(format!("device {}: {error}", self.device.name));
                Some(now + REPAIR_WINDOW)
            }
        }
    }

    fn look_after(&self, state: &mut State, now: Instant) -> Result<Option<Instant>, NetlinkError> {
        let ground = Ground::take(&self.netlink)?;
        let name = &self.device.name;
        let Some(link) = ground
            .links
            .iter()
            .find(|link| link.index == self.device.index)
        else {
            state.note(format!(
                "the device {name} is gone: somebody deleted or moved it"
            ));
            return Ok(None);
        };
        let moment = match self.routing.is_apart() {
            true => Moment::Running {
                ipv4: state.plan.addresses.iter().any(|(a, _)| a.is_ipv4()),
                ipv6: state.plan.addresses.iter().any(|(a, _)| a.is_ipv6()),
            },
            false => Moment::MainTable,
        };
        let networks = ground.networks(Some(self.device.index));
        let plan = self.wanted.plan(&networks, moment);
        let set = self.setting(&plan)?;
        let mut lost = Vec::new();
        if !link.up {
            lost.push("taken down".to_owned());
        }
        if link.mtu != self.device.mtu {
            lost.push(format!("MTU {}", link.mtu));
        }
        let there = self.there(&ground)?;
        lost.extend(there.lacks(&state.set.and(&set)));
        if !lost.is_empty() {
            let lost = lost.join(", ");
            if !state.may_repair(now) {
                state.note(format!(
                    "somebody keeps changing the device {name} ({lost}): put back {REPAIRS_MAX} times in a \
                     minute, and now left for one"
                ));
                return Ok(Some(now + REPAIR_WINDOW));
            }
            tracing::warn!("somebody changed the device {name} ({lost}); it is set again");
            if self.ipv6 {
                switch_on_ipv6(name);
            }
            if link.mtu != self.device.mtu {
                self.netlink.set_mtu(self.device.index, self.device.mtu)?;
            }
            self.netlink.set_up(self.device.index)?;
        }
        // A device that was down has lost more than could be seen then.
        let there = self.there(&Ground::take(&self.netlink)?)?;
        self.change(&there, &set)?;
        say_changes(&state.plan.clashes, &plan.clashes);
        (state.set, state.plan) = (set, plan);
        if state.problem.take().is_some() {
            tracing::info!("the device {name} is as it should be");
        }
        Ok(None)
    }

    /// What a plan comes to here.
    fn setting(&self, plan: &Plan) -> Result<Setting, NetlinkError> {
        let links = self.netlink.links()?;
        let strict = ground::is_filtered_strictly(&links, self.device.index);
        let ports: &[u16] = if strict { &self.journal.ports } else { &[] };
        let mut rules = Vec::new();
        for ipv6 in versions(self.ipv6 && self.routing.is_apart()) {
            if self.routing.is_apart() {
                let first = ground::first_priority(&self.netlink.rules(ipv6)?);
                rules.extend(self.routing.rules(ipv6, first, ports));
            }
        }
        Ok(Setting {
            addresses: plan.addresses.clone(),
            routes: self.routing.routes(plan, self.device.index),
            rules,
        })
    }

    /// What of ours is there.
    fn there(&self, ground: &Ground) -> Result<Setting, NetlinkError> {
        let marks = self.journal.marks();
        let addresses = ground.addresses.iter();
        let addresses = addresses.filter(|address| address.index == self.device.index);
        let mut rules = Vec::new();
        for ipv6 in versions(self.ipv6 && self.routing.is_apart()) {
            if self.routing.is_apart() {
                rules.extend(self.netlink.rules(ipv6)?);
            }
        }
        rules.retain(|rule| marks.is_our_rule(rule));
        let routes = ground.routes.iter().filter(|route| marks.is_ours(route));
        Ok(Setting {
            addresses: addresses
                .map(|address| (address.address, address.prefix_len))
                .filter(|address| self.journal.addresses.contains(address))
                .collect(),
            routes: routes.copied().collect(),
            rules,
        })
    }

    /// From one setting to another. What is new comes first, so that nothing is without a way between.
    fn change(&self, from: &Setting, to: &Setting) -> Result<(), NetlinkError> {
        for route in to.routes.iter().filter(|route| !from.has_route(route)) {
            let added = self.netlink.add_route(route);
            if is_there_already(&added) {
                tracing::warn!(
                    "this machine has a route for some of allowed_ips already, and it is left as it \
                     is: packets go where it leads"
                );
            }
            tolerate_existing(added)?;
        }
        // After its routes, by which other nodes on this host know whose the device is.
        for address in to.addresses.iter().filter(|a| !from.addresses.contains(a)) {
            tolerate_existing(self.add_address(*address))?;
        }
        for rule in to.rules.iter().filter(|rule| !from.rules.contains(rule)) {
            tolerate_existing(self.netlink.add_rule(rule))?;
        }
        for rule in from.rules.iter().filter(|rule| !to.rules.contains(rule)) {
            tolerate_gone(self.netlink.del_rule(rule))?;
        }
        for route in from.routes.iter().filter(|route| !to.has_route(route)) {
            tolerate_gone(self.netlink.del_route(route))?;
        }
        for (address, len) in from.addresses.iter().filter(|a| !to.addresses.contains(a)) {
            tolerate_gone(self.netlink.del_address(self.device.index, *address, *len))?;
        }
        Ok(())
    }

    /// The kernel's route to an address's network would be in the main table.
    fn add_address(&self, (address, len): (IpAddr, u8)) -> Result<(), NetlinkError> {
        match self.routing {
            Routing::Apart(_) => self
                .netlink
                .add_address_alone(self.device.index, address, len),
            Routing::Main => self.netlink.add_address(self.device.index, address, len),
        }
    }

    // PROTOCOL SM-DV-2
    /// Takes away what was set, and the journal with it. Also happens on drop.
    pub fn undo(&self) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        state.ended = true;
        take_away(&self.netlink, &self.journal, true);
        if let Err(error) = Journal::remove(&self.state_dir) {
            tracing::warn!(%error, "could not remove the journal of host settings");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing is half done where somebody panicked: the kernel is asked anew each time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.undo();
    }
}

impl State {
    /// Says a problem once.
    fn note(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!("{problem}");
            self.problem = Some(problem);
        }
    }

    fn may_repair(&mut self, now: Instant) -> bool {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) >= REPAIR_WINDOW;
        while self.repairs.front().is_some_and(is_old) {
            self.repairs.pop_front();
        }
        let may = self.repairs.len() < REPAIRS_MAX;
        if may {
            self.repairs.push_back(now);
        }
        may
    }
}

impl Setting {
    fn has_route(&self, wanted: &Route) -> bool {
        self.routes.iter().any(|route| key(route) == key(wanted))
    }

    /// What is in both.
    fn and(&self, other: &Self) -> Self {
        let (addresses, rules) = (self.addresses.iter(), self.rules.iter());
        let routes = self.routes.iter().filter(|route| other.has_route(route));
        Self {
            addresses: addresses
                .filter(|a| other.addresses.contains(a))
                .copied()
                .collect(),
            routes: routes.copied().collect(),
            // A rule that must move up counts as lost.
            rules: rules
                .filter(|r| other.rules.iter().any(|o| same_but_place(o, r)))
                .copied()
                .collect(),
        }
    }

    /// How much of `wanted` is not here, in words.
    fn lacks(&self, wanted: &Self) -> impl Iterator<Item = String> + use<> {
        let addresses = wanted
            .addresses
            .iter()
            .filter(|a| !self.addresses.contains(a));
        let routes = wanted.routes.iter().filter(|route| !self.has_route(route));
        let rules = wanted
            .rules
            .iter()
            .filter(|rule| !self.rules.contains(rule));
        let counts = [
            (addresses.count(), "address"),
            (routes.count(), "route"),
            (rules.count(), "rule"),
        ];
        counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| match (count, what) {
                (1, what) => format!("1 {what} gone"),
                (count, "address") => format!("{count} addresses gone"),
                (count, what) => format!("{count} {what}s gone"),
            })
    }
}

fn same_but_place(one: &Rule, other: &Rule) -> bool {
    let priority = other.priority;
    Rule { priority, ..*one } == *other
}

/// Tells what has come to clash, and what no longer does.
fn say_changes(before: &[Clash], after: &[Clash]) {
    for clash in after.iter().filter(|clash| !before.contains(clash)) {
        match clash.is_loss() {
            true => tracing::warn!("{clash}; next: {}", clash.next_step()),
            false => tracing::info!("{clash}"),
        }
    }
    for clash in before.iter().filter(|clash| !after.contains(clash)) {
        tracing::info!("no longer: {clash}");
    }
}

/// Takes a pair of tables, by the rule that leads to one of them: the kernel lets only one node have it. The
/// journal is written before.
fn claim_tables(
    netlink: &Handle,
    ipv6: bool,
    journal: &mut Journal,
    state_dir: &Path,
) -> Result<Routing, HostError> {
    for routing in Routing::choices(netlink, ipv6)? {
        let first = ground::first_priority(&netlink.rules(false)?);
        let Some(claim) = routing.rules(false, first, &[]).pop() else {
            break;
        };
        journal.tables = routing.tables();
        journal.save(state_dir).map_err(journal_error(state_dir))?;
        match netlink.add_rule(&claim) {
            Ok(()) => return Ok(routing),
            Err(error) if error.refusal() == Some(Refusal::Exists) => {}
            Err(error) if error.refusal() == Some(Refusal::NotSupported) => break,
            Err(error) => {
                // Nothing is set yet, and these tables may be another's.
                let _ = Journal::remove(state_dir);
                return Err(error.into());
            }
        }
    }
    tracing::warn!(
        "this machine has no routing tables or packet marks for us; the routes are in its main table, and a \
         peer whose own address lies in its allowed_ips is not reached"
    );
    journal.tables.clear();
    journal.save(state_dir).map_err(journal_error(state_dir))?;
    Ok(Routing::Main)
}

// PROTOCOL SM-DV-5
/// What would clash if the node were started now; nothing where the system does not tell. Takes no rights.
pub fn foresee(wanted: &Wanted) -> Vec<Clash> {
    let ground = Handle::new().and_then(|netlink| Ground::take(&netlink));
    match ground {
        Ok(ground) => wanted.plan(&ground.networks(None), Moment::Start).clashes,
        Err(error) => {
            tracing::debug!(%error, "the host's networks are not known");
            Vec::new()
        }
    }
}

// PROTOCOL SM-DV-2
/// Takes away what a killed run of this node left on the host. Call it before the device is made.
pub fn clean_leftovers(state_dir: &Path) -> Result<(), HostError> {
    let Some(journal) = Journal::load(state_dir) else {
        return Ok(());
    };
    let world = World::current().map_err(journal_error(state_dir))?;
    if journal.world == world {
        let netlink = Handle::new()?;
        let has_device = is_same_device(&netlink, &journal);
        tracing::info!(device = %journal.device_name, "cleaning up after a run that was killed");
        take_away(&netlink, &journal, has_device);
    }
    Journal::remove(state_dir).map_err(journal_error(state_dir))
}

/// A device of that name made since then has another index, and is not ours to touch.
fn is_same_device(netlink: &Handle, journal: &Journal) -> bool {
    netlink
        .link_by_name(&journal.device_name)
        .is_ok_and(|link| link.index == journal.device_index)
}

/// Many containers start every device with IPv6 switched off. This one is ours, carries only overlay
/// addresses and takes its settings along when it goes, so it is switched on for it alone. False where
/// not even that is allowed, or where the kernel has no IPv6 at all: a node that then refused to start
/// would help nobody.
fn switch_on_ipv6(device: &str) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == "0" => true,
        Ok(_) => fs::write(&path, "0").is_ok(),
        Err(_) => false,
    }
}

/// Errors are expected here and mean the same as success: it is already gone. Tables of our own and their
/// rules hang on no device; what is in the main table and on the device does.
fn take_away(netlink: &Handle, journal: &Journal, has_device: bool) {
    if has_device || !journal.tables.is_empty() {
        journal.marks().take_away(netlink);
    }
    if !has_device {
        return;
    }
    for (address, len) in &journal.addresses {
        if let Err(error) = netlink.del_address(journal.device_index, *address, *len) {
            tracing::debug!(%error, "an address was already gone");
        }
    }
}

/// What is there already needs no setting: two peers may share a network, and a persistent device may
/// have been prepared by the administrator.
fn tolerate_existing(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    if is_there_already(&result) {
        tracing::debug!(?result, "already set");
        return Ok(());
    }
    result
}

fn is_there_already(result: &Result<(), NetlinkError>) -> bool {
    matches!(result, Err(error) if error.refusal() == Some(Refusal::Exists))
}

fn tolerate_gone(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.refusal() == Some(Refusal::NotThere) => Ok(()),
        other => other,
    }
}
