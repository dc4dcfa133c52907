//! `kiln cluster`: any number of Parquet files, on this machine or several.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use burn::tensor::Device;
use kiln::environment::store_settings;
use kiln::fetch::fetch_model;
use kiln::recipe::Precision;
use kiln::{ModelFolders, model_identity, open_embedder, open_predictor, stored_vectors};
use kiln_backend::Backend;
use kiln_cluster::{Columns, ExecutorConfig, Model, ModelOpener, RunConfig, RunOutcome, SchedulerConfig, Stores, Task};

use crate::cli::{ClusterRunArgs, ClusterTask, ExecutorArgs, ModelArgs, SchedulerArgs};
use crate::console;
use crate::observer::Console;

pub fn scheduler(arguments: &SchedulerArgs, json: bool) -> anyhow::Result<()> {
    let config = SchedulerConfig {
        host: arguments.host,
        port: arguments.port,
        external_host: arguments.external_host.clone(),
        executor_timeout: seconds(arguments.executor_timeout),
    };
    let ready = move |address: std::net::SocketAddr| {
        let shown = match json {
            true => console::json(&serde_json::json!({ "scheduler": address.to_string() })),
            false => console::result(address).map_err(Into::into),
        };
        if let Err(error) = shown {
            console::error(&error);
        }
    };
    Ok(kiln_cluster::scheduler(&config, ready)?)
}

pub fn executor<B: Backend>(arguments: &ExecutorArgs, _json: bool, device: &Device) -> anyhow::Result<()> {
    let config = ExecutorConfig {
        scheduler: arguments.scheduler.clone(),
        host: arguments.host,
        external_host: arguments.external_host.clone(),
        ports: (arguments.port, arguments.work_port),
        slots: arguments.slots,
        heartbeat: seconds(arguments.heartbeat),
        patience: seconds(arguments.patience),
    };
    let folder = fetched(&arguments.model)?;
    let opener = opener::<B>(folder, &arguments.model, arguments.precision.precision, device)?;
    Ok(kiln_cluster::executor(&config, opener, Stores::new(store_settings()))?)
}

pub fn run<B: Backend>(arguments: &ClusterRunArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let folder = fetched(&arguments.model)?;
    let task = match arguments.task {
        ClusterTask::Predict => Task::Predict,
        ClusterTask::Embed => {
            let stored = stored_vectors(&folder, arguments.pooling.map(Into::into))?;
            Task::Embed { pooling: stored.pooling, normalize: stored.normalize || arguments.normalize }
        }
    };
    let config = run_config(arguments, task);
    let opener = opener::<B>(folder, &arguments.model, arguments.precision.precision, device)?;
    let tell = |finished: usize, total: usize| console::log(format_args!("{finished} of {total} shards"));
    let RunOutcome { manifest, skipped } = kiln_cluster::run(&config, opener, Stores::new(store_settings()), &tell)?;
    let (rows, bad_rows, shards) = (manifest.rows, manifest.bad_rows, manifest.shards.len());
    if json {
        let output = &config.output;
        return console::json(&serde_json::json!({
            "output": output, "rows": rows, "bad_rows": bad_rows, "shards": shards, "skipped": skipped,
        }));
    }
    let left_out = if bad_rows > 0 { format!(", {bad_rows} left out and listed in _bad") } else { String::new() };
    let before = if skipped > 0 { format!(", {skipped} of them written before") } else { String::new() };
    let [rows, shards] =
        [(rows as usize, "row"), (shards, "shard")].map(|(count, thing)| console::counted(count, thing));
    console::log(format_args!("{rows}{left_out}, {shards}{before} → {}", config.output));
    Ok(())
}

fn run_config(arguments: &ClusterRunArgs, task: Task) -> RunConfig {
    let (text, text_pair) = (arguments.text_column.clone(), arguments.text_pair_column.clone());
    RunConfig {
        inputs: arguments.input.clone(),
        output: arguments.output.clone(),
        task,
        columns: Columns { text, text_pair },
        bad_rows: arguments.bad_rows.into(),
        scheduler: arguments.scheduler.clone(),
        rows_per_shard: arguments.rows_per_shard as u64,
        patience: seconds(arguments.patience),
    }
}

fn seconds(count: usize) -> Duration {
    Duration::from_secs(count as u64)
}

fn fetched(model: &ModelArgs) -> anyhow::Result<PathBuf> {
    Ok(fetch_model(&model.model, &model.hub.options(), &mut Console::default())?)
}

/// Opens the model as `kiln predict` and `kiln embed` do.
fn opener<B: Backend>(
    folder: PathBuf,
    model: &ModelArgs,
    precision: Option<Precision>,
    device: &Device,
) -> anyhow::Result<ModelOpener> {
    let adapter = model.adapter.folder();
    let folders = ModelFolders { model: &folder, adapter: adapter.as_deref() };
    let identity = model_identity::<B>(folders, precision).context("the model cannot be read")?;
    let device = device.clone();
    Ok(ModelOpener::new(identity, move |task| {
        open::<B>((&folder, &adapter), precision, task, &device).map_err(|error| format!("{error:#}"))
    }))
}

fn open<B: Backend>(
    (folder, adapter): (&PathBuf, &Option<PathBuf>),
    precision: Option<Precision>,
    task: &Task,
    device: &Device,
) -> anyhow::Result<Model> {
    let folders = ModelFolders { model: folder, adapter: adapter.as_deref() };
    match task {
        Task::Predict => {
            let predictor = open_predictor::<B>(folders, precision, device, &mut Console::default())?;
            Ok(Model::Predictor(Box::new(predictor)))
        }
        Task::Embed { pooling, normalize } => {
            let embedder = open_embedder::<B>(folders, precision, (*pooling, *normalize), device)?;
            Ok(Model::Embedder(Box::new(embedder)))
        }
    }
}
