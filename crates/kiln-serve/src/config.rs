use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// Configuration of a server: its address, keys, limits and log.
#[derive(Clone)]
pub struct ServeConfig {
    /// The address to listen on. Port 0 means any free port.
    pub address: SocketAddr,
    /// The file of keys, with one `NAME:KEY` per line.
    pub key_file: Option<PathBuf>,
    /// Whether other machines may use the server without a key.
    pub without_keys: bool,
    /// Certificate chain and key for TLS, both PEM.
    pub tls: Option<TlsFiles>,
    /// The origin whose pages may call the server. CORS is off when it is `None`.
    pub cors_origin: Option<String>,
    /// Number of compute threads. The default is the number of CPUs that the affinity and the quota of the process allow,
    /// rounded down.
    pub threads: Option<usize>,
    /// Whether texts that are too long are truncated when a request does not set `truncate`.
    pub truncate: bool,
    /// Limits beyond which requests and connections are refused.
    pub limits: Limits,
    /// Called for every request and every change of the server. Events never contain the text of a request.
    pub log: Arc<dyn Fn(&Event) + Send + Sync>,
}

impl std::fmt::Debug for ServeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeConfig")
            .field("address", &self.address)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl ServeConfig {
    /// A server on `address` without keys, TLS, CORS or a log.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            key_file: None,
            without_keys: false,
            tls: None,
            cors_origin: None,
            threads: None,
            truncate: false,
            limits: Limits::default(),
            log: Arc::new(|_| {}),
        }
    }
}

/// Files of a TLS certificate.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain, starting with the server's own certificate.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
}

/// Limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes in the body of a request.
    pub body_bytes: usize,
    /// The most texts in a request.
    pub texts: usize,
    /// The most tokens in a text that is read in windows. The model's maximum length limits other texts.
    pub text_tokens: usize,
    /// The most tokens in the queue, over all requests.
    pub queue_tokens: usize,
    /// The most tokens in a batch, padding included.
    pub batch_tokens: usize,
    /// The most open connections. Further ones get 503.
    pub connections: usize,
    /// Time from the start of a connection, or the end of a response, to the end of the next request's head.
    pub header_time: Duration,
    /// Time to receive the body of a request.
    pub body_time: Duration,
    /// Time from adding a request to the queue to its results.
    pub deadline: Duration,
    /// The most time to finish open requests at shutdown.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            texts: 2_048,
            text_tokens: 16_384,
            queue_tokens: 1 << 18,
            batch_tokens: 2_048,
            connections: 4_096,
            header_time: Duration::from_secs(30),
            body_time: Duration::from_secs(30),
            deadline: Duration::from_secs(30),
            drain_time: Duration::from_secs(30),
        }
    }
}

/// An event for the log of a server.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A response was sent.
    Request(RequestEvent),
    /// Computing a batch or handling a request panicked.
    Panic {
        /// The id of the request. It is `None` when a batch panicked.
        #[serde(skip_serializing_if = "Option::is_none")]
        request: Option<String>,
    },
    /// The models were reloaded and replaced the previous ones.
    Reloaded {
        /// The names of the models.
        models: Vec<String>,
    },
    /// The models could not be reloaded. The server keeps the previous ones.
    ReloadFailed {
        /// Why.
        reason: String,
    },
    /// The server accepts no new requests and finishes the open ones.
    Draining,
}

/// A request and its response.
#[derive(Clone, Debug, Serialize)]
pub struct RequestEvent {
    /// The request id: the client's `x-request-id`, or an id that the server generated.
    pub request: String,
    /// The HTTP method.
    pub method: String,
    /// The route, with the names of parameters instead of their values.
    pub route: &'static str,
    /// The status of the response.
    pub status: u16,
    /// Milliseconds from the head of the request to the response.
    pub milliseconds: f64,
    /// The model that computed the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Number of texts.
    pub texts: usize,
    /// Number of tokens in these texts.
    pub tokens: usize,
    /// The name of the client's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why the request was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<&'static str>,
}
