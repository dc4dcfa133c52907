use std::path::PathBuf;

/// Why training could not start, go on or be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Weights(#[from] kiln_bert::Error),
    /// A folder could not be made.
    #[error("{}: the folder cannot be made", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A teacher's outputs that take more room than they may.
    #[error("the teacher's outputs would take {bytes} bytes of disk, expected {most} at most")]
    TeacherOutputs {
        /// Of all rows.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// A checkpoint that cannot be resumed.
    #[error("{}: the checkpoint cannot be resumed: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint of a run with other settings or other data.
    #[error("{}: the checkpoint belongs to a different run:\n  {}", path.display(), differences.join("\n  "))]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// One line for each key that differs.
        differences: Vec<String>,
    },
    /// The loss or its gradient is no longer a finite number.
    #[error(
        "training diverged: the loss is {loss} and the gradient's norm {gradient_norm} at update {step}; {kept}. \
         Start a new run with a lower learning rate or a longer warm-up"
    )]
    Diverged {
        /// Mean loss of the update's rows.
        loss: f64,
        /// Norm of its gradient.
        gradient_norm: f64,
        /// The update, from 1.
        step: usize,
        /// Which checkpoints are kept.
        kept: String,
    },
    /// The model's outputs for the validation split are no longer finite numbers.
    #[error(
        "training diverged: validation after epoch {epoch} failed; {kept}. \
         Start a new run with a lower learning rate or a longer warm-up"
    )]
    DivergedInValidation {
        /// The epoch, from 1.
        epoch: usize,
        /// Which checkpoints are kept.
        kept: String,
        /// What was found.
        source: kiln_eval::Error,
    },
    /// More processes than can share an update.
    #[error(
        "{ranks} processes train together, and an update has {batches} batches to share: start {batches} processes at \
         most, or raise train.gradient_accumulation_steps"
    )]
    TooManyRanks {
        /// How many processes there are.
        ranks: usize,
        /// How many batches an update has.
        batches: usize,
    },
    /// Processes that would not train the same.
    #[error("the processes would not train the same:\n  {}", differences.join("\n  "))]
    OtherRank {
        /// One line for each key and rank that differs.
        differences: Vec<String>,
    },
    /// Processes that no longer have the same weights.
    #[error(
        "rank {rank} at update {step} has other weights than rank 0 at update {first_step}: a process has computed wrong, \
         or has read another checkpoint"
    )]
    RanksDiverged {
        /// The first process that differs.
        rank: usize,
        /// Updates that it has made.
        step: usize,
        /// Updates that the first process has made.
        first_step: usize,
    },
    /// There is nothing to train on.
    #[error("the {split} split has no examples")]
    Empty {
        /// Which one.
        split: kiln_schema::Split,
    },
    /// A metric that the task does not have.
    #[error("this task has no metric `{metric}`; expected one of {known}")]
    NoMetric {
        /// The metric that should pick the best checkpoint.
        metric: &'static str,
        /// The metrics that the task has.
        known: String,
    },
}
