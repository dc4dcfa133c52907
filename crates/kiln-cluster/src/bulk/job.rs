use std::ops::Range;

use kiln_heads::Pooling;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What is computed for each text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Predictions, in the column `kiln_prediction`: the JSON line that `kiln predict` writes.
    Predict,
    /// Vectors, in the column `kiln_embedding`: the vector that `kiln embed` writes.
    Embed {
        /// How hidden states are pooled into a vector.
        pooling: Pooling,
        /// Whether vectors are normalized to length 1.
        normalize: bool,
    },
}

impl Task {
    /// The name of the output column.
    pub fn column(&self) -> &'static str {
        match self {
            Self::Predict => "kiln_prediction",
            Self::Embed { .. } => "kiln_embedding",
        }
    }
}

/// The columns of the input that are texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// The column of the text.
    pub text: String,
    /// The column of the second text of a pair.
    pub text_pair: Option<String>,
}

/// What happens to rows without a text, or with a text that the model cannot compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadRows {
    /// The job ends with an error that names the first such row.
    #[default]
    Fail,
    /// The rows are left out. Their positions and the reasons are written to a file in `_bad`.
    SetAside,
}

/// A job, in the form that executors read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The identity of the model.
    pub model: String,
    pub task: Task,
    pub columns: Columns,
    pub bad_rows: BadRows,
    /// The address of the output folder.
    pub output: String,
    pub shards: Vec<Shard>,
}

/// Row groups of one input file, which become one output file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shard {
    /// A hash of everything that the shard's bytes depend on.
    pub name: String,
    pub file: FileId,
    pub row_groups: Range<usize>,
    /// The position of the first row in the file.
    pub first_row: u64,
    pub rows: u64,
}

/// An input file, as it was when the job was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileId {
    pub address: String,
    pub bytes: u64,
    /// The store's ETag for the content, or else the modification time.
    pub version: String,
}

impl Job {
    /// The name of a shard of the job.
    pub fn shard_name(&self, file: &FileId, row_groups: &Range<usize>) -> String {
        let influences = (&self.model, &self.task, &self.columns, file, row_groups);
        digest(&serde_json::to_vec(&influences).unwrap_or_default())[..32].to_owned()
    }

    /// The id of the job: a hash of all its fields. It does not depend on which executor computes which shard.
    pub fn name(&self) -> String {
        digest(&serde_json::to_vec(self).unwrap_or_default())[..32].to_owned()
    }
}

/// The receipt of a shard. It is written after the shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub rows: u64,
    pub bad_rows: u64,
    pub bytes: u64,
    pub sha256: String,
}

/// The shards of a finished job, in the order of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The id of the job.
    pub job: String,
    /// The identity of the model.
    pub model: String,
    /// The task.
    pub task: Task,
    /// The number of rows in all shards.
    pub rows: u64,
    /// The number of rows that were left out.
    pub bad_rows: u64,
    /// The shards.
    pub shards: Vec<ManifestShard>,
}

/// A shard in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestShard {
    /// The name of its file in the output folder.
    pub file: String,
    /// The address of the input file.
    pub input: String,
    /// The row groups of the input file.
    pub row_groups: Range<usize>,
    /// The number of rows.
    pub rows: u64,
    /// The number of rows that were left out. They are listed in `_bad`.
    pub bad_rows: u64,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
}

pub(crate) const MANIFEST: &str = "manifest.json";
/// These begin with an underscore, because readers of folders of Parquet files skip such names.
pub(crate) const JOBS: &str = "_jobs";
pub(crate) const RECEIPTS: &str = "_shards";
pub(crate) const BAD_ROWS: &str = "_bad";

impl Shard {
    pub fn data_file(&self) -> String {
        format!("{}.parquet", self.name)
    }

    pub fn receipt_file(&self) -> String {
        format!("{RECEIPTS}/{}.json", self.name)
    }

    pub fn bad_rows_file(&self) -> String {
        format!("{BAD_ROWS}/{}.jsonl", self.name)
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_depend_on_what_bytes_depend_on_and_on_nothing_else() {
        let job = Job {
            model: "m".to_owned(),
            task: Task::Predict,
            columns: Columns { text: "text".to_owned(), text_pair: None },
            bad_rows: BadRows::Fail,
            output: "file:///out".to_owned(),
            shards: vec![],
        };
        let file = FileId { address: "file:///a".to_owned(), bytes: 3, version: "1".to_owned() };
        let name = job.shard_name(&file, &(0..2));
        let elsewhere = Job { output: "s3://b/c".to_owned(), bad_rows: BadRows::SetAside, ..job.clone() };
        assert_eq!(elsewhere.shard_name(&file, &(0..2)), name);
        let others = [
            Job { model: "n".to_owned(), ..job.clone() }.shard_name(&file, &(0..2)),
            Job { task: Task::Embed { pooling: Pooling::Mean, normalize: false }, ..job.clone() }
                .shard_name(&file, &(0..2)),
            job.shard_name(&file, &(0..1)),
            job.shard_name(&FileId { version: "2".to_owned(), ..file.clone() }, &(0..2)),
        ];
        assert!(others.iter().all(|other| *other != name));
    }
}
