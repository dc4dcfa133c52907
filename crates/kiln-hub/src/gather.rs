use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::ask::{Ask, Wanted};
use crate::digest::Digest;
use crate::{Error, Progress, checkpoint, disk, pickle};

/// The files of one revision of a repository, on disk and, unless offline, on its hub.
pub(crate) trait Files {
    /// The folder with the files under their own names.
    fn folder(&self) -> &Path;

    /// Finds a file; none if the revision does not have it, or if this cannot be known offline.
    fn find(&mut self, name: &str) -> Result<Option<Found>, Error>;

    /// Downloads a file that was found on the hub, verifies it, and gives it its final name. `report` gets the number
    /// of bytes so far.
    fn fetch(&mut self, name: &str, declared: &OnHub, report: &mut dyn FnMut(u64)) -> Result<(), Error>;

    /// The error for a missing required file. `name` may list alternatives, one of which is required.
    fn missing(&self, name: &str) -> Error;

    /// The address of the hub; none offline.
    fn address(&self) -> Option<String>;
}

/// The location of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// On disk, and verified if there is a hash.
    OnDisk { digest: Option<Digest> },
    /// On the hub.
    OnHub(OnHub),
}

/// The size and hash that a hub declares for a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnHub {
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// The number of bytes already on disk from an earlier attempt.
    pub(crate) begun: u64,
}

/// The hashes that hubs declared, by file name. A fallback hub must declare the same.
#[derive(Debug, Default)]
pub(crate) struct Declared(BTreeMap<String, Vec<(Digest, String)>>);

/// The result of a pull.
pub(crate) struct Gathered {
    pub(crate) folder: PathBuf,
    pub(crate) commit: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) verified: bool,
}

/// The maximum size of a text file of a checkpoint. Vocabularies are about 20 MiB, indices smaller.
const MOST_TEXT_BYTES: u64 = 256 << 20;
/// The maximum size of any other file: twice the largest file that a hub stores.
const MOST_BYTES: u64 = 1 << 40;

/// Finds or downloads the requested files. Returns whether all were verified against a hash.
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

/// Finds files one by one, then downloads those that are not on disk, after checking their total size.
pub(crate) struct Gatherer<'a> {
    files: &'a mut dyn Files,
    wanted: Wanted<'a>,
    declared: &'a mut Declared,
    progress: &'a mut dyn FnMut(Progress<'_>),
    queue: Vec<(String, OnHub)>,
    verified: bool,
}

impl Gatherer<'_> {
    /// Looks for a file, and returns whether it exists. If it is only on the hub, [`fetch`](Self::fetch) downloads it
    /// later.
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

    /// Downloads the files found so far that are not on disk.
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

    /// The folder of the files. A file is there once it has been found and [fetched](Self::fetch).
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
    /// Records a hash that a hub declared, unless it contradicts another hub.
    fn add(&mut self, name: &str, digest: Digest, address: &str) -> Result<(), Error> {
        let words = self.0.entry(name.to_owned()).or_default();
        if let Some((other, by)) = words.iter().find(|(other, _)| other.is_of_kind(&digest) && *other != digest) {
            return Err(contradiction(name, (*other, by), (digest, address)));
        }
        words.push((digest, address.to_owned()));
        Ok(())
    }

    /// Checks a file on disk against the hashes of all hubs, except the one that it has already passed.
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
