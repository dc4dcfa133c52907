use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Runtime;

use crate::bulk::job::{Job, Receipt};
use crate::bulk::shard;
use crate::{Error, Model, ModelOpener, Stores, Task};

/// Computes the shards of a process. It opens the model once per task, and keeps the last job.
#[derive(Debug)]
pub(crate) struct Worker {
    opener: ModelOpener,
    stores: Stores,
    /// The name of this process in errors.
    name: String,
    /// A runtime for reading and writing, because the engine's threads must not wait for their own runtime.
    runtime: Option<Runtime>,
    models: Mutex<HashMap<Task, Arc<Model>>>,
    jobs: Mutex<HashMap<String, Arc<Job>>>,
}

impl Worker {
    pub fn new(opener: ModelOpener, stores: Stores, name: String) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Error::Engine(format!("cannot start threads: {error}")))?;
        Ok(Self { opener, stores, name, runtime: Some(runtime), models: Mutex::default(), jobs: Mutex::default() })
    }

    /// Computes a shard of the job at an address.
    pub fn compute(&self, job: &str, shard: usize) -> Result<Receipt, Error> {
        // On a separate thread, because the calling thread belongs to a runtime.
        let runtime = self.runtime.as_ref().expect("it is taken when the worker is dropped");
        let compute = || runtime.block_on(self.computed(job, shard));
        let outcome = std::thread::scope(|scope| scope.spawn(compute).join());
        outcome.unwrap_or_else(|panic| {
            let shown = self.cached(job).and_then(|job| Some(job.shards.get(shard)?.file.address.clone()));
            Err(Error::place(shown.unwrap_or_else(|| job.to_owned()), format!("internal error: {}", message(&*panic))))
        })
    }

    async fn computed(&self, address: &str, shard: usize) -> Result<Receipt, Error> {
        let job = match self.cached(address) {
            Some(job) => job,
            None => {
                let bytes = self.stores.place(address)?.read().await?;
                let job: Job = serde_json::from_slice(&bytes)
                    .map_err(|error| Error::place(address, format!("is not a job of this version: {error}")))?;
                let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
                // Only the newest job is kept, because jobs run one after another.
                jobs.clear();
                jobs.entry(address.to_owned()).or_insert(Arc::new(job)).clone()
            }
        };
        let own = self.opener.identity();
        if job.model != own {
            let reason = format!(
                "found another model than the job's, or another program, precision or instruction set: {own}, expected {}",
                job.model
            );
            return Err(Error::place(&self.name, reason));
        }
        let shard = job.shards.get(shard).ok_or_else(|| Error::place(address, format!("has no shard {shard}")))?;
        let model = self.model(&job.task)?;
        shard::write(&self.stores, &job, shard, &model).await
    }

    fn cached(&self, address: &str) -> Option<Arc<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned()
    }

    /// The model for a task. It is opened once, even if several shards wait for it.
    fn model(&self, task: &Task) -> Result<Arc<Model>, Error> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = models.get(task) {
            return Ok(model.clone());
        }
        let model = Arc::new(self.opener.open(task)?);
        models.insert(task.clone(), model.clone());
        Ok(model)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // In the background, because a thread of another runtime must not wait here.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}
