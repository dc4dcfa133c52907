use std::time::Duration;

/// The speed of computation, as an exponential moving average over batches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Speed {
    /// `None` before the first batch.
    tokens_per_second: Option<f64>,
}

impl Speed {
    /// The weight of a new measurement.
    const NEW: f64 = 0.1;

    pub(super) fn add(&mut self, tokens: usize, time: Duration) {
        let now = tokens as f64 / time.as_secs_f64().max(1e-6);
        let mean = self.tokens_per_second.map_or(now, |mean| mean + Self::NEW * (now - mean));
        self.tokens_per_second = Some(mean);
    }

    /// The time that `tokens` take. Zero before the first batch.
    pub(super) fn time_for(&self, tokens: usize) -> Duration {
        match self.tokens_per_second {
            Some(speed) if speed > 0.0 => Duration::try_from_secs_f64(tokens as f64 / speed).unwrap_or(Duration::MAX),
            _ => Duration::ZERO,
        }
    }
}
