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
    /// A checkpoint that does not belong to this run.
    #[error("{}: the checkpoint cannot be resumed: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The loss is no number any more.
    #[error("the loss is {loss} at step {step}; a lower learning rate or a longer warm-up may help")]
    Diverged {
        /// What it is.
        loss: f64,
        /// The update, from 1.
        step: usize,
    },
    /// The model's outputs for the validation split are no numbers.
    #[error(transparent)]
    Evaluation(#[from] kiln_eval::Error),
    /// There is nothing to train on.
    #[error("the {split} split has no examples")]
    Empty {
        /// Which one.
        split: kiln_schema::Split,
    },
    /// A metric that the task does not have.
    #[error("the metric `{metric}` is none of this task's, which has {known}")]
    NoMetric {
        /// What was to pick the best checkpoint.
        metric: &'static str,
        /// What could.
        known: String,
    },
}
