//! Servers for tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;

use kiln_backend::{Backend, Flex};
use kiln_kernels::Precision;
use kiln_serve::{Event, Handle, Model, ModelConfig, ServeConfig, Server};
use serde_json::Value;

use crate::client::{Answer, send};
use crate::untrained::untrained;

/// A server in a thread of this process. It is shut down when the value is dropped.
pub struct Running {
    pub address: SocketAddr,
    pub handle: Handle,
    pub events: Arc<Mutex<Vec<Event>>>,
    thread: Option<JoinHandle<()>>,
}

pub const JSON: (&str, &str) = ("content-type", "application/json");

/// The folders of the models, written once.
pub static MODELS: LazyLock<(tempfile::TempDir, Vec<(String, PathBuf)>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let models = untrained(folder.path()).expect("it is writable");
    (folder, models)
});

/// Copies the folder of a model, for a test that changes it.
pub fn copy_of(name: &str, to: &Path) {
    let (_, folder) = MODELS.1.iter().find(|(known, _)| known == name).expect("there is such a model");
    std::fs::create_dir(to).expect("it is writable");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("it is writable");
    }
}

pub fn config() -> ServeConfig {
    ServeConfig { threads: Some(2), ..ServeConfig::new(([127, 0, 0, 1], 0).into()) }
}

pub fn load(models: &[(String, PathBuf)]) -> Result<Vec<Model>, kiln_serve::Error> {
    load_in(models, None)
}

pub fn load_in(models: &[(String, PathBuf)], precision: Option<Precision>) -> Result<Vec<Model>, kiln_serve::Error> {
    let config = ModelConfig { precision, pooling: None };
    let load = |(name, folder): &(String, PathBuf)| Model::from_folder(name.clone(), folder, config, &Flex::device(0));
    models.iter().map(load).collect()
}

impl Running {
    /// Starts a server with a model for each task.
    pub fn new(change: impl FnOnce(&mut ServeConfig)) -> Self {
        Self::with(change, || load(&MODELS.1))
    }

    pub fn with(
        change: impl FnOnce(&mut ServeConfig),
        load: impl Fn() -> Result<Vec<Model>, kiln_serve::Error> + Send + Sync + 'static,
    ) -> Self {
        let mut config = config();
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = events.clone();
        config.log = Arc::new(move |event| log.lock().expect("no test panics with it").push(event.clone()));
        change(&mut config);
        let server = Server::bind(config, Box::new(load)).expect("the models are whole and a port is free");
        let (address, handle) = (server.address(), server.handle());
        let thread = Some(std::thread::spawn(move || server.run()));
        Self { address, handle, events, thread }
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.address, "POST", path, &[JSON], &body.to_string())
    }

    pub fn get(&self, path: &str) -> Answer {
        send(self.address, "GET", path, &[], "")
    }

    /// The JSON of a response, which must have the status 200.
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
        answer.json()
    }

    /// Waits for the server to end.
    pub fn join(mut self) {
        self.thread.take().expect("it is joined once").join().expect("it does not panic");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shut_down();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A server with every model, for tests that do not change it.
pub fn shared() -> &'static Running {
    static SHARED: LazyLock<Running> = LazyLock::new(|| Running::new(|_| {}));
    &SHARED
}
