use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::TrainConfig;

/// How the learning rate changes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrScheduler {
    /// The rate falls linearly to zero.
    #[default]
    Linear,
    /// The rate falls to zero along half a cosine.
    Cosine,
    /// The rate stays the same.
    Constant,
}

impl TrainConfig {
    /// The learning rate of update `step`, from 0, of `total_steps`.
    ///
    /// The rate rises linearly over the first `warmup_ratio` of the updates and reaches its peak at the last of these. In
    /// transformers, it starts at zero instead, so that the first update changes nothing.
    pub fn learning_rate_at(&self, step: usize, total_steps: usize) -> f64 {
        let warmup_steps = (total_steps as f64 * self.warmup_ratio).ceil() as usize;
        if step < warmup_steps {
            return self.learning_rate * (step + 1) as f64 / warmup_steps as f64;
        }
        let left = (total_steps.saturating_sub(step)) as f64 / total_steps.saturating_sub(warmup_steps).max(1) as f64;
        self.learning_rate
            * match self.lr_scheduler {
                LrScheduler::Linear => left,
                LrScheduler::Cosine => 0.5 * (1.0 - (PI * left).cos()),
                LrScheduler::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_then_fall_and_never_leave_the_range() {
        for lr_scheduler in [LrScheduler::Linear, LrScheduler::Cosine, LrScheduler::Constant] {
            let config = TrainConfig { learning_rate: 2.0, warmup_ratio: 0.1, lr_scheduler, ..TrainConfig::default() };
            let rates: Vec<f64> = (0..47).map(|step| config.learning_rate_at(step, 47)).collect();
            assert!(rates[..5].is_sorted_by(|a, b| a < b), "five updates of 47 warm up: {rates:?}");
            assert!(rates[5..].is_sorted_by(|a, b| a >= b) && rates.iter().all(|rate| (0.0..=2.0).contains(rate)));
            assert_eq!(rates[4], 2.0);
        }
        let cosine = TrainConfig {
            learning_rate: 1.0,
            warmup_ratio: 0.0,
            lr_scheduler: LrScheduler::Cosine,
            ..TrainConfig::default()
        };
        assert!((cosine.learning_rate_at(5, 10) - 0.5).abs() < 1e-12);
    }
}
