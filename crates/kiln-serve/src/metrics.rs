use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::queue::BatchReport;
use crate::refusal::Reason;

/// The metrics of a server. Every series exists from the start, with the value zero.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    refusals: Family<RefusalLabels, Counter>,
    texts: Counter,
    tokens: Counter,
    padding_tokens: Counter,
    batches: Counter,
    batch_texts: Histogram,
    compute_seconds: Counter<f64, AtomicU64>,
    queued_tokens: Gauge,
    panics: Counter,
    vanished: Counter,
    connections: Gauge,
    refused_connections: Counter,
    reloads: Family<ReloadLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: &'static str,
}

/// Buckets from half a millisecond to half a minute.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 17))
}

/// Classes of statuses, by the first digit.
const STATUSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    /// `routes` are all routes that can be observed.
    pub fn new(routes: &[&'static str]) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("kiln"),
            requests: Family::default(),
            seconds: Family::new_with_constructor(latencies),
            refusals: Family::default(),
            texts: Counter::default(),
            tokens: Counter::default(),
            padding_tokens: Counter::default(),
            batches: Counter::default(),
            batch_texts: Histogram::new(exponential_buckets(1.0, 2.0, 7)),
            compute_seconds: Counter::default(),
            queued_tokens: Gauge::default(),
            panics: Counter::default(),
            vanished: Counter::default(),
            connections: Gauge::default(),
            refused_connections: Counter::default(),
            reloads: Family::default(),
        };
        metrics.register();
        for &route in routes {
            for status in STATUSES {
                drop(metrics.requests.get_or_create(&RequestLabels { route, status }));
            }
            drop(metrics.seconds.get_or_create(&RouteLabels { route }));
        }
        for reason in Reason::ALL {
            drop(metrics.refusals.get_or_create(&RefusalLabels { reason: reason.name() }));
        }
        for outcome in ["done", "failed"] {
            drop(metrics.reloads.get_or_create(&ReloadLabels { outcome }));
        }
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "Requests answered, by route and status", self.requests.clone());
        let seconds = self.seconds.clone();
        registry.register_with_unit("request", "Time from a request's head to its answer", Unit::Seconds, seconds);
        registry.register("refusals", "Requests refused, by reason", self.refusals.clone());
        registry.register("texts", "Texts computed", self.texts.clone());
        registry.register("tokens", "Tokens computed, without padding", self.tokens.clone());
        registry.register("padding_tokens", "Padding tokens computed", self.padding_tokens.clone());
        registry.register("batches", "Batches computed", self.batches.clone());
        registry.register("batch_texts", "Texts of a batch", self.batch_texts.clone());
        let compute = self.compute_seconds.clone();
        registry.register_with_unit("compute", "Time spent computing batches", Unit::Seconds, compute);
        registry.register("queued_tokens", "Tokens that wait", self.queued_tokens.clone());
        registry.register("panics", "Panics while computing or answering", self.panics.clone());
        registry.register("vanished", "Requests whose client disconnected before the response", self.vanished.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        let refused = self.refused_connections.clone();
        registry.register("refused_connections", "Connections refused because too many were open", refused);
        registry.register("reloads", "Reloads of the models, by outcome", self.reloads.clone());
    }

    pub fn request(&self, route: &'static str, status: u16, time: Duration, refusal: Option<Reason>) {
        let status = STATUSES[usize::from(status / 100).clamp(2, 5) - 2];
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
        self.seconds.get_or_create(&RouteLabels { route }).observe(time.as_secs_f64());
        if let Some(reason) = refusal {
            self.refusals.get_or_create(&RefusalLabels { reason: reason.name() }).inc();
        }
    }

    pub fn batch(&self, batch: BatchReport) {
        self.texts.inc_by(batch.texts as u64);
        self.tokens.inc_by(batch.tokens as u64);
        self.padding_tokens.inc_by((batch.padded_tokens - batch.tokens) as u64);
        self.batches.inc();
        self.batch_texts.observe(batch.texts as f64);
        self.compute_seconds.inc_by(batch.time.as_secs_f64());
        if batch.panicked {
            self.panics.inc();
        }
    }

    pub fn panic(&self) {
        self.panics.inc();
    }

    pub fn vanished(&self) {
        self.vanished.inc();
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn connection(self: &std::sync::Arc<Self>) -> Connection {
        self.connections.inc();
        Connection(self.clone())
    }

    pub fn refused_connection(&self) {
        self.refused_connections.inc();
    }

    pub fn reload(&self, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        self.reloads.get_or_create(&ReloadLabels { outcome }).inc();
    }

    /// All series in the OpenMetrics text format.
    pub fn text(&self, queued_tokens: usize) -> String {
        self.queued_tokens.set(queued_tokens as i64);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes any text");
        text
    }
}

/// The guard of [`Metrics::connection`].
#[derive(Debug)]
pub struct Connection(std::sync::Arc<Metrics>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_starts_at_zero() {
        let metrics = Metrics::new(&["/embed", "other"]);
        let text = metrics.text(0);
        for line in [
            "kiln_requests_total{route=\"/embed\",status=\"2xx\"} 0",
            "kiln_request_seconds_count{route=\"other\"} 0",
            "kiln_refusals_total{reason=\"overloaded\"} 0",
            "kiln_tokens_total 0",
            "kiln_panics_total 0",
            "kiln_queued_tokens 0",
            "kiln_reloads_total{outcome=\"failed\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn requests_and_batches_are_counted() {
        let metrics = Metrics::new(&["/embed"]);
        metrics.request("/embed", 429, Duration::from_millis(3), Some(Reason::Overloaded));
        let time = Duration::from_millis(500);
        metrics.batch(BatchReport { texts: 3, tokens: 50, padded_tokens: 60, time, panicked: false });
        let text = metrics.text(7);
        for line in [
            "kiln_requests_total{route=\"/embed\",status=\"4xx\"} 1",
            "kiln_refusals_total{reason=\"overloaded\"} 1",
            "kiln_padding_tokens_total 10",
            "kiln_batch_texts_sum 3.0",
            "kiln_compute_seconds_total 0.5",
            "kiln_queued_tokens 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
