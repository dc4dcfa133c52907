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

/// Time, speed and memory of a training.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TrainReport {
    /// Number of epochs.
    pub epochs: usize,
    /// The epoch whose weights are kept, counted from 1.
    pub best_epoch: usize,
    /// Number of optimizer updates.
    pub steps: usize,
    /// Wall time in seconds of the epochs with their validation, and of the frozen encoder or the teacher.
    pub seconds: f64,
    /// The part of `seconds` in the frozen encoder; 0 when its features were cached or the encoder is trained.
    pub encoder_seconds: f64,
    /// The part of `seconds` in the teacher; 0 when its outputs were cached or there is no teacher.
    #[serde(skip_serializing_if = "is_zero")]
    pub teacher_seconds: f64,
    /// The part of `seconds` in the updates.
    pub update_seconds: f64,
    /// Training examples per second of `update_seconds`; an example counts once per epoch.
    pub examples_per_second: f64,
    /// Tokens without padding per second of `update_seconds`.
    pub tokens_per_second: f64,
    /// Examples per second of `encoder_seconds` in the frozen encoder; 0 when it encoded none.
    pub encoder_examples_per_second: f64,
    /// Share of padding among the tokens of the training batches.
    pub padding_share: f64,
    /// The processes that trained together; absent when there was only one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RanksReport>,
    /// Peak resident memory of the process; 0 if it is not known.
    pub peak_rss_bytes: u64,
}

/// Processes that trained one model together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RanksReport {
    /// Number of processes at the end.
    pub ranks: usize,
    /// How the gradients were summed: `exact` or `fast`.
    pub reduce: String,
    /// Mean number of bytes that the first process sent per update with the others.
    pub bytes_sent_per_update: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}
