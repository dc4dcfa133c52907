use std::ops::Range;

use kiln_heads::Pooling;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What is computed for each text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// The column `kiln_prediction`: the line that `kiln predict` writes.
    Predict,
    /// The column `kiln_embedding`: the vector that `kiln embed` writes.
    Embed {
        /// How hidden states become one vector.
        pooling: Pooling,
        /// Whether each vector has length 1.
        normalize: bool,
    },
}

impl Task {
    /// The name of its column.
    pub fn column(&self) -> &'static str {
        match self {
            Self::Predict => "kiln_prediction",
            Self::Embed { .. } => "kiln_embedding",
        }
    }
}

/// Which columns of the input are texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
}

/// What becomes of rows that have no text, or one that the model cannot read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadRows {
    /// The job ends with an error that names the first.
    #[default]
    Fail,
    /// They are left out, and written to a file beside the shard, with their position and the reason.
    SetAside,
}

/// A job, as executors read it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The identity of the model.
    pub model: String,
    pub task: Task,
    pub columns: Columns,
    pub bad_rows: BadRows,
    /// The address of the output's folder.
    pub output: String,
    pub shards: Vec<Shard>,
}

/// Row groups of one file, which become one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shard {
    /// A hash of what its bytes depend on.
    pub name: String,
    pub file: FileId,
    pub row_groups: Range<usize>,
    /// The position of its first row in the file.
    pub first_row: u64,
    pub rows: u64,
}

/// A file, as it was when the job was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileId {
    pub address: String,
    pub bytes: u64,
    /// The store's own mark of its content (ETag), or when it was written.
    pub version: String,
}

impl Job {
    /// The name of a shard of this job.
    pub fn shard_name(&self, file: &FileId, row_groups: &Range<usize>) -> String {
        let influences = (&self.model, &self.task, &self.columns, file, row_groups);
        digest(&serde_json::to_vec(&influences).unwrap_or_default())[..32].to_owned()
    }

    /// What the job is known by: everything but how its shards are shared out.
    pub fn name(&self) -> String {
        digest(&serde_json::to_vec(self).unwrap_or_default())[..32].to_owned()
    }
}

/// What is known of a shard that has been written. It is written after the shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub rows: u64,
    pub bad_rows: u64,
    pub bytes: u64,
    pub sha256: String,
}

/// What a finished job has written, in the order of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the job is known by.
    pub job: String,
    /// The identity of the model.
    pub model: String,
    /// What was computed.
    pub task: Task,
    /// The rows of all shards.
    pub rows: u64,
    /// The rows that were left out.
    pub bad_rows: u64,
    /// The shards.
    pub shards: Vec<ManifestShard>,
}

/// A shard, as a manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestShard {
    /// Its file in the output's folder.
    pub file: String,
    /// The file that it was computed from.
    pub input: String,
    /// The row groups of that file.
    pub row_groups: Range<usize>,
    /// How many rows it has.
    pub rows: u64,
    /// How many rows were left out; they are in `_bad`.
    pub bad_rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The hash of its bytes.
    pub sha256: String,
}

pub(crate) const MANIFEST: &str = "manifest.json";
/// Begin with an underscore, as readers of folders of Parquet files leave those out.
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
