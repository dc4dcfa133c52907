//! The whole crate, which needs the feature `engine`.

mod error;
mod model;
mod store;
mod job;
mod reader;
mod plan;
mod rows;
mod shard;
mod worker;
mod functions;
mod engine;
mod run;

pub use engine::{ExecutorConfig, SchedulerConfig, executor, scheduler};
pub use error::Error;
pub use functions::register;
pub use job::{BadRows, Columns, Manifest, ManifestShard, Task};
pub use model::{Model, ModelOpener};
pub use run::{RunConfig, RunOutcome, run};
pub use store::Stores;
