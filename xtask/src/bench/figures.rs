//! Every figure of the benchmark: what it is called, in what unit, and which way is better.

/// Which of two figures wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// A rate.
    Higher,
    /// A cost.
    Lower,
}

/// One column of the results.
pub struct Figure {
    /// Its name in the JSON; the unit stands last.
    pub key: &'static str,
    /// For people, with the unit.
    pub title: &'static str,
    /// Short, for the head of a column.
    pub column: &'static str,
    /// Digits after the point.
    pub digits: usize,
    /// Which way is better.
    pub better: Better,
}

/// All of them, in the order of the tables.
pub const ALL: &[Figure] = &[
    figure(
        "tcp_gbit_s",
        "one TCP stream, Gbit/s",
        "tcp",
        2,
        Better::Higher,
    ),
    figure(
        "tcp_gbit_per_cpu_s",
        "one TCP stream, Gbit per CPU-second",
        "/cpu-s",
        2,
        Better::Higher,
    ),
    figure(
        "reverse_gbit_s",
        "one TCP stream the other way, Gbit/s",
        "reverse",
        2,
        Better::Higher,
    ),
    figure(
        "four_gbit_s",
        "four TCP streams, Gbit/s",
        "four",
        2,
        Better::Higher,
    ),
    figure(
        "ipv6_gbit_s",
        "one TCP stream over inner IPv6, Gbit/s",
        "ipv6",
        2,
        Better::Higher,
    ),
    figure(
        "memory_mb",
        "memory of the larger end, most ever, MB",
        "MB",
        0,
        Better::Lower,
    ),
    figure(
        "flood_1300_gbit_s",
        "UDP flood of 1300 B, received, Gbit/s",
        "flood1300",
        2,
        Better::Higher,
    ),
    figure(
        "flood_64_kpacket_s",
        "UDP flood of 64 B, received, thousand packets/s",
        "flood64k/s",
        0,
        Better::Higher,
    ),
    figure(
        "flood_1300_loss_percent",
        "UDP flood of 1300 B, lost, %",
        "lost1300%",
        0,
        Better::Lower,
    ),
    figure(
        "flood_64_loss_percent",
        "UDP flood of 64 B, lost, %",
        "lost64%",
        0,
        Better::Lower,
    ),
    figure(
        "paced_gbit_s",
        "UDP of 1300 B paced, highest rate with at most 1 % loss, Gbit/s",
        "paced",
        2,
        Better::Higher,
    ),
    figure(
        "paced_80_loss_percent",
        "loss at 80 % of that rate, %",
        "loss80%",
        3,
        Better::Lower,
    ),
    figure(
        "flood_1300_gso_gbit_s",
        "UDP flood of 1300 B in super-packets, received, Gbit/s",
        "gso1300",
        2,
        Better::Higher,
    ),
    figure(
        "flood_64_gso_kpacket_s",
        "UDP flood of 64 B in super-packets, received, thousand packets/s",
        "gso64k/s",
        0,
        Better::Higher,
    ),
    figure(
        "flood_1300_gso_loss_percent",
        "UDP flood of 1300 B in super-packets, lost, %",
        "gso1300%",
        0,
        Better::Lower,
    ),
    figure(
        "flood_64_gso_loss_percent",
        "UDP flood of 64 B in super-packets, lost, %",
        "gso64%",
        0,
        Better::Lower,
    ),
    figure(
        "paced_gso_gbit_s",
        "UDP of 1300 B in super-packets, paced, highest rate with at most 1 % loss, Gbit/s",
        "gsopaced",
        2,
        Better::Higher,
    ),
    figure(
        "paced_gso_80_loss_percent",
        "loss at 80 % of that rate in super-packets, %",
        "gso80%",
        3,
        Better::Lower,
    ),
    figure(
        "ping_p50_us",
        "ping idle, p50, us",
        "ping50us",
        0,
        Better::Lower,
    ),
    figure(
        "ping_p99_us",
        "ping idle, p99, us",
        "ping99us",
        0,
        Better::Lower,
    ),
    figure(
        "load_p50_us",
        "ping beside one TCP stream, p50, us",
        "load50us",
        0,
        Better::Lower,
    ),
    figure(
        "load_p99_us",
        "ping beside one TCP stream, p99, us",
        "load99us",
        0,
        Better::Lower,
    ),
    figure(
        "load_gbit_s",
        "the TCP stream beside the ping, Gbit/s",
        "loadtcp",
        2,
        Better::Higher,
    ),
];

const fn figure(
    key: &'static str,
    title: &'static str,
    column: &'static str,
    digits: usize,
    better: Better,
) -> Figure {
    Figure {
        key,
        title,
        column,
        digits,
        better,
    }
}

/// The figure of that key.
pub fn find(key: &str) -> Option<&'static Figure> {
    ALL.iter().find(|figure| figure.key == key)
}
