use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::thread;

use crate::digest::{Digest, Hasher};
use crate::http::{Answer, Client, PAUSE};
use crate::url::Url;
use crate::{Error, Progress, disk};

/// How many answers in a row may end without a single new byte.
const FRUITLESS: u32 = 3;
/// Between two reports of a download.
const REPORT_BYTES: u64 = 1 << 20;

/// One file: what its hub declares of it, and where it goes.
pub(crate) struct Download<'a> {
    /// Its name in the repository.
    pub(crate) file: &'a str,
    pub(crate) url: Url,
    /// Bytes declared.
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// Where it lands once verified; it grows beside that, under the same name with `.incomplete`.
    pub(crate) target: PathBuf,
    /// Held while it is fetched, so that processes do not write one file together.
    pub(crate) lock: PathBuf,
}

/// A file that grows, and the digest of what it holds.
struct Partial {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    received: u64,
}

impl Download<'_> {
    /// Brings the file to its target, unless a whole one is there.
    pub(crate) fn run(&self, client: &Client, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), Error> {
        let _lock = disk::lock(&self.lock)?;
        if self.digest.of_file(&self.target)? == Some(self.digest) {
            return Ok(());
        }
        let mut partial = self.open()?;
        self.fill(&mut partial, client, progress)?;

        let found = partial.hasher.clone().finish();
        if found != self.digest {
            return Err(self.discard(&partial, found.to_string()));
        }
        partial.file.sync_all().map_err(Error::io(&partial.path))?;
        fs::rename(&partial.path, &self.target).map_err(Error::io(&self.target))?;
        progress(Progress::Verified { file: self.file });
        Ok(())
    }

    /// Opens what an earlier attempt left, or an empty file.
    fn open(&self) -> Result<Partial, Error> {
        disk::parent(&self.target)?;
        let mut path = self.target.clone().into_os_string();
        path.push(".incomplete");
        let path = PathBuf::from(path);
        let open = || {
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            if file.metadata()?.len() > self.size {
                file.set_len(0)?;
            }
            let mut hasher = self.digest.hasher(self.size);
            hasher.read(&mut file)?;
            let received = file.stream_position()?;
            Ok((file, hasher, received))
        };
        let (file, hasher, received) = open().map_err(Error::io(&path))?;
        Ok(Partial { path, file, hasher, received })
    }

    /// Asks for the rest until there is none.
    fn fill(
        &self,
        partial: &mut Partial,
        client: &Client,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), Error> {
        let mut fruitless = 0;
        let mut most = partial.received;
        loop {
            progress(Progress::Downloading { file: self.file, received: partial.received, size: self.size });
            if partial.received == self.size {
                return Ok(());
            }
            let mut answer = client.get(&self.url, partial.received)?;
            match answer.response.status().as_u16() {
                206 if starts_at(&answer, partial.received) => {}
                // The whole file, though the rest was asked for.
                200 => partial.restart(self)?,
                // The file ends before this byte.
                416 => return Err(self.discard(partial, format!("fewer than the {} bytes declared", self.size))),
                status => return Err(answer.error("the file (status 200 or 206)", format!("status {status}"))),
            }
            if let Some(total) = total(&answer).filter(|total| *total != self.size) {
                return Err(self.discard(partial, format!("{total} bytes, not the {} declared", self.size)));
            }
            let broken = self.read(partial, &mut answer, progress)?;
            if partial.received > most {
                (most, fruitless) = (partial.received, 0);
                continue;
            }
            fruitless += 1;
            thread::sleep(PAUSE * fruitless);
            if fruitless == FRUITLESS {
                return Err(Error::Interrupted {
                    file: self.file.to_owned(),
                    address: answer.url.shown(),
                    received: partial.received,
                    size: self.size,
                    source: broken.map(Into::into),
                });
            }
        }
    }

    /// Takes in one answer's body, up to its end or to where it breaks.
    fn read(
        &self,
        partial: &mut Partial,
        answer: &mut Answer,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<io::Error>, Error> {
        let mut body = answer.response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let bytes = match body.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(read) => &buffer[..read],
                Err(error) => return Ok(Some(error)),
            };
            let received = partial.received + bytes.len() as u64;
            if received > self.size {
                return Err(self.discard(partial, format!("more than the {} bytes declared", self.size)));
            }
            partial.file.write_all(bytes).map_err(Error::io(&partial.path))?;
            partial.hasher.update(bytes);
            if received / REPORT_BYTES > partial.received / REPORT_BYTES {
                progress(Progress::Downloading { file: self.file, received, size: self.size });
            }
            partial.received = received;
        }
    }

    /// Deletes what came, for it is not what was declared, and gives the error that says so.
    fn discard(&self, partial: &Partial, found: String) -> Error {
        if let Err(error) = fs::remove_file(&partial.path) {
            return Error::io(&partial.path)(error);
        }
        let expected = self.digest.to_string();
        Error::Mismatch { file: self.file.to_owned(), address: self.url.shown(), expected, found }
    }
}

impl Partial {
    fn restart(&mut self, download: &Download<'_>) -> Result<(), Error> {
        let restart = |file: &mut File| file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
        restart(&mut self.file).map_err(Error::io(&self.path))?;
        self.hasher = download.digest.hasher(download.size);
        self.received = 0;
        Ok(())
    }
}

/// Whether a partial answer (status 206) begins where it was asked to.
fn starts_at(answer: &Answer, start: u64) -> bool {
    let range = answer.header("content-range").and_then(|value| value.strip_prefix("bytes "));
    range.and_then(|range| range.split_once('-')).is_some_and(|(first, _)| first.parse() == Ok(start))
}

/// The length of the whole file, where a whole (200) or partial (206) answer tells it.
fn total(answer: &Answer) -> Option<u64> {
    match answer.header("content-range") {
        Some(range) => range.rsplit_once('/')?.1.parse().ok(),
        None => answer.header("content-length")?.parse().ok(),
    }
}
