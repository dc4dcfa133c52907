//! Ballista: the scheduler, executors, and the session of a client.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ballista::prelude::{SessionConfigExt, SessionContextExt};
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::utils::default_session_builder;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::scheduler_process::start_server;
use datafusion::common::Result as EngineResult;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, ScalarUDF, Union, lit};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::bulk::functions::{SHARD, ShardFunction};
use crate::bulk::worker::Worker;
use crate::{Error, ModelOpener, Stores};

/// Configuration of a scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// The IP address to listen on.
    pub host: IpAddr,
    /// The port to listen on. 0 means any free port.
    pub port: u16,
    /// The host name at which executors reach the scheduler. The default is its address.
    pub external_host: Option<String>,
    /// The time without a heartbeat after which an executor is considered lost. A job also waits this long for an executor
    /// when none is left.
    pub executor_timeout: Duration,
}

/// Configuration of an executor.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// `HOST:PORT` of the scheduler.
    pub scheduler: String,
    /// The IP address to listen on.
    pub host: IpAddr,
    /// The host name at which the scheduler reaches the executor. The default is its address.
    pub external_host: Option<String>,
    /// The ports to listen on, for results and for tasks. 0 means any free port.
    pub ports: (u16, u16),
    /// The number of shards to compute at the same time.
    pub slots: usize,
    /// The interval between heartbeats.
    pub heartbeat: Duration,
    /// How long to wait for the scheduler at the start.
    pub patience: Duration,
}

/// Runs a scheduler, which assigns shards to executors, until the process ends. `ready` is called with the address once
/// the scheduler listens.
///
/// # Errors
/// When the scheduler cannot listen.
pub fn scheduler(config: &SchedulerConfig, ready: impl FnOnce(SocketAddr) + Send + 'static) -> Result<(), Error> {
    let address = SocketAddr::new(config.host, free_port(config.host, config.port)?);
    let seconds = config.executor_timeout.as_secs().max(1);
    let scheduler = ballista_scheduler::config::SchedulerConfig {
        external_host: config.external_host.clone().unwrap_or_else(|| config.host.to_string()),
        bind_host: config.host.to_string(),
        bind_port: address.port(),
        executor_timeout_seconds: seconds,
        expire_dead_executor_interval_seconds: seconds.div_ceil(4),
        no_executors_grace_period_seconds: seconds,
        override_session_builder: Some(Arc::new(|config| with_shards(default_session_builder(config)?, None))),
        ..Default::default()
    };
    runtime()?.block_on(async move {
        let cluster = BallistaCluster::new_from_config(&scheduler).await.map_err(failed("the scheduler"))?;
        let server = tokio::spawn(start_server(cluster, address, Arc::new(scheduler)));
        while !server.is_finished() && tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if !server.is_finished() {
            ready(address);
        }
        ended("the scheduler", server.await)
    })
}

/// Runs an executor, which computes shards until it is stopped.
///
/// # Errors
/// When the executor cannot listen or reach the scheduler, and when the scheduler stops it.
pub fn executor(config: &ExecutorConfig, opener: ModelOpener, stores: Stores) -> Result<(), Error> {
    let (scheduler_host, scheduler_port) = host_and_port(&config.scheduler)?;
    let (flight, tasks) = (free_port(config.host, config.ports.0)?, free_port(config.host, config.ports.1)?);
    let worker = Worker::new(opener, stores, format!("executor {}:{tasks}", config.host))?;
    let mut registry = BallistaFunctionRegistry::default();
    let function = Arc::new(ScalarUDF::from(ShardFunction::new(Some(Arc::new(worker)))));
    registry.scalar_functions.insert(SHARD.to_owned(), function);
    let process = ExecutorProcessConfig {
        bind_host: config.host.to_string(),
        external_host: Some(config.external_host.clone().unwrap_or_else(|| config.host.to_string())),
        port: flight,
        grpc_port: tasks,
        scheduler_host,
        scheduler_port,
        scheduler_connect_timeout_seconds: u16::try_from(config.patience.as_secs().max(1)).unwrap_or(u16::MAX),
        vcores: config.slots.max(1),
        executor_heartbeat_interval_seconds: config.heartbeat.as_secs().max(1),
        override_function_registry: Some(Arc::new(registry)),
        ..Default::default()
    };
    runtime()?.block_on(async move { start_executor_process(Arc::new(process)).await.map_err(failed("the executor")) })
}

/// The executors of a job.
pub(crate) enum Executors<'a> {
    /// This process.
    Here(Arc<Worker>),
    /// The executors of the scheduler at `HOST:PORT`.
    Of(&'a str),
}

/// A session whose shards are computed by `executors`.
pub(crate) async fn session(executors: Executors<'_>) -> Result<SessionContext, Error> {
    let config = SessionConfig::new_with_ballista()
        .with_ballista_standalone_parallelism(1)
        .with_ballista_job_name("kiln")
        .set_str(ballista_core::config::BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK, "1");
    let worker = match &executors {
        Executors::Here(worker) => Some(worker.clone()),
        Executors::Of(_) => None,
    };
    let state =
        default_session_builder(config).and_then(|state| with_shards(state, worker.clone())).map_err(refused)?;
    let session = match executors {
        Executors::Here(_) => SessionContext::standalone_with_state(state).await,
        Executors::Of(address) => {
            let (host, port) = host_and_port(address)?;
            SessionContext::remote_with_state(&format!("df://{host}:{port}"), state).await
        }
    };
    let session = session.map_err(refused)?;
    // Registered again, because the session has only the engine's own functions now.
    session.register_udf(ScalarUDF::from(ShardFunction::new(worker)));
    Ok(session)
}

/// Computes shards of a job. The plan is a union of plans with one row each, because the engine assigns each partition of a
/// union to a free executor.
pub(crate) async fn compute(session: &SessionContext, job: &str, shards: &[usize]) -> EngineResult<()> {
    let function = session.udf(SHARD)?;
    let one_row = |shard: &usize| {
        let row = LogicalPlanBuilder::empty(true);
        let call = function.call(vec![lit(job), lit(*shard as u64)]).alias("is_finished");
        Ok(Arc::new(row.project([call])?.build()?))
    };
    let mut rows: Vec<Arc<LogicalPlan>> = shards.iter().map(one_row).collect::<EngineResult<_>>()?;
    let plan = match rows.len() {
        1 => Arc::unwrap_or_clone(rows.remove(0)),
        _ => LogicalPlan::Union(Union::try_new_with_loose_types(rows)?),
    };
    session.execute_logical_plan(plan).await?.collect().await.map(drop)
}

fn with_shards(mut state: SessionState, worker: Option<Arc<Worker>>) -> EngineResult<SessionState> {
    state.register_udf(Arc::new(ScalarUDF::from(ShardFunction::new(worker))))?;
    Ok(state)
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Error::Engine(format!("cannot start threads: {error}")))
}

/// The port, or a free port if it is 0.
fn free_port(host: IpAddr, port: u16) -> Result<u16, Error> {
    let listener = TcpListener::bind((host, port)).and_then(|listener| listener.local_addr());
    let address =
        listener.map_err(|error| Error::place(format!("{host}:{port}"), format!("cannot listen: {error}")))?;
    Ok(address.port())
}

fn host_and_port(address: &str) -> Result<(String, u16), Error> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parts.ok_or_else(|| Error::place(address, "expected HOST:PORT of a scheduler"))
}

fn failed(what: &'static str) -> impl Fn(ballista_core::error::BallistaError) -> Error {
    move |error| Error::Engine(format!("{what}: {error}"))
}

fn refused(error: datafusion::error::DataFusionError) -> Error {
    Error::Engine(error.to_string())
}

fn ended<T>(
    what: &'static str,
    outcome: Result<ballista_core::error::Result<T>, tokio::task::JoinError>,
) -> Result<T, Error> {
    match outcome {
        Ok(outcome) => outcome.map_err(failed(what)),
        Err(error) => Err(Error::Engine(format!("{what}: {error}"))),
    }
}
