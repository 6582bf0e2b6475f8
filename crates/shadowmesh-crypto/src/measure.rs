//! How fast this machine seals frames, so that peers can choose a cipher ([`crate::choose`]).

use std::time::Duration;

use crate::cipher::Cipher;
use crate::session::FrameCipher;

/// A full frame at the default MTU: what bulk traffic looks like.
const FRAME_LEN: usize = 1420;
/// Long enough to be steady on a busy machine, short enough not to be felt at start.
const MEASURE_FOR: Duration = Duration::from_millis(2);
/// Frames between two looks at the clock.
const FRAMES_PER_LOOK: u64 = 32;
/// The best of several rounds: whatever disturbs a measurement only ever makes it slower.
const ROUNDS: u32 = 3;

/// Times both ciphers with the clock `now` and returns MB/s in the order of [`Cipher::ALL`], at
/// least 1. Takes about 12 ms.
// PROTOCOL SM-SF-8
pub fn measure_speeds(mut now: impl FnMut() -> Duration) -> [u32; 2] {
    Cipher::ALL.map(|cipher| {
        (0..ROUNDS)
            .map(|_| measure(cipher, &mut now))
            .max()
            .unwrap_or(1)
    })
}

fn measure(cipher: Cipher, now: &mut impl FnMut() -> Duration) -> u32 {
    let key = FrameCipher::new(cipher, &[7; 32], &[7; 12]);
    let mut frame = [0; FRAME_LEN];
    let mut counter = 0;
    key.seal(counter, &mut frame);
    let start = now();
    loop {
        for _ in 0..FRAMES_PER_LOOK {
            counter += 1;
            key.seal(counter, &mut frame);
        }
        let took = now().saturating_sub(start);
        // The second bound ends the measurement under a clock that stands still.
        if took >= MEASURE_FOR || counter >= 1 << 16 {
            let megabytes = (counter * FRAME_LEN as u64) as f64 / 1e6;
            let speed = megabytes / took.as_secs_f64().max(1e-9);
            return (speed as u32).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-SF-8
    #[test]
    fn a_measurement_ends_under_any_clock_and_refuses_no_cipher() {
        let mut clock = Duration::ZERO;
        let ticking = measure_speeds(|| {
            clock += Duration::from_micros(500);
            clock
        });
        assert!(ticking.iter().all(|&speed| speed > 0), "{ticking:?}");
        let frozen = measure_speeds(|| Duration::ZERO);
        assert!(frozen.iter().all(|&speed| speed > 0), "{frozen:?}");
    }
}
