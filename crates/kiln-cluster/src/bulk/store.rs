use std::collections::HashMap;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt;
use glob::{MatchOptions, Pattern, PatternError};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use url::Url;

use crate::Error;

/// The object stores of a process, which are opened on first use.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    /// Settings with the names of the AWS command line: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` and so on.
    settings: Arc<Vec<(String, String)>>,
    open: Arc<Mutex<HashMap<String, Arc<dyn ObjectStore>>>>,
}

/// A file or a folder in a store.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
    /// The part of its address before the path.
    origin: String,
}

impl Stores {
    /// Stores that are opened with these settings. Paths and `file://` addresses need none.
    pub fn new(settings: Vec<(String, String)>) -> Self {
        Self { settings: Arc::new(settings), open: Arc::default() }
    }

    /// Parses an address (`s3://…`, `file://…`) or a local path.
    pub(crate) fn place(&self, text: &str) -> Result<Place, Error> {
        let url = match text.contains("://") {
            // A pattern is a part of the path.
            true => Url::parse(&text.replace('?', "%3F").replace('#', "%23"))
                .map_err(|error| Error::place(text, error.to_string()))?,
            false => {
                let path =
                    std::path::absolute(FilePath::new(text)).map_err(|error| Error::place(text, error.to_string()))?;
                Url::from_file_path(path).map_err(|()| Error::place(text, "expected a path or an address"))?
            }
        };
        if !["file", "s3"].contains(&url.scheme()) {
            let found = url.scheme();
            return Err(Error::place(text, format!("found the scheme `{found}`, expected a path, file:// or s3://")));
        }
        let origin = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        let path = Path::from_url_path(url.path()).map_err(|error| Error::place(text, error.to_string()))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match open.get(&origin) {
            Some(store) => store.clone(),
            None => {
                let settings = self.settings.iter().cloned();
                let (store, _) = object_store::parse_url_opts(&url, settings).map_err(Error::store(text))?;
                open.entry(origin.clone()).or_insert(Arc::from(store)).clone()
            }
        };
        Ok(Place { store, path, origin })
    }

    /// The files of a path, a folder, a pattern or an address, sorted.
    pub(crate) async fn files(&self, text: &str) -> Result<Vec<(Place, ObjectMeta)>, Error> {
        let Input { place, prefix, pattern } = self.input(text)?;
        if pattern.is_none()
            && let Ok(meta) = place.store.head(&place.path).await
        {
            return Ok(vec![(place, meta)]);
        }
        let listed: Vec<ObjectMeta> =
            place.store.list(Some(&prefix)).try_collect().await.map_err(Error::store(text))?;
        let is_meant = |meta: &ObjectMeta| takes(&prefix, pattern.as_ref(), &meta.location);
        let mut files: Vec<ObjectMeta> = listed.into_iter().filter(is_meant).collect();
        files.sort_by(|a, b| a.location.cmp(&b.location));
        if files.is_empty() {
            return Err(Error::place(text, "found no file there, expected Parquet files (.parquet)"));
        }
        Ok(files.into_iter().map(|meta| (Place { path: meta.location.clone(), ..place.clone() }, meta)).collect())
    }

    /// Whether a file would be one of [`Stores::files`].
    pub(crate) fn reads(&self, text: &str, file: &Place) -> Result<bool, Error> {
        let Input { place, prefix, pattern } = self.input(text)?;
        Ok(place.origin == file.origin && takes(&prefix, pattern.as_ref(), &file.path))
    }

    fn input(&self, text: &str) -> Result<Input, Error> {
        let place = self.place(text)?;
        let path = place.path.to_string();
        let fixed = path.split('/').take_while(|part| !is_pattern(part)).collect::<Vec<_>>().join("/");
        let prefix = Path::parse(&fixed).map_err(|error| Error::place(text, error.to_string()))?;
        let pattern = (fixed != path).then(|| pattern_of(&path)).transpose();
        Ok(Input { place, prefix, pattern: pattern.map_err(|error| Error::place(text, error.to_string()))? })
    }
}

/// Input files: a path, a folder or a pattern.
struct Input {
    place: Place,
    /// The file, or the folder below which the files are.
    prefix: Path,
    pattern: Option<Pattern>,
}

fn takes(prefix: &Path, pattern: Option<&Pattern>, path: &Path) -> bool {
    match pattern {
        None => path.prefix_matches(prefix) && is_data(prefix, path),
        Some(pattern) => matches(pattern, path.as_ref()),
    }
}

impl Place {
    pub fn address(&self) -> String {
        let path = self.path.as_ref().replace('%', "%25").replace('#', "%23").replace('?', "%3F");
        format!("{}/{path}", self.origin)
    }

    /// The place of a file in this folder.
    pub fn join(&self, name: &str) -> Self {
        let path = name.split('/').fold(self.path.clone(), |path, part| path.join(part));
        Self { path, ..self.clone() }
    }

    pub async fn read(&self) -> Result<Vec<u8>, Error> {
        let read = async { self.store.get(&self.path).await?.bytes().await };
        Ok(read.await.map_err(Error::store(self.address()))?.to_vec())
    }

    pub async fn read_if_present(&self) -> Result<Option<Vec<u8>>, Error> {
        match self.read().await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Store { source: object_store::Error::NotFound { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a file atomically, and replaces an existing one.
    pub async fn write(&self, bytes: Vec<u8>) -> Result<(), Error> {
        let put = self.store.put(&self.path, PutPayload::from(bytes)).await;
        put.map(drop).map_err(Error::store(self.address()))
    }

    /// Removes a file if it exists.
    pub async fn remove(&self) -> Result<(), Error> {
        match self.store.delete(&self.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::store(self.address())(error)),
        }
    }

    /// Creates a file. Returns false if it exists already.
    pub async fn create(&self, bytes: Vec<u8>) -> Result<bool, Error> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(Error::store(self.address())(error)),
        }
    }

    /// The sizes of all files in a folder, by their path relative to the folder.
    pub async fn sizes(&self) -> Result<HashMap<String, u64>, Error> {
        let listed: Vec<ObjectMeta> =
            self.store.list(Some(&self.path)).try_collect().await.map_err(Error::store(self.address()))?;
        let below = |meta: ObjectMeta| {
            let parts: Vec<_> = meta.location.prefix_match(&self.path)?.map(|part| part.as_ref().to_owned()).collect();
            Some((parts.join("/"), meta.size))
        };
        Ok(listed.into_iter().filter_map(below).collect())
    }
}

/// Whether a path is a data file: a Parquet file without names that begin with `_` or `.` below `folder`. This crate's
/// own metadata is in such folders.
fn is_data(folder: &Path, path: &Path) -> bool {
    let is_note =
        path.prefix_match(folder).is_some_and(|mut parts| parts.any(|part| part.as_ref().starts_with(['_', '.'])));
    !is_note && path.as_ref().ends_with(".parquet")
}

fn is_pattern(part: &str) -> bool {
    part.contains(['*', '?'])
}

/// `*` and `?` match within a name, and `**` matches any number of folders.
fn pattern_of(text: &str) -> Result<Pattern, PatternError> {
    // A bracket is a literal part of a name.
    Pattern::new(&text.replace('[', "[[]"))
}

fn matches(pattern: &Pattern, path: &str) -> bool {
    pattern.matches_with(path, MatchOptions { require_literal_separator: true, ..MatchOptions::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_by_hand() {
        for (pattern, path, expected) in [
            ("a/*.parquet", "a/x.parquet", true),
            ("a/*.parquet", "a/b/x.parquet", false),
            ("a/**/*.parquet", "a/b/c/x.parquet", true),
            ("a/**/*.parquet", "a/x.parquet", true),
            ("a/?.parquet", "a/xy.parquet", false),
            ("a/评*", "a/评论", true),
            ("a/[b]*", "a/[b]c", true),
            ("a/[b]*", "a/bc", false),
        ] {
            let found = matches(&pattern_of(pattern).expect("a pattern"), path);
            assert_eq!(found, expected, "{pattern} {path}");
        }
    }

    #[test]
    fn places_have_addresses() {
        let stores = Stores::default();
        let place = stores.place("/data/a b%20#/x.parquet").expect("a path");
        assert_eq!(stores.place(&place.address()).expect("its own address").path, place.path);
        let message = stores.place("ftp://a/b").expect_err("another scheme").to_string();
        assert!(message.contains("found the scheme `ftp`"), "{message}");
        assert_eq!(place.join("_bad/a.jsonl").address(), place.address() + "/_bad/a.jsonl");
    }

    #[test]
    fn notes_are_no_data() {
        let folder = Path::from("_in/a");
        assert!(is_data(&folder, &Path::from("_in/a/b/x.parquet")));
        assert!(
            !is_data(&folder, &Path::from("_in/a/_shards/x.parquet")) && !is_data(&folder, &Path::from("_in/a/x.csv"))
        );
    }
}
