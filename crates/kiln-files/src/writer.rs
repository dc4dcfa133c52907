use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::{Error, Kind};

/// How the names of temporary files and folders begin.
pub(crate) const PREFIX: &str = ".kiln-";

/// Writes a file atomically; see [`FileWriter`].
///
/// # Errors
/// Returns the errors of [`FileWriter`].
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut writer = FileWriter::create(path)?;
    writer.write_all(bytes)?;
    writer.finish()
}

/// A file that is being written. [`finish`](Self::finish) gives it its final name, after its content is on disk. If the
/// writer is dropped before that, the file at the path is unchanged.
///
/// Until it is finished, the content is in a temporary file in the same folder. Its name is unique, so two writers of
/// the same path do not interfere; the one that finishes last wins. The destination depends on the path:
///
/// - nothing, or a regular file: the new file replaces it, with the same permissions;
/// - a symbolic link: its target is replaced, and the link stays;
/// - a device, a pipe or a socket, such as `/dev/null` or `/dev/stdout`: bytes are written to it directly, and it is
///   never replaced. Opening a pipe waits for its reader;
/// - a folder: an error.
#[derive(Debug)]
pub struct FileWriter {
    writer: BufWriter<File>,
    /// None if the bytes are written to the path directly.
    replacement: Option<Replacement>,
}

#[derive(Debug)]
struct Replacement {
    /// The path of the content until it is complete; deleted on drop.
    temporary: TempPath,
    destination: PathBuf,
    /// The permissions of the file that is replaced.
    permissions: Option<Permissions>,
}

enum Destination {
    Replace { path: PathBuf, permissions: Option<Permissions> },
    Direct,
}

impl FileWriter {
    /// Creates a writer.
    ///
    /// # Errors
    /// When the path is a folder, or when its parent folder is absent or not writable.
    pub fn create(path: &Path) -> io::Result<Self> {
        match destination(path)? {
            Destination::Direct => {
                // Append, so that a file which the shell opened with `>>` as standard output is not overwritten.
                let file = File::options().append(true).open(path)?;
                Ok(Self { writer: BufWriter::new(file), replacement: None })
            }
            Destination::Replace { path: destination, permissions } => {
                let (file, temporary) = temporary_in(folder_of(&destination))?.into_parts();
                let replacement = Replacement { temporary, destination, permissions };
                Ok(Self { writer: BufWriter::new(file), replacement: Some(replacement) })
            }
        }
    }

    /// A second handle to the content, for a library that takes a [`File`]. Both share one position, so flush this
    /// writer before writing to the other.
    ///
    /// # Errors
    /// When the system cannot duplicate the handle.
    pub fn handle(&self) -> io::Result<File> {
        self.writer.get_ref().try_clone()
    }

    /// Writes the content to disk and gives the file its final name.
    ///
    /// # Errors
    /// When the last bytes cannot be written, or when the file cannot be renamed. The file at the path is then
    /// unchanged.
    pub fn finish(self) -> io::Result<()> {
        let file = self.writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        let Some(Replacement { temporary, destination, permissions }) = self.replacement else {
            return Ok(());
        };
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.sync_all()?;
        temporary.persist(&destination).map_err(|error| error.error)?;
        sync_folder(folder_of(&destination))
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Not supported if the bytes are written to the path directly.
impl Seek for FileWriter {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        match self.replacement {
            Some(_) => self.writer.seek(position),
            None => Err(Error::NoSeek.into()),
        }
    }
}

fn destination(path: &Path) -> io::Result<Destination> {
    let permissions = match fs::metadata(path) {
        Ok(metadata) => match Kind::of(metadata.file_type()) {
            None => Some(metadata.permissions()),
            Some(Kind::Folder) => return Err(Error::Folder.into()),
            Some(_) => return Ok(Destination::Direct),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut target = path.to_owned();
    // The number of links that the system follows before it reports a loop.
    for _ in 0..40 {
        if is_descriptor(&target) {
            return Ok(Destination::Direct);
        }
        match fs::read_link(&target) {
            Ok(link) => target = folder_of(&target).join(link),
            Err(_) => break,
        }
    }
    Ok(Destination::Replace { path: target, permissions })
}

/// Whether a path is an open file of this process, such as `/dev/stdout`. The program that opened it still holds it, so
/// a replacement would not reach that program.
fn is_descriptor(path: &Path) -> bool {
    cfg!(unix) && (path.starts_with("/proc") || path.starts_with("/dev/fd"))
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A temporary file with the permissions of any new file. Temporary files normally give access only to their owner.
fn temporary_in(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Deletes the temporary files that writers in this folder left behind when their process was killed. Files that are being
/// written are deleted too, so the caller must be the only writer.
///
/// # Errors
/// When the folder cannot be read, or a file in it cannot be deleted.
pub fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes a name survive a power failure, where the system supports it.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some folders are writable but not readable, and some file systems do not support this call.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tempfile::TempDir;

    use super::*;

    fn folder() -> TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_writer_leaves_can_be_removed() {
        let folder = folder();
        fs::write(folder.path().join("whole"), "1").expect("a small file");
        std::mem::forget(FileWriter::create(&folder.path().join("a")).expect("the folder is writable"));
        assert!(names(&folder)[0].starts_with(PREFIX));
        remove_unfinished(folder.path()).expect("the folder is writable");
        assert_eq!(names(&folder), ["whole"]);
    }

    #[test]
    fn a_file_appears_when_it_is_whole() {
        let folder = folder();
        let path = folder.path().join("a");
        let mut writer = FileWriter::create(&path).expect("the folder is writable");
        writer.write_all(b"half").expect("there is space");
        assert!(!path.exists());
        drop(writer);
        assert_eq!(names(&folder), [""; 0], "a writer that is dropped leaves nothing");

        fs::write(&path, "old").expect("a small file");
        let mut writer = FileWriter::create(&path).expect("the folder is writable");
        writer.write_all(b"n__").and_then(|()| writer.seek(SeekFrom::Start(1))).expect("there is space");
        writer.write_all(b"ew").expect("there is space");
        assert_eq!(fs::read(&path).expect("a file"), b"old");
        writer.finish().expect("the folder is writable");
        assert_eq!(fs::read(&path).expect("a file"), b"new");
        assert_eq!(names(&folder), ["a"]);
    }

    #[test]
    fn writers_of_one_path_do_not_disturb_each_other() {
        let folder = folder();
        let path = folder.path().join("a");
        let contents: Vec<Vec<u8>> = (0..8).map(|writer| vec![writer; 100_000]).collect();
        thread::scope(|scope| {
            for content in &contents {
                scope.spawn(|| (0..5).for_each(|_| write(&path, content).expect("the folder is writable")));
            }
        });
        assert!(contents.contains(&fs::read(&path).expect("a file")));
        assert_eq!(names(&folder), ["a"]);
    }

    #[test]
    fn a_folder_is_refused_and_an_absent_one_is_an_error() {
        let folder = folder();
        let error = write(folder.path(), b"x").expect_err("it is a folder");
        assert_eq!(error.to_string(), "it is a folder; expected the path of a file");
        let error = write(&folder.path().join("absent/a"), b"x").expect_err("there is no folder");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_its_target_is_replaced() {
        use std::os::unix::fs::symlink;

        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("below")).expect("a folder");
        fs::write(path("below/target"), "old").expect("a small file");
        symlink("link", path("link to link")).expect("a link");
        symlink("below/target", path("link")).expect("a link");
        symlink("below/absent", path("dangling")).expect("a link");
        symlink("loop", path("loop")).expect("a link");
        write(&path("link to link"), b"new").expect("the folder is writable");
        write(&path("dangling"), b"first").expect("the folder is writable");
        assert_eq!(fs::read(path("below/target")).expect("a file"), b"new");
        assert_eq!(fs::read(path("below/absent")).expect("a file"), b"first");
        write(&path("loop"), b"x").expect_err("the link leads to itself");
        for name in ["link to link", "link", "dangling", "loop"] {
            assert!(path(name).is_symlink(), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_the_file_that_is_replaced_or_of_any_new_one() {
        use std::os::unix::fs::PermissionsExt;

        let folder = folder();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).expect("a file").permissions().mode() & 0o777;
        fs::write(folder.path().join("plain"), "").expect("a small file");
        write(&folder.path().join("new"), b"").expect("the folder is writable");
        assert_eq!(mode("new"), mode("plain"));
        fs::set_permissions(folder.path().join("plain"), Permissions::from_mode(0o640)).expect("our own file");
        write(&folder.path().join("plain"), b"x").expect("the folder is writable");
        assert_eq!(mode("plain"), 0o640);
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_pipes_are_written_to_and_never_replaced() {
        use std::os::unix::fs::FileTypeExt;

        let folder = folder();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
        assert!(made.success());
        let content = thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read(&pipe).expect("a pipe"));
            write(&pipe, b"through").expect("it has a reader");
            reader.join().expect("no panic")
        });
        assert_eq!(content, b"through");
        assert!(fs::metadata(&pipe).expect("it is there").file_type().is_fifo());

        write("/dev/null".as_ref(), b"gone").expect("it takes all");
        let mut writer = FileWriter::create("/dev/null".as_ref()).expect("it takes all");
        let error = writer.seek(SeekFrom::Start(0)).expect_err("no position").to_string();
        assert!(error.contains("not a regular file"), "{error}");
        let full = folder.path().join("full");
        std::os::unix::fs::symlink("/dev/full", &full).expect("a link");
        write(&full, b"x").expect_err("the device is full");
        for device in ["/dev/null", "/dev/full"] {
            assert!(fs::symlink_metadata(device).expect("it is there").file_type().is_char_device(), "{device}");
        }
        assert!(full.is_symlink());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_open_file_is_added_to_and_not_replaced() {
        use std::os::fd::AsRawFd;

        let folder = folder();
        let path = folder.path().join("output");
        fs::write(&path, "before ").expect("a small file");
        let open = File::options().append(true).open(&path).expect("a file");
        write(format!("/proc/self/fd/{}", open.as_raw_fd()).as_ref(), b"after").expect("it is writable");
        assert_eq!(fs::read(&path).expect("a file"), b"before after");
    }
}
