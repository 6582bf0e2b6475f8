//! Who of those that come has a place, and when each may have its handshake.
//!
//! A connection costs a descriptor and memory; a handshake costs work that no stranger has paid for yet. So
//! both are given out before the first byte is read: places by number, handshakes by rate too. The rule is
//! the same for both: whoever takes much leaves less to itself and not to others. Peers are strangers like
//! all until a session inside has proved them; a source from which one came is remembered, and has handshakes
//! of its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::sync::oneshot;

use super::Refusal;
use super::gate::Gate;

/// Connections at once, streams among them. Each costs a descriptor, of which a process has 1024 by default,
/// and about 40 KB.
const CONNECTIONS_MAX: usize = 768;
/// Of these, such as nobody has vouched for ([`super::WebStream::vouch`]): who merely comes cannot take the
/// places of those who are known.
const STRANGERS_MAX: usize = 512;
/// Of one source: an IPv4 address or an IPv6 /64. An office behind one NAT fits.
const SOURCE_MAX: usize = 64;
/// Of one site: an IPv4 address or an IPv6 /48, which is what one customer gets at most (RFC 6177), and
/// anybody from a tunnel broker for nothing. Two full sources.
const SITE_MAX: usize = 128;
/// Handshakes under way or waiting for their turn, which may be made to take long: in all, of one source, and
/// of one neighbourhood (an IPv4 /24, an IPv6 /48).
const GREETINGS_MAX: usize = 128;
const GREETINGS_SOURCE_MAX: usize = 16;
const GREETINGS_NEAR_MAX: usize = 32;

/// Who has a place.
// PROTOCOL SM-WS-7
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    /// In the order of arrival. Limit: [`CONNECTIONS_MAX`] in all, [`STRANGERS_MAX`], [`SOURCE_MAX`],
    /// [`SITE_MAX`], and those of handshakes.
    places: BTreeMap<u64, Holder>,
    /// The number of the next.
    next: u64,
    gate: Gate,
}

struct Holder {
    source: IpAddr,
    site: IpAddr,
    /// While its handshake is not done: the neighbourhood it came from.
    greeting: Option<IpAddr>,
    /// Dropped to give the place to somebody else; none for those who are known.
    stranger: Option<oneshot::Sender<Infallible>>,
}

/// One connection's place, given back when dropped.
pub(super) struct Place {
    places: Places,
    number: u64,
    from: IpAddr,
    standing: Standing,
}

/// What may happen to a place.
enum Standing {
    /// It may be taken: then this is ready.
    Stranger(oneshot::Receiver<Infallible>),
    /// It was.
    Gone,
    /// It will not be.
    Known,
}

impl Places {
    /// A place for who comes from there, and when its handshake may begin.
    // PROTOCOL SM-WS-9
    pub(super) fn enter(&self, from: IpAddr, now: Instant) -> Result<(Place, Instant), Refusal> {
        let (source, near) = (source_of(from), near_of(from));
        let mut held = lock(&self.0);
        let greeting = |which: &dyn Fn(&Holder) -> bool| {
            let holders = held.places.values();
            let greeting = holders.filter(|holder| holder.greeting.is_some());
            greeting.filter(|holder| which(holder)).count()
        };
        if greeting(&|holder| holder.source == source) >= GREETINGS_SOURCE_MAX
            || greeting(&|holder| holder.greeting == Some(near)) >= GREETINGS_NEAR_MAX
        {
            return Err(Refusal::Place);
        }
        let is_full = greeting(&|_| true) >= GREETINGS_MAX;
        let turn = held.gate.turn(source, near, now).ok_or(Refusal::Rate)?;
        if is_full {
            let asks = held.make_room(near, |holder| holder.greeting);
            asks.ok_or(Refusal::Place)?;
        }
        drop(held);
        let place = self.admit(from).ok_or(Refusal::Place)?;
        if let Some(holder) = lock(&self.0).places.get_mut(&place.number) {
            holder.greeting = Some(near);
        }
        Ok((place, turn))
    }

    /// The process is out of descriptors: a stranger gives up its own.
    pub(super) fn spare(&self) {
        let nobody = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        lock(&self.0).make_room(nobody, Holder::stranger_of);
    }

    fn admit(&self, from: IpAddr) -> Option<Place> {
        let (source, site) = (source_of(from), site_of(from));
        let mut held = lock(&self.0);
        let count = |which: &dyn Fn(&Holder) -> bool| {
            let holders = held.places.values();
            holders.filter(|holder| which(holder)).count()
        };
        if count(&|holder| holder.source == source) >= SOURCE_MAX
            || count(&|holder| holder.site == site) >= SITE_MAX
        {
            return None;
        }
        if count(&Holder::is_stranger) >= STRANGERS_MAX || held.places.len() >= CONNECTIONS_MAX {
            held.make_room(site, Holder::stranger_of)?;
        }
        let number = held.next;
        held.next += 1;
        let (stranger, taken) = oneshot::channel();
        let holder = Holder {
            source,
            site,
            greeting: None,
            stranger: Some(stranger),
        };
        held.places.insert(number, holder);
        drop(held);
        Some(Place {
            places: self.clone(),
            number,
            from,
            standing: Standing::Stranger(taken),
        })
    }
}

impl Holder {
    fn is_stranger(&self) -> bool {
        self.stranger.is_some()
    }

    /// The site whose stranger this is.
    fn stranger_of(&self) -> Option<IpAddr> {
        self.is_stranger().then_some(self.site)
    }
}

impl Held {
    /// Takes the place of one for whom `group` names a group, for somebody of the group `ours`: the oldest of
    /// the group that has the most of them. So who fills the table loses to whoever else comes, and never the
    /// other way. `None`: no group has more than `ours` itself.
    fn make_room(&mut self, ours: IpAddr, group: impl Fn(&Holder) -> Option<IpAddr>) -> Option<()> {
        let mut groups: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for group in self.places.values().filter_map(&group) {
            *groups.entry(group).or_default() += 1;
        }
        let ours = groups.get(&ours).copied().unwrap_or(0);
        let most = groups.values().copied().max()?;
        if most <= ours {
            return None;
        }
        let is_of_most = |holder: &Holder| group(holder).is_some_and(|of| groups[&of] == most);
        let (&number, _) = self.places.iter().find(|(_, holder)| is_of_most(holder))?;
        self.places.remove(&number);
        Some(())
    }
}

impl Place {
    /// Ready when somebody else was given the place.
    pub(super) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.standing {
            Standing::Stranger(taken) => {
                // Nothing is ever sent: this is the other end being dropped.
                let _ = ready!(Pin::new(taken).poll(cx));
                self.standing = Standing::Gone;
                Poll::Ready(())
            }
            Standing::Gone => Poll::Ready(()),
            Standing::Known => Poll::Pending,
        }
    }

    /// Its handshake is done.
    pub(super) fn greeted(&self) {
        if let Some(holder) = lock(&self.places.0).places.get_mut(&self.number) {
            holder.greeting = None;
        }
    }

    /// Whoever has it is known, and so is where it came from. Too late if it was taken meanwhile.
    pub(super) fn vouch(&mut self) {
        let mut held = lock(&self.places.0);
        if let Some(holder) = held.places.get_mut(&self.number) {
            holder.stranger = None;
            self.standing = Standing::Known;
            held.gate.vouch(source_of(self.from));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places.0).places.remove(&self.number);
    }
}

/// An IPv4 address, or an IPv6 /64, which one host has whole (RFC 7934).
fn source_of(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V4(_) => from,
        IpAddr::V6(ip) => first_bits(ip, 64),
    }
}

/// An IPv4 address, or an IPv6 /48.
fn site_of(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V4(_) => from,
        IpAddr::V6(ip) => first_bits(ip, 48),
    }
}

/// An IPv4 /24, or an IPv6 /48.
fn near_of(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & !0xff).into(),
        IpAddr::V6(ip) => first_bits(ip, 48),
    }
}

fn first_bits(ip: Ipv6Addr, len: u32) -> IpAddr {
    Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - len))).into()
}

/// Nothing here is left half done by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(places: &Places, from: &str) -> Option<Place> {
        places.admit(from.parse().unwrap())
    }

    /// As many as are let in, of so many addresses of 10.0.0.0/8, of each as many as it may have.
    fn crowd(places: &Places, sources: usize) -> Vec<Place> {
        let all = (0..sources * SOURCE_MAX)
            .map(|n| format!("10.0.{}.{}", n / SOURCE_MAX / 200, n / SOURCE_MAX % 200));
        all.filter_map(|from| admit(places, &from)).collect()
    }

    fn is_taken(place: &mut Place) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        place.poll_taken(&mut cx).is_ready()
    }

    // PROTOCOL SM-WS-7
    #[test]
    fn a_source_and_a_site_have_their_share_of_connections() {
        let places = Places::default();
        let mut held = crowd(&places, 1);
        assert_eq!(held.len(), SOURCE_MAX);
        assert!(admit(&places, "10.0.0.0").is_none());
        drop(held.pop());
        held.extend(admit(&places, "10.0.0.0"));
        assert_eq!(held.len(), SOURCE_MAX);

        // Hosts of one /64 are one source, those of another are another, but of the same site.
        held.clear();
        for net in 0..2 {
            let hosts = (0..SOURCE_MAX).map(|n| format!("2001:db8:0:{net}::{n:x}"));
            held.extend(hosts.filter_map(|from| admit(&places, &from)));
            assert!(admit(&places, &format!("2001:db8:0:{net}::ffff")).is_none());
        }
        assert_eq!(held.len(), SITE_MAX);
        assert!(admit(&places, "2001:db8:0:9::1").is_none());
        held.extend(admit(&places, "2001:db8:1::1"));
        assert_eq!(held.len(), SITE_MAX + 1);
        drop(held);
        assert!(lock(&places.0).places.is_empty());
    }

    // PROTOCOL SM-WS-7
    #[test]
    fn strangers_leave_places_to_those_who_are_known_and_make_room_for_each_other() {
        let places = Places::default();
        let mut strangers = crowd(&places, STRANGERS_MAX / SOURCE_MAX);
        assert_eq!(strangers.len(), STRANGERS_MAX);

        // Somebody else comes in place of the oldest of them, and again.
        let mut newcomer = admit(&places, "192.0.2.1").expect("room is made");
        let second = admit(&places, "192.0.2.1").expect("room is made");
        let gone = strangers
            .iter_mut()
            .filter_map(|place| is_taken(place).then_some(place.number));
        assert_eq!(gone.collect::<Vec<_>>(), [0, SOURCE_MAX as u64]);
        strangers.retain_mut(|place| !is_taken(place));
        assert_eq!(lock(&places.0).places.len(), STRANGERS_MAX);

        // Who is known leaves its place to a stranger, and keeps its own whatever comes.
        newcomer.vouch();
        drop(second);
        strangers.extend((0..2).filter_map(|n| admit(&places, &format!("10.1.0.{n}"))));
        assert_eq!(lock(&places.0).places.len(), STRANGERS_MAX + 1);
        let others = (0..300).map(|n| admit(&places, &format!("10.2.{}.{}", n / 200, n % 200)));
        let others: Vec<Place> = others.flatten().collect();
        assert!(!others.is_empty() && !is_taken(&mut newcomer));
        drop((strangers, others, newcomer));
        assert!(lock(&places.0).places.is_empty());
    }

    // PROTOCOL SM-WS-7
    #[test]
    fn whoever_has_the_most_places_gets_no_other_of_anybody() {
        let places = Places::default();
        let mut held = crowd(&places, 6);
        let site = (0..100).map(|n| format!("2001:db8:0:{}::1", n % 2));
        held.extend(site.filter_map(|from| admit(&places, &from)));
        let others =
            (held.len()..STRANGERS_MAX).map(|n| format!("10.{}.{}.1", 1 + n / 200, n % 200));
        held.extend(others.filter_map(|from| admit(&places, &from)));
        assert_eq!(held.len(), STRANGERS_MAX);
        assert!(admit(&places, "2001:db8:0:9::1").is_none());
        assert!(admit(&places, "2001:db8:1:9::1").is_some());
    }

    #[test]
    fn the_known_fill_the_table_and_then_a_newcomer_finds_no_place() {
        let places = Places::default();
        let mut held = Vec::new();
        for n in 0..CONNECTIONS_MAX {
            let mut place = admit(&places, &format!("10.0.{}.{}", n / 200, n % 200)).unwrap();
            place.vouch();
            held.push(place);
        }
        assert!(admit(&places, "192.0.2.1").is_none());
        held.pop();
        assert!(admit(&places, "192.0.2.1").is_some());
    }

    fn enter(places: &Places, from: &str, now: Instant) -> Result<Place, Refusal> {
        places
            .enter(from.parse().unwrap(), now)
            .map(|(place, _)| place)
    }

    // PROTOCOL SM-WS-9
    #[test]
    fn handshakes_that_are_made_to_take_long_leave_room_for_those_of_others() {
        let (places, now) = (Places::default(), Instant::now());
        let mut slow: Vec<Place> = (0..100)
            .filter_map(|_| enter(&places, "10.0.0.1", now).ok())
            .collect();
        assert_eq!(slow.len(), GREETINGS_SOURCE_MAX);
        slow.extend((2..100).filter_map(|n| enter(&places, &format!("10.0.0.{n}"), now).ok()));
        assert_eq!(slow.len(), GREETINGS_NEAR_MAX);
        let others = (0..400).map(|n| format!("10.0.{}.{}", 1 + n / 30, n % 250));
        slow.extend(others.filter_map(|from| enter(&places, &from, now).ok()));
        // A neighbourhood that has fewer takes the place of the one that has the most.
        slow.retain_mut(|place| !is_taken(place));
        assert_eq!(slow.len(), GREETINGS_MAX);
        let place = enter(&places, "192.0.2.1", now).unwrap();
        slow.retain_mut(|place| !is_taken(place));
        assert_eq!(slow.len(), GREETINGS_MAX - 1);
        // Who is done leaves its turn, and keeps its place.
        place.greeted();
        // By then the flood has left a turn.
        let later = now + std::time::Duration::from_secs(1);
        let second = enter(&places, "192.0.2.1", later).unwrap();
        assert!(slow.iter_mut().all(|place| !is_taken(place)));
        drop((place, second, slow));
        assert!(lock(&places.0).places.is_empty());
    }

    // PROTOCOL SM-WS-9
    #[test]
    fn without_descriptors_a_stranger_gives_up_its_own_and_nobody_who_is_known() {
        let places = Places::default();
        let mut known = admit(&places, "192.0.2.1").unwrap();
        known.vouch();
        let mut stranger = admit(&places, "192.0.2.2").unwrap();
        places.spare();
        assert!(is_taken(&mut stranger) && !is_taken(&mut known));
        places.spare();
        assert!(!is_taken(&mut known));
    }
}
