//! Every counter is handed out once and seals once.

use crate::session::counters::Counters;

fn spend_of(counters: &Counters, counter: u64) -> Result<(), Box<dyn std::any::Any + Send>> {
    let spend = std::panic::AssertUnwindSafe(|| counters.spend(counter));
    std::panic::catch_unwind(spend)
}

// PROTOCOL SM-SF-3
#[cfg(debug_assertions)]
#[test]
fn a_counter_that_seals_twice_or_was_never_handed_out_stops_a_debug_build() {
    let counters = Counters::default();
    assert_eq!(counters.reserve(4, 100), Some(0));
    assert_eq!(counters.reserve(4, 100), Some(4));
    assert_eq!(counters.reserve(93, 100), None);
    for counter in [5, 0, 7, 3] {
        assert!(spend_of(&counters, counter).is_ok());
        assert!(spend_of(&counters, counter).is_err(), "{counter} twice");
    }
    assert!(spend_of(&counters, 8).is_err(), "never handed out");
    for counter in [1, 2, 4, 6] {
        assert!(spend_of(&counters, counter).is_ok());
    }
    assert!(spend_of(&counters, 6).is_err());
}

// PROTOCOL SM-SF-3
#[cfg(debug_assertions)]
#[test]
fn counters_that_start_again_stop_a_debug_build() {
    let counters = Counters::default();
    counters.reserve(64, 1 << 20).unwrap();
    (0..64).for_each(|counter| counters.spend(counter));
    for start in [0, 63] {
        counters.set(start);
        let again = std::panic::AssertUnwindSafe(|| counters.reserve(1, 1 << 20));
        assert!(std::panic::catch_unwind(again).is_err(), "from {start}");
    }
    counters.set(64);
    assert_eq!(counters.reserve(1, 1 << 20), Some(64));
}

#[test]
fn counters_that_are_left_out_are_remembered_in_one_range() {
    let counters = Counters::default();
    for run in 0..100_000 {
        assert_eq!(counters.reserve(64, u64::MAX), Some(run * 64));
    }
    #[cfg(debug_assertions)]
    assert_eq!(counters.unused_ranges(), 1);
    assert!(spend_of(&counters, 70).is_ok());
}
