use std::collections::BTreeMap;

use kiln_schema::{Split, Task};
use serde::Serialize;

use crate::SplitReport;

/// The result of a training or of an evaluation: `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The model's task.
    pub task: Task,
    /// The checkpoint or model folder.
    pub model: String,
    /// The compute backend.
    pub backend: String,
    /// The scores of each split.
    pub splits: BTreeMap<Split, SplitReport>,
    /// The cost of the training; absent in an evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainReport>,
}

/// The cost of a training.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrainReport {
    /// Passes over the data.
    pub epochs: usize,
    /// The epoch whose weights are kept, from 1.
    pub best_epoch: usize,
    /// Optimizer updates.
    pub steps: usize,
    /// Wall time of the epochs, validation included, and of a frozen encoder or a teacher.
    pub seconds: f64,
    /// Of `seconds`, what a frozen encoder took; 0 when its features were cached or it trains.
    pub encoder_seconds: f64,
    /// Of `seconds`, what a teacher took; 0 when its outputs were cached or there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub teacher_seconds: f64,
    /// Of `seconds`, what the updates took.
    pub update_seconds: f64,
    /// Training examples over `update_seconds`; an example counts once an epoch.
    pub examples_per_second: f64,
    /// Their real tokens over `update_seconds`.
    pub tokens_per_second: f64,
    /// Examples that a frozen encoder ran over, over `encoder_seconds`; 0 when there were none.
    pub encoder_examples_per_second: f64,
    /// Share of padding among the tokens of the training batches.
    pub padding_share: f64,
    /// The processes that trained together; none where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RanksReport>,
    /// The process's largest resident memory; 0 if it is not known.
    pub peak_rss_bytes: u64,
}

/// Processes that trained one model together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RanksReport {
    /// How many there were at the end.
    pub ranks: usize,
    /// How they added up their gradients: `exact` or `fast`.
    pub reduce: String,
    /// Bytes that the first of them sent, over the updates that it made with the others.
    pub bytes_sent_per_update: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}
