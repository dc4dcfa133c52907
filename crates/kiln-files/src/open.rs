use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use crate::{Error, Kind};

/// Opens a regular file, or a link to one, for reading.
///
/// # Errors
/// Returns the errors of [`File::open`]. Also fails when the path is not a regular file. Opening a pipe would wait for
/// a writer.
pub fn open(path: &Path) -> io::Result<File> {
    expect_regular(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    // The path may refer to another file by now.
    expect_regular(&file.metadata()?)?;
    Ok(file)
}

fn expect_regular(metadata: &Metadata) -> io::Result<()> {
    match Kind::of(metadata.file_type()) {
        None => Ok(()),
        Some(kind) => Err(Error::NotRegular(kind).into()),
    }
}

/// Reads the bytes of a regular file.
///
/// # Errors
/// Returns the errors of [`open`]. Also fails when reading fails.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads the bytes of a regular file; `None` if nothing exists at the path.
///
/// # Errors
/// Returns the errors of [`read`], except for an absent file.
pub fn read_if_present(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the text of a regular file.
///
/// # Errors
/// Returns the errors of [`read`]. Also fails when the bytes are not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_are_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.txt");
        assert_eq!(read(&path).expect_err("it is absent").kind(), io::ErrorKind::NotFound);
        assert_eq!(read_if_present(&path).expect("it may be absent"), None);
        fs::write(&path, "好").expect("a small file");
        assert_eq!(read_to_string(&path).expect("a text"), "好");
        assert_eq!(read_if_present(&path).expect("a file"), Some("好".as_bytes().to_vec()));
        assert_eq!(read_if_present(&path.join("b")).expect("a file has no files below it"), None);
        fs::write(&path, b"\xff").expect("a small file");
        assert_eq!(read_to_string(&path).expect_err("it is no UTF-8").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_folder_is_named_as_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let message = open(folder.path()).expect_err("it is a folder").to_string();
        assert_eq!(message, "it is a folder; expected a regular file");
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
        assert!(made.success());
        std::os::unix::fs::symlink(&pipe, &link).expect("a link");
        for path in [&pipe, &link] {
            let message = read(path).expect_err("no one writes").to_string();
            assert_eq!(message, "it is a pipe (FIFO); expected a regular file");
        }
        let message = read("/dev/zero".as_ref()).expect_err("it has no end").to_string();
        assert_eq!(message, "it is a character device; expected a regular file");
    }
}
