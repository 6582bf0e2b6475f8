//! A [`MetricsReport`] as OpenMetrics text. The names are a promise: a dashboard outlives versions.
//!
//! The library writes the format; a counter's `_total` and a unit's suffix are its doing.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use shadowmesh_net::{ConnectivityTotals, MIGRATION_BUCKETS_MS};

use crate::admin::report::MetricsReport;

/// The whole text.
pub fn of(report: MetricsReport) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Report(report)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .expect("writing to a string does not fail");
    text
}

#[derive(Debug)]
struct Report(MetricsReport);

impl Collector for Report {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.paths(&mut out)?;
        self.relays(&mut out)?;
        self.node(&mut out)?;
        self.sessions(&mut out)?;
        self.losses(&mut out)
    }
}

impl Report {
    /// How peers are and were reached.
    fn paths(&self, out: &mut Out<'_>) -> fmt::Result {
        let ConnectivityTotals {
            connections_direct,
            connections_relay,
            migrations,
            migrations_failed,
            fallbacks,
            retries_succeeded,
            retries_failed,
            migration_durations,
            migration_us,
        } = self.0.connectivity;
        out.counters(
            "shadowmesh_p2p_connections",
            "Sessions that came up, by the kind of their first path",
            "type",
            [("direct", connections_direct), ("relay", connections_relay)],
        )?;
        out.counters(
            "shadowmesh_p2p_migrations",
            "Moves from a relay to a direct path",
            "status",
            [("success", migrations), ("failure", migrations_failed)],
        )?;
        out.counter(
            "shadowmesh_p2p_fallbacks",
            "Moves from a direct path that broke to another way",
            fallbacks,
        )?;
        out.counters(
            "shadowmesh_p2p_retries",
            "Later searches for a better path",
            "status",
            [("success", retries_succeeded), ("failure", retries_failed)],
        )?;
        out.histogram(
            "shadowmesh_p2p_migration_duration",
            "Time of a move from relay to direct, from the first probe",
            migration_us as f64 / 1e6,
            &migration_durations,
        )?;
        out.gauges(
            "shadowmesh_paths",
            "Sessions by the kind of the path in use",
            "type",
            ["direct", "relay", "web"].into_iter().zip(self.0.paths),
        )
    }

    /// Relays we use, and what we do as one.
    fn relays(&self, out: &mut Out<'_>) -> fmt::Result {
        let ours = self.0.node.relaying.unwrap_or_default();
        out.gauges(
            "shadowmesh_relays",
            "Relays of the configuration by state",
            "state",
            ["up", "down"].into_iter().zip(self.0.relays),
        )?;
        out.gauge(
            "shadowmesh_relay_clients",
            "Nodes that this node relays for, beside its peers",
            ours.clients as u64,
        )?;
        out.counter(
            "shadowmesh_relay_datagrams",
            "Datagrams passed on for others",
            ours.datagrams,
        )?;
        out.counter(
            "shadowmesh_relay_bytes",
            "Bytes passed on for others",
            ours.bytes,
        )
    }

    fn node(&self, out: &mut Out<'_>) -> fmt::Result {
        let node = &self.0.node;
        let traffic = &node.traffic;
        out.metric(
            "shadowmesh_build",
            "The running program",
            None,
            MetricType::Info,
        )?
        .encode_info(&[("version", &*node.version)])?;
        out.seconds_gauge(
            "shadowmesh_uptime",
            "Since the node started",
            node.uptime_ms,
        )?;
        out.gauges(
            "shadowmesh_peers",
            "Configured peers by state",
            "state",
            ["idle", "connecting", "up", "silent"]
                .into_iter()
                .zip(self.0.peers),
        )?;
        out.counters(
            "shadowmesh_traffic_bytes",
            "Bytes of packets that went through sessions",
            "direction",
            [("in", traffic.bytes_in), ("out", traffic.bytes_out)],
        )?;
        out.counters(
            "shadowmesh_traffic_packets",
            "Packets that went through sessions",
            "direction",
            [("in", traffic.packets_in), ("out", traffic.packets_out)],
        )?;
        out.seconds_counter("shadowmesh_cpu", "CPU time of the process", node.cpu_ms)?;
        out.gauge(
            "shadowmesh_memory_bytes",
            "Resident memory of the process",
            node.memory_kib * 1024,
        )
    }

    fn sessions(&self, out: &mut Out<'_>) -> fmt::Result {
        let sessions = &self.0.sessions;
        let work = &self.0.node.handshakes;
        out.counters(
            "shadowmesh_handshakes",
            "Handshakes that this node began and completed",
            "kind",
            [
                ("full", sessions.handshakes_full),
                ("resumed", sessions.handshakes_resumed),
            ],
        )?;
        out.counters(
            "shadowmesh_handshake_operations",
            "Post-quantum operations done for handshakes and rekeys",
            "operation",
            [
                ("kem", work.kem),
                ("sign", work.sign),
                ("verify", work.verify),
            ],
        )?;
        out.counter(
            "shadowmesh_sessions_up",
            "Sessions that came up",
            sessions.up,
        )?;
        out.counters(
            "shadowmesh_sessions_down",
            "Sessions that ended, by reason",
            "reason",
            sessions
                .down
                .iter()
                .map(|(reason, count)| (*reason, *count)),
        )?;
        out.counter(
            "shadowmesh_rekeys",
            "Fresh keys of sessions",
            sessions.rekeys,
        )?;
        out.counter(
            "shadowmesh_path_changes",
            "Times a peer's datagrams took another way",
            sessions.path_changes,
        )?;
        out.counter(
            "shadowmesh_plane_changes",
            "Times a peer's packets moved between sealed frames and QUIC datagrams",
            sessions.plane_changes,
        )
    }

    fn losses(&self, out: &mut Out<'_>) -> fmt::Result {
        let queues = &self.0.queues;
        out.counters(
            "shadowmesh_drops",
            "Packets and datagrams dropped, by reason",
            "reason",
            self.0.drops.iter().copied(),
        )?;
        out.gauges(
            "shadowmesh_queue_length",
            "Messages that wait for the control thread",
            "queue",
            queues.iter().map(|queue| (queue.name, queue.len)),
        )?;
        out.gauges(
            "shadowmesh_queue_limit",
            "Messages that may wait; more are dropped",
            "queue",
            queues.iter().map(|queue| (queue.name, queue.limit)),
        )
    }
}

/// The library's encoder with the few forms that are used here.
struct Out<'e>(DescriptorEncoder<'e>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.metric(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            metric
                .encode_family(&[(label, of)])?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn seconds_counter(&mut self, name: &str, help: &str, ms: u64) -> fmt::Result {
        self.metric(name, help, Some(&Unit::Seconds), MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&(ms as f64 / 1000.0), None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, None, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'l str, usize)>,
    ) -> fmt::Result {
        let mut metric = self.metric(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            metric.encode_family(&[(label, of)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn seconds_gauge(&mut self, name: &str, help: &str, ms: u64) -> fmt::Result {
        self.metric(name, help, Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&(ms as f64 / 1000.0))
    }

    /// `counts`: of each bucket of [`MIGRATION_BUCKETS_MS`] and of all that is longer.
    fn histogram(&mut self, name: &str, help: &str, sum: f64, counts: &[u64]) -> fmt::Result {
        let bounds = MIGRATION_BUCKETS_MS.iter().map(|ms| *ms as f64 / 1000.0);
        // The library writes this bound as +Inf, and adds the buckets up.
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let total = counts.iter().sum();
        self.metric(name, help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }
}
