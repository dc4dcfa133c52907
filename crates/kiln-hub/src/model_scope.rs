use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::ask::{Ask, Wanted};
use crate::digest::Digest;
use crate::download::{Download, begun};
use crate::gather::{Declared, Files, Found, Gathered, OnHub, gather};
use crate::http::Client;
use crate::listing::{self, Listing};
use crate::source::is_commit;
use crate::url::{Url, encoded};
use crate::{Error, Progress, PullConfig, disk};

const ENDPOINT: &str = "https://www.modelscope.cn";

/// Finds or downloads the requested files, in the layout `models/owner--name/snapshots/revision`, or `datasets/…`,
/// which Python's `modelscope` has used since 1.38. The older layout, `models/owner/name`, does not separate revisions.
/// Its files are used if they have the right hash or, offline, if no revision is requested.
pub(crate) fn pull(
    ask: Ask<'_>,
    config: &PullConfig,
    declared: &mut Declared,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Gathered, Error> {
    let cache = disk::cache_root(config.model_scope.cache_dir.as_ref(), ".cache/modelscope")?;
    let revision = ask.revision().to_owned();
    let folder = cache.join(format!("{}s", ask.kind())).join(ask.repository.id().replace('/', "--"));
    let record_of = |revision: &str| match ask.wanted {
        Wanted::Checkpoint => folder.join(".kiln").join(format!("{revision}.json")),
        Wanted::File(name) => folder.join(".kiln").join(revision).join(format!("{name}.json")),
    };
    let record = record_of(&revision);
    let mut files = Cached {
        snapshot: folder.join("snapshots").join(&revision),
        revision,
        cache,
        remote: None,
        listing: None,
        ask,
    };
    if config.offline {
        files.listing = Listing::recorded(&record)?;
        if files.listing.is_none() && is_commit(&files.revision) {
            // A pull of a branch may have downloaded this commit.
            for snapshot in files.snapshots() {
                let name = snapshot.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let listing = Listing::recorded(&record_of(name))?;
                if listing.as_ref().is_some_and(|listing| listing.commit.as_ref() == Some(&files.revision)) {
                    (files.snapshot, files.listing) = (snapshot, listing);
                    break;
                }
            }
        }
        if !files.snapshot.is_dir()
            && ask.repository.revision().is_none()
            && let Some(older) = files.older_folders().into_iter().find(|folder| folder.is_dir())
        {
            files.snapshot = older;
        }
    } else {
        let client = Client::new(config, &config.model_scope, ENDPOINT)?.with_token_cookie("m_session_id");
        progress(Progress::Asking { address: &client.endpoint().shown() });
        files.listing = Some(Listing::default());
        files.remote = Some(client);
    }
    let verified = gather(&mut files, ask, declared, progress)?;
    if let (Some(listing), Some(_)) = (&files.listing, &files.remote) {
        // The listing is written last, so that offline it describes only complete snapshots.
        listing.record(&record)?;
    }
    let address = files.address();
    let commit = files.listing.and_then(|listing| listing.commit);
    Ok(Gathered { folder: files.snapshot, commit, address, verified })
}

/// The files of one revision, in the cache and, unless offline, on the hub.
struct Cached<'a> {
    ask: Ask<'a>,
    revision: String,
    cache: PathBuf,
    snapshot: PathBuf,
    /// None if offline.
    remote: Option<Client>,
    /// None if offline and another program filled the cache.
    listing: Option<Listing>,
}

impl Files for Cached<'_> {
    fn folder(&self) -> &Path {
        &self.snapshot
    }

    fn find(&mut self, name: &str) -> Result<Option<Found>, Error> {
        let path = self.snapshot.join(name);
        disk::check_links(&self.cache, &self.snapshot, name)?;
        disk::check_kind(&path)?;
        if let (Some(listing), Some(client)) = (&mut self.listing, &self.remote) {
            listing.extend(client, self.ask, &self.revision, name)?;
        }
        let Some(listing) = &self.listing else {
            return Ok(path.is_file().then_some(Found::OnDisk { digest: None }));
        };
        let Some(declared) = listing.files.get(name) else { return Ok(None) };
        let Some(digest @ Digest::Sha256(_)) = Digest::parse(&declared.sha256) else {
            let found = format!("`{}` for {name}", declared.sha256);
            let address = self.address().unwrap_or_default();
            return Err(Error::Answer { address, expected: "a file's SHA-256", found });
        };
        let on_disk = Found::OnDisk { digest: Some(digest) };
        match digest.of_file(&path)? {
            Some(found) if found == digest => return Ok(Some(on_disk)),
            Some(found) if self.remote.is_none() => {
                return Err(Error::Damaged {
                    command: self.ask.command(),
                    path,
                    expected: digest.to_string(),
                    found: found.to_string(),
                });
            }
            None if self.remote.is_none() => return Ok(None),
            _ => {}
        }
        let size = declared.size;
        for twin in self.twins(name) {
            let is_it = fs::symlink_metadata(&twin).is_ok_and(|twin| twin.is_file() && twin.len() == size);
            if is_it && digest.of_file(&twin)? == Some(digest) {
                disk::share(&twin, &path)?;
                return Ok(Some(on_disk));
            }
        }
        Ok(Some(Found::OnHub(OnHub { size, digest, begun: begun(&path).min(size) })))
    }

    fn fetch(&mut self, name: &str, declared: &OnHub, report: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let client = self.remote.as_ref().expect("offline nothing is found on the hub");
        let download = Download {
            file: name,
            url: self.file_url(client, name),
            declared: *declared,
            target: self.snapshot.join(name),
            lock: self.lock(name),
        };
        download.run(client, report)
    }

    fn missing(&self, name: &str) -> Error {
        let (location, file) = (self.ask.to_string(), name.to_owned());
        match &self.remote {
            Some(client) => {
                let address = listing::url(client, self.ask, &self.revision, "", None).shown();
                Error::MissingFile { location, file, address }
            }
            None => Error::NotInCache { location, file, folder: self.snapshot.clone(), command: self.ask.command() },
        }
    }

    fn address(&self) -> Option<String> {
        self.remote.as_ref().map(|client| client.endpoint().shown())
    }
}

impl Cached<'_> {
    fn file_url(&self, client: &Client, name: &str) -> Url {
        let [revision, name] = [encoded(&self.revision), encoded(name)].map(|part| part.replace('/', "%2F"));
        let (kind, id) = (self.ask.kind(), self.ask.repository.id());
        client.endpoint().append(&format!("/api/v1/{kind}s/{id}/repo?Revision={revision}&FilePath={name}"))
    }

    /// The path of the lock that Python's client uses for this file. Its name is a digest of the repository and the
    /// file name.
    fn lock(&self, name: &str) -> PathBuf {
        let (kind, id) = (self.ask.kind(), self.ask.repository.id());
        let key = format!("modelscope-hub-download-lock-v2\0file\0{kind}\0{id}\0{name}");
        let digest = Digest::Sha256(Sha256::digest(key).into());
        self.cache.join(".lock").join(format!("file_{digest}.lock"))
    }

    /// Paths where the same file may already exist: in other revisions, and in the older layout.
    fn twins(&self, name: &str) -> Vec<PathBuf> {
        let mut folders = self.snapshots();
        folders.extend(self.older_folders());
        folders.into_iter().map(|folder| folder.join(name)).collect()
    }

    /// The folders of all revisions in the cache, except those whose name contains a `/`.
    fn snapshots(&self) -> Vec<PathBuf> {
        let folder = self.snapshot.ancestors().find(|folder| folder.ends_with("snapshots"));
        let entries = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        folders.sort();
        folders
    }

    /// The folders that Python's `modelscope` before 1.38 uses for the repository.
    fn older_folders(&self) -> Vec<PathBuf> {
        let (owner, name) = self.ask.repository.id().split_once('/').expect("a repository's id is owner/name");
        let below = Path::new(&format!("{}s", self.ask.kind())).join(owner).join(name.replace('.', "___"));
        vec![self.cache.join(&below), self.cache.join("hub").join(&below)]
    }
}
