use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo};
use ureq::http::HeaderMap;

use crate::ask::Ask;
use crate::digest::Digest;
use crate::download::{Download, begun};
use crate::gather::{Declared, Files, Found, Gathered, OnHub, gather};
use crate::http::{Answer, Client};
use crate::source::is_commit;
use crate::url::{Url, encoded};
use crate::{Error, Progress, PullConfig, disk};

// `hf-hub` provides the names of cache folders, and the repository part of addresses. Its client is not used. It does
// not verify hashes, uses any `ETag` as a file name, and appends the whole file to a partial one if the server ignores
// the range.

const ENDPOINT: &str = "https://huggingface.co";

/// Finds or downloads the requested files, in the layout `models--owner--name/{blobs,refs,snapshots}`, or
/// `datasets--…`.
pub(crate) fn pull(
    ask: Ask<'_>,
    config: &PullConfig,
    declared: &mut Declared,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Gathered, Error> {
    let root = disk::cache_root(config.hugging_face.cache_dir.as_ref(), ".cache/huggingface/hub")?;
    let repo = ask.repo();
    let folder = root.join(repo.folder_name());
    let reference = folder.join("refs").join(repo.revision());

    let remote = if config.offline {
        None
    } else {
        let client = Client::new(config, &config.hugging_face, ENDPOINT)?;
        progress(Progress::Asking { address: &client.endpoint().shown() });
        Some(Remote { client, ask })
    };
    let commit = match &remote {
        _ if is_commit(repo.revision()) => repo.revision().to_owned(),
        Some(remote) => remote.commit()?,
        None => match disk::read(&reference)? {
            Some(commit) if is_commit(&commit) => commit,
            _ => {
                let file = ask.first_file().to_owned();
                return Err(Error::NotInCache { location: ask.to_string(), file, folder, command: ask.command() });
            }
        },
    };

    let cache = Cache::new(root.clone()).repo(repo.clone());
    let mut files = Cached {
        locks: root.join(".locks").join(repo.folder_name()),
        absent: folder.join(".no_exist").join(&commit),
        snapshot: cache.pointer_path(&commit),
        root,
        cache,
        commit,
        remote,
        ask,
    };
    let verified = gather(&mut files, ask, declared, progress)?;

    // The reference is written last, so that offline a branch never leads to an incomplete snapshot.
    if files.remote.is_some() && files.commit != repo.revision() {
        disk::write(&reference, files.commit.as_bytes())?;
    }
    Ok(Gathered { address: files.address(), folder: files.snapshot, commit: Some(files.commit), verified })
}

/// The files of one commit, in the cache and, unless offline, on the hub.
struct Cached<'a> {
    root: PathBuf,
    cache: CacheRepo,
    commit: String,
    snapshot: PathBuf,
    /// A folder with an empty file for each file that the commit is known not to have.
    absent: PathBuf,
    locks: PathBuf,
    remote: Option<Remote<'a>>,
    ask: Ask<'a>,
}

/// The state of a file in the cache.
enum Content {
    Nothing,
    /// The file exists, but its expected hash is unknown.
    Unknown,
    Whole(Digest),
    Damaged {
        expected: Digest,
        found: Digest,
    },
}

impl Files for Cached<'_> {
    fn folder(&self) -> &Path {
        &self.snapshot
    }

    fn find(&mut self, name: &str) -> Result<Option<Found>, Error> {
        let path = self.snapshot.join(name);
        let content = self.content(name)?;
        if let Content::Whole(digest) = content {
            return Ok(Some(Found::OnDisk { digest: Some(digest) }));
        }
        let Some(remote) = &self.remote else {
            return match content {
                Content::Unknown => Ok(Some(Found::OnDisk { digest: None })),
                Content::Damaged { expected, found } => Err(Error::Damaged {
                    command: self.ask.command(),
                    path,
                    expected: expected.to_string(),
                    found: found.to_string(),
                }),
                _ => Ok(None),
            };
        };
        let absent = self.absent.join(name);
        if absent.exists() {
            return Ok(None);
        }
        let (size, digest) = match remote.entry(&self.commit, name)? {
            Entry::File { size, digest } => (size, digest),
            Entry::Nothing { certain } => {
                if certain {
                    // The note only saves a request. A cache may be read-only.
                    let _ = disk::write(&absent, b"");
                }
                return Ok(None);
            }
        };
        let on_disk = Found::OnDisk { digest: Some(digest) };
        if matches!(content, Content::Unknown) && digest.of_file(&path)? == Some(digest) {
            return Ok(Some(on_disk));
        }
        // Another commit may already have downloaded the same content.
        let blob = self.cache.blob_path(&digest.to_string());
        if digest.of_file(&blob)? == Some(digest) {
            self.link(name, digest)?;
            return Ok(Some(on_disk));
        }
        let begun = begun(&blob).min(size);
        Ok(Some(Found::OnHub(OnHub { size, digest, begun })))
    }

    fn fetch(&mut self, name: &str, declared: &OnHub, report: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let remote = self.remote.as_ref().expect("offline nothing is found on the hub");
        let blob = declared.digest.to_string();
        let download = Download {
            file: name,
            url: remote.url(&self.commit, name),
            declared: *declared,
            target: self.cache.blob_path(&blob),
            lock: self.locks.join(format!("{blob}.lock")),
        };
        download.run(&remote.client, report)?;
        self.link(name, declared.digest)
    }

    fn missing(&self, name: &str) -> Error {
        let (location, file) = (self.ask.to_string(), name.to_owned());
        match &self.remote {
            Some(remote) => Error::MissingFile { location, file, address: remote.url(&self.commit, "").shown() },
            None => Error::NotInCache { location, file, folder: self.snapshot.clone(), command: self.ask.command() },
        }
    }

    fn address(&self) -> Option<String> {
        self.remote.as_ref().map(|remote| remote.client.endpoint().shown())
    }
}

impl Cached<'_> {
    fn link(&self, name: &str, digest: Digest) -> Result<(), Error> {
        // Relative to the link's folder: one `..` more than the name has parts.
        let up = "../".repeat(name.split('/').count() + 1);
        disk::link(format!("{up}blobs/{digest}").as_ref(), &self.snapshot.join(name))
    }

    /// Checks a cached file against the hash in the name of its blob.
    fn content(&self, name: &str) -> Result<Content, Error> {
        let path = self.snapshot.join(name);
        disk::check_links(&self.root, &self.snapshot, name)?;
        disk::check_kind(&path)?;
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {}
            // A regular file instead of a link, as on systems without links.
            Ok(_) => return Ok(Content::Unknown),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Nothing),
            Err(error) => return Err(Error::io(&path)(error)),
        }
        let blob = fs::read_link(&path).map_err(Error::io(&path))?;
        let Some(expected) = blob.file_name().and_then(|name| name.to_str()).and_then(Digest::parse) else {
            return Ok(if path.exists() { Content::Unknown } else { Content::Nothing });
        };
        Ok(match expected.of_file(&path)? {
            None => Content::Nothing,
            Some(found) if found == expected => Content::Whole(expected),
            Some(found) => Content::Damaged { expected, found },
        })
    }
}

/// A repository on the hub.
struct Remote<'a> {
    client: Client,
    ask: Ask<'a>,
}

/// What the hub has under a name.
enum Entry {
    File {
        size: u64,
        digest: Digest,
    },
    /// `certain` if the hub itself reports it, not just a server in between.
    Nothing {
        certain: bool,
    },
}

impl Remote<'_> {
    fn url(&self, revision: &str, file: &str) -> Url {
        let (revision, file) = (revision.replace('/', "%2F"), encoded(file));
        self.client.endpoint().append(&format!("/{}/resolve/{revision}/{file}", self.ask.repo().url()))
    }

    /// The current commit of the revision.
    fn commit(&self) -> Result<String, Error> {
        let answer = self.head(self.ask.repo().revision(), self.ask.first_file())?;
        match answer.header("x-repo-commit") {
            Some(commit) if is_commit(commit) => Ok(commit.to_owned()),
            _ if answer.response.status() == 404 => Err(self.not_found(&answer)),
            other => Err(answer.error("a commit in X-Repo-Commit", other.unwrap_or("none"))),
        }
    }

    /// Looks up a file of the commit.
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

    /// The headers of a file, or of a 404 response for a file that does not exist in the revision.
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
            location: self.ask.to_string(),
            address: answer.url.shown(),
            reason: reason.unwrap_or_else(|| answer.response.status().to_string()),
        }
    }
}
