use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::Error;

/// The root of the cache: the given folder, or `below_home` in the home folder.
pub(crate) fn cache_root(given: Option<&PathBuf>, below_home: &str) -> Result<PathBuf, Error> {
    match given {
        Some(folder) => Ok(folder.clone()),
        None => std::env::home_dir().map(|home| home.join(below_home)).ok_or(Error::NoCache),
    }
}

/// Creates the parent folder of `path` and returns it.
pub(crate) fn parent(path: &Path) -> Result<&Path, Error> {
    let folder = path.parent().expect("every path of a cache is below its root");
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    Ok(folder)
}

/// Writes a file atomically. A file that already has this content is not written, so that a cache may be read-only.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    if kiln_files::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    // The writer would follow the link, which may lead out of the cache.
    if let Ok(target) = fs::read_link(path) {
        return Err(Error::UnsafeLink { path: path.to_owned(), target });
    }
    parent(path)?;
    kiln_files::write(path, content).map_err(Error::io(path))
}

/// Makes a new name in a folder survive a power failure, where the system supports it.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    let folder = parent(path)?;
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}

/// Waits until no other process holds the lock. The lock is held until the file is dropped.
pub(crate) fn lock(path: &Path) -> Result<File, Error> {
    parent(path)?;
    loop {
        let file = File::options().create(true).append(true).open(path).map_err(Error::io(path))?;
        file.lock().map_err(Error::io(path))?;
        // Some programs delete the lock file when they release it. Then other processes wait for a new file, not for
        // this one.
        if is_still_at(&file, path).map_err(Error::io(path))? {
            return Ok(file);
        }
    }
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Other systems do not delete open files.
#[cfg(not(unix))]
fn is_still_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Returns an error if a download does not fit on the disk.
pub(crate) fn check_space(folder: &Path, needed: u64) -> Result<(), Error> {
    // The folder may not exist yet, so check its nearest existing ancestor.
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    match fs4::available_space(there) {
        Ok(available) if needed > available => Err(Error::NoSpace { folder: folder.to_owned(), needed, available }),
        // If the free space is unknown, a full disk is reported during the download.
        _ => Ok(()),
    }
}

/// Returns an error if a file name in a cache is, or passes through, a link that leads out of the cache. Links must be
/// relative and stay below `root`. `folder` is below `root`, and `name` is below `folder`.
pub(crate) fn check_links(root: &Path, folder: &Path, name: &str) -> Result<(), Error> {
    let mut path = folder.to_owned();
    for part in name.split('/') {
        path.push(part);
        // A link may lead to another link, for example in a cache that shares content between repositories.
        let mut at = path.clone();
        for _ in 0..MOST_LINKS {
            let Ok(target) = fs::read_link(&at) else { break };
            at = match resolved(at.parent().unwrap_or(root), &target) {
                Some(target) if target.starts_with(root) => target,
                _ => return Err(Error::UnsafeLink { path, target }),
            };
        }
    }
    Ok(())
}

const MOST_LINKS: usize = 8;

/// Returns an error if a path in a cache is something other than a file, such as a folder. It may be absent.
pub(crate) fn check_kind(path: &Path) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(Error::NotAFile { path: path.to_owned() }),
        // Other errors are reported when the file is read.
        _ => Ok(()),
    }
}

/// Resolves a relative link without reading the disk; none for an absolute one.
fn resolved(folder: &Path, target: &Path) -> Option<PathBuf> {
    let mut path = folder.to_owned();
    for part in target.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                path.pop().then_some(())?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// Gives a file a second name atomically. Copies the file if it cannot be linked.
pub(crate) fn share(from: &Path, to: &Path) -> Result<(), Error> {
    let folder = parent(to)?;
    let make = || {
        let scratch = tempfile::Builder::new().prefix(".share").make_in(folder, |path| {
            fs::hard_link(from, path).or_else(|_| fs::copy(from, path).and_then(|_| File::open(path)?.sync_all()))
        })?;
        scratch.persist(to).map_err(|error| error.error)
    };
    make().map(drop).map_err(Error::io(to))
}

/// Links `link` to `target`, a path relative to the link's folder. Replaces an existing file.
#[cfg(unix)]
pub(crate) fn link(target: &Path, link: &Path) -> Result<(), Error> {
    let folder = parent(link)?;
    let make = || {
        // A link cannot be created over an existing name, so it is renamed over it.
        let scratch = tempfile::Builder::new()
            .prefix(".link")
            .make_in(folder, |path| std::os::unix::fs::symlink(target, path))?;
        scratch.persist(link).map_err(|error| error.error)
    };
    make().map(drop).map_err(Error::io(link))
}

/// Copies instead, because other systems let only administrators create links.
#[cfg(not(unix))]
pub(crate) fn link(target: &Path, link: &Path) -> Result<(), Error> {
    let folder = parent(link)?;
    let copy = || {
        let mut scratch = tempfile::NamedTempFile::new_in(folder)?;
        io::copy(&mut File::open(folder.join(target))?, scratch.as_file_mut())?;
        scratch.as_file().sync_all()?;
        scratch.persist(link).map_err(|error| error.error)
    };
    copy().map(drop).map_err(Error::io(link))
}

/// Reads a small text file, trimmed; none if it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Error> {
    match kiln_files::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_lock_that_was_deleted_is_not_held_by_whoever_waited_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.lock");
        let first = lock(&path).expect("a lock");
        let second = thread::scope(|scope| {
            let waiting = scope.spawn(|| lock(&path).expect("a lock"));
            // The thread probably waits by now. If not, it gets the new lock immediately.
            thread::sleep(std::time::Duration::from_millis(100));
            fs::remove_file(&path).expect("the lock");
            drop(first);
            waiting.join().expect("no panic")
        });
        assert!(is_still_at(&second, &path).expect("both are there"));
    }

    #[test]
    fn links_are_resolved_without_a_look_at_the_disk() {
        let lead = |target: &str| resolved(Path::new("/cache/a/b"), Path::new(target));
        assert_eq!(lead("../../blobs/./x"), Some("/cache/blobs/x".into()));
        assert_eq!(lead("../../../etc"), Some("/etc".into()));
        assert_eq!(lead("../../../../.."), None);
        assert_eq!(lead("/cache/blobs/x"), None);
    }
}
