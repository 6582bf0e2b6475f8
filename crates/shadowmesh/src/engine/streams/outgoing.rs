//! What waits to go out on a stream.
//!
//! Any thread puts datagrams in; the stream's task takes out messages. Whatever came in while the last
//! message was on its way leaves as one: so messages are short while there is little to do and long when
//! there is much. Nobody ever waits here, neither control nor a sender that has other peers to serve: a
//! stream that is slower than what it is given loses the rest, as a narrow line does; and one that stood
//! still goes on with what is fresh.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use shadowmesh_io::udp::{SendFault, Transmit};
use shadowmesh_net::{DropCounters, DropReason};
use shadowmesh_wire::bundle;

/// Bytes that may wait while the oldest of them are young: two turns of a sender, and some.
const BYTES_MAX: usize = 512 * 1024;
/// So many may wait in any case: a line of 10 Mbit/s takes 50 ms for them.
const BYTES_ALWAYS: usize = 64 * 1024;
/// Beyond that nothing more is taken behind what has waited so long: the line is slow, and what waits longer is
/// only delay.
const AGE_MAX: Duration = Duration::from_millis(20);
/// Room that data leaves for what control sends: handshakes and probes must pass a line that is full.
const BYTES_FOR_CONTROL: usize = 64 * 1024;
/// In all queues together: what 64 streams hold that stand still with their queues full. Streams share lines
/// (an uplink, a proxy), so they stand still together, and hundreds of them must not take the memory of the
/// process.
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
}

/// Bytes in the queues of all streams. Limit: [`ALL_BYTES_MAX`] and [`ALL_BYTES_FOR_CONTROL`], and what
/// threads add in the same moment.
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
        let mut taken = Ok(());
        for datagram in run.contents.chunks(stride) {
            let len = bundle::len_with(datagram.len());
            if !self.all.admits(len, kind) || !queue.admits(len, kind, now) {
                taken = Err(SendFault::Full);
                break;
            }
            queue.push(datagram, run.contents.len(), now);
            self.all.0.fetch_add(len, Ordering::Relaxed);
        }
        let task = queue.task.take();
        drop(queue);
        if let Some(task) = task {
            task.wake();
        }
        taken
    }

    /// The next message that is not stale; the task is woken when there is one.
    pub fn poll_pop(
        &self,
        cx: &mut Context<'_>,
        drops: &DropCounters,
        now: Instant,
    ) -> Poll<BytesMut> {
        let mut queue = self.lock();
        self.drop_stale(&mut queue, drops, now);
        match self.take_first(&mut queue) {
            Some(message) => Poll::Ready(message.bytes),
            None => {
                queue.task = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// To be called now and then while nothing leaves.
    pub fn expire(&self, drops: &DropCounters, now: Instant) {
        self.drop_stale(&mut self.lock(), drops, now);
    }

    // PROTOCOL SM-WS-8
    fn drop_stale(&self, queue: &mut Queue, drops: &DropCounters, now: Instant) {
        let is_stale =
            |message: &Message| now.saturating_duration_since(message.since) >= STALE_AFTER;
        while queue.messages.front().is_some_and(is_stale) {
            if let Some(stale) = self.take_first(queue) {
                drops.add(DropReason::TransmitBacklog, stale.datagrams);
            }
        }
    }

    fn take_first(&self, queue: &mut Queue) -> Option<Message> {
        let message = queue.messages.pop_front()?;
        queue.bytes -= message.bytes.len();
        self.all.0.fetch_sub(message.bytes.len(), Ordering::Relaxed);
        Some(message)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing is half written when somebody panics here.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let waiting = self.lock().bytes;
        self.all.0.fetch_sub(waiting, Ordering::Relaxed);
    }
}

impl AllBytes {
    fn admits(&self, len: usize, kind: Kind) -> bool {
        let room = match kind {
            Kind::Data => ALL_BYTES_MAX,
            Kind::Control => ALL_BYTES_MAX + ALL_BYTES_FOR_CONTROL,
        };
        self.0.load(Ordering::Relaxed) + len <= room
    }
}

impl Queue {
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

    /// An empty queue for the stream of this number.
    pub(super) fn open(&self, id: u64) -> Arc<Outgoing> {
        let outgoing = Arc::new(Outgoing {
            queue: Mutex::default(),
            all: Arc::clone(&self.all),
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

    fn pop_at(outgoing: &Outgoing, drops: &DropCounters, now: Instant) -> Option<BytesMut> {
        match outgoing.poll_pop(&mut Context::from_waker(Waker::noop()), drops, now) {
            Poll::Ready(message) => Some(message),
            Poll::Pending => None,
        }
    }

    fn pop(outgoing: &Outgoing, now: Instant) -> Option<BytesMut> {
        pop_at(outgoing, &DropCounters::default(), now)
    }

    /// The queue of a stream, alone.
    fn queue() -> Arc<Outgoing> {
        StreamTable::default().open(1)
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
        let (outgoing, drops, start) = (queue(), DropCounters::default(), Instant::now());
        let push = |len: usize, at: Duration| {
            let contents = vec![1; len];
            let pushed = outgoing.push(&run(&contents, None), Kind::Data, start + at);
            pushed.unwrap();
        };
        push(100, Duration::ZERO);
        push(101, Duration::from_millis(50));
        push(102, SPAN_MAX);
        push(103, STALE_AFTER);
        let message = pop_at(&outgoing, &drops, start + STALE_AFTER).unwrap();
        assert_eq!(datagrams(message), [102]);
        assert_eq!(drops.get(DropReason::TransmitBacklog), 2);
        outgoing.expire(&drops, start + 2 * STALE_AFTER);
        assert_eq!(drops.get(DropReason::TransmitBacklog), 3);
        assert_eq!(outgoing.lock().bytes, 0);
        assert_eq!(outgoing.all.0.load(Ordering::Relaxed), 0);
    }

    // PROTOCOL SM-WS-8
    #[test]
    fn all_streams_together_keep_no_more_than_their_share_and_leave_room_for_control() {
        let (table, now) = (StreamTable::default(), Instant::now());
        let contents = vec![2; 60_000];
        let push = |outgoing: &Outgoing, kind| outgoing.push(&run(&contents, None), kind, now);
        let fill = |outgoing: &Arc<Outgoing>| while push(outgoing, Kind::Data).is_ok() {};
        let mut queues: Vec<_> = (0..100).map(|id| table.open(id)).collect();
        queues.iter().for_each(fill);
        let all = || table.all.0.load(Ordering::Relaxed);
        assert!((ALL_BYTES_MAX - contents.len()..=ALL_BYTES_MAX).contains(&all()));
        let last = table.open(1000);
        assert_eq!(push(&last, Kind::Data), Err(SendFault::Full));
        push(&last, Kind::Control).unwrap();
        for outgoing in &queues {
            while push(outgoing, Kind::Control).is_ok() {}
        }
        assert!(all() <= ALL_BYTES_MAX + ALL_BYTES_FOR_CONTROL);
        // A stream that ended gives back what it had.
        let before = all();
        (0..100).for_each(|id| table.remove(id));
        queues.clear();
        assert!(before > all() && all() == last.lock().bytes, "{}", all());
        fill(&last);
        assert!(last.lock().bytes > 2 * contents.len());
    }

    #[test]
    fn a_datagram_no_message_holds_is_too_big_and_a_stream_that_ended_is_nowhere() {
        let table = StreamTable::default();
        let long = vec![0; bundle::DATAGRAM_LEN_MAX + 1];
        let send = |contents: &[u8]| table.send(1, &run(contents, None), Kind::Data);
        assert_eq!(send(&[0; 100]), Err(SendFault::Unreachable));
        table.open(1);
        assert_eq!(send(&long), Err(SendFault::TooBig));
        assert_eq!(send(&[0; 100]), Ok(()));
        table.remove(1);
        assert_eq!(send(&[0; 100]), Err(SendFault::Unreachable));
    }

    #[test]
    fn the_task_that_waits_is_woken() {
        let outgoing = queue();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let sender = Arc::clone(&outgoing);
        let thread = std::thread::spawn(move || {
            sender.push(&run(&[1; 50], None), Kind::Data, Instant::now())
        });
        let message = runtime.unwrap().block_on(poll_fn(|cx| {
            outgoing.poll_pop(cx, &DropCounters::default(), Instant::now())
        }));
        assert_eq!(datagrams(message), [50]);
        thread.join().unwrap().unwrap();
    }
}
