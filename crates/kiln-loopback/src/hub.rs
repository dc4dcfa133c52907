use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::server::{Pace, Reply, Request, Server};
use crate::{content, hugging_face, model_scope};

/// The only commit that there is at first.
pub const COMMIT: &str = "8f23c25b06e129b6c986331a13d8d025a92cf0ea";
/// What [`Hub::requests`] gives when there were none.
pub const NO_REQUESTS: [Vec<String>; 2] = [Vec::new(), Vec::new()];

/// A hub with one model and one data set, both `owner/name` and of the same files, that speaks both hubs' routes, and the
/// content host that it sends clients to.
#[derive(Debug)]
pub struct Hub {
    /// The hub.
    pub server: Server,
    /// Its content host.
    pub content: Server,
    state: Arc<Mutex<State>>,
}

/// What may be changed while the hub runs.
#[derive(Clone, Debug)]
pub struct State {
    /// Content by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The branches' commit.
    pub commit: String,
    /// Sizes that are declared instead of the true ones.
    pub sizes: BTreeMap<String, u64>,
    /// Files whose content is sent with one bit wrong.
    pub flipped: Vec<String>,
    /// Files whose content is sent without its last byte.
    pub shortened: Vec<String>,
    /// After how many bytes the next answers with a large part of a file end.
    pub cuts: Vec<usize>,
    /// The same, but the connection stays open.
    pub stalls: Vec<usize>,
    /// What the next requests are answered with instead.
    pub faults: Vec<Fault>,
    /// Ranges are ignored.
    pub no_ranges: bool,
    /// How slowly large files are sent.
    pub pace: Option<Pace>,
    /// Small files are a redirect within the hub, as Hugging Face has them.
    pub redirects_small: bool,
    /// Without this token nothing is shown.
    pub token: Option<String>,
}

/// An answer that is none.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Who gives it.
    pub host: Host,
    /// Its status.
    pub status: u16,
    /// Its `Retry-After`.
    pub retry_after: Option<String>,
}

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// What is asked first.
    Hub,
    /// What large files come from.
    Content,
}

impl Hub {
    /// One with a whole checkpoint, and files that are none of its.
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

    /// One with these files.
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

    /// Changes what the next requests meet.
    ///
    /// # Panics
    /// Never, unless `change` does.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("no thread panics inside"))
    }

    /// A file's content.
    ///
    /// # Panics
    /// Where there is no such file.
    pub fn file(&self, name: &str) -> Vec<u8> {
        self.change(|state| state.files[name].clone())
    }

    /// `METHOD target` of the requests since the last call: to the hub, then to its content host.
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
            faults: Vec::new(),
            no_ranges: false,
            pace: None,
            redirects_small: false,
            token: None,
        }
    }

    /// The next thing that is to go wrong at a host.
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
