use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::Error;

/// The cache's root: what was given, or `below_home` in the home folder.
pub(crate) fn cache_root(given: Option<&PathBuf>, below_home: &str) -> Result<PathBuf, Error> {
    match given {
        Some(folder) => Ok(folder.clone()),
        None => std::env::home_dir().map(|home| home.join(below_home)).ok_or(Error::NoCache),
    }
}

/// Makes the folder that is to hold `path`, and gives it.
pub(crate) fn parent(path: &Path) -> Result<&Path, Error> {
    let folder = path.parent().expect("every path of a cache is below its root");
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    Ok(folder)
}

/// Writes a file, whole or not at all. A file with this content is left alone, so that a cache may be read-only.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    if kiln_files::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    // The link may lead out of the cache, and the writer would follow it.
    if let Ok(target) = fs::read_link(path) {
        return Err(Error::UnsafeLink { path: path.to_owned(), target });
    }
    parent(path)?;
    kiln_files::write(path, content).map_err(Error::io(path))
}

/// Has a new name in a folder outlast the machine's power, where the system can.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    let folder = parent(path)?;
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}

/// Waits until no other process holds the lock, and holds it until the file is dropped.
pub(crate) fn lock(path: &Path) -> Result<File, Error> {
    parent(path)?;
    loop {
        let file = File::options().create(true).append(true).open(path).map_err(Error::io(path))?;
        file.lock().map_err(Error::io(path))?;
        // Some programs delete a lock when they leave it; what was waited for is then not what others wait for.
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

/// Other systems do not delete what is open.
#[cfg(not(unix))]
fn is_still_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Refuses a download that does not fit.
pub(crate) fn check_space(folder: &Path, needed: u64) -> Result<(), Error> {
    // Nearest of those that are there: the folder itself is made later.
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    match fs4::available_space(there) {
        Ok(available) if needed > available => Err(Error::NoSpace { folder: folder.to_owned(), needed, available }),
        // Where the system cannot tell, it says so once the disk is full.
        _ => Ok(()),
    }
}

/// Refuses a file of a cache whose name is, or goes through, a link out of the cache: links are relative and lead to
/// what is below `root`. `folder` is below `root`, and `name` below `folder`.
pub(crate) fn check_links(root: &Path, folder: &Path, name: &str) -> Result<(), Error> {
    let mut path = folder.to_owned();
    for part in name.split('/') {
        path.push(part);
        // A link may lead to a link, as where a cache keeps content that several repositories share.
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

/// Refuses a file of a cache that is, or leads to, something else, such as a folder. It may be absent.
pub(crate) fn check_kind(path: &Path) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(Error::NotAFile { path: path.to_owned() }),
        // What cannot be looked at is reported where it is read.
        _ => Ok(()),
    }
}

/// Where a relative link leads to, read without a look at the disk; none for an absolute one.
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

/// Gives a file a second name, whole or not at all; copies where the disk cannot.
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

/// Makes `link` lead to `target`, a path relative to the link's folder; replaces what was there.
#[cfg(unix)]
pub(crate) fn link(target: &Path, link: &Path) -> Result<(), Error> {
    let folder = parent(link)?;
    let make = || {
        // A link cannot be made over an existing name, but renamed over it.
        let scratch = tempfile::Builder::new()
            .prefix(".link")
            .make_in(folder, |path| std::os::unix::fs::symlink(target, path))?;
        scratch.persist(link).map_err(|error| error.error)
    };
    make().map(drop).map_err(Error::io(link))
}

/// Copies instead: other systems let only administrators make links.
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

/// Reads a small text, trimmed; none where there is no such file.
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
            // Most probably it waits by now; if not, it finds the new one at once.
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
