use std::path::Path;

/// Whether two paths refer to the same regular file, also through links. `false` if either does not exist.
///
/// Use it to compare a command's output with each of its inputs before writing.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    let (Ok(first), Ok(second)) = (std::fs::metadata(a), std::fs::metadata(b)) else { return false };
    if !first.is_file() || !second.is_file() {
        return false;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (first.dev(), first.ino()) == (second.dev(), second.ino())
    }
    #[cfg(not(unix))]
    {
        matches!((std::path::absolute(a), std::path::absolute(b)), (Ok(a), Ok(b)) if a == b)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn paths_are_compared_by_what_they_lead_to() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "").expect("a small file");
        fs::write(path("b"), "").expect("a small file");
        assert!(is_same_file(&path("a"), &path("./a")));
        assert!(!is_same_file(&path("a"), &path("b")));
        assert!(!is_same_file(&path("absent"), &path("absent")));
        assert!(!is_same_file(folder.path(), folder.path()));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("a", path("link")).expect("a link");
            fs::hard_link(path("a"), path("second name")).expect("a link");
            assert!(is_same_file(&path("a"), &path("link")));
            assert!(is_same_file(&path("second name"), &path("link")));
            assert!(!is_same_file(&path("b"), &path("link")));
        }
    }
}
