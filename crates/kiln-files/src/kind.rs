use std::fmt;
use std::fs::FileType;
use std::io;

/// The reason why a path is refused. It is the inner error of an [`io::Error`] from this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path to read is not a regular file.
    #[error("it is {0}; expected a regular file")]
    NotRegular(Kind),
    /// The path to write a file to is a folder.
    #[error("it is a folder; expected the path of a file")]
    Folder,
    /// The path is a device or a pipe, which is written directly and cannot seek.
    #[error("it is not a regular file, and this format needs a seekable one")]
    NoSeek,
    /// The path to write a folder to is not empty.
    #[error("the path exists already; expected no file, or an empty folder")]
    Occupied,
    /// The path to write a folder to is a mount point, which cannot be replaced.
    #[error("it is a mount point, which cannot be replaced; expected the path of a folder in it")]
    MountPoint,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::NotRegular(_) => io::ErrorKind::InvalidInput,
            Error::Folder => io::ErrorKind::IsADirectory,
            Error::NoSeek => io::ErrorKind::NotSeekable,
            Error::Occupied => io::ErrorKind::AlreadyExists,
            Error::MountPoint => io::ErrorKind::ResourceBusy,
        };
        Self::new(kind, error)
    }
}

/// The kind of a path that is not a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A folder.
    Folder,
    /// A character device: a terminal, `/dev/null` and the like.
    CharacterDevice,
    /// A block device: a disk.
    BlockDevice,
    /// A named or unnamed pipe.
    Pipe,
    /// A socket.
    Socket,
    /// Any other kind.
    Other,
}

impl Kind {
    /// The kind of a file type; none for a regular file.
    pub(crate) fn of(file_type: FileType) -> Option<Self> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            let kinds = [
                (file_type.is_fifo(), Self::Pipe),
                (file_type.is_socket(), Self::Socket),
                (file_type.is_char_device(), Self::CharacterDevice),
                (file_type.is_block_device(), Self::BlockDevice),
            ];
            if let Some((_, kind)) = kinds.into_iter().find(|(is_it, _)| *is_it) {
                return Some(kind);
            }
        }
        match (file_type.is_file(), file_type.is_dir()) {
            (true, _) => None,
            (_, true) => Some(Self::Folder),
            _ => Some(Self::Other),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "a folder",
            Self::CharacterDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Pipe => "a pipe (FIFO)",
            Self::Socket => "a socket",
            Self::Other => "neither a file nor a folder",
        })
    }
}
