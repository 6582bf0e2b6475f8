//! What waits to go out on a stream.
//!
//! Any thread puts datagrams in; the stream's task takes out messages. Whatever came in while the last
//! message was on its way leaves as one: so messages are short while there is little to do and long when
//! there is much. Nobody ever waits here, neither control nor a sender that has other peers to serve: a
//! stream that is slower than what it is given loses the rest, as a narrow line does; and one that stood
//! still goes on with what is fresh.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use shadowmesh_io::udp::{SendFault, Transmit};
use shadowmesh_net::{DropCounters, DropReason};
use shadowmesh_wire::bundle;
use shadowmesh_wire::way::Way;

/// Bytes that may wait while the oldest of them are young: two turns of a sender, and some.
const BYTES_MAX: usize = 512 * 1024;
/// So many may wait in any case, whatever else waits: a line of 10 Mbit/s takes 50 ms for them. The 768 streams
/// that a server holds (SM-WS-7) keep 48 MiB so if all stand still, and as much again where control floods them.
const BYTES_ALWAYS: usize = 64 * 1024;
/// Beyond that nothing more is taken behind what has waited so long: the line is slow, and what waits longer is
/// only delay.
const AGE_MAX: Duration = Duration::from_millis(20);
/// Room that data leaves for what control sends: handshakes and probes must pass a line that is full.
const BYTES_FOR_CONTROL: usize = 64 * 1024;
/// In all queues together, of what each has beyond [`BYTES_ALWAYS`]: what 64 streams hold that stand still with
/// their queues full. Streams share lines (an uplink, a proxy), so they stand still together, and hundreds of
/// them must not take the memory of the process. First come, first served; so who takes it all takes from others
/// only what they need to be fast.
const ALL_BYTES_MAX: usize = 64 * BYTES_MAX;
/// And the room that data leaves there.
const ALL_BYTES_FOR_CONTROL: usize = 64 * BYTES_FOR_CONTROL;
/// What has waited so long is dropped: its sender has sent it again by now, or it is of no use any more.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// A message takes nothing more so long after its first datagram, so that what is fresh does not go stale
/// with what is old.
const SPAN_MAX: Duration = Duration::from_millis(100);

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A data thread.
    Data,
    /// The control thread.
    Control,
}

/// One stream's queue.
pub struct Outgoing {
    queue: Mutex<Queue>,
    all: Arc<AllBytes>,
    drops: Arc<DropCounters>,
    /// Control found something of a session in what came by this stream, see [`StreamTable::mark`].
    mark: AtomicBool,
}

/// Bytes in the queues of all streams, of each those beyond [`BYTES_ALWAYS`]. Limit: [`ALL_BYTES_MAX`] and
/// [`ALL_BYTES_FOR_CONTROL`], control's own room in each queue, and what threads add in the same moment.
#[derive(Default)]
struct AllBytes(AtomicUsize);

#[derive(Default)]
struct Queue {
    /// None is empty; each has at most [`bundle::MESSAGE_LEN_MAX`] bytes.
    messages: VecDeque<Message>,
    /// In all messages. Limit: [`BYTES_MAX`] and [`BYTES_FOR_CONTROL`].
    bytes: usize,
    /// The stream's task, when it waits for something to send.
    task: Option<Waker>,
}

struct Message {
    bytes: BytesMut,
    datagrams: u64,
    /// When its first datagram came.
    since: Instant,
}

impl Outgoing {
    /// Takes a run of datagrams, or as many of it as there is room for; `Full` when that was not all.
    // PROTOCOL SM-WS-5
    pub fn push(&self, run: &Transmit<'_>, kind: Kind, now: Instant) -> Result<(), SendFault> {
        let stride = run.segment_size.unwrap_or(run.contents.len()).max(1);
        if stride > bundle::DATAGRAM_LEN_MAX {
            return Err(SendFault::TooBig);
        }
        let mut queue = self.lock();
        self.drop_stale(&mut queue, now);
        let mut taken = Ok(());
        for datagram in run.contents.chunks(stride) {
            let len = bundle::len_with(datagram.len());
            let more = beyond_always(queue.bytes + len) - beyond_always(queue.bytes);
            let fits = queue.has_own_room(len, kind) || self.all.admits(more, kind);
            if !fits || !queue.admits(len, kind, now) {
                taken = Err(SendFault::Full);
                break;
            }
            queue.push(datagram, run.contents.len(), now);
            self.all.0.fetch_add(more, Ordering::Relaxed);
        }
        let task = queue.task.take();
        drop(queue);
        if let Some(task) = task {
            task.wake();
        }
        taken
    }

    /// The next message that is not stale; the task is woken when there is one.
    pub fn poll_pop(&self, cx: &mut Context<'_>, now: Instant) -> Poll<BytesMut> {
        let mut queue = self.lock();
        self.drop_stale(&mut queue, now);
        match self.take_first(&mut queue) {
            Some(message) => Poll::Ready(message.bytes),
            None => {
                queue.task = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// To be called now and then while nothing leaves, or comes.
    pub fn expire(&self, now: Instant) {
        self.drop_stale(&mut self.lock(), now);
    }

    /// Whether control has marked the stream since it was asked last.
    pub fn take_mark(&self) -> bool {
        self.mark.swap(false, Ordering::Relaxed)
    }

    // PROTOCOL SM-WS-8
    fn drop_stale(&self, queue: &mut Queue, now: Instant) {
        let is_stale =
            |message: &Message| now.saturating_duration_since(message.since) >= STALE_AFTER;
        while queue.messages.front().is_some_and(is_stale) {
            if let Some(stale) = self.take_first(queue) {
                self.drops.add(DropReason::TransmitBacklog, stale.datagrams);
            }
        }
    }

    fn take_first(&self, queue: &mut Queue) -> Option<Message> {
        let message = queue.messages.pop_front()?;
        let before = beyond_always(queue.bytes);
        queue.bytes -= message.bytes.len();
        let less = before - beyond_always(queue.bytes);
        self.all.0.fetch_sub(less, Ordering::Relaxed);
        Some(message)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing is half written when somebody panics here.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let waiting = beyond_always(self.lock().bytes);
        self.all.0.fetch_sub(waiting, Ordering::Relaxed);
    }
}

/// What of a queue of so many bytes counts among those of all streams.
fn beyond_always(bytes: usize) -> usize {
    bytes.saturating_sub(BYTES_ALWAYS)
}

impl AllBytes {
    fn admits(&self, more: usize, kind: Kind) -> bool {
        let room = match kind {
            Kind::Data => ALL_BYTES_MAX,
            Kind::Control => ALL_BYTES_MAX + ALL_BYTES_FOR_CONTROL,
        };
        self.0.load(Ordering::Relaxed) + more <= room
    }
}

impl Queue {
    /// There is room that other streams cannot take. `len`: of a datagram with its length.
    // PROTOCOL SM-WS-8
    fn has_own_room(&self, len: usize, kind: Kind) -> bool {
        let room = match kind {
            Kind::Data => BYTES_ALWAYS,
            Kind::Control => BYTES_ALWAYS + BYTES_FOR_CONTROL,
        };
        self.bytes + len <= room
    }

    /// `len`: of a datagram with its length.
    fn admits(&self, len: usize, kind: Kind, now: Instant) -> bool {
        let bytes = self.bytes + len;
        if kind == Kind::Control {
            return bytes <= BYTES_MAX + BYTES_FOR_CONTROL;
        }
        let is_young = |message: &Message| now.saturating_duration_since(message.since) < AGE_MAX;
        bytes <= BYTES_ALWAYS || bytes <= BYTES_MAX && self.messages.front().is_none_or(is_young)
    }

    /// Behind the last message, or as the first of another. `expected`: bytes that come with it.
    fn push(&mut self, datagram: &[u8], expected: usize, now: Instant) {
        let takes = |message: &&mut Message| {
            bundle::has_room(message.bytes.len(), datagram.len())
                && now.saturating_duration_since(message.since) < SPAN_MAX
        };
        let message = match self.messages.back_mut().filter(takes) {
            Some(message) => message,
            None => {
                let capacity = bundle::MESSAGE_LEN_MAX.min(expected + expected / 8 + 64);
                self.messages.push_back(Message {
                    bytes: BytesMut::with_capacity(capacity),
                    datagrams: 0,
                    since: now,
                });
                self.messages.back_mut().expect("one was just pushed")
            }
        };
        let length = bundle::length(datagram.len());
        message.bytes.extend_from_slice(&length);
        message.bytes.extend_from_slice(datagram);
        message.datagrams += 1;
        self.bytes += bundle::len_with(datagram.len());
    }
}

/// The queues of all streams by number. Read by every thread that sends, for each run.
#[derive(Default)]
pub struct StreamTable {
    queues: RwLock<BTreeMap<u64, Arc<Outgoing>>>,
    all: Arc<AllBytes>,
}

impl StreamTable {
    /// Sends on a stream; `Unreachable` when there is none of this number any more.
    pub fn send(&self, id: u64, run: &Transmit<'_>, kind: Kind) -> Result<(), SendFault> {
        let table = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let outgoing = table.get(&id).ok_or(SendFault::Unreachable)?;
        outgoing.push(run, kind, Instant::now())
    }

    /// Something of a session came by the stream at this address, which only control could tell: a probe in a
    /// QUIC packet. The streams' thread itself knows sealed frames, and from the address what comes by the way
    /// in use.
    pub fn mark(&self, address: SocketAddr) {
        if let Way::Stream(id) = Way::of(address) {
            let table = self.queues.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(outgoing) = table.get(&id) {
                outgoing.mark.store(true, Ordering::Relaxed);
            }
        }
    }

    /// An empty queue for the stream of this number, which counts there what it drops.
    pub(super) fn open(&self, id: u64, drops: &Arc<DropCounters>) -> Arc<Outgoing> {
        let outgoing = Arc::new(Outgoing {
            queue: Mutex::default(),
            all: Arc::clone(&self.all),
            drops: Arc::clone(drops),
            mark: AtomicBool::new(false),
        });
        let mut table = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(id, Arc::clone(&outgoing));
        outgoing
    }

    pub(super) fn remove(&self, id: u64) {
        let mut table = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        table.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn run(contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
        Transmit {
            remote: "[100::1]:0".parse().unwrap(),
            local_ip: None,
            traffic_class: 0,
            may_fragment: false,
            segment_size,
            contents,
        }
    }

    fn pop(outgoing: &Outgoing, now: Instant) -> Option<BytesMut> {
        match outgoing.poll_pop(&mut Context::from_waker(Waker::noop()), now) {
            Poll::Ready(message) => Some(message),
            Poll::Pending => None,
        }
    }

    fn open(table: &StreamTable, id: u64) -> Arc<Outgoing> {
        table.open(id, &Arc::default())
    }

    /// The queue of a stream, alone.
    fn queue() -> Arc<Outgoing> {
        open(&StreamTable::default(), 1)
    }

    fn dropped(outgoing: &Outgoing) -> u64 {
        outgoing.drops.get(DropReason::TransmitBacklog)
    }

    fn datagrams(mut message: BytesMut) -> Vec<usize> {
        let bundle = bundle::Bundle::parse(&mut message).unwrap();
        bundle.into_iter().map(|datagram| datagram.len()).collect()
    }

    // PROTOCOL SM-WS-5
    #[test]
    fn what_waits_leaves_together_in_messages_that_are_not_too_long() {
        let outgoing = queue();
        let now = Instant::now();
        outgoing
            .push(&run(&[1; 30], None), Kind::Control, now)
            .unwrap();
        let contents = vec![2; 64_000];
        outgoing
            .push(&run(&contents, Some(1500)), Kind::Data, now)
            .unwrap();
        let first = datagrams(pop(&outgoing, now).unwrap());
        assert_eq!(first[..2], [30, 1500]);
        outgoing
            .push(&run(&contents, Some(1500)), Kind::Data, now)
            .unwrap();
        let mut all = first;
        while let Some(message) = pop(&outgoing, now) {
            assert!(message.len() <= bundle::MESSAGE_LEN_MAX);
            all.extend(datagrams(message));
        }
        assert_eq!(all.iter().sum::<usize>(), 30 + 2 * 64_000);
    }

    #[test]
    fn a_line_that_is_slow_keeps_little_waiting_and_one_that_is_fast_more() {
        let outgoing = queue();
        let start = Instant::now();
        let contents = vec![2; 32_000];
        let fill = |at: Instant| {
            let more = || outgoing.push(&run(&contents, Some(1000)), Kind::Data, at);
            (0..100).take_while(|_| more().is_ok()).count() * contents.len()
        };
        let young = fill(start);
        assert!((BYTES_MAX - 32_100..=BYTES_MAX).contains(&young), "{young}");
        while outgoing.lock().bytes > 40_000 {
            pop(&outgoing, start);
        }
        // Up to what always may wait, because what is there is old.
        let old = fill(start + AGE_MAX);
        assert!(old <= BYTES_ALWAYS, "{old}");
    }

    #[test]
    fn control_passes_a_queue_that_is_full_of_data_and_has_a_limit_too() {
        let outgoing = queue();
        let now = Instant::now();
        let contents = vec![2; 60_000];
        while outgoing
            .push(&run(&contents, Some(1200)), Kind::Data, now)
            .is_ok()
        {}
        let control = || outgoing.push(&run(&[1; 1200], None), Kind::Control, now);
        control().unwrap();
        let passed = (0..1000).take_while(|_| control().is_ok()).count();
        assert!(passed < 60, "{passed}");
        assert!(outgoing.lock().bytes <= BYTES_MAX + BYTES_FOR_CONTROL);
    }

    // PROTOCOL SM-WS-8
    #[test]
    fn what_a_line_that_stood_still_was_given_is_dropped_and_counted_but_for_what_is_fresh() {
        let (outgoing, start) = (queue(), Instant::now());
        let push = |len: usize, at: Duration| {
            let contents = vec![1; len];
            let pushed = outgoing.push(&run(&contents, None), Kind::Data, start + at);
            pushed.unwrap();
        };
        push(100, Duration::ZERO);
        push(101, Duration::from_millis(50));
        push(102, SPAN_MAX);
        push(103, STALE_AFTER);
        let message = pop(&outgoing, start + STALE_AFTER).unwrap();
        assert_eq!(datagrams(message), [102]);
        assert_eq!(dropped(&outgoing), 2);
        outgoing.expire(start + 2 * STALE_AFTER);
        assert_eq!(dropped(&outgoing), 3);
        assert_eq!(outgoing.lock().bytes, 0);
        assert_eq!(outgoing.all.0.load(Ordering::Relaxed), 0);
    }

    // PROTOCOL SM-WS-8
    #[test]
    fn what_is_fresh_takes_the_place_of_what_is_stale_while_nothing_leaves() {
        let (outgoing, start) = (queue(), Instant::now());
        let contents = vec![2; 60_000];
        let push = |at| outgoing.push(&run(&contents, Some(1000)), Kind::Data, at);
        while push(start).is_ok() {}
        let waiting: u64 = outgoing.lock().messages.iter().map(|m| m.datagrams).sum();
        assert_eq!(push(start + STALE_AFTER / 2), Err(SendFault::Full));
        assert_eq!(dropped(&outgoing), 0);
        push(start + STALE_AFTER).unwrap();
        assert_eq!(dropped(&outgoing), waiting);
        let message = pop(&outgoing, start + STALE_AFTER).unwrap();
        assert_eq!(datagrams(message), [1000; 60]);
    }

    // PROTOCOL SM-WS-8
    #[test]
    fn all_streams_together_keep_no_more_than_their_share_and_leave_room_for_control() {
        let (table, now) = (StreamTable::default(), Instant::now());
        let contents = vec![2; 60_000];
        let push = |outgoing: &Outgoing, kind| outgoing.push(&run(&contents, None), kind, now);
        let fill = |outgoing: &Arc<Outgoing>| while push(outgoing, Kind::Data).is_ok() {};
        let mut queues: Vec<_> = (0..100).map(|id| open(&table, id)).collect();
        queues.iter().for_each(fill);
        let all = || table.all.0.load(Ordering::Relaxed);
        assert!((ALL_BYTES_MAX - contents.len()..=ALL_BYTES_MAX).contains(&all()));
        // Its own room nobody can take from a stream, and no more is left.
        let last = open(&table, 1000);
        push(&last, Kind::Data).unwrap();
        assert_eq!(push(&last, Kind::Data), Err(SendFault::Full));
        for outgoing in &queues {
            while push(outgoing, Kind::Control).is_ok() {}
        }
        let control = queues.len() * BYTES_FOR_CONTROL;
        assert!(all() <= ALL_BYTES_MAX + ALL_BYTES_FOR_CONTROL + control);
        assert_eq!(push(&queues[0], Kind::Control), Err(SendFault::Full));
        push(&last, Kind::Control).unwrap();
        // A stream that ended gives back what it had.
        let before = all();
        (0..100).for_each(|id| table.remove(id));
        queues.clear();
        let left = beyond_always(last.lock().bytes);
        assert!(before > all() && all() == left, "{}", all());
        fill(&last);
        assert!(last.lock().bytes > 2 * contents.len());
    }

    #[test]
    fn a_datagram_no_message_holds_is_too_big_and_a_stream_that_ended_is_nowhere() {
        let table = StreamTable::default();
        let long = vec![0; bundle::DATAGRAM_LEN_MAX + 1];
        let send = |contents: &[u8]| table.send(1, &run(contents, None), Kind::Data);
        assert_eq!(send(&[0; 100]), Err(SendFault::Unreachable));
        open(&table, 1);
        assert_eq!(send(&long), Err(SendFault::TooBig));
        assert_eq!(send(&[0; 100]), Ok(()));
        table.remove(1);
        assert_eq!(send(&[0; 100]), Err(SendFault::Unreachable));
    }

    // PROTOCOL SM-WS-6
    #[test]
    fn what_control_says_of_a_stream_is_heard_once_by_that_stream() {
        let table = StreamTable::default();
        let [first, second] = [1, 2].map(|id| open(&table, id));
        table.mark(Way::Stream(2).address());
        table.mark("192.0.2.1:1".parse().unwrap());
        assert!(!first.take_mark() && second.take_mark());
        assert!(!second.take_mark());
    }

    #[test]
    fn the_task_that_waits_is_woken() {
        let outgoing = queue();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let sender = Arc::clone(&outgoing);
        let thread = std::thread::spawn(move || {
            sender.push(&run(&[1; 50], None), Kind::Data, Instant::now())
        });
        let message = runtime
            .unwrap()
            .block_on(poll_fn(|cx| outgoing.poll_pop(cx, Instant::now())));
        assert_eq!(datagrams(message), [50]);
        thread.join().unwrap().unwrap();
    }
}
