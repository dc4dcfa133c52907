use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::writer::folder_of;
use crate::{FileWriter, open};

/// A file of a known length that is computed once and reused. Threads can read parts of it.
#[derive(Debug)]
pub struct CacheFile {
    file: Mutex<File>,
}

impl CacheFile {
    /// Opens the file at `path` if it is `bytes` bytes long. Otherwise `write` creates it through a [`FileWriter`], in
    /// a folder that is created if needed. Returns the file, and whether the existing one was reused.
    ///
    /// # Errors
    /// Returns the errors of `write`. I/O errors of the folder and the file are converted by `failed`.
    pub fn open_or_write<E>(
        path: &Path,
        bytes: u64,
        failed: impl Fn(io::Error) -> E,
        write: impl FnOnce(&mut FileWriter) -> Result<(), E>,
    ) -> Result<(Self, bool), E> {
        let is_kept = path.metadata().is_ok_and(|metadata| metadata.len() == bytes);
        if !is_kept {
            fs::create_dir_all(folder_of(path)).map_err(&failed)?;
            let mut file = FileWriter::create(path).map_err(&failed)?;
            write(&mut file)?;
            file.finish().map_err(&failed)?;
        }
        let file = Mutex::new(open(path).map_err(failed)?);
        Ok((Self { file }, is_kept))
    }

    /// Reads `bytes` bytes from byte `start` on.
    ///
    /// # Errors
    /// When the file ends before the last byte, because it was truncated after it was opened, or when it cannot be
    /// read.
    pub fn read(&self, start: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut part = vec![0; bytes];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut part)?;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_written_once_and_anew_where_its_length_differs() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("below/cache");
        let open = |content: &[u8]| {
            CacheFile::open_or_write(&path, 6, |error| error, |file| file.write_all(content)).expect("a small file")
        };
        let (file, is_kept) = open(b"abcdef");
        assert!(!is_kept);
        assert_eq!(file.read(2, 3).expect("it is within"), b"cde");
        assert_eq!(file.read(4, 3).expect_err("it ends before").kind(), io::ErrorKind::UnexpectedEof);
        let (file, is_kept) = open(b"ghijkl");
        assert!(is_kept);
        assert_eq!(file.read(0, 6).expect("it is whole"), b"abcdef");
        fs::write(&path, "abc").expect("a small file");
        let (file, is_kept) = open(b"ghijkl");
        assert!(!is_kept);
        assert_eq!(file.read(0, 6).expect("it is whole"), b"ghijkl");
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("cache");
        let failed = CacheFile::open_or_write(&path, 6, |_| "the file", |_| Err("the content"));
        assert_eq!(failed.expect_err("there is no content"), "the content");
        assert!(!path.exists());
        let failed = CacheFile::open_or_write(folder.path(), 6, |_| "the file", |_| Ok(()));
        assert_eq!(failed.expect_err("it is a folder"), "the file");
    }
}
