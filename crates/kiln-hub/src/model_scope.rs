use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::download::Download;
use crate::http::Client;
use crate::url::Url;
use crate::{Error, Location, Progress, PullConfig, Repository, Snapshot, checkpoint, disk};

const ENDPOINT: &str = "https://www.modelscope.cn";

/// Finds or fetches a snapshot in the layout `models/owner--name/snapshots/revision`, which Python's `modelscope` has
/// since 1.38. Its older one, `models/owner/name`, keeps no revisions apart and is not read.
pub(crate) fn pull(
    repository: &Repository,
    config: &PullConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Snapshot, Error> {
    let hub = &config.model_scope;
    let cache = disk::cache_root(hub.cache_dir.as_ref(), ".cache/modelscope")?;
    let revision = repository.revision().unwrap_or("master").to_owned();
    let folder = cache.join("models").join(repository.id().replace('/', "--"));
    let record = folder.join(".kiln").join(format!("{revision}.json"));
    let mut files = Files {
        location: Location::ModelScope(repository.clone()).to_string(),
        snapshot: folder.join("snapshots").join(&revision),
        id: repository.id().to_owned(),
        revision,
        cache,
        client: None,
        listing: None,
        progress,
    };
    if config.offline {
        files.listing = recorded(&record)?;
        files.fetch_all()?;
    } else {
        let client = Client::new(config, hub, ENDPOINT)?.with_token_cookie("m_session_id");
        (files.progress)(Progress::Asking { address: &client.endpoint().shown() });
        files.listing = Some(files.list(&client)?);
        files.client = Some(client);
        files.fetch_all()?;
        // Last, so that offline it vouches for whole snapshots alone.
        let text = serde_json::to_vec_pretty(&files.listing).expect("strings and numbers are valid JSON");
        disk::write(&record, &text)?;
    }
    Ok(Snapshot {
        folder: files.snapshot,
        verified: files.listing.is_some(),
        revision: files.listing.and_then(|listing| listing.commit),
        address: files.client.map(|client| client.endpoint().shown()),
    })
}

/// A repository's files at one time, by name. What the hub said is kept beside the snapshot, so that offline the files
/// can be held against it.
#[derive(Serialize, Deserialize)]
struct Listing {
    commit: Option<String>,
    files: BTreeMap<String, Declared>,
}

#[derive(Serialize, Deserialize)]
struct Declared {
    size: u64,
    sha256: String,
}

fn recorded(record: &Path) -> Result<Option<Listing>, Error> {
    let Some(text) = disk::read(record)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|source| Error::Json {
        path: record.to_owned(),
        expected: "the listing of a repository",
        source,
    })
}

/// The files of one revision, on disk and, unless offline, on the hub.
struct Files<'a> {
    location: String,
    id: String,
    revision: String,
    cache: PathBuf,
    snapshot: PathBuf,
    /// None offline.
    client: Option<Client>,
    /// None offline where another program filled the cache.
    listing: Option<Listing>,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Files<'_> {
    fn fetch_all(&mut self) -> Result<(), Error> {
        let location = self.location.clone();
        let folder = self.snapshot.clone();
        let address = self.client.as_ref().map(|client| self.list_url(client).shown());
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
        let Some(listing) = &self.listing else { return Ok(path.is_file().then_some(path)) };
        let Some(declared) = listing.files.get(file) else { return Ok(None) };
        let Some(digest @ Digest::Sha256(_)) = Digest::parse(&declared.sha256) else {
            let address = self.client.as_ref().map_or_else(String::new, |client| self.list_url(client).shown());
            let found = format!("`{}` for {file}", declared.sha256);
            return Err(Error::Answer { address, expected: "a file's SHA-256", found });
        };
        let Some(client) = &self.client else {
            return match digest.of_file(&path)? {
                None => Ok(None),
                Some(found) if found == digest => Ok(Some(path)),
                Some(found) => Err(Error::Damaged {
                    location: self.location.clone(),
                    path,
                    expected: digest.to_string(),
                    found: found.to_string(),
                }),
            };
        };
        let download = Download {
            file,
            url: self.file_url(client, file),
            size: declared.size,
            digest,
            target: path.clone(),
            lock: self.lock(file),
        };
        download.run(client, self.progress)?;
        Ok(Some(path))
    }

    fn list_url(&self, client: &Client) -> Url {
        let revision = self.revision.replace('/', "%2F");
        let path = format!("/api/v1/models/{}/repo/files?Revision={revision}&Recursive=true", self.id);
        client.endpoint().append(&path)
    }

    fn file_url(&self, client: &Client, file: &str) -> Url {
        let [revision, file] = [&self.revision, file].map(|part| part.replace('/', "%2F"));
        let path = format!("/api/v1/models/{}/repo?Revision={revision}&FilePath={file}", self.id);
        client.endpoint().append(&path)
    }

    /// Where Python's client locks this file: a digest of what it is, in a folder of the cache.
    fn lock(&self, file: &str) -> PathBuf {
        let key = format!("modelscope-hub-download-lock-v2\0file\0model\0{}\0{file}", self.id);
        let name = Digest::Sha256(Sha256::digest(key).into());
        self.cache.join(".lock").join(format!("file_{name}.lock"))
    }

    /// Asks the hub what the revision holds.
    fn list(&self, client: &Client) -> Result<Listing, Error> {
        let answer = client.get(&self.list_url(client), 0)?;
        let status = answer.response.status();
        let address = answer.url.shown();
        let refused = |reason| Error::NotFound { location: self.location.clone(), address: address.clone(), reason };
        match status.as_u16() {
            200 => {}
            401 | 403 | 404 => return Err(refused(status.to_string())),
            _ => return Err(answer.error("a listing of the repository", status.to_string())),
        }
        let ListAnswer { success, message, data } = answer.json()?;
        let Some(data) = data.filter(|_| success) else { return Err(refused(message.unwrap_or_default())) };
        let latest = data.latest_committer.unwrap_or_default();
        let files = data.files.into_iter().filter(|entry| entry.kind.as_deref() != Some("tree"));
        let declared = |entry: Entry| {
            let (size, sha256) = (entry.size.unwrap_or_default(), entry.sha256.unwrap_or_default());
            (entry.path, Declared { size, sha256 })
        };
        Ok(Listing {
            commit: [latest.id, latest.short_id].into_iter().flatten().find(|commit| !commit.is_empty()),
            files: files.map(declared).collect(),
        })
    }
}

// What the hub leaves out, or says `null` for, is none here.

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListAnswer {
    success: bool,
    message: Option<String>,
    data: Option<ListData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListData {
    files: Vec<Entry>,
    latest_committer: Option<Commit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    path: String,
    /// `blob` or `tree`.
    #[serde(rename = "Type")]
    kind: Option<String>,
    size: Option<u64>,
    sha256: Option<String>,
}

/// The latest one; some answers have the short name alone.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Commit {
    id: Option<String>,
    short_id: Option<String>,
}
