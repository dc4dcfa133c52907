use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kiln_hub::{Error, HubConfig, Location, PullConfig, Secret, Snapshot, pull};
use serde_json::json;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use crate::server::{Reply, Request, Server};

pub const COMMIT: &str = "8f23c25b06e129b6c986331a13d8d025a92cf0ea";
pub const TOKEN: &str = "hf_secret";
/// What [`Hub::requests`] gives when there were none.
pub const NO_REQUESTS: [Vec<String>; 2] = [Vec::new(), Vec::new()];

/// A hub with one repository, `owner/name`, that speaks both hubs' routes, and the content host it sends clients to.
pub struct Hub {
    pub server: Server,
    pub content: Server,
    pub state: Arc<Mutex<State>>,
}

/// What a test may change while the hub runs.
#[derive(Clone, Default)]
pub struct State {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Files whose content is sent with one bit wrong.
    pub flipped: Vec<String>,
    /// Files whose content is sent without its last byte.
    pub shortened: Vec<String>,
    /// After how many bytes the next answers with a file of more than 1,000 bytes end.
    pub cuts: Vec<usize>,
    /// The content host ignores ranges.
    pub no_ranges: bool,
}

impl Hub {
    /// A whole checkpoint, and files that are none of its.
    pub fn start() -> Self {
        let weights: Vec<u8> = (0..100_003_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let files = [
            ("config.json", br#"{"model_type": "bert"}"#.to_vec()),
            ("tokenizer.json", b"{}\n".to_vec()),
            ("tokenizer_config.json", Vec::new()),
            ("model.safetensors", weights.clone()),
            ("pytorch_model.bin", weights.clone()),
            ("flax_model.msgpack", weights),
            ("README.md", b"# name\n".to_vec()),
        ];
        Self::with(files.map(|(name, content)| (name.to_owned(), content)).into())
    }

    pub fn with(files: BTreeMap<String, Vec<u8>>) -> Self {
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let shared = Arc::clone(&state);
        let content =
            Server::start(move |request| content(&mut shared.lock().expect("no test panics inside"), request));
        let (shared, address) = (Arc::clone(&state), content.address.clone());
        let server = Server::start(move |request| {
            let state = &mut shared.lock().expect("no test panics inside");
            match request.target.strip_prefix("/owner/name/resolve/") {
                Some(rest) => resolve(state, request, rest, &address),
                None => model_scope(state, request, &address),
            }
        });
        Self { server, content, state }
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no test panics inside"));
    }

    pub fn file(&self, name: &str) -> Vec<u8> {
        self.state.lock().expect("no test panics inside").files[name].clone()
    }

    /// Pulls `source` into the cache `root`, with a token.
    pub fn pull(&self, source: &str, root: &Path, offline: bool) -> Result<Snapshot, Error> {
        let hub = HubConfig {
            endpoint: Some(self.server.address.clone()),
            cache_dir: Some(root.to_owned()),
            token: Some(Secret::from(TOKEN.to_owned())),
        };
        let config = PullConfig { offline, proxy: None, hugging_face: hub.clone(), model_scope: hub };
        let location: Location = source.parse().expect("a location");
        pull(&location, &config, &mut |_| ())
    }

    /// `METHOD target` of the requests since the last call: to the hub, then to its content host.
    pub fn requests(&self) -> [Vec<String>; 2] {
        let line = |request: Request| format!("{} {}", request.method, request.target);
        [&self.server, &self.content].map(|server| server.requests().into_iter().map(line).collect())
    }
}

pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What git calls a file of this content.
pub fn git_blob(content: &[u8]) -> String {
    let hash = Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hugging Face: `revision/file`. Large files are a redirect to the content host.
fn resolve(state: &mut State, request: &Request, rest: &str, content_host: &str) -> Reply {
    let (revision, name) = rest.split_once('/').unwrap_or_default();
    if !["main", "refs%2Fpr%2F1", COMMIT].contains(&revision) {
        let headers = vec![("X-Error-Code", "RevisionNotFound".to_owned())];
        return Reply { headers, ..Reply::status(404) };
    }
    let commit = ("X-Repo-Commit", COMMIT.to_owned());
    let Some(content) = state.files.get(name) else {
        return Reply { headers: vec![commit, ("X-Error-Code", "EntryNotFound".to_owned())], ..Reply::status(404) };
    };
    if content.len() > 1000 {
        let headers = vec![
            commit,
            ("X-Linked-Etag", format!("\"{}\"", sha256(content))),
            ("X-Linked-Size", content.len().to_string()),
            ("Location", format!("{content_host}/{name}?signature=secret")),
        ];
        return Reply { headers, ..Reply::status(302) };
    }
    let etag = format!("\"{}\"", git_blob(content));
    let mut reply = file(state, request, name);
    reply.headers.extend([commit, ("ETag", etag)]);
    reply
}

/// ModelScope: the listing, and files, of which large ones are a redirect to the content host.
fn model_scope(state: &mut State, request: &Request, content_host: &str) -> Reply {
    let target = request.target.as_str();
    if target == "/api/v1/models/owner/name/repo/files?Revision=master&Recursive=true" {
        let mut files: Vec<_> = state
            .files
            .iter()
            .map(|(name, content)| json!({"Path": name, "Type": "blob", "Size": content.len(), "Sha256": sha256(content)}))
            .collect();
        files.push(json!({"Path": "onnx", "Type": "tree", "Size": 0, "Sha256": null}));
        let data = json!({"Files": files, "LatestCommitter": {"Id": "", "ShortId": "8f23c25b"}});
        let body = json!({"Code": 200, "Success": true, "Message": "", "Data": data});
        return Reply { body: body.to_string().into_bytes(), ..Reply::status(200) };
    }
    match target.strip_prefix("/api/v1/models/owner/name/repo?Revision=master&FilePath=") {
        Some(name) if state.files.get(name).is_some_and(|content| content.len() > 1000) => {
            let headers = vec![("Location", format!("{content_host}/{name}?signature=secret"))];
            Reply { headers, ..Reply::status(302) }
        }
        Some(name) if state.files.contains_key(name) => file(state, request, name),
        _ => Reply::status(404),
    }
}

fn content(state: &mut State, request: &Request) -> Reply {
    match request.target.trim_start_matches('/').strip_suffix("?signature=secret") {
        Some(name) => file(state, request, name),
        None => Reply::status(403),
    }
}

/// A file, or the part of it that is asked for, with what the test wants wrong.
fn file(state: &mut State, request: &Request, name: &str) -> Reply {
    let mut body = state.files[name].clone();
    if state.flipped.iter().any(|flipped| flipped == name) {
        let middle = body.len() / 2;
        body[middle] ^= 1;
    }
    if state.shortened.iter().any(|shortened| shortened == name) {
        body.pop();
    }
    let mut reply = Reply::status(200);
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    if let Some(start) = range.filter(|_| !state.no_ranges) {
        let (start, size): (usize, usize) = (start.parse().expect("a number"), body.len());
        reply.headers.push(("Content-Range", format!("bytes {start}-{}/{size}", size - 1)));
        reply.status = 206;
        body.drain(..start);
    }
    if body.len() > 1000 && !state.cuts.is_empty() {
        reply.cut = Some(state.cuts.remove(0).min(body.len()));
    }
    Reply { body, ..reply }
}
