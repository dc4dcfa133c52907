use std::io;
use std::path::{Path, PathBuf};

use crate::content::ByteLines;
use crate::error::Unit;
use crate::{Encoding, Error, Place, Source, encoding};

/// Reads the decoded lines of a text file, and keeps the position for errors.
#[derive(Debug)]
pub(crate) struct Lines {
    lines: ByteLines,
    path: PathBuf,
    encoding: Encoding,
    /// The number of the last line read, from 1.
    line: u64,
}

impl Lines {
    pub(crate) fn open(source: &Source) -> Result<Self, Error> {
        let path = source.path.clone();
        let encoding = source.encoding.map_or_else(|| encoding::detect(&path), Ok)?;
        let lines =
            ByteLines::open(&path, Some(encoding)).map_err(|source| Error::Read { path: path.clone(), source })?;
        Ok(Self { lines, path, encoding, line: 0 })
    }

    /// The next line, without its line ending and without a byte order mark; `None` at the end of the file.
    pub(crate) fn next_line(&mut self) -> Result<Option<String>, Error> {
        let mut bytes = Vec::new();
        match self.lines.read(&mut bytes) {
            Ok(true) => self.line += 1,
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let problem = format!("line {} is not {}: {error}", self.line + 1, self.encoding);
                return Err(Error::Damaged { path: self.path.clone(), problem });
            }
            Err(source) => return Err(Error::Read { path: self.path.clone(), source }),
        }
        let likely = encoding::marked(&bytes);
        let mut line = encoding::decode(bytes, self.encoding).map_err(|bytes| Error::Encoding {
            place: self.place(),
            bytes,
            encoding: self.encoding,
            likely,
        })?;
        if self.line == 1 && line.starts_with('\u{feff}') {
            line.remove(0);
        }
        Ok(Some(line))
    }

    /// The next line that is not empty and does not consist only of spaces.
    pub(crate) fn next_filled_line(&mut self) -> Result<Option<String>, Error> {
        while let Some(line) = self.next_line()? {
            // A tab separates fields, so a line of tabs is a row of empty fields.
            if !line.trim_matches(' ').is_empty() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// The place of the last line read.
    pub(crate) fn place(&self) -> Place {
        self.place_of(self.line)
    }

    pub(crate) fn place_of(&self, line: u64) -> Place {
        Place { path: self.path.clone(), line, unit: Unit::Line }
    }

    /// The number of the last line read, from 1; 0 before the first.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
