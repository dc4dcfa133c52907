use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::server::{Pace, Reply, Request, Server};
use crate::{content, hugging_face, model_scope};

/// The commit of the branches at the start.
pub const COMMIT: &str = "8f23c25b06e129b6c986331a13d8d025a92cf0ea";
/// The value of [`Hub::requests`] when there were no requests.
pub const NO_REQUESTS: [Vec<String>; 2] = [Vec::new(), Vec::new()];

/// A hub with one model and one data set, and its content host for large files. Both are named `owner/name` and have
/// the same files. The hub has the routes of Hugging Face and of ModelScope.
#[derive(Debug)]
pub struct Hub {
    /// The hub.
    pub server: Server,
    /// The content host of the hub.
    pub content: Server,
    state: Arc<Mutex<State>>,
}

/// The state of a hub, which tests can change while it runs.
#[derive(Clone, Debug)]
pub struct State {
    /// The content of each file, by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The commit of the branches.
    pub commit: String,
    /// Declared sizes that differ from the true ones.
    pub sizes: BTreeMap<String, u64>,
    /// Files that are sent with one wrong bit.
    pub flipped: Vec<String>,
    /// Files that are sent without their last byte.
    pub shortened: Vec<String>,
    /// For each of the next responses with large content, the number of bytes after which it ends.
    pub cuts: Vec<usize>,
    /// The same, but the connection stays open.
    pub stalls: Vec<usize>,
    /// The number of the next listings that end after half of their bytes.
    pub cut_listings: usize,
    /// Faults that replace the next replies.
    pub faults: Vec<Fault>,
    /// Whether range requests are ignored.
    pub no_ranges: bool,
    /// The speed at which large files are sent.
    pub pace: Option<Pace>,
    /// Whether small files are redirected within the hub, as on Hugging Face.
    pub redirects_small: bool,
    /// The token required for all requests, if any.
    pub token: Option<String>,
}

/// An error response.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The server that sends it.
    pub host: Host,
    /// The status.
    pub status: u16,
    /// The value of `Retry-After`.
    pub retry_after: Option<String>,
}

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The hub, which receives the first request.
    Hub,
    /// The content host, which sends large files.
    Content,
}

impl Hub {
    /// Starts a hub with a complete checkpoint, and with other files that are not part of it.
    pub fn start() -> Self {
        let weights: Vec<u8> = (0..100_003_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let files = [
            ("config.json", br#"{"model_type": "bert"}"#.to_vec()),
            ("tokenizer.json", b"{}\n".to_vec()),
            ("tokenizer_config.json", Vec::new()),
            ("model.safetensors", weights.clone()),
            ("pytorch_model.bin", weights.clone()),
            ("flax_model.msgpack", weights),
            ("data/train 1.tsv", "很好\t1\n".repeat(200).into_bytes()),
            ("README.md", b"# name\n".to_vec()),
        ];
        Self::with(files.map(|(name, content)| (name.to_owned(), content)).into())
    }

    /// Starts a hub with these files.
    pub fn with(files: BTreeMap<String, Vec<u8>>) -> Self {
        let state = Arc::new(Mutex::new(State::new(files)));
        let shared = Arc::clone(&state);
        let content = Server::start(move |request| {
            let state = &mut *shared.lock().expect("no thread panics inside");
            state.fault(Host::Content).unwrap_or_else(|| content::reply(state, request))
        });
        let (shared, address) = (Arc::clone(&state), content.address.clone());
        let server = Server::start(move |request| {
            let state = &mut *shared.lock().expect("no thread panics inside");
            state.fault(Host::Hub).or_else(|| state.refusal(request)).unwrap_or_else(|| {
                hugging_face::reply(state, request, &address)
                    .or_else(|| model_scope::reply(state, request, &address))
                    .unwrap_or_else(|| Reply::status(404).with("X-Error-Code", "RepoNotFound"))
            })
        });
        Self { server, content, state }
    }

    /// Changes the state for the next requests.
    ///
    /// # Panics
    /// Never, unless `change` does.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("no thread panics inside"))
    }

    /// The content of a file.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn file(&self, name: &str) -> Vec<u8> {
        self.change(|state| state.files[name].clone())
    }

    /// The requests since the last call, as `METHOD target`: those to the hub, then those to its content host.
    pub fn requests(&self) -> [Vec<String>; 2] {
        let line = |request: Request| format!("{} {}", request.method, request.target);
        [&self.server, &self.content].map(|server| server.requests().into_iter().map(line).collect())
    }
}

impl State {
    fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            files,
            commit: COMMIT.to_owned(),
            sizes: BTreeMap::new(),
            flipped: Vec::new(),
            shortened: Vec::new(),
            cuts: Vec::new(),
            stalls: Vec::new(),
            cut_listings: 0,
            faults: Vec::new(),
            no_ranges: false,
            pace: None,
            redirects_small: false,
            token: None,
        }
    }

    /// Takes the next fault of a host.
    fn fault(&mut self, host: Host) -> Option<Reply> {
        let at = self.faults.iter().position(|fault| fault.host == host)?;
        let Fault { status, retry_after, .. } = self.faults.remove(at);
        let reply = Reply::status(status);
        Some(match retry_after {
            Some(seconds) => reply.with("Retry-After", seconds),
            None => reply,
        })
    }

    fn refusal(&self, request: &Request) -> Option<Reply> {
        let bearer = format!("Bearer {}", self.token.as_ref()?);
        let is_known = request.headers.get("authorization") == Some(&bearer);
        (!is_known).then(|| Reply::status(401).with("X-Error-Code", "RepoNotFound"))
    }
}
