//! Runs a job, from its input files to its manifest.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};

use crate::bulk::engine::{self, Executors};
use crate::bulk::error::reason;
use crate::bulk::job::{JOBS, Job, MANIFEST, RECEIPTS, Receipt, Shard};
use crate::bulk::store::Place;
use crate::bulk::worker::Worker;
use crate::bulk::{plan, shard};
use crate::{BadRows, Columns, Error, Manifest, ManifestShard, ModelOpener, Stores, Task};

/// Configuration of a job.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Parquet files: paths, folders, patterns (`*`, `?`, `**`) or addresses (`s3://…`, `file://…`).
    pub inputs: Vec<String>,
    /// The output folder, a path or an address.
    pub output: String,
    /// What to compute for each text.
    pub task: Task,
    /// The columns that are texts.
    pub columns: Columns,
    /// What happens to rows that cannot be computed.
    pub bad_rows: BadRows,
    /// `HOST:PORT` of a scheduler. Without one, this process computes everything.
    pub scheduler: Option<String>,
    /// The most rows in a shard. A larger row group is a shard of its own.
    pub rows_per_shard: u64,
    /// How long to wait for the next finished shard before the job fails.
    pub patience: Duration,
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct RunOutcome {
    /// The manifest of all shards, from this run and before.
    pub manifest: Manifest,
    /// The number of shards that were finished before.
    pub skipped: usize,
}

/// The most shards in one plan. The engine considers an executor lost if its message is larger than 16 MiB.
const SHARDS_AT_ONCE: usize = 1000;

/// Computes the unfinished shards of a job, and then publishes its manifest. `tell` is called with the number of finished
/// shards and the number of all shards.
///
/// # Errors
/// When the input is invalid, the output folder has the manifest of another job, or shards cannot be computed. Finished
/// shards stay, and the same job continues with the others.
pub fn run(
    config: &RunConfig,
    opener: ModelOpener,
    stores: Stores,
    tell: &dyn Fn(usize, usize),
) -> Result<RunOutcome, Error> {
    let runtime = engine::runtime()?;
    let outcome = runtime.block_on(published(config, opener, stores, tell));
    // An engine in this process may have tasks that are no longer needed.
    runtime.shutdown_background();
    outcome
}

async fn published(
    config: &RunConfig,
    opener: ModelOpener,
    stores: Stores,
    tell: &dyn Fn(usize, usize),
) -> Result<RunOutcome, Error> {
    let output = stores.place(&config.output)?;
    let mut job = Job {
        model: opener.identity().to_owned(),
        task: config.task.clone(),
        columns: config.columns.clone(),
        bad_rows: config.bad_rows,
        output: output.address(),
        shards: vec![],
    };
    for input in &config.inputs {
        if stores.reads(input, &output.join("shard.parquet"))? {
            let reason = format!("its files would be among those of the input `{input}`, expected a folder beside it");
            return Err(Error::place(job.output, reason));
        }
    }
    job.shards = plan::shards(&stores, &config.inputs, &job, config.rows_per_shard).await?;
    // The published id does not depend on the output folder.
    let name = Job { output: String::new(), ..job.clone() }.name();
    let manifest_file = output.join(MANIFEST);
    let published = manifest_file.read_if_present().await?;
    let published: Option<Manifest> = published
        .map(|bytes| {
            serde_json::from_slice(&bytes).map_err(|error| Error::place(manifest_file.address(), error.to_string()))
        })
        .transpose()?;
    if let Some(manifest) = published.filter(|manifest| manifest.job != name) {
        let reason = format!("found the manifest of job {}, expected none or that of job {name}", manifest.job);
        return Err(Error::place(manifest_file.address(), reason));
    }
    let job_file = output.join(&format!("{JOBS}/{}.json", job.name()));
    job_file.write(serde_json::to_vec(&job).unwrap_or_default()).await?;

    let before = finished(&output, &job).await?;
    let skipped = before.iter().flatten().count();
    let work = Work { config, output: &output, job: &job, job_file: &job_file, tell };
    let outcome = work.compute_rest(&before, opener, stores).await;
    let receipts = finished(&output, &job).await?;
    let count = receipts.iter().flatten().count();
    let Some(receipts) = receipts.into_iter().collect::<Option<Vec<Receipt>>>() else {
        let reason = outcome.err().map_or("the engine did not compute the others".to_owned(), |error| error.in_words());
        return Err(Error::Unfinished { finished: count, total: job.shards.len(), reason });
    };
    let manifest = manifest(name, &job, &receipts);
    let bytes = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    if !manifest_file.create(bytes.clone()).await? && manifest_file.read().await? != bytes {
        return Err(Error::place(manifest_file.address(), "found another manifest than this job's"));
    }
    Ok(RunOutcome { manifest, skipped })
}

/// The receipts of the finished shards. `None` for a shard that is not finished.
async fn finished(output: &Place, job: &Job) -> Result<Vec<Option<Receipt>>, Error> {
    let sizes = output.sizes().await?;
    let known = |shard: &Shard| {
        let (shard, size) = (shard.clone(), sizes.get(&shard.data_file()).copied());
        let is_noted = sizes.contains_key(&shard.receipt_file());
        async move {
            match size {
                Some(size) if is_noted => {
                    Ok(shard::receipt(output, job, &shard).await?.filter(|receipt| receipt.bytes == size))
                }
                _ => Ok(None),
            }
        }
    };
    futures::stream::iter(job.shards.iter().map(known)).buffered(16).try_collect().await
}

fn manifest(name: String, job: &Job, receipts: &[Receipt]) -> Manifest {
    let shards = job.shards.iter().zip(receipts).map(|(shard, receipt)| ManifestShard {
        file: shard.data_file(),
        input: shard.file.address.clone(),
        row_groups: shard.row_groups.clone(),
        rows: receipt.rows,
        bad_rows: receipt.bad_rows,
        bytes: receipt.bytes,
        sha256: receipt.sha256.clone(),
    });
    Manifest {
        job: name,
        model: job.model.clone(),
        task: job.task.clone(),
        rows: receipts.iter().map(|receipt| receipt.rows).sum(),
        bad_rows: receipts.iter().map(|receipt| receipt.bad_rows).sum(),
        shards: shards.collect(),
    }
}

/// A planned job.
struct Work<'a> {
    config: &'a RunConfig,
    output: &'a Place,
    job: &'a Job,
    job_file: &'a Place,
    tell: &'a dyn Fn(usize, usize),
}

impl Work<'_> {
    /// Computes the shards without a receipt in `before`, with the engine.
    async fn compute_rest(&self, before: &[Option<Receipt>], opener: ModelOpener, stores: Stores) -> Result<(), Error> {
        let rest: Vec<usize> = (0..).zip(before).filter(|(_, receipt)| receipt.is_none()).map(|(at, _)| at).collect();
        if rest.is_empty() {
            return Ok(());
        }
        let there = self.output.sizes().await?;
        let receipts = rest.iter().map(|shard| self.job.shards[*shard].receipt_file());
        for receipt in receipts.filter(|receipt| there.contains_key(receipt)) {
            // A receipt without its file is removed, because an executor would rely on it.
            self.output.join(&receipt).remove().await?;
        }
        let executors = match &self.config.scheduler {
            Some(address) => Executors::Of(address),
            None => Executors::Here(Arc::new(Worker::new(opener, stores, "this process".to_owned())?)),
        };
        let session = engine::session(executors).await?;
        for shards in rest.chunks(SHARDS_AT_ONCE) {
            let job = self.job_file.address();
            tokio::select! {
                outcome = engine::compute(&session, &job, shards) => {
                    outcome.map_err(|error| Error::Engine(reason(&error.to_string())))?;
                }
                given_up = self.watch() => return Err(given_up),
            }
        }
        Ok(())
    }

    /// Reports the number of finished shards. Returns an error when no shard has finished for `patience`.
    async fn watch(&self) -> Error {
        let (mut last, mut since) = (usize::MAX, tokio::time::Instant::now());
        let names: std::collections::HashSet<String> = self.job.shards.iter().map(Shard::receipt_file).collect();
        loop {
            // Errors are ignored, because the store may recover.
            let receipts = self.output.join(RECEIPTS).sizes().await.unwrap_or_default();
            let count = receipts.keys().filter(|name| names.contains(&format!("{RECEIPTS}/{name}"))).count();
            if count != last {
                (last, since) = (count, tokio::time::Instant::now());
                (self.tell)(count, self.job.shards.len());
            }
            let waited = since.elapsed();
            if waited > self.config.patience {
                let seconds = waited.as_secs();
                return Error::Engine(format!(
                    "no shard was finished in {seconds} s; check that the scheduler is running and has executors"
                ));
            }
            tokio::time::sleep(Duration::from_secs(1).min(self.config.patience)).await;
        }
    }
}
