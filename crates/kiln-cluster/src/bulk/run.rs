//! A job from its files to its manifest.

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

/// A job, and where it is computed.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Parquet files: paths, folders, patterns (`*`, `?`, `**`) or addresses (`s3://…`, `file://…`).
    pub inputs: Vec<String>,
    /// The folder for what is computed, a path or an address.
    pub output: String,
    /// What is computed.
    pub task: Task,
    /// Which columns are texts.
    pub columns: Columns,
    /// What becomes of rows that cannot be answered.
    pub bad_rows: BadRows,
    /// `HOST:PORT` of a scheduler; none: this process computes everything.
    pub scheduler: Option<String>,
    /// Row groups are put together up to so many rows.
    pub rows_per_shard: u64,
    /// How long the job waits for the next shard before it is given up.
    pub patience: Duration,
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct RunOutcome {
    /// What has been written, now and before.
    pub manifest: Manifest,
    /// How many shards had been written before.
    pub skipped: usize,
}

/// The most shards that the engine is given at once: it takes an executor for lost that gets a message of more than 16 MiB.
const SHARDS_AT_ONCE: usize = 1000;

/// Computes the shards of a job that have not been written yet, and then publishes its manifest. `tell` learns how many of
/// how many shards are finished.
///
/// # Errors
/// When the input is not as asked for, the output has another job's manifest, or shards cannot be computed. What has been
/// written stays, and the same job continues with the rest.
pub fn run(
    config: &RunConfig,
    opener: ModelOpener,
    stores: Stores,
    tell: &dyn Fn(usize, usize),
) -> Result<RunOutcome, Error> {
    let runtime = engine::runtime()?;
    let outcome = runtime.block_on(published(config, opener, stores, tell));
    // An engine in this process may have begun something that nobody waits for any more.
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
    job.shards = plan::shards(&stores, &config.inputs, &job, config.rows_per_shard).await?;
    if let Some(shard) = job.shards.iter().find(|shard| shard.file.address.starts_with(&format!("{}/", job.output))) {
        return Err(Error::place(&shard.file.address, "lies in the output's folder, expected one beside the input"));
    }
    // Where the output lies changes nothing.
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

    let before = finished(&output, &job.shards).await?;
    let skipped = before.iter().flatten().count();
    let work = Work { config, output: &output, job: &job, job_file: &job_file, tell };
    let outcome = work.compute_rest(&before, opener, stores).await;
    let receipts = finished(&output, &job.shards).await?;
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

/// What is known of each shard that has been written whole.
async fn finished(output: &Place, shards: &[Shard]) -> Result<Vec<Option<Receipt>>, Error> {
    let sizes = output.sizes().await?;
    let known = |shard: &Shard| {
        let (shard, size) = (shard.clone(), sizes.get(&shard.data_file()).copied());
        let is_noted = sizes.contains_key(&shard.receipt_file());
        async move {
            match size {
                Some(size) if is_noted => {
                    Ok(shard::receipt(output, &shard).await?.filter(|receipt| receipt.bytes == size))
                }
                _ => Ok(None),
            }
        }
    };
    futures::stream::iter(shards.iter().map(known)).buffered(16).try_collect().await
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

/// A job that has been planned.
struct Work<'a> {
    config: &'a RunConfig,
    output: &'a Place,
    job: &'a Job,
    job_file: &'a Place,
    tell: &'a dyn Fn(usize, usize),
}

impl Work<'_> {
    /// Has the engine compute what has not been written `before`.
    async fn compute_rest(&self, before: &[Option<Receipt>], opener: ModelOpener, stores: Stores) -> Result<(), Error> {
        let rest: Vec<usize> = (0..).zip(before).filter(|(_, receipt)| receipt.is_none()).map(|(at, _)| at).collect();
        if rest.is_empty() {
            return Ok(());
        }
        let there = self.output.sizes().await?;
        let receipts = rest.iter().map(|shard| self.job.shards[*shard].receipt_file());
        for receipt in receipts.filter(|receipt| there.contains_key(receipt)) {
            // A receipt without its file is worth nothing, and an executor would believe it.
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

    /// Tells of shards that are finished, and ends when none has been for long.
    async fn watch(&self) -> Error {
        let (mut last, mut since) = (usize::MAX, tokio::time::Instant::now());
        let names: std::collections::HashSet<String> = self.job.shards.iter().map(Shard::receipt_file).collect();
        loop {
            // A store that does not answer now may answer later.
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
                    "no shard was finished for {seconds} s; is the scheduler there, has it executors?"
                ));
            }
            tokio::time::sleep(Duration::from_secs(1).min(self.config.patience)).await;
        }
    }
}
