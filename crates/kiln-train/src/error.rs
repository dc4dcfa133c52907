use std::path::PathBuf;

/// An error of training: it cannot start, continue or be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Weights(#[from] kiln_bert::Error),
    /// A folder could not be created.
    #[error("{}: cannot create the folder", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The teacher's outputs would take more disk space than allowed.
    #[error("the teacher's outputs would take {bytes} bytes of disk, expected at most {most}")]
    TeacherOutputs {
        /// The size of the outputs for all rows.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// A checkpoint is damaged or unsuitable.
    #[error("{}: the checkpoint cannot be resumed: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint belongs to a run with other settings or other data.
    #[error("{}: the checkpoint belongs to a different run:\n  {}", path.display(), differences.join("\n  "))]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// One line for each key that differs.
        differences: Vec<String>,
    },
    /// The loss or the gradient norm is no longer finite.
    #[error(
        "training diverged: the loss is {loss} and the gradient's norm {gradient_norm} at update {step}; {kept}. \
         Start a new run with a lower learning rate or a longer warm-up"
    )]
    Diverged {
        /// Mean loss of the update.
        loss: f64,
        /// Norm of the gradient.
        gradient_norm: f64,
        /// The update, from 1.
        step: usize,
        /// Which checkpoints are kept.
        kept: String,
    },
    /// The model's outputs for the validation split are no longer finite.
    #[error(
        "training diverged: validation after epoch {epoch} failed; {kept}. \
         Start a new run with a lower learning rate or a longer warm-up"
    )]
    DivergedInValidation {
        /// The epoch, from 1.
        epoch: usize,
        /// Which checkpoints are kept.
        kept: String,
        /// The cause.
        source: kiln_eval::Error,
    },
    /// There are more processes than batches per update.
    #[error(
        "{ranks} processes train together, and an update has {batches} batches to share: start {batches} processes at \
         most, or raise train.gradient_accumulation_steps"
    )]
    TooManyRanks {
        /// The number of processes.
        ranks: usize,
        /// The number of batches per update.
        batches: usize,
    },
    /// The processes have different settings, data or programs.
    #[error("the processes have different settings:\n  {}", differences.join("\n  "))]
    OtherRank {
        /// One line for each rank and key that differs.
        differences: Vec<String>,
    },
    /// The processes no longer have the same weights.
    #[error(
        "rank {rank} at update {step} has weights different from those of rank 0 at update {first_step}: a process computed a wrong result, \
         or has read another checkpoint"
    )]
    RanksDiverged {
        /// The first rank that differs from rank 0.
        rank: usize,
        /// The number of updates that it has made.
        step: usize,
        /// The number of updates that rank 0 has made.
        first_step: usize,
    },
    /// The training or validation split is empty.
    #[error("the {split} split has no examples")]
    Empty {
        /// The split.
        split: kiln_schema::Split,
    },
    /// A number in the configuration is 0.
    #[error("`{setting}` is 0, expected at least 1")]
    Zero {
        /// The name of the number in [`TrainConfig`](crate::TrainConfig).
        setting: &'static str,
    },
    /// The task does not have the metric.
    #[error("this task has no metric `{metric}`; expected one of {known}")]
    NoMetric {
        /// The metric that should select the best checkpoint.
        metric: &'static str,
        /// The metrics that the task has.
        known: String,
    },
}
