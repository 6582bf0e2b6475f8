#![allow(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made but by reading the clock; the tests only count from it"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use shadowmesh_net::DropReason;

use super::{FLOWS, FairQueue, INTERVAL, Limits, QUANTUM, Signal, Size, TARGET};

const LIMITS: Limits = Limits {
    items: 100,
    memory: 1_000_000,
};

/// What the tests put in: the flow and its place in the flow.
type Item = (u64, u64);

fn packet(bytes: u32) -> Size {
    Size {
        bytes,
        memory: bytes,
        segments: 1,
        ecn_capable: false,
    }
}

fn nothing_lost(item: Item, _: Size, reason: DropReason) {
    panic!("{item:?} was lost: {reason:?}");
}

/// One step of a random run.
#[derive(Debug, Clone)]
enum Step {
    Push {
        flow: u64,
        bytes: u32,
        segments: u32,
        ecn_capable: bool,
    },
    Pop,
    Wait(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..6, 20u32..65_000, 1u32..48, any::<bool>()).prop_map(
            |(flow, bytes, segments, ecn_capable)| Step::Push { flow, bytes, segments, ecn_capable }
        ),
        3 => Just(Step::Pop),
        1 => (0u64..30_000).prop_map(|us| Step::Wait(Duration::from_micros(us))),
    ]
}

proptest! {
    #[test]
    fn limits_hold_order_is_kept_and_whatever_does_not_come_out_was_handed_back(
        steps in proptest::collection::vec(step(), 0..800),
        items in 1usize..40,
        memory in 1usize..400_000,
    ) {
        let limits = Limits { items, memory };
        let mut queue = FairQueue::new(limits);
        let mut now = Instant::now();
        let (mut pushed, mut lost, mut popped) = (0u64, 0u64, 0u64);
        // The last number seen of each flow, out of the queue or thrown away.
        let mut last = BTreeMap::<u64, u64>::new();
        let mut numbers = BTreeMap::<u64, u64>::new();
        for step in steps.into_iter().chain(std::iter::repeat_n(Step::Pop, 50)) {
            match step {
                Step::Push { flow, bytes, segments, ecn_capable } => {
                    let number = numbers.entry(flow).or_default();
                    *number += 1;
                    let size = Size { bytes, memory: bytes, segments, ecn_capable };
                    let own = (flow, *number);
                    let mut gone = Vec::new();
                    queue.push(flow, own, size, now, &mut |item, _, reason| {
                        assert_eq!(reason, DropReason::QueueFull);
                        gone.push(item);
                    });
                    pushed += 1;
                    lost += gone.len() as u64;
                    for item in gone {
                        if item != own {
                            prop_assert!(last.insert(item.0, item.1) < Some(item.1));
                        }
                    }
                }
                Step::Pop => {
                    let mut gone = Vec::new();
                    let found = queue.pop(now, &mut |item, size, reason| {
                        assert_eq!(reason, DropReason::QueueCodel);
                        // Only what can be told in no better way is lost whole.
                        assert!(!size.ecn_capable && size.segments == 1);
                        gone.push(item);
                    });
                    lost += gone.len() as u64;
                    for item in gone {
                        prop_assert!(last.insert(item.0, item.1) < Some(item.1));
                    }
                    if let Some((item, size, signal)) = found {
                        popped += 1;
                        prop_assert!(last.insert(item.0, item.1) < Some(item.1));
                        match signal {
                            Signal::None => {}
                            Signal::Mark => prop_assert!(size.ecn_capable),
                            Signal::LoseFirst => prop_assert!(size.segments > 1 && !size.ecn_capable),
                        }
                    }
                }
                Step::Wait(time) => now += time,
            }
            prop_assert!(queue.len() <= limits.items);
            prop_assert!(queue.memory() <= limits.memory);
            prop_assert_eq!(pushed, lost + popped + queue.len() as u64);
        }
        prop_assert!(queue.is_empty());
        prop_assert_eq!(queue.memory(), 0);
    }

    #[test]
    fn flows_with_a_backlog_get_the_same_number_of_bytes_whatever_their_packets_are(
        sizes in proptest::collection::vec(20u32..65_000, 2..8),
        bytes_total in 1_000_000u64..5_000_000,
    ) {
        let mut queue = FairQueue::new(LIMITS);
        let now = Instant::now();
        let fill = |queue: &mut FairQueue<Item>, flow: usize| {
            let size = Size { memory: 1, ..packet(sizes[flow]) };
            queue.push(flow as u64, (flow as u64, 0), size, now, &mut nothing_lost);
        };
        for flow in 0..sizes.len() {
            for _ in 0..2 {
                fill(&mut queue, flow);
            }
        }
        let mut served = vec![0u64; sizes.len()];
        while served.iter().sum::<u64>() < bytes_total {
            let ((flow, _), size, _) = queue.pop(now, &mut nothing_lost).unwrap();
            served[flow as usize] += u64::from(size.bytes);
            fill(&mut queue, flow as usize);
        }
        let (most, least) = (served.iter().max().unwrap(), served.iter().min().unwrap());
        let packet_max = u64::from(*sizes.iter().max().unwrap());
        // The bound of deficit round robin (Shreedhar and Varghese, theorem 2).
        prop_assert!(most - least <= 2 * packet_max + QUANTUM as u64, "{:?} of {:?}", served, sizes);
    }
}

#[test]
fn a_flow_with_nothing_waiting_goes_before_those_with_a_backlog() {
    let mut queue = FairQueue::new(LIMITS);
    let now = Instant::now();
    for flow in 0..5 {
        for number in 0..4 {
            queue.push(flow, (flow, number), packet(60_000), now, &mut |_, _, _| {});
        }
    }
    for _ in 0..6 {
        queue.pop(now, &mut nothing_lost).unwrap();
    }
    queue.push(77, (77, 0), packet(84), now, &mut nothing_lost);
    let (item, _, signal) = queue.pop(now, &mut nothing_lost).unwrap();
    assert_eq!((item, signal), ((77, 0), Signal::None));
}

#[test]
fn a_flow_cannot_stay_first_by_sending_its_packets_just_so() {
    let mut queue = FairQueue::new(LIMITS);
    let now = Instant::now();
    for number in 0..50 {
        queue.push(1, (1, number), packet(1400), now, &mut nothing_lost);
    }
    let mut served = [0u32; 3];
    // Flow 2 comes back with a packet whenever its queue is empty.
    for number in 0..60 {
        if queue.flows[2].items == 0 {
            queue.push(2, (2, number), packet(1400), now, &mut nothing_lost);
        }
        if let Some(((flow, _), ..)) = queue.pop(now, &mut nothing_lost) {
            served[flow as usize] += 1;
        }
    }
    assert!(served[1] >= 20, "{served:?}");
}

/// Packets that stand in line in [`standing_queue`].
const LINE: u32 = 10;

/// Fills flow 1 and serves it with every packet waiting `waited`; what was signalled, by when.
fn standing_queue(size: Size, waited: Duration, time: Duration) -> Vec<(Duration, Signal)> {
    let mut queue = FairQueue::new(LIMITS);
    let start = Instant::now();
    let mut signals = Vec::new();
    let mut now = start;
    for number in 0..u64::from(LINE) {
        queue.push(1, (1, number), size, start, &mut nothing_lost);
    }
    while now - start < time {
        // As many packets stand in line all the time, each for `waited`.
        now += waited / LINE;
        let mut codel = 0;
        if let Some((_, _, signal)) = queue.pop(now, &mut |_, _, _| codel += 1)
            && signal != Signal::None
        {
            signals.push((now - start, signal));
        }
        for _ in 0..codel {
            signals.push((now - start, Signal::None));
        }
        while queue.len() < LINE as usize {
            queue.push(1, (1, 0), size, now, &mut nothing_lost);
        }
    }
    signals
}

#[test]
fn a_short_wait_is_never_signalled_and_a_long_one_after_an_interval_and_then_faster() {
    let size = packet(1400);
    assert!(standing_queue(size, TARGET / 2, 50 * INTERVAL).is_empty());
    let signals = standing_queue(size, 3 * TARGET, 20 * INTERVAL);
    assert!(signals[0].0 >= INTERVAL, "{:?}", signals[0]);
    let gaps: Vec<_> = signals
        .windows(2)
        .map(|pair| pair[1].0 - pair[0].0)
        .collect();
    assert!(gaps.first() > gaps.last(), "{gaps:?}");
    // 20 intervals of the square root law are about a hundred signals.
    assert!((60..200).contains(&signals.len()), "{}", signals.len());
}

#[test]
fn the_signal_is_the_mildest_that_the_packet_allows() {
    let plain = packet(1400);
    let long = Size {
        segments: 45,
        ..plain
    };
    let marked = Size {
        ecn_capable: true,
        ..long
    };
    for (size, expected) in [
        // A whole packet lost, which the test writes down as no signal of what came out.
        (plain, Signal::None),
        (long, Signal::LoseFirst),
        (marked, Signal::Mark),
    ] {
        let signals = standing_queue(size, 3 * TARGET, 5 * INTERVAL);
        assert!(!signals.is_empty());
        assert!(
            signals.iter().all(|(_, signal)| *signal == expected),
            "{signals:?}"
        );
    }
}

#[test]
fn a_flood_pushes_out_itself() {
    let mut queue = FairQueue::new(LIMITS);
    let now = Instant::now();
    queue.push(1, (1, 0), packet(84), now, &mut nothing_lost);
    let mut lost = 0;
    for number in 0..1000 {
        queue.push(2, (2, number), packet(64), now, &mut |item: Item, _, _| {
            assert_eq!(item.0, 2);
            lost += 1;
        });
    }
    assert_eq!(lost, 1000 + 1 - LIMITS.items);
    assert_eq!(queue.pop(now, &mut nothing_lost).unwrap().0, (1, 0));
}

#[test]
fn an_item_larger_than_the_limit_is_refused_and_ends_nothing() {
    let mut queue = FairQueue::new(LIMITS);
    let now = Instant::now();
    let mut lost = Vec::new();
    let size = packet(LIMITS.memory as u32 + 1);
    queue.push(FLOWS as u64, (9, 9), size, now, &mut |item, _, reason| {
        lost.push((item, reason))
    });
    assert_eq!(lost, [((9, 9), DropReason::QueueFull)]);
    assert!(queue.pop(now, &mut nothing_lost).is_none());
}
