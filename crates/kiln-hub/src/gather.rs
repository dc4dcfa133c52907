use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::ask::{Ask, Wanted};
use crate::digest::Digest;
use crate::{Error, Progress, checkpoint, disk, pickle};

/// The files of one revision of a repository, on disk and, unless offline, on its hub.
pub(crate) trait Files {
    /// The folder that holds them under their own names.
    fn folder(&self) -> &Path;

    /// Where a file is; none where the revision does not have it, or is not known to.
    fn find(&mut self, name: &str) -> Result<Option<Found>, Error>;

    /// Downloads what was found to be on the hub, verifies it and gives it its name. `report` takes how many bytes there
    /// are so far.
    fn fetch(&mut self, name: &str, declared: &OnHub, report: &mut dyn FnMut(u64)) -> Result<(), Error>;

    /// The error for a file, or a choice of files, that cannot be done without.
    fn missing(&self, name: &str) -> Error;

    /// The hub's address; none offline.
    fn address(&self) -> Option<String>;
}

/// Where a file is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// On disk, and held against its hash if there is one.
    OnDisk { digest: Option<Digest> },
    /// On the hub.
    OnHub(OnHub),
}

/// What a hub declares of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnHub {
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// Bytes of it on disk, from an earlier attempt.
    pub(crate) begun: u64,
}

/// The sizes and hashes that hubs declared, by file name. A fallback hub must declare the same.
#[derive(Debug, Default)]
pub(crate) struct Declared(BTreeMap<String, Vec<(Digest, String)>>);

/// What a pull has brought.
pub(crate) struct Gathered {
    pub(crate) folder: PathBuf,
    pub(crate) commit: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) verified: bool,
}

/// A text of a checkpoint: vocabularies have some 20 MiB, indices less.
const MOST_TEXT_BYTES: u64 = 256 << 20;
/// Twice the largest file that a hub stores.
const MOST_BYTES: u64 = 1 << 40;

/// Finds or fetches the files wanted; returns whether each was held against a hash.
pub(crate) fn gather(
    files: &mut dyn Files,
    ask: Ask<'_>,
    declared: &mut Declared,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<bool, Error> {
    let mut gatherer = Gatherer { files, wanted: ask.wanted, declared, progress, queue: Vec::new(), verified: true };
    match ask.wanted {
        Wanted::Checkpoint => checkpoint::find(&mut gatherer)?,
        Wanted::File(name) => {
            if !gatherer.find(name)? {
                return Err(gatherer.missing(name));
            }
        }
    }
    gatherer.fetch()?;
    Ok(gatherer.verified)
}

/// Finds files one by one, then fetches what is not on disk, once it is known how much that is.
pub(crate) struct Gatherer<'a> {
    files: &'a mut dyn Files,
    wanted: Wanted<'a>,
    declared: &'a mut Declared,
    progress: &'a mut dyn FnMut(Progress<'_>),
    queue: Vec<(String, OnHub)>,
    verified: bool,
}

impl Gatherer<'_> {
    /// Looks for a file; whether there is one. What is on the hub alone is fetched later.
    pub(crate) fn find(&mut self, name: &str) -> Result<bool, Error> {
        let address = self.files.address().unwrap_or_else(|| self.files.folder().display().to_string());
        match self.files.find(name)? {
            None => return Ok(false),
            Some(Found::OnHub(on_hub)) => {
                self.check_size(name, &on_hub, &address)?;
                self.declared.add(name, on_hub.digest, &address)?;
                self.queue.push((name.to_owned(), on_hub));
            }
            Some(Found::OnDisk { digest }) => {
                match digest {
                    Some(digest) => self.declared.add(name, digest, &address)?,
                    None => self.verified = false,
                }
                let path = self.files.folder().join(name);
                self.declared.check(name, &path, digest)?;
                if pickle::is_meant(name) {
                    pickle::check(&path)?;
                }
            }
        }
        Ok(true)
    }

    /// Fetches what was found so far and is not on disk.
    pub(crate) fn fetch(&mut self) -> Result<(), Error> {
        let queue = std::mem::take(&mut self.queue);
        if queue.is_empty() {
            return Ok(());
        }
        let missing = queue.iter().fold(0, |sum: u64, (_, file)| sum.saturating_add(file.size - file.begun));
        disk::check_space(self.files.folder(), missing)?;
        let all_size = queue.iter().map(|(_, file)| file.size).sum();
        (self.progress)(Progress::Planned { files: queue.len(), size: all_size });

        let mut before = 0;
        for (name, on_hub) in &queue {
            let (file, size, progress) = (name.as_str(), on_hub.size, &mut *self.progress);
            let mut report = |received| {
                let all_received = before + received;
                progress(Progress::Downloading { file, received, size, all_received, all_size });
            };
            self.files.fetch(name, on_hub, &mut report)?;
            self.declared.check(name, &self.files.folder().join(name), Some(on_hub.digest))?;
            (self.progress)(Progress::Verified { file });
            before += size;
        }
        Ok(())
    }

    /// The folder of a file, once it was found and [fetched](Self::fetch).
    pub(crate) fn folder(&self) -> &Path {
        self.files.folder()
    }

    pub(crate) fn missing(&self, name: &str) -> Error {
        self.files.missing(name)
    }

    fn check_size(&self, name: &str, on_hub: &OnHub, address: &str) -> Result<(), Error> {
        let is_weights = [".safetensors", ".bin"].iter().any(|ending| name.ends_with(ending));
        let most = match self.wanted {
            Wanted::Checkpoint if !is_weights => MOST_TEXT_BYTES,
            _ => MOST_BYTES,
        };
        if on_hub.size <= most {
            return Ok(());
        }
        Err(Error::TooLarge { file: name.to_owned(), address: address.to_owned(), size: on_hub.size, most })
    }
}

impl Declared {
    /// Notes a hub's word, unless another's contradicts it.
    fn add(&mut self, name: &str, digest: Digest, address: &str) -> Result<(), Error> {
        let words = self.0.entry(name.to_owned()).or_default();
        if let Some((other, by)) = words.iter().find(|(other, _)| other.is_of_kind(&digest) && *other != digest) {
            return Err(contradiction(name, (*other, by), (digest, address)));
        }
        words.push((digest, address.to_owned()));
        Ok(())
    }

    /// Holds a file on disk against the words of all hubs but the one that it has passed already.
    fn check(&self, name: &str, path: &Path, passed: Option<Digest>) -> Result<(), Error> {
        for (digest, by) in self.0.get(name).into_iter().flatten().filter(|(digest, _)| Some(*digest) != passed) {
            match digest.of_file(path)? {
                Some(found) if found != *digest => {
                    return Err(contradiction(name, (*digest, by), (found, &path.display().to_string())));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn contradiction(name: &str, first: (Digest, &str), second: (Digest, &str)) -> Error {
    let word = |(digest, address): (Digest, &str)| (address.to_owned(), digest.to_string());
    Error::Contradiction { file: name.to_owned(), first: word(first), second: word(second) }
}
