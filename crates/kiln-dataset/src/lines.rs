use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::error::Unit;
use crate::{Encoding, Error, Place, Source, encoding};

/// The decoded lines of a text file, one at a time, and what errors about them need.
#[derive(Debug)]
pub(crate) struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    encoding: Encoding,
    /// The number of the line read last, from 1.
    line: u64,
}

impl Lines {
    pub(crate) fn open(source: &Source) -> Result<Self, Error> {
        let path = source.path.clone();
        let encoding = source.encoding.map_or_else(|| encoding::detect(&path), Ok)?;
        let file = File::open(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Ok(Self { reader: BufReader::with_capacity(1 << 16, file), path, encoding, line: 0 })
    }

    /// The next line without its ending and without a byte order mark; `None` at the end of the file.
    pub(crate) fn next_line(&mut self) -> Result<Option<String>, Error> {
        let mut bytes = Vec::new();
        let read = self.reader.read_until(b'\n', &mut bytes);
        if read.map_err(|source| Error::Read { path: self.path.clone(), source })? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let ending = if bytes.ends_with(b"\r\n") { 2 } else { usize::from(bytes.ends_with(b"\n")) };
        bytes.truncate(bytes.len() - ending);
        let mut line = encoding::decode(bytes, self.encoding).map_err(|bytes| Error::Encoding {
            place: self.place(),
            bytes,
            encoding: self.encoding,
        })?;
        if self.line == 1 && line.starts_with('\u{feff}') {
            line.remove(0);
        }
        Ok(Some(line))
    }

    /// The next line that holds more than spaces.
    pub(crate) fn next_filled_line(&mut self) -> Result<Option<String>, Error> {
        while let Some(line) = self.next_line()? {
            // Tabs are fields: a line of them is a row of empty ones.
            if !line.trim_matches(' ').is_empty() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// The place of the line read last.
    pub(crate) fn place(&self) -> Place {
        self.place_of(self.line)
    }

    pub(crate) fn place_of(&self, line: u64) -> Place {
        Place { path: self.path.clone(), line, unit: Unit::Line }
    }

    /// The number of the line read last, from 1; 0 before the first.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
