use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// How a server listens, what it takes, and whom it tells.
#[derive(Clone)]
pub struct ServeConfig {
    /// Where it listens; port 0 is any that is free.
    pub address: SocketAddr,
    /// The file of keys, a line `NAME:KEY` each.
    pub key_file: Option<PathBuf>,
    /// Whether it may be reached from other machines without a key.
    pub without_keys: bool,
    /// Certificate chain and key for TLS, both PEM.
    pub tls: Option<TlsFiles>,
    /// An origin whose pages may call the server; none: CORS is off.
    pub cors_origin: Option<String>,
    /// Threads that compute; none: as many as the process may use, by its affinity and its quota, rounded down.
    pub threads: Option<usize>,
    /// Whether texts that are too long are cut off where a request does not say it.
    pub truncate: bool,
    /// What is refused.
    pub limits: Limits,
    /// Hears of every request and of what happens to the server. No text of a user is in it.
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
    /// On an address, without keys, TLS, CORS or a log.
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

/// Files of a certificate.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a server takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Texts of a request.
    pub texts: usize,
    /// Tokens of a text that is read in windows; other texts end where their model does.
    pub text_tokens: usize,
    /// Tokens that wait, of all requests together.
    pub queue_tokens: usize,
    /// Tokens of a batch, padding included.
    pub batch_tokens: usize,
    /// Connections at once; more are answered with 503.
    pub connections: usize,
    /// From the start of a connection, or the end of an answer, to the end of the next request's head.
    pub header_time: Duration,
    /// For a request's body.
    pub body_time: Duration,
    /// From the end of a request to its answer.
    pub deadline: Duration,
    /// From the signal to end to the end.
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

/// What a server tells its log.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A request was answered.
    Request(RequestEvent),
    /// Computing or answering panicked.
    Panic {
        /// The request's id; none where a batch panicked.
        #[serde(skip_serializing_if = "Option::is_none")]
        request: Option<String>,
    },
    /// The models were read again and took the place of those before.
    Reloaded {
        /// Their names.
        models: Vec<String>,
    },
    /// They could not be read; those before stay.
    ReloadFailed {
        /// Why.
        reason: String,
    },
    /// The server takes nothing new, and answers what it has.
    Draining,
}

/// A request and how it was answered.
#[derive(Clone, Debug, Serialize)]
pub struct RequestEvent {
    /// Its id: the client's `x-request-id`, or one of the server's.
    pub request: String,
    /// Its method.
    pub method: String,
    /// Its route, with the names of parameters instead of their values.
    pub route: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// Milliseconds from its head to its answer.
    pub milliseconds: f64,
    /// The model that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How many texts it had.
    pub texts: usize,
    /// How many tokens these had.
    pub tokens: usize,
    /// The name of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<&'static str>,
}
