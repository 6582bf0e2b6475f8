//! What waits to go out on a stream.
//!
//! Any thread puts datagrams in; the stream's task takes out messages. Whatever came in while the last
//! message was on its way leaves as one: so messages are short while there is little to do and long when
//! there is much. Nobody ever waits here, neither control nor a sender that has other peers to serve: a
//! stream that is slower than what it is given loses the rest, as a narrow line does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use shadowmesh_io::udp::{SendFault, Transmit};
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

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A data thread.
    Data,
    /// The control thread.
    Control,
}

/// One stream's queue.
#[derive(Default)]
pub struct Outgoing(Mutex<Queue>);

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
            if !queue.admits(datagram.len(), kind, now) {
                taken = Err(SendFault::Full);
                break;
            }
            queue.push(datagram, run.contents.len(), now);
        }
        let task = queue.task.take();
        drop(queue);
        if let Some(task) = task {
            task.wake();
        }
        taken
    }

    /// The next message; the task is woken when there is one.
    pub fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<BytesMut> {
        let mut queue = self.lock();
        match queue.messages.pop_front() {
            Some(message) => {
                queue.bytes -= message.bytes.len();
                Poll::Ready(message.bytes)
            }
            None => {
                queue.task = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing is half written when somebody panics here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn admits(&self, len: usize, kind: Kind, now: Instant) -> bool {
        let bytes = self.bytes + bundle::len_with(len);
        if kind == Kind::Control {
            return bytes <= BYTES_MAX + BYTES_FOR_CONTROL;
        }
        let is_young = |message: &Message| now.saturating_duration_since(message.since) < AGE_MAX;
        bytes <= BYTES_ALWAYS || bytes <= BYTES_MAX && self.messages.front().is_none_or(is_young)
    }

    /// Behind the last message, or as the first of another. `expected`: bytes that come with it.
    fn push(&mut self, datagram: &[u8], expected: usize, now: Instant) {
        let last = self.messages.back_mut();
        let message = match last.filter(|m| bundle::has_room(m.bytes.len(), datagram.len())) {
            Some(message) => message,
            None => {
                let capacity = bundle::MESSAGE_LEN_MAX.min(expected + expected / 8 + 64);
                self.messages.push_back(Message {
                    bytes: BytesMut::with_capacity(capacity),
                    since: now,
                });
                self.messages.back_mut().expect("one was just pushed")
            }
        };
        let length = bundle::length(datagram.len());
        message.bytes.extend_from_slice(&length);
        message.bytes.extend_from_slice(datagram);
        self.bytes += bundle::len_with(datagram.len());
    }
}

/// The queues of all streams by number. Read by every thread that sends, for each run.
#[derive(Default)]
pub struct StreamTable(RwLock<BTreeMap<u64, Arc<Outgoing>>>);

impl StreamTable {
    /// Sends on a stream; `Unreachable` when there is none of this number any more.
    pub fn send(&self, id: u64, run: &Transmit<'_>, kind: Kind) -> Result<(), SendFault> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let outgoing = table.get(&id).ok_or(SendFault::Unreachable)?;
        outgoing.push(run, kind, Instant::now())
    }

    pub(super) fn insert(&self, id: u64, outgoing: Arc<Outgoing>) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(id, outgoing);
    }

    pub(super) fn remove(&self, id: u64) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
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

    fn pop(outgoing: &Outgoing) -> Option<BytesMut> {
        match outgoing.poll_pop(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => Some(message),
            Poll::Pending => None,
        }
    }

    fn datagrams(mut message: BytesMut) -> Vec<usize> {
        let bundle = bundle::Bundle::parse(&mut message).unwrap();
        bundle.into_iter().map(|datagram| datagram.len()).collect()
    }

    // PROTOCOL SM-WS-5
    #[test]
    fn what_waits_leaves_together_in_messages_that_are_not_too_long() {
        let outgoing = Outgoing::default();
        let now = Instant::now();
        outgoing
            .push(&run(&[1; 30], None), Kind::Control, now)
            .unwrap();
        let contents = vec![2; 64_000];
        outgoing
            .push(&run(&contents, Some(1500)), Kind::Data, now)
            .unwrap();
        let first = datagrams(pop(&outgoing).unwrap());
        assert_eq!(first[..2], [30, 1500]);
        outgoing
            .push(&run(&contents, Some(1500)), Kind::Data, now)
            .unwrap();
        let mut all = first;
        while let Some(message) = pop(&outgoing) {
            assert!(message.len() <= bundle::MESSAGE_LEN_MAX);
            all.extend(datagrams(message));
        }
        assert_eq!(all.iter().sum::<usize>(), 30 + 2 * 64_000);
    }

    #[test]
    fn a_line_that_is_slow_keeps_little_waiting_and_one_that_is_fast_more() {
        let outgoing = Outgoing::default();
        let start = Instant::now();
        let contents = vec![2; 32_000];
        let fill = |at: Instant| {
            let more = || outgoing.push(&run(&contents, Some(1000)), Kind::Data, at);
            (0..100).take_while(|_| more().is_ok()).count() * contents.len()
        };
        let young = fill(start);
        assert!((BYTES_MAX - 32_100..=BYTES_MAX).contains(&young), "{young}");
        while outgoing.lock().bytes > 40_000 {
            pop(&outgoing);
        }
        // Up to what always may wait, because what is there is old.
        let old = fill(start + AGE_MAX);
        assert!(old <= BYTES_ALWAYS, "{old}");
    }

    #[test]
    fn control_passes_a_queue_that_is_full_of_data_and_has_a_limit_too() {
        let outgoing = Outgoing::default();
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

    #[test]
    fn a_datagram_no_message_holds_is_too_big_and_a_stream_that_ended_is_nowhere() {
        let table = StreamTable::default();
        let long = vec![0; bundle::DATAGRAM_LEN_MAX + 1];
        let send = |contents: &[u8]| table.send(1, &run(contents, None), Kind::Data);
        assert_eq!(send(&[0; 100]), Err(SendFault::Unreachable));
        table.insert(1, Arc::default());
        assert_eq!(send(&long), Err(SendFault::TooBig));
        assert_eq!(send(&[0; 100]), Ok(()));
        table.remove(1);
        assert_eq!(send(&[0; 100]), Err(SendFault::Unreachable));
    }

    #[test]
    fn the_task_that_waits_is_woken() {
        let outgoing = Arc::new(Outgoing::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let sender = Arc::clone(&outgoing);
        let thread = std::thread::spawn(move || {
            sender.push(&run(&[1; 50], None), Kind::Data, Instant::now())
        });
        let message = runtime
            .unwrap()
            .block_on(poll_fn(|cx| outgoing.poll_pop(cx)));
        assert_eq!(datagrams(message), [50]);
        thread.join().unwrap().unwrap();
    }
}
