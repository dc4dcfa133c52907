//! The options of `kiln cluster`.

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::shared::at_least_one;
use super::{ModelArgs, Pooled, PrecisionArgs};

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Distribute work to executors
    Scheduler(SchedulerArgs),
    /// Compute the work that a scheduler distributes
    Executor(ExecutorArgs),
    /// Predict or embed every row of Parquet files, here or on a scheduler's executors
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub struct SchedulerArgs {
    /// Address to listen on; anyone who can reach it can submit work
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port to listen on; 0 selects any free port
    #[arg(long, default_value_t = 50050)]
    pub port: u16,
    /// Name or address at which executors reach it; by default --host
    #[arg(long, value_name = "HOST")]
    pub external_host: Option<String>,
    /// Seconds without a heartbeat until an executor is considered lost; a job waits as long when none is left
    #[arg(long, value_name = "SECONDS", value_parser = at_least_one, default_value_t = 180)]
    pub executor_timeout: usize,
}

#[derive(Debug, Args)]
pub struct ExecutorArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
    /// Address of the scheduler
    #[arg(long, value_name = "HOST:PORT")]
    pub scheduler: String,
    /// Address to listen on; anyone who can reach it can submit work
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Name or address at which the scheduler and clients reach it; by default --host
    #[arg(long, value_name = "HOST")]
    pub external_host: Option<String>,
    /// Port for results; 0 selects any free port
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Port for work; 0 selects any free port
    #[arg(long, default_value_t = 0)]
    pub work_port: u16,
    /// Shards computed at once; each uses all threads
    #[arg(long, value_name = "COUNT", value_parser = at_least_one, default_value_t = 1)]
    pub slots: usize,
    /// Seconds between heartbeats
    #[arg(long, value_name = "SECONDS", value_parser = at_least_one, default_value_t = 30)]
    pub heartbeat: usize,
    /// Seconds to wait for the scheduler
    #[arg(long, value_name = "SECONDS", value_parser = at_least_one, default_value_t = 60)]
    pub patience: usize,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
    /// Parquet files: paths, folders, patterns (*, ?, **), s3:// or file://; may be repeated
    #[arg(long, required = true, num_args = 1.., value_name = "FILES_OR_URL")]
    pub input: Vec<String>,
    /// Folder for the results: a path, s3:// or file://
    #[arg(long, value_name = "URL")]
    pub output: String,
    /// What to compute for each row
    #[arg(long, value_enum)]
    pub task: ClusterTask,
    /// Scheduler whose executors compute; by default this process computes
    #[arg(long, value_name = "HOST:PORT")]
    pub scheduler: Option<String>,
    /// Column of the text
    #[arg(long, value_name = "COLUMN", default_value = "text")]
    pub text_column: String,
    /// Column of the second text
    #[arg(long, value_name = "COLUMN")]
    pub text_pair_column: Option<String>,
    /// What to do with rows that have no text, or one that the model cannot read
    #[arg(long, value_enum, default_value_t)]
    pub bad_rows: BadRows,
    /// How the hidden states of a text are pooled into one vector; by default as the checkpoint's sentence-transformers
    /// files or the bundle say, otherwise mean
    #[arg(long, value_enum)]
    pub pooling: Option<Pooled>,
    /// Scale each vector to length 1, also where the model's files do not say so
    #[arg(long)]
    pub normalize: bool,
    /// Row groups are combined into shards of up to this many rows
    #[arg(long, value_name = "COUNT", value_parser = at_least_one, default_value_t = 16_384)]
    pub rows_per_shard: usize,
    /// Seconds to wait for the next shard before giving up
    #[arg(long, value_name = "SECONDS", value_parser = at_least_one, default_value_t = 3600)]
    pub patience: usize,
}

/// What to compute for each row.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ClusterTask {
    /// The column kiln_prediction: the line that `kiln predict` writes
    Predict,
    /// The column kiln_embedding: the vector that `kiln embed` writes
    Embed,
}

/// [`kiln_cluster::BadRows`] on a command line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum BadRows {
    /// Stop with an error that names the first one
    #[default]
    Fail,
    /// Leave them out of the results, and list them in _bad with their position and the reason
    SetAside,
}

impl From<BadRows> for kiln_cluster::BadRows {
    fn from(bad_rows: BadRows) -> Self {
        match bad_rows {
            BadRows::Fail => Self::Fail,
            BadRows::SetAside => Self::SetAside,
        }
    }
}
