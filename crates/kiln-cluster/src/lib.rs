//! Predictions and vectors for many Parquet files, distributed over several machines with Ballista. `run` divides the
//! files into shards, and publishes a manifest once all shards are written. An `executor` computes shards, and a
//! `scheduler` assigns shards to executors.
//!
//! The crate is empty without its feature `engine`, which adds Ballista and DataFusion.
//!
//! ```text
//! kiln cluster run --model runs/hotel --input reviews --output predictions --task predict
//! ```
//!
//! The name of a shard is a hash of everything that its contents depend on. So any executor can compute a shard at any
//! time, even twice, and the result is the same. Finished shards are not computed again.
//!
//! See `examples/functions.rs` for the SQL functions `kiln_predict` and `kiln_embed`.
#![deny(missing_docs)]

#[cfg(feature = "engine")]
mod bulk;

#[cfg(feature = "engine")]
pub use bulk::{
    BadRows, Columns, Error, ExecutorConfig, Manifest, ManifestShard, Model, ModelOpener, RunConfig, RunOutcome,
    SchedulerConfig, Stores, Task, executor, register, run, scheduler,
};
