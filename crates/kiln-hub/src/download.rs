use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::digest::Hasher;
use crate::gather::OnHub;
use crate::http::{Answer, Client};
use crate::url::Url;
use crate::{Error, disk, pickle};

/// The number of bytes between two progress reports.
const REPORT_BYTES: u64 = 1 << 20;

/// A download of one file.
pub(crate) struct Download<'a> {
    /// The name in the repository.
    pub(crate) file: &'a str,
    pub(crate) url: Url,
    pub(crate) declared: OnHub,
    /// The path of the verified file. During the download, the file has the same name with `.incomplete` added.
    pub(crate) target: PathBuf,
    /// The lock held during the download, so that no two processes write the same file.
    pub(crate) lock: PathBuf,
}

/// A partially downloaded file and the hash of its content.
struct Partial {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    received: u64,
}

/// Why a download failed. It may be worth another attempt if the bytes of an earlier one were wrong.
enum Failure {
    Final(Error),
    /// The bytes on disk were not those declared. If some came from an earlier attempt, the download restarts.
    Begun(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// The number of bytes from an earlier attempt at `target`.
pub(crate) fn begun(target: &Path) -> u64 {
    fs::symlink_metadata(part_path(target)).map_or(0, |metadata| metadata.len())
}

fn part_path(target: &Path) -> PathBuf {
    let mut path = target.to_owned().into_os_string();
    path.push(".incomplete");
    path.into()
}

impl Download<'_> {
    /// Downloads the file to its target, unless the verified file already exists. `report` gets the number of bytes so
    /// far.
    pub(crate) fn run(&self, client: &Client, report: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let _lock = disk::lock(&self.lock)?;
        if self.declared.digest.of_file(&self.target)? == Some(self.declared.digest) {
            report(self.declared.size);
            return Ok(());
        }
        let mut part = self.open()?;
        let had = part.received > 0;
        match self.complete(&mut part, client, report) {
            // The partial file may come from another program, or may be damaged by a power failure.
            Err(Failure::Begun(_)) if had => {
                let mut part = self.open()?;
                self.complete(&mut part, client, report)
            }
            outcome => outcome,
        }
        .map_err(|(Failure::Final(error) | Failure::Begun(error))| error)
    }

    /// Opens the partial file of an earlier attempt, or creates an empty one.
    fn open(&self) -> Result<Partial, Error> {
        disk::parent(&self.target)?;
        let path = part_path(&self.target);
        if let Ok(target) = fs::read_link(&path) {
            return Err(Error::UnsafeLink { path, target });
        }
        let open = || {
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            if file.metadata()?.len() > self.declared.size {
                file.set_len(0)?;
            }
            let mut hasher = self.declared.digest.hasher(self.declared.size);
            hasher.read(&mut file)?;
            let received = file.stream_position()?;
            Ok((file, hasher, received))
        };
        let (file, hasher, received) = open().map_err(Error::io(&path))?;
        Ok(Partial { path, file, hasher, received })
    }

    /// Completes a partial file, verifies it, and gives it its final name.
    fn complete(&self, part: &mut Partial, client: &Client, report: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        self.fill(part, client, report)?;
        let found = part.hasher.clone().finish();
        if found != self.declared.digest {
            return Err(self.discard(part, found.to_string()));
        }
        if pickle::is_meant(self.file)
            && let Err(error) = pickle::check(&part.path)
        {
            remove(part)?;
            return Err(error.into());
        }
        part.file.sync_all().map_err(Error::io(&part.path))?;
        fs::rename(&part.path, &self.target).map_err(Error::io(&self.target))?;
        Ok(disk::sync_parent(&self.target)?)
    }

    /// Requests the remaining bytes until the file is complete.
    fn fill(&self, part: &mut Partial, client: &Client, report: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let size = self.declared.size;
        let mut fruitless = 0;
        let mut most = part.received;
        loop {
            report(part.received);
            if part.received == size {
                return Ok(());
            }
            let mut answer = client.get(&self.url, part.received)?;
            let status = answer.response.status().as_u16();
            if let Some(total) = total(&answer).filter(|total| *total != size && matches!(status, 200 | 206)) {
                let found = format!("{total} bytes, not the {size} declared");
                return Err(match (status, part.received) {
                    // Probably a login page of the network. It does not mean that the bytes on disk are wrong.
                    (200, 1..) => Failure::Final(self.mismatch(found)),
                    _ => self.discard(part, found),
                });
            }
            match status {
                206 if starts_at(&answer, part.received) => {}
                // The response is the whole file, not the requested range.
                200 => part.restart(self)?,
                // The file ends before this byte.
                416 => return Err(self.discard(part, format!("fewer than the {size} bytes declared"))),
                _ => return Err(answer.error("the file (status 200 or 206)", format!("status {status}")).into()),
            }
            let broken = self.read(part, &mut answer, report)?;
            if part.received > most {
                (most, fruitless) = (part.received, 0);
                continue;
            }
            fruitless += 1;
            if fruitless == client.attempts() {
                return Err(Failure::Final(Error::Interrupted {
                    file: self.file.to_owned(),
                    address: answer.url.shown(),
                    received: part.received,
                    size,
                    source: broken.map(Into::into),
                }));
            }
            client.pause(fruitless);
        }
    }

    /// Reads the body of one response, to its end or to a connection error.
    fn read(
        &self,
        part: &mut Partial,
        answer: &mut Answer,
        report: &mut dyn FnMut(u64),
    ) -> Result<Option<io::Error>, Failure> {
        let mut body = answer.response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let bytes = match body.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(read) => &buffer[..read],
                Err(error) => return Ok(Some(error)),
            };
            let received = part.received + bytes.len() as u64;
            if received > self.declared.size {
                return Err(self.discard(part, format!("more than the {} bytes declared", self.declared.size)));
            }
            part.file.write_all(bytes).map_err(Error::io(&part.path))?;
            part.hasher.update(bytes);
            if received / REPORT_BYTES > part.received / REPORT_BYTES {
                report(received);
            }
            part.received = received;
        }
    }

    /// Deletes the partial file, because it is not what the hub declared.
    fn discard(&self, part: &Partial, found: String) -> Failure {
        if let Err(error) = remove(part) {
            return error.into();
        }
        Failure::Begun(self.mismatch(found))
    }

    fn mismatch(&self, found: String) -> Error {
        let expected = self.declared.digest.to_string();
        Error::Mismatch { file: self.file.to_owned(), address: self.url.shown(), expected, found }
    }
}

fn remove(part: &Partial) -> Result<(), Error> {
    fs::remove_file(&part.path).map_err(Error::io(&part.path))
}

impl Partial {
    fn restart(&mut self, download: &Download<'_>) -> Result<(), Error> {
        let restart = |file: &mut File| file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
        restart(&mut self.file).map_err(Error::io(&self.path))?;
        self.hasher = download.declared.digest.hasher(download.declared.size);
        self.received = 0;
        Ok(())
    }
}

/// Whether a partial response (status 206) begins at the requested byte.
fn starts_at(answer: &Answer, start: u64) -> bool {
    let range = answer.header("content-range").and_then(|value| value.strip_prefix("bytes "));
    range.and_then(|range| range.split_once('-')).is_some_and(|(first, _)| first.parse() == Ok(start))
}

/// The length of the whole file, if a full (200) or partial (206) response states it.
fn total(answer: &Answer) -> Option<u64> {
    match answer.header("content-range") {
        Some(range) => range.rsplit_once('/')?.1.parse().ok(),
        None => answer.header("content-length")?.parse().ok(),
    }
}
