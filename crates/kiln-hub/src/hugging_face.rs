use std::fs;
use std::io;
use std::path::PathBuf;

use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use ureq::http::HeaderMap;

use crate::digest::Digest;
use crate::download::Download;
use crate::http::{Answer, Client};
use crate::url::Url;
use crate::{Error, Location, Progress, PullConfig, Repository, Snapshot, checkpoint, disk};

// `hf-hub` gives the names: of the cache's folders, and of a repository in an address. Its client is not used: it
// compares no hash, makes a file's name of any `ETag`, and appends a whole answer to a part when a range is ignored.

const ENDPOINT: &str = "https://huggingface.co";

/// Finds or fetches a snapshot in the layout `models--owner--name/{blobs,refs,snapshots}`.
pub(crate) fn pull(
    repository: &Repository,
    config: &PullConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Snapshot, Error> {
    let location = Location::HuggingFace(repository.clone()).to_string();
    let hub = &config.hugging_face;
    let root = disk::cache_root(hub.cache_dir.as_ref(), ".cache/huggingface/hub")?;
    let revision = repository.revision().unwrap_or("main").to_owned();
    let repo = Repo::with_revision(repository.id().to_owned(), RepoType::Model, revision);
    let folder = root.join(repo.folder_name());
    let reference = folder.join("refs").join(repo.revision());

    let remote = if config.offline {
        None
    } else {
        let client = Client::new(config, hub, ENDPOINT)?;
        progress(Progress::Asking { address: &client.endpoint().shown() });
        Some(Remote { client, repo: repo.clone(), location: location.clone() })
    };
    let commit = match &remote {
        _ if is_commit(repo.revision()) => repo.revision().to_owned(),
        Some(remote) => remote.commit()?,
        None => match disk::read(&reference)? {
            Some(commit) if is_commit(&commit) => commit,
            _ => return Err(Error::NotInCache { location, file: "config.json".to_owned(), folder }),
        },
    };

    let cache = Cache::new(root.clone()).repo(repo.clone());
    let snapshot = cache.pointer_path(&commit);
    let mut files = Files {
        locks: root.join(".locks").join(repo.folder_name()),
        absent: folder.join(".no_exist").join(&commit),
        snapshot: snapshot.clone(),
        cache,
        commit,
        remote,
        location,
        progress,
        verified: true,
    };
    files.fetch_all()?;

    // Last, so that a branch never leads offline to half a snapshot.
    if files.remote.is_some() && files.commit != repo.revision() {
        disk::write(&reference, files.commit.as_bytes())?;
    }
    let address = files.remote.map(|remote| remote.client.endpoint().shown());
    Ok(Snapshot { folder: snapshot, revision: Some(files.commit), address, verified: files.verified })
}

/// The files of one commit, on disk and, unless offline, on the hub.
struct Files<'a> {
    cache: CacheRepo,
    commit: String,
    snapshot: PathBuf,
    /// Holds an empty file for each that the commit is known not to have.
    absent: PathBuf,
    locks: PathBuf,
    remote: Option<Remote>,
    location: String,
    progress: &'a mut dyn FnMut(Progress<'_>),
    verified: bool,
}

/// What the cache holds under a file's name.
enum Cached {
    Nothing,
    Whole { verified: bool },
    Damaged { expected: Digest, found: Digest },
}

impl Files<'_> {
    fn fetch_all(&mut self) -> Result<(), Error> {
        let location = self.location.clone();
        let folder = self.snapshot.clone();
        let address = self.remote.as_ref().map(|remote| remote.url(&self.commit, "").shown());
        let missing = |file: &str| {
            let (location, file) = (location.clone(), file.to_owned());
            match &address {
                Some(address) => Error::MissingFile { location, file, address: address.clone() },
                None => Error::NotInCache { location, file, folder: folder.clone() },
            }
        };
        checkpoint::fetch_all(|file| self.fetch(file), missing)
    }

    fn fetch(&mut self, file: &str) -> Result<Option<PathBuf>, Error> {
        let path = self.snapshot.join(file);
        let cached = self.cached(file)?;
        if let Cached::Whole { verified } = cached {
            self.verified &= verified;
            return Ok(Some(path));
        }
        let Some(remote) = &self.remote else {
            return match cached {
                Cached::Damaged { expected, found } => Err(Error::Damaged {
                    location: self.location.clone(),
                    path,
                    expected: expected.to_string(),
                    found: found.to_string(),
                }),
                _ => Ok(None),
            };
        };
        let absent = self.absent.join(file);
        if absent.exists() {
            return Ok(None);
        }
        let (size, digest) = match remote.entry(&self.commit, file)? {
            Entry::File { size, digest } => (size, digest),
            Entry::Nothing { certain } => {
                if certain {
                    disk::write(&absent, b"")?;
                }
                return Ok(None);
            }
        };
        let name = digest.to_string();
        let download = Download {
            file,
            url: remote.url(&self.commit, file),
            size,
            digest,
            target: self.cache.blob_path(&name),
            lock: self.locks.join(format!("{name}.lock")),
        };
        download.run(&remote.client, self.progress)?;
        // From the folder that holds the link: once more `..` than `file` has folders.
        let up = "../".repeat(file.split('/').count() + 1);
        disk::link(format!("{up}blobs/{name}").as_ref(), &path)?;
        Ok(Some(path))
    }

    /// Holds a cached file against the hash that its blob is named by.
    fn cached(&self, file: &str) -> Result<Cached, Error> {
        let path = self.snapshot.join(file);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {}
            // A file, not a link, as on systems without links: nothing tells its hash.
            Ok(_) => return Ok(Cached::Whole { verified: false }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cached::Nothing),
            Err(error) => return Err(Error::io(&path)(error)),
        }
        let blob = fs::read_link(&path).map_err(Error::io(&path))?;
        let Some(expected) = blob.file_name().and_then(|name| name.to_str()).and_then(Digest::parse) else {
            return Ok(if path.exists() { Cached::Whole { verified: false } } else { Cached::Nothing });
        };
        Ok(match expected.of_file(&path)? {
            None => Cached::Nothing,
            Some(found) if found == expected => Cached::Whole { verified: true },
            Some(found) => Cached::Damaged { expected, found },
        })
    }
}

/// A repository on the hub.
struct Remote {
    client: Client,
    repo: Repo,
    location: String,
}

/// What the hub has under a name.
enum Entry {
    File {
        size: u64,
        digest: Digest,
    },
    /// Certain where the hub itself says so, not merely something on the way to it.
    Nothing {
        certain: bool,
    },
}

impl Remote {
    fn url(&self, revision: &str, file: &str) -> Url {
        let revision = revision.replace('/', "%2F");
        self.client.endpoint().append(&format!("/{}/resolve/{revision}/{file}", self.repo.url()))
    }

    /// The commit that the revision stands for now.
    fn commit(&self) -> Result<String, Error> {
        let answer = self.head(self.repo.revision(), "config.json")?;
        match answer.header("x-repo-commit") {
            Some(commit) if is_commit(commit) => Ok(commit.to_owned()),
            _ if answer.response.status() == 404 => Err(self.not_found(&answer)),
            other => Err(answer.error("a commit in X-Repo-Commit", other.unwrap_or("none"))),
        }
    }

    /// What the commit has under this name.
    fn entry(&self, commit: &str, file: &str) -> Result<Entry, Error> {
        let answer = self.head(commit, file)?;
        if answer.response.status() == 404 {
            return Ok(Entry::Nothing { certain: answer.header("x-error-code") == Some("EntryNotFound") });
        }
        let size = answer.header("x-linked-size").or(answer.header("content-length"));
        let Some(size) = size.and_then(|size| size.parse().ok()) else {
            return Err(answer.error("the file's size in X-Linked-Size or Content-Length", size.unwrap_or("none")));
        };
        let etag = answer.header("x-linked-etag").or(answer.header("etag"));
        match etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"')).and_then(Digest::parse) {
            Some(digest) => Ok(Entry::File { size, digest }),
            None => Err(answer.error("the file's hash in X-Linked-Etag or ETag", etag.unwrap_or("none"))),
        }
    }

    /// The headers of a file, or of a 404 that is about the file alone.
    fn head(&self, revision: &str, file: &str) -> Result<Answer, Error> {
        let needed = ["x-repo-commit", "x-linked-etag", "x-linked-size"];
        let describes = |headers: &HeaderMap| needed.iter().all(|name| headers.contains_key(*name));
        let answer = self.client.head(&self.url(revision, file), describes)?;
        let code = answer.header("x-error-code").unwrap_or_default();
        match answer.response.status().as_u16() {
            200 | 300..=399 => Ok(answer),
            404 if !matches!(code, "RepoNotFound" | "RevisionNotFound") => Ok(answer),
            401 | 403 | 404 => Err(self.not_found(&answer)),
            status => Err(answer.error("a file's headers", format!("status {status}"))),
        }
    }

    fn not_found(&self, answer: &Answer) -> Error {
        let reason = answer.header("x-error-message").map(str::to_owned);
        Error::NotFound {
            location: self.location.clone(),
            address: answer.url.shown(),
            reason: reason.unwrap_or_else(|| answer.response.status().to_string()),
        }
    }
}

/// Whether a revision is a whole commit, which means the same for ever.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}
