//! Each behaviour by a table, then all of them at once by random traffic.

mod behaviours;
mod random_traffic;

use super::*;
use rand::SeedableRng;

const ME: &str = "192.168.1.10:4433";
const OTHER: &str = "192.168.1.11:4433";
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const DEPENDENCES: [Dependence; 3] = [
    Dependence::EndpointIndependent,
    Dependence::AddressDependent,
    Dependence::AddressAndPortDependent,
];

/// A box under test, with its dice and its clock.
struct Bench {
    middlebox: Middlebox,
    rng: StdRng,
    now: Duration,
}

fn bench(profile: BoxProfile) -> Bench {
    let mut rng = StdRng::seed_from_u64(7);
    Bench {
        middlebox: Middlebox::new(profile, OUTSIDE, &mut rng),
        rng,
        now: Duration::ZERO,
    }
}

impl Bench {
    fn send(&mut self, from: &str, to: &str) -> Result<SocketAddr, Refusal> {
        self.middlebox
            .outbound(at(from), at(to), self.now, &mut self.rng)
    }

    fn mapped(&mut self, from: &str, to: &str) -> SocketAddr {
        self.send(from, to).expect("a packet from inside passes")
    }

    fn answer(&mut self, from: &str, to: SocketAddr) -> Result<SocketAddr, Refusal> {
        self.middlebox.inbound(at(from), to, self.now)
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("a socket address")
}
