use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Error;
use crate::writer::{PREFIX, folder_of, sync_folder};

/// A folder that is being written. [`finish`](Self::finish) gives it its final name. If the writer is dropped before
/// that, its files are deleted and nothing is created at the path.
#[derive(Debug)]
pub struct FolderWriter {
    temporary: TempDir,
    destination: PathBuf,
}

impl FolderWriter {
    /// Creates a temporary folder next to the final path.
    ///
    /// # Errors
    /// When something other than an empty folder already exists at the path, or a mount point, or when the parent folder is
    /// absent or not writable.
    pub fn create(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() && is_mounted(path, &metadata)? => return Err(Error::MountPoint.into()),
            Ok(metadata) if metadata.is_dir() && fs::read_dir(path)?.next().is_none() => {}
            Ok(_) => return Err(Error::Occupied.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX);
        // Temporary folders normally give access only to their owner. This one has the permissions of any new folder.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let temporary = builder.tempdir_in(folder_of(path))?;
        Ok(Self { temporary, destination: path.to_owned() })
    }

    /// The temporary folder, which the files are written to.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// The final path.
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// Renames the folder to its final path. Its files must be on disk already, as after [`write`](crate::write).
    ///
    /// # Errors
    /// When the folder cannot be renamed. The final path is then unchanged.
    pub fn finish(self) -> io::Result<()> {
        let Self { temporary, destination } = self;
        sync_folder(temporary.path())?;
        fs::rename(temporary.path(), &destination)?;
        // The folder has been renamed, so it must not be deleted.
        let _ = temporary.keep();
        sync_folder(folder_of(&destination))
    }
}

/// Whether another file system is mounted at the folder.
#[cfg(unix)]
fn is_mounted(path: &Path, metadata: &fs::Metadata) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(metadata.dev() != fs::metadata(folder_of(path))?.dev())
}

#[cfg(not(unix))]
fn is_mounted(_: &Path, _: &fs::Metadata) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_mount_point_is_refused_before_anything_is_written() {
        let message = FolderWriter::create(Path::new("/proc")).expect_err("it is mounted").to_string();
        assert!(message.starts_with("it is a mount point"), "{message}");
    }

    #[test]
    fn a_folder_appears_when_it_is_whole() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let path = parent.path().join("bundle");
        let writer = FolderWriter::create(&path).expect("the parent is writable");
        crate::write(&writer.path().join("a"), b"1").expect("the folder is writable");
        assert!(!path.exists());
        drop(writer);
        assert_eq!(fs::read_dir(parent.path()).expect("a folder").count(), 0, "what is dropped leaves nothing");

        fs::create_dir(&path).expect("a folder");
        let writer = FolderWriter::create(&path).expect("an empty folder may be replaced");
        crate::write(&writer.path().join("a"), b"2").expect("the folder is writable");
        writer.finish().expect("the parent is writable");
        assert_eq!(fs::read(path.join("a")).expect("a file"), b"2");
        assert_eq!(fs::read_dir(parent.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn what_is_there_stays() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let file = parent.path().join("file");
        fs::write(&file, "old").expect("a small file");
        for path in [&file, parent.path()] {
            let message = FolderWriter::create(path).expect_err("something is there").to_string();
            assert_eq!(message, "the path exists already; expected no file, or an empty folder");
        }
        assert!(FolderWriter::create(&parent.path().join("absent/a")).is_err());
    }
}
