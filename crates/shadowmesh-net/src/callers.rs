//! Who was refused last, so that the refusing side can tell, too.
//!
//! A caller is refused before it has proved who it is (the list of members is asked first), so what is kept is
//! what it calls itself. It is bounded, and is told to the log once in a while only: strangers may call as often
//! as they like.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shadowmesh_wire::PeerId;

/// Limit: callers that are remembered.
const CALLERS_MAX: usize = 4;
/// The log hears of a refused caller no more often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// The beginning of a PeerId, for the log.
pub(crate) fn short(id: &PeerId) -> String {
    let text = id.to_string();
    let beginning: String = text.chars().take(11).collect();
    format!("{beginning}…")
}

/// A caller that no peer of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedCaller {
    /// What it calls itself.
    pub id: PeerId,
    /// Where it called from last.
    pub from: SocketAddr,
    /// When it called last.
    pub at: Instant,
    /// How often, while it was remembered.
    pub count: u64,
}

/// The last of them.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    /// The latest first. Limit: [`CALLERS_MAX`].
    refused: Vec<RefusedCaller>,
    told_at: Option<Instant>,
}

impl Callers {
    /// One more. True: the log should hear of it.
    // PROTOCOL SM-OV-7
    pub(crate) fn refuse(&mut self, id: PeerId, from: SocketAddr, now: Instant) -> bool {
        let known = self.refused.iter().position(|caller| caller.id == id);
        let count = known.map_or(0, |at| self.refused.remove(at).count) + 1;
        let caller = RefusedCaller {
            id,
            from,
            at: now,
            count,
        };
        self.refused.insert(0, caller);
        self.refused.truncate(CALLERS_MAX);
        let tells = self.told_at.is_none_or(|at| now >= at + TOLD_EVERY);
        if tells {
            self.told_at = Some(now);
        }
        tells
    }

    /// Somebody is a peer now.
    pub(crate) fn forget(&mut self, id: &PeerId) {
        self.refused.retain(|caller| caller.id != *id);
    }

    /// The latest first.
    pub(crate) fn refused(&self) -> &[RefusedCaller] {
        &self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;

    // PROTOCOL SM-OV-7
    #[test]
    fn the_last_callers_are_remembered_and_a_flood_of_them_writes_one_line_a_minute() {
        let mut callers = Callers::default();
        let from = "192.0.2.1:4433".parse().unwrap();
        let mut told = 0;
        for n in 0..=255 {
            let at = start() + Duration::from_millis(n);
            told += u32::from(callers.refuse(PeerId::from_bytes([n as u8; 32]), from, at));
        }
        assert_eq!((told, callers.refused().len()), (1, CALLERS_MAX));
        assert_eq!(callers.refused()[0].id, PeerId::from_bytes([255; 32]));
        let later = start() + TOLD_EVERY;
        assert!(callers.refuse(PeerId::from_bytes([254; 32]), from, later));
        assert_eq!(callers.refused()[0].count, 2);
        callers.forget(&PeerId::from_bytes([254; 32]));
        assert_eq!(callers.refused()[0].id, PeerId::from_bytes([255; 32]));
    }
}
