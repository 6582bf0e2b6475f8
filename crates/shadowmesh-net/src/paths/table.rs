//! The table of a peer's candidate ways.

use std::net::{IpAddr, SocketAddr};

use shadowmesh_wire::control::CandidateKind;

use super::{Candidate, Origin, Path, Paths, Tier};

/// Limit: ways to one peer that are remembered: all it may name, and our own.
pub(super) const CANDIDATES_MAX: usize = 48;

impl Paths {
    /// Every way known.
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.table
    }

    /// Whether a way leads there.
    pub(crate) fn knows(&self, remote: SocketAddr) -> bool {
        self.table.iter().any(|known| known.path.remote == remote)
    }

    /// Whether a way leads there that was proven and answers.
    pub(crate) fn has_proven(&self, remote: SocketAddr) -> bool {
        let mut all = self.table.iter();
        all.any(|known| known.path.remote == remote && known.is_proven())
    }

    /// Whether any way answers, as far as is known.
    pub(crate) fn has_any_proven(&self) -> bool {
        self.table.iter().any(Candidate::is_proven)
    }

    /// How we came to know of a way.
    pub(crate) fn origin(&self, path: Path) -> Option<Origin> {
        self.find(path).map(|candidate| candidate.origin)
    }

    pub(super) fn find(&self, path: Path) -> Option<&Candidate> {
        self.table.iter().find(|candidate| candidate.path.is(path))
    }

    pub(super) fn find_mut(&mut self, path: Path) -> Option<&mut Candidate> {
        self.table
            .iter_mut()
            .find(|candidate| candidate.path.is(path))
    }

    /// What only others know of a way: whether it leads over a relay that we reach by a stream.
    pub(crate) fn set_tiers(&mut self, tier: impl Fn(SocketAddr) -> Tier) {
        for candidate in &mut self.table {
            if !candidate.is_direct_udp() {
                candidate.tier = tier(candidate.path.remote);
            }
        }
    }

    /// These addresses of ours are on tunnel devices.
    pub(crate) fn set_tunnels(&mut self, tunnels: &[IpAddr]) {
        if self.tunnels != tunnels {
            self.tunnels = tunnels.to_vec();
            self.retier();
        }
    }

    /// Which straight ways lead through a tunnel device is looked at again.
    pub(super) fn retier(&mut self) {
        let mut table = std::mem::take(&mut self.table);
        for candidate in &mut table {
            if candidate.is_direct_udp() {
                candidate.tier = self.straight(candidate.path);
            }
        }
        self.table = table;
    }

    /// What kind a straight way is: through a tunnel device if it ends at an address of one, at our end as we
    /// see it, at the other as the peer says.
    // PROTOCOL SM-PA-5
    fn straight(&self, path: Path) -> Tier {
        let ours = path.local_ip.is_some_and(|ip| self.tunnels.contains(&ip));
        let theirs = || {
            let told = self.theirs.iter().flat_map(|theirs| &theirs.addresses);
            let mut tunnels = told.filter(|told| told.kind == CandidateKind::Tunnel);
            tunnels.any(|told| told.address == path.remote)
        };
        if ours || theirs() {
            Tier::Tunnelled
        } else {
            Tier::of(path.remote)
        }
    }

    /// Takes in a way. True: it is new.
    pub(crate) fn add(&mut self, path: Path, origin: Origin) -> bool {
        if let Some(known) = self.find_mut(path) {
            known.origin = known.origin.min(origin);
            return false;
        }
        self.insert(Candidate::new(path, origin));
        true
    }

    /// What is least worth makes room, never the way in use.
    pub(super) fn insert(&mut self, mut candidate: Candidate) {
        if candidate.is_direct_udp() {
            candidate.tier = self.straight(candidate.path);
        }
        if self.table.len() >= CANDIDATES_MAX {
            let current = self.current;
            let others = self.table.iter().enumerate();
            let least = others
                .filter(|(_, known)| !known.path.is(current))
                .max_by_key(|(_, known)| known.dispensable())
                .map(|(at, _)| at);
            if let Some(at) = least {
                self.table.remove(at);
            }
        }
        self.table.push(candidate);
    }

    /// Forgets ways that only the peer named and that it names no longer.
    pub(super) fn forget_told(&mut self) {
        let current = self.current;
        self.table.retain(|candidate| {
            candidate.path.is(current)
                || candidate.heard_at.is_some()
                || candidate.origin <= Origin::Heard
        });
    }
}
