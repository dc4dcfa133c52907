//! Predictions and vectors of many Parquet files, shared by several machines on Ballista. `run` divides the files into
//! shards and publishes a manifest once each has been written; an `executor` computes shards, a `scheduler` hands them out.
//!
//! The crate is empty without its feature `engine`, which brings Ballista and DataFusion.
//!
//! ```text
//! kiln cluster run --model runs/hotel --input reviews --output predictions --task predict
//! ```
//!
//! A shard's name is a hash of what it is computed from, and its bytes depend on nothing else. So a shard may be computed
//! twice, by whichever executor and however late, and what has been computed is not computed again.
//!
//! See `examples/functions.rs`, for the functions `kiln_predict` and `kiln_embed` in SQL.
#![deny(missing_docs)]

#[cfg(feature = "engine")]
mod bulk;

#[cfg(feature = "engine")]
pub use bulk::{
    BadRows, Columns, Error, ExecutorConfig, Manifest, ManifestShard, Model, ModelOpener, RunConfig, RunOutcome,
    SchedulerConfig, Stores, Task, executor, register, run, scheduler,
};
