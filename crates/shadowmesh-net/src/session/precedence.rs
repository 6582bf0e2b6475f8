//! One session per pair: which of two survives.
//!
//! Both sides must come to the same answer without talking about it.
//!
//! - Another boot on the other side: its older sessions are dead; the newcomer wins.
//! - A connection that was begun after the other session was up: whoever began it had lost that
//!   session, since nobody connects to a peer it has a session with. The newcomer wins. Of mere
//!   crossings only those look like this that the newcomer wins anyway, because its client is the lower
//!   PeerId: a node that becomes the server of the lower gives up those of its own calls on which the other
//!   side has not shown who it is (`Net::on_reached`), and one where it has arrived before the other session
//!   was up.
//! - Begun while the other was not yet up: they crossed. The one whose client is the lower PeerId wins.
//! - With the same client, the one that it began later, by its own count.

use std::time::Instant;

/// What decides about a connection with a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contender {
    /// The boot number the peer told on it.
    pub(crate) boot: u64,
    /// Whether its client is the lower of both PeerIds.
    pub(crate) client_is_lower: bool,
    /// Which of the calls of its client it is, where that says so.
    pub(crate) number: Option<u64>,
    /// Its first Initial: sent or arrived.
    pub(crate) started_at: Instant,
    /// When its session was up.
    pub(crate) established_at: Instant,
}

/// Whether a session just established takes the place of one that is up.
// PROTOCOL SM-HS-13
pub(crate) fn newcomer_wins(newcomer: Contender, incumbent: Contender) -> bool {
    if newcomer.boot != incumbent.boot {
        return true;
    }
    let same_client = newcomer.client_is_lower == incumbent.client_is_lower;
    // What went by different ways may arrive in another order than it was sent.
    if let (true, Some(newcomer), Some(incumbent)) =
        (same_client, newcomer.number, incumbent.number)
    {
        return newcomer > incumbent;
    }
    if newcomer.started_at > incumbent.established_at {
        return true;
    }
    if same_client {
        return newcomer.started_at >= incumbent.started_at;
    }
    newcomer.client_is_lower
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;
    use std::time::Duration;

    fn contender(boot: u64, lower: bool, started: u64, established: u64) -> Contender {
        Contender {
            boot,
            client_is_lower: lower,
            number: None,
            started_at: start() + Duration::from_secs(started),
            established_at: start() + Duration::from_secs(established),
        }
    }

    // PROTOCOL SM-HS-13
    #[test]
    fn crossing_sessions_leave_the_lower_clients_whichever_came_first() {
        let lower = contender(1, true, 0, 3);
        let higher = contender(1, false, 1, 2);
        assert!(newcomer_wins(lower, higher));
        assert!(!newcomer_wins(higher, lower));
    }

    // PROTOCOL SM-HS-13
    #[test]
    fn a_new_boot_and_a_lost_session_win_over_the_lower_client() {
        let old = contender(1, true, 0, 1);
        assert!(newcomer_wins(contender(2, false, 0, 1), old));
        assert!(newcomer_wins(contender(1, false, 2, 3), old));
    }
}
