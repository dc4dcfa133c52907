use super::{BERT, Family};

/// ERNIE 3.0 (Sun et al., 2021): BERT with additional task type embeddings. Only the first of them is used.
pub(super) const ERNIE: Family =
    Family { model_type: "ernie", prefix: "ernie.", class: "Ernie", has_task_types: true, ..BERT };
