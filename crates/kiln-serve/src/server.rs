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

/// Reads the models: at the start, and again at each reload.
pub type Load = Box<dyn Fn() -> Result<Vec<Model>, Error> + Send + Sync>;

/// A server that has its models and listens; [`Server::run`] answers.
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

/// Tells a running server what to do, from any thread.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::UnboundedSender<Order>);

impl Handle {
    /// Has the models, and the certificate, read again. Where that fails, those before stay.
    pub fn reload(&self) {
        // A server that has ended needs no order.
        let _ = self.0.send(Order::Reload);
    }

    /// Has the server take nothing new, answer what it has, and end.
    pub fn shut_down(&self) {
        let _ = self.0.send(Order::Shutdown);
    }
}

/// Threads that read requests and write answers; the computing threads are the pool's.
const IO_THREADS: usize = 2;
/// Threads that tokenize long texts.
const TOKENIZING_THREADS: usize = 4;

impl Server {
    /// Reads the keys, the certificate and the models, then listens.
    ///
    /// # Errors
    /// When one of them is missing or wrong, two models have one name, the address cannot be listened on, or it is reached
    /// from other machines and there are no keys.
    pub fn bind(config: ServeConfig, load: Load) -> Result<Self, Error> {
        let address = config.address;
        if !address.ip().is_loopback() && config.key_file.is_none() && !config.without_keys {
            return Err(Error::Open { address });
        }
        let keys = config.key_file.as_deref().map(Keys::from_file).transpose()?;
        let tls = config.tls.as_ref().map(tls::config).transpose()?.map(|config| Arc::new(RwLock::new(config)));
        let mut builder = rayon::ThreadPoolBuilder::new().thread_name(|at| format!("compute-{at}"));
        if let Some(threads) = config.threads {
            builder = builder.num_threads(threads);
        }
        let pool = builder.build().map_err(|error| Error::Threads(std::io::Error::other(error)))?;
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

    /// Where it listens: also the port, where any was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://host:port`, or `https://`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What tells it to reload or to end.
    pub fn handle(&self) -> Handle {
        Handle(self.orders.0.clone())
    }

    /// Answers until it is told to end. Then it takes no further connection, answers what it has, and returns; what is not
    /// answered within the limit's time for draining is not answered.
    pub fn run(self) {
        let Self { app, load, runtime, pool, socket, tls, mut orders, .. } = self;
        let (close, closing) = watch::channel(false);
        // The thread of work is one of the pool's, so that its products need not be handed over.
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
                // One at a time; meanwhile requests are answered.
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

/// What a reload needs.
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
        let models = checked((self.load)()?)?;
        let names = models.iter().map(|model| model.name.clone()).collect();
        self.app.swap(models);
        if let (Some(tls), Some(certificate)) = (&self.tls, certificate) {
            *tls.write().unwrap_or_else(PoisonError::into_inner) = certificate;
        }
        Ok(names)
    }
}

/// Models whose names differ; at least one.
fn checked(models: Vec<Model>) -> Result<Vec<Model>, Error> {
    let mut names = BTreeSet::new();
    if let Some(twice) = models.iter().find(|model| !names.insert(model.name.as_str())) {
        return Err(Error::SameName { name: twice.name.clone() });
    }
    if models.is_empty() { Err(Error::NoModel) } else { Ok(models) }
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
