//! What relays of ours passed on, on its way to be opened a second time. HOT PATH.
//!
//! A peer's datagram lies inside the relay's frame, in clear once that is opened. Those of a buffer that
//! came the same way are judged together as if they had been received so, where they lie.

use std::net::SocketAddr;
use std::ops::Range;

/// The datagrams that were found inside the frames of one buffer.
#[derive(Default)]
pub struct Relayed {
    /// The way each came, and where in the batch it lies; in the order of the buffer.
    /// Limit: the datagrams of a buffer.
    found: Vec<(SocketAddr, Range<usize>)>,
}

impl Relayed {
    /// A datagram that came by `remote` lies at `range` of the batch, behind those before it.
    pub fn push(&mut self, remote: SocketAddr, range: Range<usize>) {
        self.found.push((remote, range));
    }

    /// Calls `each` with those that came the same way one after the other, and where each begins; then
    /// forgets them. They lie in `buffer`, which starts at byte `start` of the batch.
    pub fn drain(
        &mut self,
        start: usize,
        buffer: &mut [u8],
        mut each: impl FnMut(SocketAddr, &mut dyn Iterator<Item = usize>, Inside<'_, '_>),
    ) {
        for group in self.found.chunk_by(|(one, _), (next, _)| one == next) {
            let (remote, _) = group[0];
            let mut starts = group.iter().map(|(_, range)| range.start);
            let inside = Inside {
                rest: buffer,
                at: start,
                ranges: group,
            };
            each(remote, &mut starts, inside);
        }
        self.found.clear();
    }
}

/// Datagrams inside a buffer.
pub struct Inside<'b, 'r> {
    /// What lies from byte `at` of the batch on.
    rest: &'b mut [u8],
    at: usize,
    ranges: &'r [(SocketAddr, Range<usize>)],
}

impl Inside<'_, '_> {
    /// Length of the first, which is that of all but perhaps the last.
    pub fn stride(&self) -> usize {
        self.ranges.first().map_or(0, |(_, range)| range.len())
    }
}

impl<'b> Iterator for Inside<'b, '_> {
    type Item = &'b mut [u8];

    fn next(&mut self) -> Option<&'b mut [u8]> {
        let ((_, range), ranges) = self.ranges.split_first()?;
        self.ranges = ranges;
        let rest = std::mem::take(&mut self.rest);
        let (_, rest) = rest.split_at_mut(range.start - self.at);
        let (datagram, rest) = rest.split_at_mut(range.len());
        (self.rest, self.at) = (rest, range.end);
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_found_where_they_lie_together_with_those_that_came_the_same_way() {
        let [a, b] = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let mut buffer: Vec<u8> = (0..30).collect();
        let mut relayed = Relayed::default();
        relayed.push(a, 102..105);
        relayed.push(a, 112..115);
        relayed.push(b, 122..124);
        relayed.push(a, 126..129);
        let mut seen = Vec::new();
        for _ in 0..2 {
            relayed.drain(100, &mut buffer, |remote, starts, inside| {
                let (stride, starts) = (inside.stride(), starts.collect::<Vec<_>>());
                let first: Vec<u8> = inside.map(|datagram| datagram[0]).collect();
                seen.push((remote.port(), stride, starts, first));
            });
        }
        let expected = [
            (1, 3, vec![102, 112], vec![2, 12]),
            (2, 2, vec![122], vec![22]),
            (1, 3, vec![126], vec![26]),
        ];
        assert_eq!(seen, expected, "once, and in their order");
    }
}
