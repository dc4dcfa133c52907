use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use rayon::ThreadPool;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::Error;
use crate::app::App;
use crate::config::{Event, ServeConfig};
use crate::keys::Keys;
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::routes::{ROUTES, router};
use crate::tls;

/// Loads the models, at the start and at each reload.
pub type Load = Box<dyn Fn() -> Result<Vec<Model>, Error> + Send + Sync>;

/// A server that has loaded its models and listens. [`Server::run`] serves requests.
pub struct Server {
    app: Arc<App>,
    load: Arc<Load>,
    runtime: Runtime,
    pool: Arc<ThreadPool>,
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<RwLock<Arc<ServerConfig>>>>,
    orders: (mpsc::UnboundedSender<Order>, mpsc::UnboundedReceiver<Order>),
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Reload,
    Shutdown,
}

/// Reloads or shuts down a running server, from any thread.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::UnboundedSender<Order>);

impl Handle {
    /// Reloads the models and the certificate. If that fails, the server keeps the previous ones.
    pub fn reload(&self) {
        // Sending fails only after the server has ended.
        let _ = self.0.send(Order::Reload);
    }

    /// Shuts the server down. It accepts no new requests and finishes the open ones.
    pub fn shut_down(&self) {
        let _ = self.0.send(Order::Shutdown);
    }
}

/// Threads that read requests and write responses. The thread pool computes.
const IO_THREADS: usize = 2;
/// Threads that tokenize long texts.
const TOKENIZING_THREADS: usize = 4;

impl Server {
    /// Loads the keys, the certificate and the models, and starts to listen.
    ///
    /// # Errors
    /// When one of these is missing or invalid, two models have the same name, or the server cannot listen on the address.
    /// Also when other machines can reach the address and there are no keys.
    pub fn bind(config: ServeConfig, load: Load) -> Result<Self, Error> {
        let address = config.address;
        if !address.ip().is_loopback() && config.key_file.is_none() && !config.without_keys {
            return Err(Error::Open { address });
        }
        let keys = config.key_file.as_deref().map(Keys::from_file).transpose()?;
        let tls = config.tls.as_ref().map(tls::config).transpose()?.map(|config| Arc::new(RwLock::new(config)));
        let pool = pool("compute", &config)?;
        let models = pool.install(|| checked(load()?))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .max_blocking_threads(TOKENIZING_THREADS)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(Error::Threads)?;
        let listen = |source| Error::Listen { address, source };
        let socket = runtime.block_on(TcpListener::bind(address)).map_err(listen)?;
        let address = socket.local_addr().map_err(listen)?;
        let app = Arc::new(App::new(config, models, keys, Metrics::new(&ROUTES)));
        let (load, pool, orders) = (Arc::new(load), Arc::new(pool), mpsc::unbounded_channel());
        Ok(Self { app, load, runtime, pool, socket, address, tls, orders })
    }

    /// The address that the server listens on. It has the actual port if the configuration has port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the server: `http://host:port`, or `https://host:port` with TLS.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// A handle to reload the models or shut the server down.
    pub fn handle(&self) -> Handle {
        Handle(self.orders.0.clone())
    }

    /// Serves requests until it is shut down. Then it accepts no further connections, finishes the open requests, and
    /// returns. Requests that take longer than [`Limits::drain_time`](crate::Limits::drain_time) get no response.
    pub fn run(self) {
        let Self { app, load, runtime, pool, socket, tls, mut orders, .. } = self;
        let (close, closing) = watch::channel(false);
        // The worker runs on a thread of the pool, so that it need not hand over its matrix products.
        let (worker, metrics) = (app.clone(), app.metrics.clone());
        pool.spawn(move || {
            let log = worker.config.log.clone();
            worker.queue.work(|report| {
                if report.panicked {
                    log(&Event::Panic { request: None });
                }
                metrics.batch(report);
            });
        });
        let listener = Listener { socket, router: router(app.clone()), app: app.clone(), tls: tls.clone() };
        let drain_time = app.config.limits.drain_time;
        runtime.block_on(async {
            let listening = tokio::spawn(listener.run(closing));
            while let Some(Order::Reload) = orders.1.recv().await {
                let reload = Reload { app: app.clone(), load: load.clone(), tls: tls.clone() };
                // One reload at a time. Requests are served meanwhile.
                let _ = tokio::task::spawn_blocking(move || reload.run()).await;
            }
            app.start_draining();
            (app.config.log)(&Event::Draining);
            let _ = close.send(true);
            let _ = tokio::time::timeout(drain_time, listening).await;
        });
        app.queue.abandon();
        runtime.shutdown_background();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("app", &self.app).field("address", &self.address).finish_non_exhaustive()
    }
}

/// Threads that compute with the models.
fn pool(name: &'static str, config: &ServeConfig) -> Result<rayon::ThreadPool, Error> {
    let mut builder = rayon::ThreadPoolBuilder::new().thread_name(move |at| format!("{name}-{at}"));
    if let Some(threads) = config.threads {
        builder = builder.num_threads(threads);
    }
    builder.build().map_err(|error| Error::Threads(std::io::Error::other(error)))
}

/// The state that a reload needs.
struct Reload {
    app: Arc<App>,
    load: Arc<Load>,
    tls: Option<Arc<RwLock<Arc<ServerConfig>>>>,
}

impl Reload {
    fn run(&self) {
        let outcome = self.swap();
        self.app.metrics.reload(outcome.is_ok());
        let event = match outcome {
            Ok(models) => Event::Reloaded { models },
            Err(error) => Event::ReloadFailed { reason: with_causes(&error) },
        };
        (self.app.config.log)(&event);
    }

    fn swap(&self) -> Result<Vec<String>, Error> {
        let certificate = self.app.config.tls.as_ref().map(tls::config).transpose()?;
        let keys = self.app.config.key_file.as_deref().map(Keys::from_file).transpose()?;
        // The worker keeps a thread of its pool.
        let models = pool("load", &self.app.config)?.install(|| checked((self.load)()?))?;
        let names = models.iter().map(|model| model.name.clone()).collect();
        self.app.swap(models);
        self.app.swap_keys(keys);
        if let (Some(tls), Some(certificate)) = (&self.tls, certificate) {
            *tls.write().unwrap_or_else(PoisonError::into_inner) = certificate;
        }
        Ok(names)
    }
}

/// Checks that there is a model, and that the names differ.
fn checked(models: Vec<Model>) -> Result<Vec<Model>, Error> {
    let mut names = BTreeSet::new();
    if let Some(twice) = models.iter().find(|model| !names.insert(model.name.as_str())) {
        return Err(Error::SameName { name: twice.name.clone() });
    }
    if models.is_empty() { Err(Error::NoModel) } else { Ok(models) }
}

/// An error and its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
