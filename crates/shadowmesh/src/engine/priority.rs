//! Who goes first when the machine has more to do than cores.
//!
//! A kernel does what the data threads do in its softirqs, before any program. As ordinary threads they
//! would share the cores evenly with those who send and receive through the tunnel, wait out the
//! others' turns of up to 4 ms, and leave the queues wherever they happen to wait last: in the far
//! socket and in the device, in one line. So they ask to go before programs, and the receiver before the
//! sender: later stages first, or work is spent on packets that a queue further on drops (Mogul and
//! Ramakrishnan, "Eliminating receive livelock", 1997). What then waits does so in the sender's fair
//! queue.
//!
//! Niceness and not a real-time class: a flood of garbage keeps a receiver busy, and at real-time
//! priority it would take the core from everything else on the machine. Without the privilege
//! (`CAP_SYS_NICE`) all works, and is a little slower to answer under load.

use std::time::Duration;

use shadowmesh_io::sched;

/// Weighs nine times an ordinary thread.
const NICE_SENDER: i32 = -10;
/// Weighs seven times a sender.
const NICE_RECEIVER: i32 = -19;
/// A sender's pauses are 50 us; the kernel's own slack would double them.
const TIMER_SLACK: Duration = Duration::from_micros(1);

/// For the calling thread, a sender; whether it was granted.
pub fn sender() -> bool {
    let _ = sched::set_timer_slack(TIMER_SLACK);
    ask(NICE_SENDER)
}

/// For the calling thread, a receiver; whether it was granted.
pub fn receiver() -> bool {
    ask(NICE_RECEIVER)
}

fn ask(nice: i32) -> bool {
    let asked = sched::set_nice(nice);
    if let Err(error) = &asked {
        tracing::debug!(%error, "a data thread keeps the priority of an ordinary one");
    }
    asked.is_ok()
}
